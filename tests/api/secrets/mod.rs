//! No secret, and nobody's name or address, is where it should not be (G2).
//!
//! The true binary is run with its log at TRACE, is given canaries in every place that holds a
//! secret, and is treated badly. Then everything that it left behind is searched for them, in
//! every form in which they might be written: log, metrics, pages, error replies and every byte of
//! the store.
//!
//! * [`cage`]: an installation, and all that it leaves behind.
//! * [`directory`]: accounts that are linked by a token, keys, and who is in a directory.
//! * [`bird`]: who links, and what of that is secret.
//! * [`linking`]: sign-ins, invitations, refreshes, and credentials that move.

mod bird;
mod cage;
mod directory;
mod linking;

use std::collections::HashMap;

use base64::{
    Engine,
    prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD},
};
use serde_json::json;

/// By so many bytes a form is looked for; all are longer.
const START: usize = 8;

/// Canaries, and where they were heard.
struct Search {
    /// What each form is of, by how it starts.
    forms: HashMap<[u8; START], Vec<(&'static str, Vec<u8>)>>,
    /// Whether any form starts with these two bytes: few places need a closer look.
    starts: Vec<bool>,
    found: Vec<String>,
}

impl Search {
    fn new<'a>(canaries: impl IntoIterator<Item = (&'static str, &'a str)>) -> Self {
        let mut search = Self {
            forms: HashMap::new(),
            starts: vec![false; 1 << 16],
            found: Vec::new(),
        };
        for (what, text) in canaries {
            for form in forms(text) {
                let start = *form.first_chunk().expect("a canary is longer than a word");
                search.starts[two(&form)] = true;
                search.forms.entry(start).or_default().push((what, form));
            }
        }
        search
    }

    /// Notes which canaries sing here.
    fn look(&mut self, place: &str, bytes: &[u8]) {
        for (at, window) in bytes.windows(START).enumerate() {
            if !self.starts[two(window)] {
                continue;
            }
            let start: &[u8; START] = window.try_into().expect("a window of so many");
            for (what, form) in self.forms.get(start).into_iter().flatten() {
                if bytes[at..].starts_with(form) {
                    let form = String::from_utf8_lossy(form);
                    self.found
                        .push(format!("{what} as {form} in {place} at {at}"));
                }
            }
        }
    }
}

fn two(bytes: &[u8]) -> usize {
    usize::from(bytes[0]) << 8 | usize::from(bytes[1])
}

/// Every form in which a text might be written.
fn forms(text: &str) -> Vec<Vec<u8>> {
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    let escaped = |keeps: fn(u8) -> bool, is_upper: bool| {
        let escape = |byte| match (keeps(byte), is_upper) {
            (true, _) => char::from(byte).to_string(),
            (false, true) => format!("%{byte:02X}"),
            (false, false) => format!("%{byte:02x}"),
        };
        text.bytes().map(escape).collect::<String>().into_bytes()
    };
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let json = serde_json::to_string(text).unwrap();
    let json = &json[1..json.len() - 1];
    let ascii_json: String = json
        .encode_utf16()
        .map(|unit| match char::from_u32(u32::from(unit)) {
            Some(plain) if plain.is_ascii() => plain.to_string(),
            _ => format!("\\u{unit:04x}"),
        })
        .collect();
    let mut forms = vec![
        text.as_bytes().to_vec(),
        hex.to_uppercase().into_bytes(),
        hex.into_bytes(),
        escaped(unreserved, true),
        escaped(unreserved, false),
        escaped(|_| false, true),
        escaped(|_| false, false),
        json.as_bytes().to_vec(),
        ascii_json.into_bytes(),
        text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        text.bytes().rev().collect(),
    ];
    forms.extend(base64_forms(text));
    forms.sort_unstable();
    forms.dedup();
    forms
}

/// In base64 a text looks different by how many bytes stand before it, and at its ends by what
/// does: the part between is the same.
fn base64_forms(text: &str) -> Vec<Vec<u8>> {
    let mut forms = Vec::new();
    for before in 0..3 {
        let bytes = [vec![0; before], text.as_bytes().to_vec()].concat();
        for engine in [BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD] {
            let coded = engine.encode(&bytes).into_bytes();
            let (from, to) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
            forms.push(coded[from..to].to_vec());
        }
    }
    forms
}

/// What a canary looks like in each of the encodings that are searched for above all: plain,
/// base64, base64url, hex and percent. Not of this search's making, and none starts where it does.
fn sung(text: &str) -> [Vec<u8>; 5] {
    let percent = text.bytes().map(|byte| format!("%{byte:02X}"));
    let hex = text.bytes().map(|byte| format!("{byte:02x}"));
    [
        format!("x {text}").into_bytes(),
        BASE64_STANDARD_NO_PAD
            .encode(format!("key:{text}:>"))
            .into(),
        BASE64_URL_SAFE_NO_PAD
            .encode(format!("12345{text}?"))
            .into(),
        format!("5ac3{}0a", hex.collect::<String>()).into_bytes(),
        format!("a={}&", percent.collect::<String>()).into_bytes(),
    ]
}

#[test]
fn a_canary_is_heard_in_every_form() {
    const TEXT: &str = "Zé-canary >>?\"17\" secret";
    let others = [
        serde_json::to_vec(&json!({ "a": TEXT })).unwrap(),
        b"a=Z%C3%A9-canary%20%3E%3E%3F%2217%22%20secret&".to_vec(),
        b"a=Z%c3%a9-canary%20%3e%3e%3f%2217%22%20secret&".to_vec(),
        br#""Z\u00e9-canary >>?\"17\" secret""#.to_vec(),
    ];
    for sung in sung(TEXT).into_iter().chain(others) {
        let mut search = Search::new([("a test", TEXT), ("another", "which-is-nowhere")]);
        let long = [&b"x".repeat(1000)[..], &sung, b"x"].concat();
        search.look("the test", &long);
        let text = String::from_utf8_lossy(&sung);
        assert!(!search.found.is_empty(), "{text}");
        assert!(search.found.iter().all(|it| it.starts_with("a test")));
    }
    let mut search = Search::new([("a test", TEXT)]);
    search.look("the test", b"Z-canary >>?17 secret");
    search.look("the test", b"");
    assert!(search.found.is_empty());
}
