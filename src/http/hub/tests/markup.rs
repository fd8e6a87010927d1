//! Parses a page as strict markup: every element is closed where it was opened. Browsers accept
//! more, but the strict form needs no guessing.

/// An element. Elements are listed in the order of their start tags.
#[derive(Debug)]
pub struct Element {
    pub name: String,
    pub attributes: Vec<(String, String)>,
    /// All text inside, without tags; each run of white space is one space.
    pub text: String,
}

impl Element {
    pub fn get(&self, attribute: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|(name, _)| name == attribute);
        found.map(|(_, value)| value.as_str())
    }

    pub fn is(&self, name: &str) -> bool {
        self.name == name
    }
}

/// Void elements, which have no content and no end tag (HTML, 13.1.2).
const VOID: [&str; 6] = ["meta", "link", "img", "input", "br", "hr"];

/// Parses a page into its elements.
///
/// # Panics
/// If the page is not well-formed; the message names the fault and its place.
pub fn read(html: &str) -> Vec<Element> {
    let mut rest = html
        .strip_prefix("<!doctype html>")
        .expect("a page begins with its doctype");
    let mut elements: Vec<Element> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    while let Some(at) = rest.find('<') {
        let text = unescape(&rest[..at]);
        for element in &open {
            elements[*element].text.push_str(&text);
        }
        assert!(!open.is_empty() || text.trim().is_empty(), "loose: {text}");
        let (tag, after) = split_tag(&rest[at + 1..]);
        if let Some(name) = tag.strip_prefix('/') {
            let last = open.pop().expect("something is open");
            assert_eq!(elements[last].name, name, "before {after:.80}");
        } else {
            let (name, attributes) = attributes(tag);
            if !VOID.contains(&name.as_str()) {
                open.push(elements.len());
            }
            elements.push(Element {
                name,
                attributes,
                text: String::new(),
            });
        }
        rest = after;
    }
    assert!(open.is_empty() && rest.trim().is_empty(), "left: {rest}");
    for element in &mut elements {
        let words: Vec<_> = element.text.split_whitespace().collect();
        element.text = words.join(" ");
    }
    elements
}

/// Splits at the first `>` outside a quoted value: the content of the tag, and the rest.
fn split_tag(text: &str) -> (&str, &str) {
    let mut is_quoted = false;
    for (at, character) in text.char_indices() {
        match character {
            '"' => is_quoted = !is_quoted,
            '>' if !is_quoted => return (&text[..at], &text[at + 1..]),
            _ => {}
        }
    }
    panic!("a tag does not end: {text:.80}");
}

fn attributes(tag: &str) -> (String, Vec<(String, String)>) {
    let (name, mut rest) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
    assert!(
        name.bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()),
        "no element: {tag}"
    );
    let mut attributes: Vec<(String, String)> = Vec::new();
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return (name.to_owned(), attributes);
        }
        let end = rest
            .find(|c: char| c == '=' || c.is_whitespace())
            .unwrap_or(rest.len());
        let (key, after) = rest.split_at(end);
        assert!(
            key.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'),
            "no attribute: {key} in {tag}"
        );
        let value = match after.strip_prefix("=\"") {
            Some(quoted) => {
                let (value, after) = quoted.split_once('"').expect("split_tag saw the quote");
                rest = after;
                unescape(value)
            }
            None => {
                assert!(!after.starts_with('='), "not quoted: {key} in {tag}");
                rest = after;
                String::new()
            }
        };
        assert!(
            attributes.iter().all(|(other, _)| other != key),
            "{key} is there twice in {tag}"
        );
        attributes.push((key.to_owned(), value));
    }
}

fn unescape(text: &str) -> String {
    let mut parts = text.split('&');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (reference, after) = part.split_once(';').expect("`&` begins a reference");
        plain.push(match reference {
            "#38" | "amp" => '&',
            "#60" | "lt" => '<',
            "#62" | "gt" => '>',
            "#34" | "quot" => '"',
            "#39" => '\'',
            other => panic!("a reference that nothing here writes: &{other};"),
        });
        plain.push_str(after);
    }
    plain
}
