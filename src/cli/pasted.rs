//! Parses the text that a person pastes after a sign-in in another browser: a code, or the URL of
//! the redirect. A terminal, mail or chat may have put the URL in quotation marks or angle
//! brackets, reduced it to its query, or broken it over lines.
//!
//! A text counts as a code only if it cannot be anything else. A piece of a URL is joined with the
//! lines after it, or asked for again; it is never sent to the provider as a code.

use std::collections::VecDeque;

use secrecy::{ExposeSecret, SecretString};
use url::form_urlencoded;

use super::loopback::{Decision, is_code};

/// Characters that surround a URL, or that begin each quoted line of a mail.
const AROUND: [char; 14] = [
    '"', '\'', '`', '<', '>', '(', ')', '“', '”', '‘', '’', '„', '«', '»',
];

/// A URL with more lines, or with more bytes, is not the expected redirect.
const MOST_LINES: usize = 64;
const LONGEST: usize = 16 * 1024;

/// Collects lines until they contain the authorization response.
pub struct Pasted {
    state: SecretString,
    /// The beginning of an incomplete URL; empty if there is none.
    begun: String,
    /// The `state` of the foreign URL that was just refused, as far as its line contained it.
    foreign: String,
}

/// The result of the lines so far.
pub enum PastedStep {
    Decided(Decision),
    /// The person must paste again.
    Refused(Refused),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The URL belongs to another sign-in.
    Foreign,
    /// The text may be the beginning of a URL.
    Unfinished,
    /// The text contains no code.
    Nothing,
}

impl Pasted {
    pub fn new(state: SecretString) -> Self {
        Self {
            state,
            begun: String::new(),
            foreign: String::new(),
        }
    }

    /// Interprets the first of `lines`, with as many of the following lines as belong to it. None
    /// if no text is left. Pass all lines that arrived together, since the first alone may look
    /// complete.
    pub fn step(&mut self, lines: &mut VecDeque<String>) -> Option<PastedStep> {
        loop {
            let line = lines.pop_front()?;
            let line = bare(&line);
            if line.is_empty() {
                // An empty line discards the incomplete URL.
                self.begun.clear();
                self.foreign.clear();
                continue;
            }
            if begins_a_url(line) {
                self.begun.clear();
            }
            if let Some(decision) = self.joined(line, lines) {
                return Some(PastedStep::Decided(decision));
            }
            let foreign = std::mem::take(&mut self.foreign);
            if foreign.is_empty() || !self.is_rest_of(&foreign, line) {
                return Some(self.alone(line));
            }
        }
    }

    /// The response in the line, joined with the incomplete URL before it or with following lines.
    /// Tries the longest combination first, and removes the lines that it used from `lines`.
    fn joined(&self, line: &str, lines: &mut VecDeque<String>) -> Option<Decision> {
        let following: Vec<_> = lines
            .iter()
            .map(|line| bare(line).to_owned())
            .take_while(|line| !line.is_empty() && !begins_a_url(line))
            .take(MOST_LINES)
            .collect();
        for before in [self.begun.as_str(), ""] {
            for count in (0..=following.len()).rev() {
                let whole = format!("{before}{line}{}", following[..count].concat());
                let query = query_of(&whole).filter(|_| whole.len() <= LONGEST);
                if let Some(Ok(decision)) = query.map(|it| Decision::in_query(it, &self.state)) {
                    lines.drain(..count);
                    return Some(decision);
                }
            }
        }
        None
    }

    /// Classifies a line that contains no complete response.
    fn alone(&mut self, line: &str) -> PastedStep {
        let whole = format!("{}{line}", self.begun);
        if whole.len() > LONGEST {
            self.begun.clear();
            return PastedStep::Refused(Refused::Nothing);
        }
        let is_begun = !self.begun.is_empty();
        let query = query_of(&whole);
        let foreign = query.and_then(|query| self.foreign_state(query));
        if let Some(state) = foreign.filter(|_| !is_begun) {
            self.foreign = state;
            return PastedStep::Refused(Refused::Foreign);
        }
        if query.is_some() || is_begun || line.contains("://") {
            self.begun = whole;
            return PastedStep::Refused(Refused::Unfinished);
        }
        // A line break can cut a URL inside one of these words.
        let is_word_of_a_url = ["https", "localhost", "code", "state", "error"]
            .iter()
            .any(|word| word.starts_with(line));
        if is_only_a_code(line) && !is_word_of_a_url && !self.state.expose_secret().contains(line) {
            return PastedStep::Decided(Decision::Code(line.into()));
        }
        PastedStep::Refused(Refused::Nothing)
    }

    /// The `state` in a query of another sign-in: ours does not begin with it, or it is repeated.
    /// The beginning of ours is allowed because the line may break inside it.
    fn foreign_state(&self, query: &str) -> Option<String> {
        let mut states = form_urlencoded::parse(query.as_bytes())
            .filter(|(name, _)| name == "state")
            .map(|(_, state)| state.into_owned());
        let state = states.next()?;
        let is_ours = self.state.expose_secret().starts_with(&state);
        (!is_ours || states.next().is_some()).then_some(state)
    }

    /// Whether a line completes the `state` of the foreign URL before it. Every `state` has the
    /// same length.
    fn is_rest_of(&self, foreign: &str, line: &str) -> bool {
        foreign.len() + line.len() == self.state.expose_secret().len()
    }
}

/// Removes quotation marks, brackets and white space around a line.
fn bare(line: &str) -> &str {
    line.trim_matches(|c: char| c.is_whitespace() || c.is_control() || AROUND.contains(&c))
}

fn begins_a_url(line: &str) -> bool {
    line.contains("http://") || line.contains("https://")
}

/// The query of a URL, of a part of one, or by itself.
fn query_of(text: &str) -> Option<&str> {
    let text = text.split('#').next().unwrap_or_default();
    match text.split_once('?') {
        Some((_, query)) => Some(query),
        None => text.contains('=').then_some(text),
    }
    .map(|query| query.trim_start_matches('&'))
}

/// Whether a text is a code and not part of a URL: it has only the unreserved characters of a URL
/// and those of base64, except the slash. Other codes are accepted only in their URL.
fn is_only_a_code(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+".contains(&byte);
    is_code(text) && text.trim_end_matches('=').bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: &str = "Yk1mT2x4c0ZzZ0hGd0tqU3pBcVJ2VnBYd0l6bWJnaE4";

    /// Reads these lines, pasted together: returns each refusal, and the code.
    fn read(pasted: &mut Pasted, text: &str) -> (Vec<Refused>, Option<String>) {
        let mut lines: VecDeque<_> = text.lines().map(str::to_owned).collect();
        let mut refused = Vec::new();
        while let Some(step) = pasted.step(&mut lines) {
            match step {
                PastedStep::Decided(Decision::Code(code)) => {
                    return (refused, Some(code.expose_secret().to_owned()));
                }
                PastedStep::Decided(Decision::Refused(word)) => {
                    return (refused, Some(format!("refused: {word}")));
                }
                PastedStep::Refused(why) => refused.push(why),
            }
        }
        (refused, None)
    }

    fn at_once(text: &str) -> (Vec<Refused>, Option<String>) {
        read(&mut Pasted::new(STATE.into()), text)
    }

    fn code_in(text: &str) -> Option<String> {
        at_once(text).1
    }

    #[test]
    fn a_code_is_taken_by_itself_and_from_the_url_in_whatever_it_was_put() {
        let query = format!("code=the-code&expires_in=1&state={STATE}");
        let url = format!("http://localhost:7433/callback?{query}");
        for text in [
            "the-code".to_owned(),
            " the-code \n".to_owned(),
            "\"the-code\"".to_owned(),
            "<the-code>".to_owned(),
            url.clone(),
            format!("https://example.org/cb?state={STATE}&code=the%2Dcode"),
            format!("{url}#_=_"),
            format!("\"{url}\""),
            format!("'{url}'"),
            format!("“{url}”"),
            format!("`{url}`"),
            format!("<{url}>"),
            format!("(<{url}>)"),
            format!("> {url}"),
            format!("\t{url}\r"),
            format!("?{query}"),
            query.clone(),
            format!("&{query}"),
            format!("\"?{query}\""),
            format!("/callback?{query}"),
            format!("localhost:7433/callback?{query}"),
            format!("Location: {url}"),
        ] {
            assert_eq!(code_in(&text).as_deref(), Some("the-code"), "{text}");
        }
        let denied = format!("<?error=access_denied&state={STATE}>");
        assert_eq!(code_in(&denied).as_deref(), Some("refused: access_denied"));
    }

    /// Breaks the URL at every position, with the characters that mails and terminals add there.
    #[test]
    fn a_url_that_is_broken_over_lines_is_put_together_or_asked_for_again() {
        for order in [
            format!("code=the-code&expires_in=1&state={STATE}"),
            format!("state={STATE}&code=the-code"),
        ] {
            let url = format!("http://localhost:7433/callback?{order}");
            for at in 1..url.len() {
                let (head, tail) = url.split_at(at);
                for text in [
                    format!("{head}\n{tail}"),
                    format!("\"{head}\r\n  {tail}\""),
                    format!("<{head}\n> {tail}>\n\n"),
                ] {
                    assert_eq!(code_in(&text).as_deref(), Some("the-code"), "{text}");
                }
                // Paste the rest later, unless the first part alone already looks complete.
                let is_whole = Decision::in_query(query_of(head).unwrap_or(""), &STATE.into());
                if is_whole.is_err() {
                    let mut pasted = Pasted::new(STATE.into());
                    let (refused, none) = read(&mut pasted, head);
                    assert_eq!((refused.len(), none), (1, None), "{head}");
                    let late = read(&mut pasted, tail).1;
                    let is_right = late.as_deref().is_none_or(|code| code == "the-code");
                    assert!(is_right, "{head} {tail}: {late:?}");
                }
            }
            let thirds: Vec<_> = url.as_bytes().chunks(25).collect();
            let lines: Vec<_> = thirds
                .iter()
                .map(|part| std::str::from_utf8(part).unwrap())
                .collect();
            assert_eq!(code_in(&lines.join("\n")).as_deref(), Some("the-code"));
        }
    }

    #[test]
    fn no_piece_of_a_url_is_taken_for_a_code() {
        for text in [
            "http://localhost:7433/callback",
            "localhost:7433/callback",
            "/callback",
            "code=the-code",
            "?code=the-code",
            "the-code&expires_in=1",
            "%66oo",
            "state",
            &format!("&state={STATE}"),
            &format!("1&state={STATE}"),
            STATE,
            &STATE[20..],
            "two words",
            "\u{1b}[31m",
            "\"a\" \"b\"",
            "{\"code\":\"c\"}",
            "",
            &"x".repeat(5000),
        ] {
            let code = code_in(text);
            assert!(code.is_none(), "{text}: {code:?}");
        }
        // The last lines of a URL are refused too, after its first line was refused.
        let mut pasted = Pasted::new(STATE.into());
        for piece in [
            "http://localhost/?code=the",
            "-code&state=Yk1m",
            "xyz",
            "uvw",
        ] {
            assert_eq!(read(&mut pasted, piece).1, None, "{piece}");
        }
        // An empty line, or the complete URL, discards the incomplete one.
        assert_eq!(read(&mut pasted, "\nxyz").1.as_deref(), Some("xyz"));
        let mut pasted = Pasted::new(STATE.into());
        read(&mut pasted, "http://localhost/?code=the");
        let whole = format!("http://localhost/?code=c&state={STATE}");
        assert_eq!(read(&mut pasted, &whole).1.as_deref(), Some("c"));
    }

    #[test]
    fn what_is_of_another_sign_in_or_says_nothing_is_told_apart() {
        let lines = "\nnot a code\nhttps://example.org/?code=c&state=s\nthe-code\n";
        let expected = vec![Refused::Nothing, Refused::Foreign];
        assert_eq!(at_once(lines), (expected, Some("the-code".to_owned())));
        for (query, why) in [
            ("code=c", Refused::Unfinished),
            ("code=c&state=another", Refused::Foreign),
            ("error=access_denied&state=another", Refused::Foreign),
            (
                &format!("code=c&state={STATE}&state={STATE}"),
                Refused::Foreign,
            ),
            (&format!("state={STATE}"), Refused::Unfinished),
            (&format!("state={STATE}&code=a&code=b"), Refused::Unfinished),
        ] {
            let text = format!("http://localhost:7433/callback?{query}");
            assert_eq!(at_once(&text), (vec![why], None), "{query}");
        }
        // The rest of a foreign URL is not taken for a code.
        let (head, tail) = ("x".repeat(20), "y".repeat(STATE.len() - 20));
        let text = format!("http://localhost/?code=c&state={head}\n{tail}");
        assert_eq!(at_once(&text), (vec![Refused::Foreign], None));
    }
}
