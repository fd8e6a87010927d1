//! Parses the header fields of a read: the oldest acceptable directory (`Cache-Control`) and the
//! content coding of the page (`Accept-Encoding`).

use actix_web::{
    HttpRequest,
    http::header::{self, HeaderName},
};

use crate::{
    error::Result,
    gateway::directory::{Coding, MaxAge},
    http::query::invalid,
};

/// The cap on a number of seconds: any larger one counts as this (RFC 9111, 1.2.2).
const MOST_SECONDS: u64 = 1 << 31;

/// The request's `Cache-Control` (RFC 9111, 5.2.1). Directives other than `no-cache` and `max-age`
/// are ignored. If there are several ages, the smallest counts.
///
/// # Errors
/// `invalid_parameter` if an age is not a whole number.
pub fn max_age(request: &HttpRequest) -> Result<MaxAge> {
    let mut wanted: Option<u64> = None;
    for directive in fields(request, header::CACHE_CONTROL).flat_map(directives) {
        let (name, argument) = match directive.split_once('=') {
            Some((name, argument)) => (name.trim(), Some(argument.trim())),
            None => (directive.trim(), None),
        };
        if name.eq_ignore_ascii_case("no-cache") {
            return Ok(MaxAge::New);
        }
        if name.eq_ignore_ascii_case("max-age") {
            let seconds = argument.and_then(delta_seconds).ok_or_else(|| {
                invalid("max-age in Cache-Control must be a whole number of seconds")
            })?;
            wanted = Some(wanted.map_or(seconds, |wanted| wanted.min(seconds)));
        }
    }
    Ok(wanted.map_or(MaxAge::Any, MaxAge::Seconds))
}

/// The values of a field that are plain text.
fn fields(request: &HttpRequest, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = request.headers().get_all(name);
    values.filter_map(|value| value.to_str().ok())
}

/// Splits at commas, except within quotation marks.
fn directives(text: &str) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |c| {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ => return c == ',' && !is_quoted,
        }
        false
    })
}

/// Seconds as a token or a quoted string (RFC 9111, 5.2), of any size (1.2.2).
fn delta_seconds(text: &str) -> Option<u64> {
    let text = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .unwrap_or(text);
    // Only digits: `u64::from_str` would also accept a leading plus sign.
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| {
        text.parse()
            .map_or(MOST_SECONDS, |it: u64| it.min(MOST_SECONDS))
    })
}

/// The coding with the highest weight among those that we have and the caller accepts. At equal
/// weight, zstd wins.
///
/// `*` stands for the codings that are not named (RFC 9110, 12.5.3). It alone does not cause
/// compression, because such a client may be unable to decode every coding. If `identity` is
/// refused, `*` does count. If everything is refused, the uncompressed form is sent (12.5.3).
pub fn accepted_coding(request: &HttpRequest) -> Coding {
    let mut offers = Offers::default();
    for offer in fields(request, header::ACCEPT_ENCODING).flat_map(|value| value.split(',')) {
        offers.note(offer);
    }
    offers.best()
}

/// The weight of each named coding, in thousandths.
#[derive(Default)]
struct Offers {
    zstd: Option<u16>,
    gzip: Option<u16>,
    identity: Option<u16>,
    others: Option<u16>,
}

impl Offers {
    /// Adds one offer. A malformed offer is ignored. For the same coding, the smaller weight
    /// counts.
    fn note(&mut self, offer: &str) {
        let mut parts = offer.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let mut weight = 1000;
        for (key, value) in parts.filter_map(|part| part.split_once('=')) {
            if key.trim().eq_ignore_ascii_case("q") {
                let Some(read) = weight_in(value.trim()) else {
                    return;
                };
                weight = read;
            }
        }
        let is = |coding: &str| name.eq_ignore_ascii_case(coding);
        let known = if is("zstd") {
            &mut self.zstd
        } else if is("gzip") || is("x-gzip") {
            &mut self.gzip
        } else if is("identity") {
            &mut self.identity
        } else if is("*") {
            &mut self.others
        } else {
            return;
        };
        *known = Some(known.map_or(weight, |known| known.min(weight)));
    }

    fn best(&self) -> Coding {
        let named = [(Coding::Gzip, self.gzip), (Coding::Zstd, self.zstd)];
        let named = named
            .into_iter()
            .filter_map(|(coding, weight)| Some((coding, weight.filter(|it| *it > 0)?)));
        // `max_by_key` returns the last of equals, which is zstd.
        if let Some((coding, weight)) = named.max_by_key(|(_, weight)| *weight) {
            let is_plain_better = self.identity.is_some_and(|identity| identity > weight);
            return if is_plain_better {
                Coding::Identity
            } else {
                coding
            };
        }
        let is_plain_refused = self.identity == Some(0);
        let takes_others = self.others.is_some_and(|weight| weight > 0);
        // `*` means only the codings that are not named.
        match (self.gzip, self.zstd) {
            (None, _) if is_plain_refused && takes_others => Coding::Gzip,
            (_, None) if is_plain_refused && takes_others => Coding::Zstd,
            _ => Coding::Identity,
        }
    }
}

/// Parses a `qvalue` (RFC 9110, 12.4.2), in thousandths: 0 to 1, with at most three decimals.
fn weight_in(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths: u16 = format!("{fraction:0<3}").parse().ok()?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;
    use proptest::prelude::*;

    use super::*;

    fn asked(values: &[&str]) -> Option<MaxAge> {
        let mut request = TestRequest::default();
        for value in values {
            request = request.append_header((header::CACHE_CONTROL, *value));
        }
        max_age(&request.to_http_request()).ok()
    }

    #[test]
    fn an_age_of_any_size_and_in_any_spelling_is_understood() {
        for (value, seconds) in [
            ("max-age=60", 60),
            ("MAX-AGE=60", 60),
            ("max-age=\"60\"", 60),
            ("max-age = 60", 60),
            ("max-age=0060", 60),
            ("max-age=0", 0),
            ("max-age=2147483648", MOST_SECONDS),
            ("max-age=2147483649", MOST_SECONDS),
            ("max-age=18446744073709551616", MOST_SECONDS),
            (
                "max-age=99999999999999999999999999999999999999",
                MOST_SECONDS,
            ),
            ("no-transform, max-age=60, min-fresh=5", 60),
            ("max-age=60, max-age=30", 30),
            ("extension=\"a, max-age=1\", max-age=60", 60),
            ("extension=\"a\\\", max-age=1\",max-age=60,", 60),
        ] {
            assert_eq!(asked(&[value]), Some(MaxAge::Seconds(seconds)), "{value}");
        }
        assert_eq!(
            asked(&["max-age=60", "max-age=9"]),
            Some(MaxAge::Seconds(9))
        );
        for value in [
            "no-cache",
            "No-Cache",
            "max-age=60, no-cache",
            "no-cache=\"x\"",
        ] {
            assert_eq!(asked(&[value]), Some(MaxAge::New), "{value}");
        }
        for value in [
            "",
            "no-store",
            "s-maxage=5",
            "xmax-age=5",
            ",,",
            "only-if-cached",
        ] {
            assert_eq!(asked(&[value]), Some(MaxAge::Any), "{value}");
        }
        for value in [
            "max-age",
            "max-age=",
            "max-age=\"\"",
            "max-age=-1",
            "max-age=+1",
            "max-age=1.5",
            "max-age=1e3",
            "max-age=soon",
            "max-age=\"60",
        ] {
            assert_eq!(asked(&[value]), None, "{value}");
        }
    }

    fn chosen(values: &[&str]) -> Coding {
        let mut request = TestRequest::default();
        for value in values {
            request = request.append_header((header::ACCEPT_ENCODING, *value));
        }
        accepted_coding(&request.to_http_request())
    }

    #[test]
    fn a_coding_is_chosen_by_the_callers_weights() {
        use Coding::{Gzip, Identity, Zstd};

        for (value, coding) in [
            ("", Identity),
            ("gzip", Gzip),
            ("GZip", Gzip),
            ("x-gzip", Gzip),
            ("gzip, zstd", Zstd),
            ("gzip, deflate, br, zstd", Zstd),
            ("br", Identity),
            ("gzip;q=0", Identity),
            ("gzip;Q=0", Identity),
            ("gzip ; Q = 0.000", Identity),
            ("gzip;q=0.001", Gzip),
            ("gzip;q=1.000", Gzip),
            ("gzip;q=1;q=0", Identity),
            ("gzip;level=9;q=0", Identity),
            ("gzip;q=0, gzip", Identity),
            ("gzip;q=1.0, zstd;q=0.5", Gzip),
            ("gzip;q=0.5, zstd;q=0.5", Zstd),
            ("gzip;q=0, zstd", Zstd),
            ("identity;q=1, gzip;q=0.5", Identity),
            ("identity;q=0.5, gzip;q=1", Gzip),
            ("identity, gzip", Gzip),
            ("identity;q=0", Identity),
            ("identity;q=0, gzip", Gzip),
            ("*", Identity),
            ("*;q=0", Identity),
            ("*;q=0, gzip", Gzip),
            ("gzip, *;Q=0", Gzip),
            ("identity;q=0, *", Gzip),
            ("identity;q=0, gzip;q=0, *;q=0.1", Zstd),
            ("identity;q=0, gzip;q=0, zstd;q=0, *", Identity),
            // A malformed offer is ignored.
            ("gzip;q=2", Identity),
            ("gzip;q=-1", Identity),
            ("gzip;q=x", Identity),
            ("gzip;q=", Identity),
            ("gzip;q=0.0001, zstd;q=1", Zstd),
            ("gzip;q=NaN", Identity),
        ] {
            assert!(chosen(&[value]) == coding, "{value}");
        }
        assert!(chosen(&["gzip;q=0.5", "zstd"]) == Zstd);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[ -~\t]*") {
            let _ = asked(&[&text]);
            let _ = chosen(&[&text]);
        }
    }
}
