//! Checks the rules that hold for every page: it is well-formed, labeled and in order, and names
//! from outside appear as text only.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::json;

mod gallery;
mod markup;

use gallery::{Names, ORDINARY, ShownPage, gallery, looks};
use markup::Element;

/// Names that try to inject markup.
const HOSTILE: Names = Names {
    brand: "<script>brand()</script>",
    customer: "\"><img src=x onerror=customer()>",
    organization: "</title><script>organization()</script>",
    person: "' onmouseover='person()",
    email: "<svg/onload=email()>@example.org",
    label: "\" autofocus onfocus=\"label()",
    client_id: "\"><script>id()</script>",
};

/// Every page in each theme, with its elements.
fn pages(names: &Names) -> Vec<(ShownPage, Vec<Element>)> {
    let looks = looks(names);
    let pages = looks.iter().flat_map(|theme| gallery(theme, names));
    pages
        .map(|shown| {
            let elements = markup::read(&shown.html);
            (shown, elements)
        })
        .collect()
}

fn all<'a>(elements: &'a [Element], name: &str) -> Vec<&'a Element> {
    elements.iter().filter(|each| each.is(name)).collect()
}

#[test]
fn every_page_has_a_title_a_language_and_one_first_heading() {
    let mut titles = BTreeSet::new();
    for (shown, elements) in pages(&ORDINARY) {
        let name = &shown.name;
        assert_eq!(all(&elements, "html")[0].get("lang"), Some("en"), "{name}");
        let [title] = all(&elements, "title")[..] else {
            panic!("{name}: one title")
        };
        assert!(title.text.ends_with(" – Northwind People"), "{name}");
        titles.insert(title.text.clone());
        for landmark in ["h1", "main", "header", "footer"] {
            assert_eq!(all(&elements, landmark).len(), 1, "{name}: {landmark}");
        }
        // A heading is at most one level below the heading before it.
        let levels: Vec<u8> = elements
            .iter()
            .filter_map(|each| each.name.strip_prefix('h')?.parse().ok())
            .collect();
        assert_eq!(levels[0], 1, "{name}");
        assert!(
            levels.windows(2).all(|pair| pair[1] <= pair[0] + 1),
            "{name}: {levels:?}"
        );
    }
    assert!(titles.len() > 20, "titles tell pages apart: {titles:?}");
}

#[test]
fn nothing_is_inline_and_nothing_comes_from_elsewhere() {
    for (shown, elements) in pages(&ORDINARY) {
        for element in &elements {
            let at = format!("{}: {element:?}", shown.name);
            assert!(!element.is("style") && !element.is("base"), "{at}");
            if element.is("script") {
                assert!(element.text.is_empty(), "{at}");
            }
            for (key, _) in &element.attributes {
                assert!(key != "style" && !key.starts_with("on"), "{at}");
            }
            let source = match element.name.as_str() {
                "script" | "img" => element.get("src").unwrap(),
                "link" => element.get("href").unwrap(),
                _ => continue,
            };
            assert!(
                source.starts_with("/connect/assets/") || source == "data:,",
                "{at}"
            );
        }
    }
}

#[test]
fn every_file_that_a_page_asks_for_is_there() {
    for theme in looks(&ORDINARY) {
        for shown in gallery(&theme, &ORDINARY) {
            for element in markup::read(&shown.html) {
                for key in ["src", "href"] {
                    let name = element.get(key);
                    let Some(name) = name.and_then(|it| it.strip_prefix("/connect/assets/")) else {
                        continue;
                    };
                    assert!(theme.asset(name).is_some(), "{}: {name}", shown.name);
                }
            }
        }
    }
}

#[test]
fn every_input_has_a_label_and_every_reference_leads_to_an_element() {
    for (shown, elements) in pages(&ORDINARY) {
        let ids: Vec<_> = elements.iter().filter_map(|each| each.get("id")).collect();
        let distinct: BTreeSet<_> = ids.iter().collect();
        assert_eq!(ids.len(), distinct.len(), "{}: {ids:?}", shown.name);
        for element in &elements {
            let at = format!("{}: {element:?}", shown.name);
            for key in [
                "for",
                "aria-describedby",
                "aria-labelledby",
                "data-copy",
                "data-return",
            ] {
                for id in element.get(key).unwrap_or_default().split_whitespace() {
                    assert!(distinct.contains(&id), "{at}");
                }
            }
            if let Some(id) = element.get("href").and_then(|href| href.strip_prefix('#')) {
                assert!(distinct.contains(&id), "{at}");
            }
            if element.is("input") && element.get("type") != Some("hidden") {
                let id = element.get("id").unwrap();
                let label = all(&elements, "label")
                    .into_iter()
                    .find(|label| label.get("for") == Some(id));
                assert!(label.is_some_and(|label| !label.text.is_empty()), "{at}");
            }
            if element.is("button") || element.is("a") || element.is("legend") {
                assert!(!element.text.is_empty(), "{at}");
            }
            if element.is("img") {
                assert!(
                    element.get("alt").is_some_and(|alt| !alt.is_empty()),
                    "{at}"
                );
            }
        }
        for radio in elements.iter().filter(|it| it.get("type") == Some("radio")) {
            assert!(radio.get("name").is_some());
            assert_eq!(all(&elements, "legend").len(), 1, "{}", shown.name);
        }
    }
}

#[test]
fn a_form_is_posted_to_us_with_its_token_and_a_secret_is_never_filled_in() {
    let routes = ["sign-in", "token", "app", "review"].map(|last| format!("/connect/{last}"));
    let mut posted = BTreeSet::new();
    for (shown, elements) in pages(&ORDINARY) {
        for form in all(&elements, "form") {
            assert_eq!(form.get("method"), Some("post"), "{}", shown.name);
            let action = form.get("action").unwrap();
            assert!(routes.iter().any(|route| route == action), "{action}");
            posted.insert(action.to_owned());
        }
        let forms = all(&elements, "form").len();
        let tokens = elements.iter().filter(|it| {
            it.get("name") == Some("form_token") && !it.get("value").unwrap().is_empty()
        });
        assert_eq!(tokens.count(), forms, "{}", shown.name);
        for input in all(&elements, "input") {
            let at = format!("{}: {input:?}", shown.name);
            let is_secret = ["token", "client_secret"].contains(&input.get("name").unwrap());
            assert_eq!(input.get("type") == Some("password"), is_secret, "{at}");
            if is_secret {
                assert_eq!(input.get("value"), None, "{at}");
                assert_eq!(input.get("autocomplete"), Some("off"), "{at}");
            }
        }
    }
    assert_eq!(posted.len(), routes.len(), "{posted:?}");
}

#[test]
fn a_link_leads_to_a_page_of_the_hub_or_away_without_a_trace() {
    let pages_of_ours = [
        "/connect",
        "/connect/token",
        "/connect/app",
        "/connect/done",
    ];
    for (shown, elements) in pages(&ORDINARY) {
        for link in all(&elements, "a") {
            let href = link.get("href").unwrap();
            if href.starts_with('#') || pages_of_ours.contains(&href) {
                continue;
            }
            assert!(href.starts_with("https://"), "{}: {href}", shown.name);
            let rel = link.get("rel").unwrap_or_default();
            assert!(rel.contains("noreferrer"), "{}: {href}", shown.name);
        }
    }
}

#[test]
fn a_name_is_only_ever_text() {
    let (plain, hostile) = (pages(&ORDINARY), pages(&HOSTILE));
    assert_eq!(plain.len(), hostile.len());
    let mut said = String::new();
    for ((shown, elements), (_, plain)) in hostile.iter().zip(&plain) {
        // Hostile names add no element and no attribute.
        assert_eq!(shape(elements), shape(plain), "{}", shown.name);
        for element in elements.iter().filter(|it| it.is("body") || it.is("input")) {
            said.push_str(&element.text);
            said.push_str(element.get("value").unwrap_or_default());
        }
    }
    // Each hostile name appears as text, character by character.
    for name in [
        HOSTILE.brand,
        HOSTILE.customer,
        HOSTILE.organization,
        HOSTILE.person,
        HOSTILE.email,
        HOSTILE.label,
        HOSTILE.client_id,
    ] {
        assert!(said.contains(name), "{name}");
    }
}

fn shape(elements: &[Element]) -> Vec<(&str, Vec<&str>)> {
    let shape = elements.iter().map(|element| {
        let keys = element.attributes.iter().map(|(key, _)| key.as_str());
        (element.name.as_str(), keys.collect())
    });
    shape.collect()
}

#[test]
fn every_page_says_what_it_may_do_and_is_kept_by_nobody() {
    for (shown, elements) in pages(&ORDINARY) {
        let at = &shown.name;
        let policy = shown.header("content-security-policy");
        let rest = policy
            .strip_prefix(
                "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; ",
            )
            .unwrap_or_else(|| panic!("{at}: {policy}"));
        let rest = rest
            .strip_suffix("; frame-ancestors 'none'; base-uri 'none'")
            .unwrap_or_else(|| panic!("{at}: {policy}"));
        let polls = elements.iter().any(|it| it.get("data-source").is_some());
        let rest = match polls {
            true => rest.strip_prefix("connect-src 'self'; ").unwrap(),
            false => rest,
        };
        let expected = match at.as_str() {
            "start" | "start-again" => "'self' https://app.smartsheet.eu",
            "start-several" => "'self' https://app.smartsheet.com https://app.smartsheet.eu",
            name if name.starts_with("app") => {
                "'self' https://app.smartsheet.com https://app.smartsheet.eu \
                 https://app.smartsheet.au https://app.smartsheetgov.com http://127.0.0.1:4010"
            }
            _ => "'self'",
        };
        assert_eq!(rest, format!("form-action {expected}"), "{at}");
        assert_eq!(shown.header("cache-control"), "no-store", "{at}");
        assert_eq!(shown.header("referrer-policy"), "no-referrer", "{at}");
        assert_eq!(shown.header("content-type"), "text/html; charset=utf-8");
    }
}

#[test]
fn a_page_that_waits_moves_without_a_script_and_no_other_does() {
    for (shown, elements) in pages(&ORDINARY) {
        let refreshes = elements
            .iter()
            .filter(|it| it.get("http-equiv") == Some("refresh"))
            .count();
        let waits =
            ["progress", "progress-waiting", "progress-beginning"].contains(&shown.name.as_str());
        assert_eq!(refreshes, usize::from(waits), "{}", shown.name);
        assert_eq!(all(&elements, "noscript").len(), refreshes);
    }
}

#[test]
fn a_form_that_comes_back_says_what_is_wrong_first_and_where() {
    for (shown, elements) in pages(&ORDINARY) {
        let alert = elements.iter().find(|it| it.get("role") == Some("alert"));
        let is_fault = shown.status == 422 && !shown.name.starts_with("problem");
        assert_eq!(alert.is_some(), is_fault, "{}", shown.name);
        let Some(alert) = alert else { continue };
        assert!(!alert.text.is_empty() && alert.get("tabindex") == Some("-1"));
        let title = &all(&elements, "title")[0].text;
        assert!(title.starts_with("Problem: "), "{title}");
    }
}

#[test]
fn a_token_that_is_unknown_there_may_be_tried_elsewhere() {
    for (shown, elements) in pages(&ORDINARY) {
        if shown.name != "token-unknown-there" {
            continue;
        }
        let alert = elements.iter().find(|it| it.get("role") == Some("alert"));
        let text = &alert.unwrap().text;
        assert!(
            text.contains("(Europe)") && text.contains("api.smartsheet.eu alone"),
            "{text}"
        );
        let radios: Vec<_> = elements
            .iter()
            .filter(|it| it.get("type") == Some("radio"))
            .collect();
        assert_eq!(radios.len(), 5);
        assert!(radios.iter().all(|radio| radio.get("checked").is_none()));
        let tried: Vec<_> = all(&elements, "label")
            .into_iter()
            .filter(|label| label.text.contains("Tried"))
            .collect();
        assert_eq!(tried.len(), 1);
        assert!(tried[0].text.starts_with("Europe"), "{tried:?}");
    }
}

#[test]
fn only_a_registered_opener_is_told() {
    for (shown, elements) in pages(&ORDINARY) {
        let Some(done) = elements.iter().find(|it| it.get("id") == Some("done")) else {
            continue;
        };
        let told = [
            "data-opener",
            "data-account",
            "data-provider",
            "data-return",
        ]
        .map(|key| done.get(key));
        let expected = match shown.name.as_str() {
            "done" => [
                Some("https://app.example.com"),
                Some("0198c3a2-5b6f-7c11-9d0e-2f4a6b8c0d1e"),
                Some("smartsheet"),
                Some("return"),
            ],
            _ => [None; 4],
        };
        assert_eq!(told, expected, "{}", shown.name);
    }
}

#[test]
fn every_problem_has_a_next_step() {
    let mut seen = 0;
    for (shown, elements) in pages(&ORDINARY) {
        if !shown.name.starts_with("problem-") {
            continue;
        }
        seen += 1;
        assert!(shown.status >= 400, "{}", shown.name);
        assert!(!all(&elements, "li").is_empty(), "{}", shown.name);
        let main = &all(&elements, "main")[0].text;
        assert!(main.contains("0198c3a2-7d10-7abc-8def-0123456789ab"));
        for word in ["1002", "HTTP", "OAuth", "state", "CSRF", "null", "error"] {
            assert!(!main.contains(word), "{}: {word}", shown.name);
        }
    }
    assert_eq!(seen, 2 * 22);
}

/// Writes all pages with their headers and assets to the file that `ROLECALL_HUB_PAGES` names.
/// `tests/hub/run` opens them in a browser.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "where to is said by whoever runs this one test"
)]
fn the_gallery_is_written_where_it_is_asked_for() {
    let looks = looks(&ORDINARY);
    let mut list = Vec::new();
    for (theme, style) in looks.iter().zip(["plain", "brand"]) {
        for shown in gallery(theme, &ORDINARY) {
            list.push(json!({
                "name": format!("{style}-{}", shown.name),
                "status": shown.status,
                "headers": shown.headers,
                "html": shown.html,
            }));
        }
    }
    let assets = looks.iter().flat_map(|theme| theme.assets()).map(|asset| {
        let text = std::str::from_utf8(&asset.bytes).unwrap();
        json!({ "path": asset.path(), "type": asset.media_type, "text": text })
    });
    let gallery = json!({ "pages": list, "assets": assets.collect::<Vec<_>>() });
    if let Some(file) = std::env::var_os("ROLECALL_HUB_PAGES") {
        fs::write(Path::new(&file), gallery.to_string()).unwrap();
    }
}
