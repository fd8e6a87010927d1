//! The brand and the static files, which all pages share. The files are compiled in or made from
//! the brand. Their names contain a hash of their content, so browsers may cache them forever.

use actix_web::web::Bytes;
use sha2::{Digest, Sha256};

use crate::model::brand::{Accent, Brand, Color, Scheme};

const SHEET: &str = include_str!("assets/hub.css");
const SCRIPT: &str = include_str!("assets/hub.js");

/// A static file of the pages.
#[derive(Debug, Clone)]
pub struct Asset {
    path: String,
    pub media_type: &'static str,
    pub bytes: Bytes,
}

impl Asset {
    /// The path prefix of all assets; [`Theme::asset`] finds an asset by the rest of its path.
    pub const FOLDER: &str = "/connect/assets/";

    fn new(stem: &str, extension: &str, media_type: &'static str, bytes: Bytes) -> Self {
        let digest = Sha256::digest(&bytes);
        let mark: String = digest[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Self {
            path: format!("{}{stem}-{mark}.{extension}", Self::FOLDER),
            media_type,
            bytes,
        }
    }

    /// The asset's path in URLs.
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// The brand and the static files, built once and the same on every page.
#[derive(Debug, Clone)]
pub struct Theme {
    name: String,
    sheet: Asset,
    colors: Asset,
    script: Asset,
    logo: Option<Asset>,
}

impl Theme {
    pub fn new(brand: &Brand) -> Self {
        const CSS: &str = "text/css; charset=utf-8";
        const JS: &str = "text/javascript; charset=utf-8";
        Self {
            name: brand.name.as_str().to_owned(),
            sheet: Asset::new("hub", "css", CSS, Bytes::from_static(SHEET.as_bytes())),
            colors: Asset::new("brand", "css", CSS, colors(brand).into()),
            script: Asset::new("hub", "js", JS, Bytes::from_static(SCRIPT.as_bytes())),
            logo: brand.logo.as_ref().map(|logo| {
                let kind = logo.kind();
                let bytes = Bytes::copy_from_slice(logo.bytes());
                Asset::new("logo", kind.extension(), kind.media_type(), bytes)
            }),
        }
    }

    /// The brand's name: the organization that asks for the connection.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn sheet(&self) -> &str {
        self.sheet.path()
    }

    pub fn colors(&self) -> &str {
        self.colors.path()
    }

    pub fn script(&self) -> &str {
        self.script.path()
    }

    pub fn logo(&self) -> Option<&str> {
        self.logo.as_ref().map(Asset::path)
    }

    pub fn assets(&self) -> impl Iterator<Item = &Asset> {
        [&self.sheet, &self.colors, &self.script]
            .into_iter()
            .chain(&self.logo)
    }

    /// The asset with this name, which is the part of its path after [`Asset::FOLDER`].
    pub fn asset(&self, name: &str) -> Option<&Asset> {
        self.assets()
            .find(|asset| asset.path.strip_prefix(Asset::FOLDER) == Some(name))
    }
}

/// The CSS variables that `hub.css` uses for its colors, for the light and the dark scheme.
fn colors(brand: &Brand) -> String {
    let light = scheme(Scheme::Light, brand.accent);
    let dark = scheme(Scheme::Dark, brand.accent_dark);
    format!(":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n")
}

fn scheme(scheme: Scheme, accent: Accent) -> String {
    let named: [(&str, Color); 5] = [
        ("page", scheme.page()),
        ("surface", scheme.surface()),
        ("accent", accent.color()),
        ("accent-strong", accent.strong()),
        ("on-accent", scheme.on_accent()),
    ];
    named
        .map(|(name, color)| format!("--{name}: {color};"))
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn theme(accent: &str) -> Theme {
        let config = Config::with(&[("hub.accent", accent)]).unwrap();
        Theme::new(&config.hub.brand().unwrap())
    }

    #[test]
    fn an_asset_is_found_by_its_name_and_renamed_by_its_content() {
        let (one, other) = (theme("\"#1f5fa8\""), theme("\"#7a1f5c\""));
        assert_eq!(one.sheet(), other.sheet());
        assert_ne!(one.colors(), other.colors());
        for asset in one.assets() {
            let name = asset.path().strip_prefix(Asset::FOLDER).unwrap();
            assert_eq!(one.asset(name).unwrap().bytes, asset.bytes);
        }
        for absent in ["", "hub.css", "../hub.css", one.sheet()] {
            assert!(one.asset(absent).is_none(), "{absent}");
        }
    }

    #[test]
    fn colors_are_given_for_both_schemes_and_used() {
        let theme = theme("\"#7A1F5C\"");
        let sheet = String::from_utf8(theme.colors.bytes.to_vec()).unwrap();
        let (light, dark) = sheet.split_once("@media").unwrap();
        assert!(light.contains("--accent: #7a1f5c;") && light.contains("--page: #f4f6f8;"));
        assert!(dark.contains("--accent: #8ab8f0;") && dark.contains("--page: #10151b;"));
        for name in ["page", "surface", "accent", "accent-strong", "on-accent"] {
            assert!(SHEET.contains(&format!("var(--{name})")), "{name}");
            assert!(
                !SHEET.contains(&format!("--{name}:")),
                "{name} is set twice"
            );
        }
    }

    /// The pages' content security policy blocks such code without a visible error.
    #[test]
    fn the_style_sheet_and_the_script_fetch_nothing_from_elsewhere() {
        for text in [SHEET, SCRIPT] {
            for word in [
                "url(",
                "@import",
                "http:",
                "https:",
                "eval(",
                "innerHTML",
                ".style",
            ] {
                assert!(!text.contains(word), "{word}");
            }
        }
    }
}
