//! Replaces invalid Unicode in a response by U+FFFD, so that one odd name does not invalidate the
//! whole response.
//!
//! Three kinds occur in practice: bytes that are not UTF-8, escapes of half a surrogate pair
//! (`\ud83d` alone, where a provider cut a name inside an emoji), and a byte order mark before the
//! text, which RFC 8259 (section 8.1) lets a parser ignore.

use bytes::Bytes;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The length of a `\u` escape with its four digits.
const ESCAPE: usize = 6;

/// The same JSON, with U+FFFD in place of invalid Unicode.
pub(super) fn repaired(mut body: Bytes) -> Bytes {
    if body.starts_with(BYTE_ORDER_MARK) {
        body = body.slice(BYTE_ORDER_MARK.len()..);
    }
    if std::str::from_utf8(&body).is_err() {
        body = String::from_utf8_lossy(&body).into_owned().into();
    }
    let halves = surrogate_halves(&body);
    if halves.is_empty() {
        return body;
    }
    let mut bytes = body.to_vec();
    for at in halves {
        bytes[at..at + ESCAPE].copy_from_slice(br"\ufffd");
    }
    bytes.into()
}

/// The positions of escapes that are an unpaired half of a surrogate pair.
fn surrogate_halves(json: &[u8]) -> Vec<usize> {
    let mut halves = Vec::new();
    let mut at = 0;
    while let Some(next) = json[at..].iter().position(|byte| *byte == b'\\') {
        at += next;
        match escaped(json, at) {
            Some(0xd800..=0xdbff)
                if matches!(escaped(json, at + ESCAPE), Some(0xdc00..=0xdfff)) =>
            {
                at += 2 * ESCAPE;
            }
            Some(0xd800..=0xdfff) => {
                halves.push(at);
                at += ESCAPE;
            }
            Some(_) => at += ESCAPE,
            // Another escape. Its second byte is skipped, because it may be a backslash.
            None => at += 2,
        }
        at = at.min(json.len());
    }
    halves
}

/// The code unit of the `\u` escape at `at`; None if there is none.
fn escaped(json: &[u8], at: usize) -> Option<u16> {
    let digits = json.get(at..at + ESCAPE)?.strip_prefix(br"\u")?;
    let digits = std::str::from_utf8(digits).ok()?;
    // `from_str_radix` alone would accept a sign.
    digits
        .bytes()
        .all(|byte| byte.is_ascii_hexdigit())
        .then(|| u16::from_str_radix(digits, 16).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_in(json: &[u8]) -> String {
        let body = repaired(Bytes::copy_from_slice(json));
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        value["name"].as_str().unwrap().to_owned()
    }

    #[test]
    fn half_a_surrogate_pair_becomes_one_replacement_character() {
        assert_eq!(name_in(br#"{"name":"Ana \ud83d"}"#), "Ana \u{fffd}");
        assert_eq!(name_in(br#"{"name":"\uDE00 Ana"}"#), "\u{fffd} Ana");
        assert_eq!(name_in(br#"{"name":"\ud83d\ud83d\ude00"}"#), "\u{fffd}😀");
        assert_eq!(name_in(br#"{"name":"\ud83dx\ude00"}"#), "\u{fffd}x\u{fffd}");
    }

    #[test]
    fn whole_pairs_and_escaped_backslashes_stay_as_they_are() {
        for json in [
            br#"{"name":"\ud83d\ude00"}"#.as_slice(),
            br#"{"name":"\\ud83d \\\\ude00 \u00e9 \n"}"#,
        ] {
            let body = Bytes::copy_from_slice(json);
            assert_eq!(repaired(body.clone()), body);
        }
        assert_eq!(name_in(br#"{"name":"\\\ud83d"}"#), "\\\u{fffd}");
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_replaced_and_a_byte_order_mark_is_skipped() {
        assert_eq!(name_in(b"{\"name\":\"Ren\xe9\"}"), "Ren\u{fffd}");
        assert_eq!(name_in(b"\xef\xbb\xbf{\"name\":\"Ana\"}"), "Ana");
    }

    #[test]
    fn a_body_that_is_cut_anywhere_is_no_trouble() {
        let json = br#"{"name":"\\ \ud83d\ude00 \ud83d \u"}\"#;
        for end in 0..=json.len() {
            repaired(Bytes::copy_from_slice(&json[..end]));
        }
    }
}
