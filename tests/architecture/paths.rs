//! Finds the paths that a source file names: in `use` trees, in expressions and types, and inside
//! macros.
//!
//! It reads tokens, not syntax: it skips comments and string literals, and reads macro arguments
//! like other code.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A path that a source names, resolved from the crate's root: `crate::store::Store`, even if the
/// source says `super::Store`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub segments: Vec<String>,
    pub line: usize,
    /// Whether this is a re-export (`pub use`).
    pub is_handed_on: bool,
    /// Whether it is inside a module called `tests`.
    pub is_in_tests: bool,
}

/// The paths in `source`, the file of the module `module` (`["gateway", "walk"]`; empty for the
/// crate's root).
pub fn named_in(source: &str, module: &[&str]) -> Vec<Named> {
    let tokens: TokenStream = source.parse().expect("a source is made of Rust's tokens");
    let mut reader = Reader { named: Vec::new() };
    let module: Vec<_> = module.iter().map(|&segment| segment.to_owned()).collect();
    reader.read(tokens, &module);
    reader.named
}

/// The lines in `source` that declare a module `tests` without `#[cfg(test)]` before it.
pub fn tests_that_are_shipped(source: &str) -> Vec<usize> {
    let tokens: TokenStream = source.parse().expect("a source is made of Rust's tokens");
    let tokens: Vec<_> = tokens.into_iter().collect();
    let is_word = |at: usize, wanted: &str| matches!(tokens.get(at), Some(TokenTree::Ident(word)) if word == wanted);
    let is_test_only = |at: usize| {
        at >= 2
            && is_punct(tokens.get(at - 2), '#')
            && tokens[at - 1].to_string().replace(' ', "") == "[cfg(test)]"
    };
    (0..tokens.len())
        .filter(|&at| is_word(at, "mod") && is_word(at + 1, "tests") && !is_test_only(at))
        .map(|at| line_of(&tokens[at]))
        .collect()
}

struct Reader {
    named: Vec<Named>,
}

impl Reader {
    fn read(&mut self, tokens: TokenStream, module: &[String]) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            match token {
                // `use<'a>` is a list of captured lifetimes, not an import.
                TokenTree::Ident(word) if word == "use" && !is_punct(tokens.get(at + 1), '<') => {
                    let end = (at..tokens.len())
                        .find(|&end| is_punct(tokens.get(end), ';'))
                        .unwrap_or(tokens.len());
                    let is_handed_on = is_public(&tokens[..at]);
                    self.read_use_tree(&tokens[at + 1..end], &[], module, is_handed_on);
                    at = end;
                }
                TokenTree::Ident(word) if word == "mod" && is_body(tokens.get(at + 2)) => {
                    let mut inner = module.to_vec();
                    inner.push(tokens[at + 1].to_string());
                    self.read_group(&tokens[at + 2], &inner);
                    at += 3;
                }
                TokenTree::Ident(_) if !is_field(&tokens[..at]) => {
                    let (segments, end) = path_at(&tokens, at);
                    if segments.len() > 1 {
                        self.note(&segments, module, line_of(token), false);
                    }
                    at = end;
                }
                TokenTree::Group(_) => {
                    self.read_group(token, module);
                    at += 1;
                }
                _ => at += 1,
            }
        }
    }

    fn read_group(&mut self, token: &TokenTree, module: &[String]) {
        if let TokenTree::Group(group) = token {
            self.read(group.stream(), module);
        }
    }

    /// Reads one tree or a list of trees, such as `a::{b, super::c as d}`, after `prefix`.
    fn read_use_tree(
        &mut self,
        tokens: &[TokenTree],
        prefix: &[String],
        module: &[String],
        is_handed_on: bool,
    ) {
        for tree in tokens.split(|token| is_punct(Some(token), ',')) {
            let start = tree.iter().take_while(|&t| is_punct(Some(t), ':')).count();
            if start == tree.len() {
                continue;
            }
            let (segments, end) = path_at(tree, start);
            let path = [prefix, segments.as_slice()].concat();
            match tree.get(end) {
                Some(TokenTree::Group(group)) => {
                    let inner: Vec<_> = group.stream().into_iter().collect();
                    self.read_use_tree(&inner, &path, module, is_handed_on);
                }
                // The path ends here, or a glob or `as` follows.
                _ => self.note(&path, module, line_of(&tree[start]), is_handed_on),
            }
        }
    }

    fn note(&mut self, path: &[String], module: &[String], line: usize, is_handed_on: bool) {
        self.named.push(Named {
            segments: resolved(path, module),
            line,
            is_handed_on,
            is_in_tests: module.iter().any(|segment| segment == "tests"),
        });
    }
}

/// The identifiers joined by `::` from `at` on, and the index after them.
fn path_at(tokens: &[TokenTree], mut at: usize) -> (Vec<String>, usize) {
    let mut segments = Vec::new();
    while let Some(TokenTree::Ident(word)) = tokens.get(at) {
        segments.push(word.to_string());
        at += 1;
        if !(is_punct(tokens.get(at), ':') && is_punct(tokens.get(at + 1), ':')) {
            break;
        }
        at += 2;
    }
    (segments, at)
}

/// Resolves a path from the crate's root. A path that begins with another crate's name stays as it
/// is.
fn resolved(path: &[String], module: &[String]) -> Vec<String> {
    let own_crate = |rest: &[String]| [&["crate".to_owned()], rest].concat();
    match path[0].as_str() {
        "crate" => path.to_vec(),
        // `main.rs` and the tests use the crate's name.
        "rolecall" => own_crate(&path[1..]),
        "self" | "super" => {
            let ups = path.iter().filter(|&segment| segment == "super").count();
            let stays = &module[..module.len().saturating_sub(ups)];
            let rest = path
                .iter()
                .filter(|&segment| segment != "super" && segment != "self");
            own_crate(&[stays, &rest.cloned().collect::<Vec<_>>()].concat())
        }
        _ => path.to_vec(),
    }
}

/// Whether these tokens end with the single dot of a field or method, and not with the two dots of
/// a range.
fn is_field(before: &[TokenTree]) -> bool {
    let dots = before.iter().rev().take_while(|t| is_punct(Some(t), '.'));
    dots.count() == 1
}

fn is_punct(token: Option<&TokenTree>, wanted: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}

fn is_body(token: Option<&TokenTree>) -> bool {
    matches!(token, Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace)
}

/// Whether these tokens end with `pub` or `pub(…)`.
fn is_public(before: &[TokenTree]) -> bool {
    let word = match before {
        [.., word, TokenTree::Group(group)] if group.delimiter() == Delimiter::Parenthesis => word,
        [.., word] => word,
        [] => return false,
    };
    matches!(word, TokenTree::Ident(word) if word == "pub")
}

fn line_of(token: &TokenTree) -> usize {
    token.span().start().line
}

#[cfg(test)]
mod tests {
    use super::{named_in, tests_that_are_shipped};

    fn paths(source: &str) -> Vec<String> {
        named_in(source, &["gateway", "walk"])
            .iter()
            .map(|named| named.segments.join("::"))
            .collect()
    }

    #[test]
    fn a_use_tree_is_written_out() {
        let source = "use crate::{error::{Error, Kind}, store::{self, Store as Kept}, model::*};";
        assert_eq!(
            paths(source),
            [
                "crate::error::Error",
                "crate::error::Kind",
                "crate::store::self",
                "crate::store::Store",
                "crate::model",
            ]
        );
    }

    #[test]
    fn super_and_self_lead_from_the_module_they_stand_in() {
        assert_eq!(
            paths("use super::live::Head;"),
            ["crate::gateway::live::Head"]
        );
        assert_eq!(
            paths("use super::super::store::Store;"),
            ["crate::store::Store"]
        );
        assert_eq!(
            paths("use super::{super::http::mount, self::live};"),
            ["crate::http::mount", "crate::gateway::live"]
        );
        assert_eq!(
            paths("mod tests { use super::super::live; fn f() { self::g() } }"),
            ["crate::gateway::live", "crate::gateway::walk::tests::g"]
        );
    }

    #[test]
    fn paths_in_code_and_in_macros_are_seen() {
        let source = r#"
            fn f(of: crate::store::Store) -> Result<Vec<sqlx::Row>, ()> {
                assert!(crate::http::a(of.reqwest.governor::<u8>()));
                let a = A { ..crate::outbound::a() };
                #[actix_web::main] async fn g() {}
                "crate::text" // crate::comment
            }
        "#;
        assert_eq!(
            paths(source),
            [
                "crate::store::Store",
                "sqlx::Row",
                "crate::http::a",
                "crate::outbound::a",
                "actix_web::main"
            ]
        );
    }

    #[test]
    fn a_name_without_a_path_is_seen_in_a_use_only() {
        assert_eq!(paths("use moka; fn f(reqwest: u8) {}"), ["moka"]);
        assert_eq!(paths("use ::moka::sync::Cache;"), ["moka::sync::Cache"]);
        assert_eq!(paths("fn f() -> impl Sized + use<'a> { x }"), [""; 0]);
    }

    #[test]
    fn what_is_handed_on_is_told_apart() {
        for (source, is_handed_on) in [
            ("pub use crate::store::Store;", true),
            ("pub(crate) use crate::store::Store;", true),
            ("use crate::store::Store;", false),
            ("pub struct A; use crate::store::Store;", false),
        ] {
            let named = named_in(source, &["gateway"]);
            assert_eq!(named[0].is_handed_on, is_handed_on, "{source}");
        }
    }

    #[test]
    fn a_module_of_tests_is_told_apart() {
        let source = "#[cfg(test)] mod tests { use sqlx::Row; }\nmod tests;";
        assert!(
            named_in(source, &["http"])
                .iter()
                .all(|named| named.is_in_tests)
        );
        assert!(named_in("use sqlx::Row;", &["http", "tests"])[0].is_in_tests);
        assert!(!named_in("use sqlx::Row;", &["http"])[0].is_in_tests);
        assert_eq!(tests_that_are_shipped(source), [2]);
    }

    #[test]
    fn a_path_is_found_at_its_line() {
        assert_eq!(named_in("\n\nuse crate::store;", &["http"])[0].line, 3);
    }
}
