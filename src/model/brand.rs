//! The name, logo and colors of the hub's pages.
//!
//! The types hold only valid values: an accent has enough contrast to every background it is used
//! on, and a logo has an image format that browsers display.

use std::{fmt, str::FromStr};

/// The brand that a customer sees while linking an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brand {
    pub name: BrandName,
    pub logo: Option<Logo>,
    /// The accent of the light scheme.
    pub accent: Accent,
    /// The accent of the dark scheme.
    pub accent_dark: Accent,
}

/// The name of the organization that asks the customer to link: 1 to 60 characters, not all of them
/// spaces, without control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrandName(String);

impl BrandName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BrandName {
    type Err = UnfitName;

    fn from_str(text: &str) -> Result<Self, UnfitName> {
        let is_fitting = !text.trim().is_empty()
            && text.chars().count() <= 60
            && !text.chars().any(char::is_control);
        if is_fitting {
            Ok(Self(text.to_owned()))
        } else {
            Err(UnfitName)
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 60 characters, not all of them spaces, and without control characters")]
pub struct UnfitName;

/// An opaque sRGB color.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Color {
    red: u8,
    green: u8,
    blue: u8,
}

impl Color {
    pub const WHITE: Color = Color::rgb(0xff, 0xff, 0xff);
    pub const BLACK: Color = Color::rgb(0, 0, 0);

    pub const fn rgb(red: u8, green: u8, blue: u8) -> Self {
        Self { red, green, blue }
    }

    /// The contrast ratio of two colors, from 1 (equal) to 21 (black and white) (WCAG 2.2).
    pub fn contrast(self, other: Self) -> f64 {
        let (one, two) = (self.luminance(), other.luminance());
        (one.max(two) + 0.05) / (one.min(two) + 0.05)
    }

    /// The relative luminance (WCAG 2.2).
    fn luminance(self) -> f64 {
        let linear = |channel: u8| {
            let share = f64::from(channel) / 255.0;
            if share <= 0.04045 {
                share / 12.92
            } else {
                ((share + 0.055) / 1.055).powf(2.4)
            }
        };
        0.2126 * linear(self.red) + 0.7152 * linear(self.green) + 0.0722 * linear(self.blue)
    }

    /// Mixes six parts of this color with one part of `other`.
    #[must_use]
    pub fn toward(self, other: Self) -> Self {
        let mix = |own: u8, other: u8| {
            let sum = u16::from(own) * 6 + u16::from(other);
            u8::try_from(sum / 7).expect("a mean of bytes is a byte")
        };
        Self {
            red: mix(self.red, other.red),
            green: mix(self.green, other.green),
            blue: mix(self.blue, other.blue),
        }
    }
}

/// The CSS form: `#1f5fa8`.
impl fmt::Display for Color {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:02x}{:02x}{:02x}", self.red, self.green, self.blue)
    }
}

impl FromStr for Color {
    type Err = UnfitAccent;

    fn from_str(text: &str) -> Result<Self, UnfitAccent> {
        let digits = text.strip_prefix('#').unwrap_or_default();
        if digits.len() != 6 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(UnfitAccent::NoColor);
        }
        let all = u32::from_str_radix(digits, 16).expect("six hexadecimal digits are a number");
        let [_, red, green, blue] = all.to_be_bytes();
        Ok(Self { red, green, blue })
    }
}

/// The color scheme of a page, as the reader's system prefers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Light,
    Dark,
}

impl Scheme {
    /// The background around a page's content.
    pub const fn page(self) -> Color {
        match self {
            Scheme::Light => Color::rgb(0xf4, 0xf6, 0xf8),
            Scheme::Dark => Color::rgb(0x10, 0x15, 0x1b),
        }
    }

    /// The background of a page's content.
    pub const fn surface(self) -> Color {
        match self {
            Scheme::Light => Color::WHITE,
            Scheme::Dark => Color::rgb(0x19, 0x20, 0x28),
        }
    }

    /// The color of text on an accent.
    pub const fn on_accent(self) -> Color {
        match self {
            Scheme::Light => Color::WHITE,
            Scheme::Dark => Color::rgb(0x10, 0x15, 0x1b),
        }
    }

    /// The color that an accent shifts toward on hover: away from the text on it.
    const fn depth(self) -> Color {
        match self {
            Scheme::Light => Color::BLACK,
            Scheme::Dark => Color::WHITE,
        }
    }
}

/// The color of links and of a page's primary button, legible in its scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accent {
    color: Color,
    scheme: Scheme,
}

impl Accent {
    /// The minimum contrast of text (WCAG 2.2, 1.4.3).
    pub const LEAST_CONTRAST: f64 = 4.5;

    /// # Errors
    /// Text that is not a color, and a color with too little contrast in this scheme.
    pub fn new(text: &str, scheme: Scheme) -> Result<Self, UnfitAccent> {
        let color: Color = text.parse()?;
        for ground in [scheme.page(), scheme.surface(), scheme.on_accent()] {
            let ratio = color.contrast(ground);
            if ratio < Self::LEAST_CONTRAST {
                // Rounded down: 4.49 must not be reported as the required 4.5.
                let tenths = (ratio * 10.0).floor() / 10.0;
                return Err(UnfitAccent::TooFaint { ground, tenths });
            }
        }
        Ok(Self { color, scheme })
    }

    pub const fn color(self) -> Color {
        self.color
    }

    /// The accent on hover.
    pub fn strong(self) -> Color {
        self.color.toward(self.scheme.depth())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum UnfitAccent {
    #[error("must be a color such as #1f5fa8")]
    NoColor,
    #[error(
        "must be read on {ground}, which takes a contrast of {} to 1; it has {tenths:.1}",
        Accent::LEAST_CONTRAST
    )]
    TooFaint { ground: Color, tenths: f64 },
}

/// An image shown in place of the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logo {
    kind: LogoKind,
    bytes: Vec<u8>,
}

/// The image formats that a logo may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogoKind {
    Png,
    Jpeg,
    WebP,
    Svg,
}

impl LogoKind {
    pub const fn media_type(self) -> &'static str {
        match self {
            LogoKind::Png => "image/png",
            LogoKind::Jpeg => "image/jpeg",
            LogoKind::WebP => "image/webp",
            LogoKind::Svg => "image/svg+xml",
        }
    }

    pub const fn extension(self) -> &'static str {
        match self {
            LogoKind::Png => "png",
            LogoKind::Jpeg => "jpg",
            LogoKind::WebP => "webp",
            LogoKind::Svg => "svg",
        }
    }

    /// Detects the format from the bytes; a file name proves nothing.
    fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(Self::Png),
            [0xff, 0xd8, 0xff, ..] => Some(Self::Jpeg),
            [
                b'R',
                b'I',
                b'F',
                b'F',
                _,
                _,
                _,
                _,
                b'W',
                b'E',
                b'B',
                b'P',
                ..,
            ] => Some(Self::WebP),
            _ => {
                let text = std::str::from_utf8(bytes).ok()?;
                let text = text.trim_start_matches('\u{feff}').trim_start();
                let is_xml = text.starts_with("<svg")
                    || ((text.starts_with("<?xml") || text.starts_with("<!--"))
                        && text.contains("<svg"));
                is_xml.then_some(Self::Svg)
            }
        }
    }
}

impl Logo {
    /// The maximum size. A logo is sent with the first page that a customer opens.
    pub const MOST_BYTES: usize = 256 * 1024;

    /// # Errors
    /// Too many bytes, or an image format that browsers do not display.
    pub fn new(bytes: Vec<u8>) -> Result<Self, UnfitLogo> {
        if bytes.len() > Self::MOST_BYTES {
            return Err(UnfitLogo::TooLarge);
        }
        let kind = LogoKind::of(&bytes).ok_or(UnfitLogo::NoPicture)?;
        Ok(Self { kind, bytes })
    }

    pub const fn kind(&self) -> LogoKind {
        self.kind
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnfitLogo {
    #[error("must be a PNG, JPEG, WebP or SVG picture")]
    NoPicture,
    #[error("must be no larger than {} KiB", Logo::MOST_BYTES / 1024)]
    TooLarge,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contrast_is_that_of_the_standard() {
        assert!((Color::BLACK.contrast(Color::WHITE) - 21.0).abs() < 1e-9);
        assert!((Color::WHITE.contrast(Color::WHITE) - 1.0).abs() < 1e-9);
        // The usual pair of grays: `#767676` just passes on white, `#777777` just fails.
        let on_white = |text: &str| text.parse::<Color>().unwrap().contrast(Color::WHITE);
        assert!((on_white("#767676") - 4.54).abs() < 0.01);
        assert!((on_white("#777777") - 4.48).abs() < 0.01);
    }

    #[test]
    fn a_color_is_six_hexadecimal_digits() {
        assert_eq!("#1F5fa8".parse::<Color>().unwrap().to_string(), "#1f5fa8");
        for bad in [
            "",
            "#",
            "1f5fa8",
            "#fff",
            "#1f5fa",
            "#1f5fa80",
            "#+f5fa8",
            "#1f5fag",
            "#1f5fé",
            "blue",
            "#000;}*{x:y",
        ] {
            assert_eq!(bad.parse::<Color>(), Err(UnfitAccent::NoColor), "{bad:?}");
        }
    }

    #[test]
    fn an_accent_can_be_read_in_its_scheme() {
        for (text, scheme) in [
            ("#1f5fa8", Scheme::Light),
            ("#000000", Scheme::Light),
            ("#8ab8f0", Scheme::Dark),
        ] {
            let accent = Accent::new(text, scheme).unwrap();
            for ground in [scheme.page(), scheme.surface(), scheme.on_accent()] {
                assert!(accent.color().contrast(ground) >= Accent::LEAST_CONTRAST);
                assert!(accent.strong().contrast(ground) >= Accent::LEAST_CONTRAST);
            }
        }
        // Enough contrast to white, but not to the page background.
        let fault = Accent::new("#757575", Scheme::Light).unwrap_err();
        assert_eq!(
            fault.to_string(),
            "must be read on #f4f6f8, which takes a contrast of 4.5 to 1; it has 4.2"
        );
        for (text, scheme) in [("#8ab8f0", Scheme::Light), ("#1f5fa8", Scheme::Dark)] {
            let fault = Accent::new(text, scheme).unwrap_err();
            assert!(matches!(fault, UnfitAccent::TooFaint { .. }), "{fault}");
        }
    }

    #[test]
    fn a_logo_is_known_by_its_bytes() {
        let kind = |bytes: &[u8]| Logo::new(bytes.to_vec()).map(|logo| logo.kind());
        assert_eq!(kind(b"\x89PNG\r\n\x1a\n..."), Ok(LogoKind::Png));
        assert_eq!(kind(b"\xff\xd8\xff\xe0"), Ok(LogoKind::Jpeg));
        assert_eq!(kind(b"RIFF\x10\0\0\0WEBPVP8 "), Ok(LogoKind::WebP));
        assert_eq!(kind(b"\xef\xbb\xbf <svg/>"), Ok(LogoKind::Svg));
        assert_eq!(kind(b"<?xml version='1.0'?>\n<svg/>"), Ok(LogoKind::Svg));
        for bad in [
            &b""[..],
            b"GIF89a",
            b"<html><svg/>",
            b"<?xml?><html/>",
            b"\xff",
        ] {
            assert_eq!(kind(bad), Err(UnfitLogo::NoPicture), "{bad:?}");
        }
        let mut large = b"\x89PNG\r\n\x1a\n".to_vec();
        large.resize(Logo::MOST_BYTES, 0);
        assert!(kind(&large).is_ok());
        large.push(0);
        assert_eq!(kind(&large), Err(UnfitLogo::TooLarge));
    }

    #[test]
    fn a_name_is_words_for_people() {
        let longest = "é".repeat(60);
        for good in ["Example Ltd", "Øresund & Söhne", &longest] {
            assert_eq!(good.parse::<BrandName>().unwrap().as_str(), good);
        }
        for bad in ["", "  ", "a\nb", "a\0", &format!("{longest}é")] {
            assert_eq!(bad.parse::<BrandName>(), Err(UnfitName), "{bad:?}");
        }
    }
}
