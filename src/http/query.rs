//! Parses query strings strictly, so that a misspelled filter never matches everyone.
//!
//! Names and values are percent-decoded first (clients send `filter%5Bupdated_after%5D`). A name
//! that the route does not know, or a single-valued one given twice, is refused, and the error
//! names it. A list repeats its name (`status=active&status=error`), as StackOne's clients send it.

use std::{borrow::Cow, str::FromStr};

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

use crate::{
    error::{Error, Kind, Result, quoted},
    gateway::directory::cursor::ListCursors,
};

/// The longest query string that is accepted, in bytes.
const LONGEST: usize = 8 * 1024;

/// The parameters of a query string. [`Query::finish`] refuses those that the route did not take.
pub struct Query<'a> {
    pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Query<'a> {
    /// Parses the query string of a route whose parameters have one value each.
    pub fn parse(text: &'a str) -> Result<Self> {
        Self::with_lists(text, &[])
    }

    /// Parses the query string of a route on which the names in `lists` may be repeated.
    pub fn with_lists(text: &'a str, lists: &[&str]) -> Result<Self> {
        if text.len() > LONGEST {
            return Err(invalid(format!(
                "the query string is longer than {LONGEST} bytes"
            )));
        }
        let mut pairs: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::new();
        for part in text.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let name = decode(name)?;
            if name == "proxy" || name.starts_with("proxy[") {
                return Err(Error::new(
                    Kind::ProxyNotOffered,
                    "proxy parameters are not passed on to the provider",
                ));
            }
            let is_list = lists.contains(&name.as_ref());
            if !is_list && pairs.iter().any(|(known, _)| *known == name) {
                return Err(invalid(format!(
                    "{} is given more than once",
                    quoted(&name)
                )));
            }
            pairs.push((name, decode(value)?));
        }
        Ok(Self { pairs })
    }

    /// Takes the value of `name`, if present.
    pub fn take(&mut self, name: &str) -> Option<Cow<'a, str>> {
        let at = self.pairs.iter().position(|(known, _)| known == name)?;
        Some(self.pairs.swap_remove(at).1)
    }

    /// Takes every value of `name`. An empty value is refused: it is most likely a variable that
    /// the caller never set, and must not select anything.
    pub fn take_list(&mut self, name: &str) -> Result<Vec<Cow<'a, str>>> {
        let mut values = Vec::new();
        while let Some(value) = self.take(name) {
            if value.is_empty() {
                return Err(invalid(format!("{name} is empty")));
            }
            values.push(value);
        }
        Ok(values)
    }

    /// Takes `name` as a whole number within `bounds`.
    pub fn take_number(
        &mut self,
        name: &str,
        bounds: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<u64>> {
        let Some(text) = self.take(name) else {
            return Ok(None);
        };
        // Only digits: `u64::from_str` would also accept a leading plus sign.
        let number = text
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| text.parse().ok())
            .flatten()
            .filter(|number| bounds.contains(number));
        number.map(Some).ok_or_else(|| {
            invalid(format!(
                "{name} must be a whole number from {} to {}",
                bounds.start(),
                bounds.end()
            ))
        })
    }

    /// Takes `name` as `true` or `false`.
    pub fn take_bool(&mut self, name: &str) -> Result<Option<bool>> {
        match self.take(name).as_deref() {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(invalid(format!("{name} must be true or false"))),
        }
    }

    /// Refuses any parameter that was not taken.
    pub fn finish(self) -> Result<()> {
        match self.pairs.first() {
            None => Ok(()),
            Some((name, _)) => Err(invalid(format!(
                "{} is not a parameter of this route",
                quoted(name)
            ))),
        }
    }
}

/// The schema of a value that is not empty.
pub struct Filled;

impl PartialSchema for Filled {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .min_length(Some(1))
            .into()
    }
}

impl ToSchema for Filled {}

/// The parameters `page_size` and `next` of a list.
pub struct PageParams {
    size: u32,
    next: Option<String>,
}

impl PageParams {
    /// Parses the query string of a list without other parameters.
    pub fn parse(text: &str) -> Result<Self> {
        let mut query = Query::parse(text)?;
        let page = Self::take(&mut query)?;
        query.finish()?;
        Ok(page)
    }

    /// Takes `page_size` and `next`.
    pub fn take(query: &mut Query<'_>) -> Result<Self> {
        let size = query.take_number("page_size", 1..=100)?.unwrap_or(25);
        let next = query.take("next").filter(|next| !next.is_empty());
        let next = next.map(Cow::into_owned);
        Ok(Self {
            size: u32::try_from(size).expect("at most a hundred"),
            next,
        })
    }

    /// The position after which the page starts; None for the first page.
    ///
    /// # Errors
    /// `invalid_cursor`.
    pub fn after<T: FromStr>(&self, cursors: &ListCursors) -> Result<Option<T>> {
        let Some(next) = self.next.as_deref() else {
            return Ok(None);
        };
        let place = cursors.from_text(next)?.parse::<T>();
        place.map(Some).map_err(|_| not_a_cursor())
    }

    pub fn size(&self) -> usize {
        self.size as usize
    }

    /// How many records to fetch: one more than the page holds shows whether there is a next page.
    pub fn reach(&self) -> u32 {
        self.size + 1
    }

    /// Cuts `found` to the page, and returns `next` if there are more records.
    pub fn cut<T>(
        &self,
        mut found: Vec<T>,
        cursors: &ListCursors,
        place: impl FnOnce(&T) -> String,
    ) -> (Vec<T>, Option<String>) {
        let has_more = found.len() > self.size();
        found.truncate(self.size());
        let last = found.last().filter(|_| has_more).map(place);
        (found, last.map(|place| cursors.to_text(&place)))
    }
}

pub fn not_a_cursor() -> Error {
    Error::new(Kind::InvalidCursor, "`next` is not a cursor of this list")
}

fn decode(text: &str) -> Result<Cow<'_, str>> {
    let text: Cow<'_, str> = if text.contains('+') {
        text.replace('+', " ").into()
    } else {
        text.into()
    };
    let decoded = match text {
        Cow::Borrowed(text) => percent_encoding::percent_decode_str(text).decode_utf8(),
        Cow::Owned(text) => percent_encoding::percent_decode_str(&text)
            .decode_utf8()
            .map(|decoded| Cow::Owned(decoded.into_owned())),
    };
    decoded.map_err(|_| invalid("the query string is not UTF-8 once percent-decoded"))
}

pub fn invalid(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(Kind::InvalidParameter, message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_and_values_are_decoded() {
        let mut query = Query::parse("filter%5Bemail%5D=a%40b.c&x=a+b").unwrap();
        assert_eq!(query.take("filter[email]").as_deref(), Some("a@b.c"));
        assert_eq!(query.take("x").as_deref(), Some("a b"));
        assert!(query.finish().is_ok());
    }

    #[test]
    fn an_unknown_parameter_is_named() {
        let message = Query::parse("pagesize=3")
            .unwrap()
            .finish()
            .unwrap_err()
            .message()
            .to_owned();
        assert!(message.contains("`pagesize`"), "{message}");
    }

    #[test]
    fn a_parameter_given_twice_is_refused() {
        assert!(Query::parse("a=1&a=1").is_err());
    }

    #[test]
    fn a_list_repeats_its_name_and_holds_no_empty_value() {
        let text = "a=1&b=x&a=2%2C3";
        let mut query = Query::with_lists(text, &["a"]).unwrap();
        let mut values = query.take_list("a").unwrap();
        values.sort_unstable();
        assert_eq!(values, ["1", "2,3"]);
        assert!(query.take_list("a").unwrap().is_empty());
        assert!(query.finish().is_err());
        assert!(Query::with_lists("b=1&b=2", &["a"]).is_err());
        let mut query = Query::with_lists("a=1&a=", &["a"]).unwrap();
        assert!(query.take_list("a").unwrap_err().message().contains('a'));
    }

    #[test]
    fn a_number_is_digits_within_its_bounds() {
        for bad in [
            "0",
            "101",
            "-1",
            "+5",
            "5.0",
            "",
            "1e1",
            "99999999999999999999999",
            "٣",
        ] {
            let text = format!("page_size={bad}");
            let mut query = Query::parse(&text).unwrap();
            let error = query.take_number("page_size", 1..=100).unwrap_err();
            assert!(error.message().contains("1 to 100"), "{bad}");
        }
    }

    #[test]
    fn proxy_parameters_are_not_offered() {
        for text in ["proxy%5Ba%5D%5Bb%5D=1", "proxy=1", "proxy[a]=1"] {
            assert_eq!(
                Query::parse(text).err().unwrap().kind(),
                Kind::ProxyNotOffered
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*") {
            if let Ok(query) = Query::parse(&text) {
                let _ = query.finish();
            }
        }
    }
}
