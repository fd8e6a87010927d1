//! The language of the project (CONTRIBUTING.md): plain sentences, American spelling, one name for
//! one type.

use std::collections::BTreeMap;

use crate::{files_below, read, root};

/// Of a thousand words, at most this many may begin a clause such as "what it was" or "who has".
const MAX_RIDDLES_PER_MILLE: f64 = 2.0;

const AFTER_WHAT: [&str; 16] = [
    "was", "is", "are", "were", "it", "they", "has", "had", "came", "comes", "does", "may", "can",
    "will", "would", "a",
];
const ALSO_AFTER_WHAT: [&str; 2] = ["the", "an"];
const AFTER_WHO: [&str; 13] = [
    "has", "asks", "is", "was", "links", "calls", "may", "can", "knows", "only", "brought",
    "serves", "holds",
];

/// British forms, by how they begin.
const BRITISH: [&str; 13] = [
    "organisation",
    "authoris",
    "serialis",
    "normalis",
    "recognis",
    "initialis",
    "synchronis",
    "colour",
    "behaviour",
    "honour",
    "catalogue",
    "cancelled",
    "misspelt",
];

/// Words of the API that clients match, and the name of a file.
const STABLE: [&str; 3] = [
    "organisation_mismatch",
    "organisation_changed",
    "how-long-a-proof-is-honoured",
];

/// Each command of clap has its own.
const SHARED_TYPE_NAMES: [&str; 2] = ["Arguments", "Command"];

/// The prose of a file: comments of sources and settings, and all of a document.
fn prose(path: &std::path::Path) -> Option<String> {
    let text = || std::fs::read_to_string(path).expect("a source is text");
    let comments = |mark: &str| {
        let all = text();
        let lines = all.lines().filter_map(|line| {
            let line = line.trim_start();
            line.strip_prefix(mark)
                .map(|rest| rest.trim_start_matches(['/', '!', '#']).to_owned())
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    match path.extension()?.to_str()? {
        "rs" => Some(comments("//")),
        "toml" => Some(comments("#")),
        "md" => Some(text()),
        _ => None,
    }
}

/// Every file whose prose counts.
fn all_prose() -> Vec<(String, String)> {
    let folders = ["src", "simulator/src", "docs", "config"];
    let files = folders
        .iter()
        .flat_map(|folder| files_below(&root().join(folder)));
    let pages = ["README.md", "CONTRIBUTING.md"].map(|page| root().join(page));
    files
        .chain(pages)
        .filter_map(|path| Some((path.display().to_string(), prose(&path)?)))
        .collect()
}

fn words(text: &str) -> Vec<String> {
    text.split(|letter: char| !letter.is_ascii_alphabetic() && letter != '\'')
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .collect()
}

fn riddles(words: &[String]) -> usize {
    let pairs = words.windows(2).filter(|pair| match pair[0].as_str() {
        "what" => {
            let next = pair[1].as_str();
            AFTER_WHAT.contains(&next) || ALSO_AFTER_WHAT.contains(&next)
        }
        "who" => AFTER_WHO.contains(&pair[1].as_str()) || pair[1] == "sees",
        _ => false,
    });
    let whoevers = words
        .iter()
        .filter(|word| ["whoever", "whomever"].contains(&word.as_str()));
    pairs.count() + whoevers.count()
}

#[test]
fn sentences_name_their_subject() {
    let (mut all, mut found) = (0, 0);
    for (_, text) in all_prose() {
        let words = words(&text);
        all += words.len();
        found += riddles(&words);
    }
    assert!(all > 50_000, "the prose was not found: {all} words");
    #[expect(clippy::cast_precision_loss, reason = "a few hundred thousand words")]
    let per_mille = 1000.0 * found as f64 / all as f64;
    assert!(per_mille < MAX_RIDDLES_PER_MILLE, "{found} in {all} words");
    let planted = words("Whoever has what was made, and who asks what the rest is");
    assert_eq!(riddles(&planted), 4);
}

#[test]
fn spelling_is_american() {
    let mut faults = Vec::new();
    for (path, text) in all_prose() {
        for (number, line) in text.lines().enumerate() {
            let mut line = line.to_ascii_lowercase();
            for stable in STABLE {
                line = line.replace(stable, "");
            }
            for form in BRITISH {
                if words(&line).iter().any(|word| word.starts_with(form)) {
                    faults.push(format!("{path}: line {number} of its prose: {form}"));
                }
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// The type that this line declares.
fn declared(line: &str) -> Option<&str> {
    let trimmed = line.trim_start();
    let rest = match trimmed.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(')')?.1.trim_start(),
        Some(rest) => rest.trim_start(),
        None => trimmed,
    };
    let (keyword, name) = rest.split_once(' ')?;
    let is_alias = keyword == "type" && trimmed.len() == line.len();
    let is_type = ["struct", "enum", "trait", "union"].contains(&keyword) || is_alias;
    let end = name.find(|letter: char| !letter.is_ascii_alphanumeric());
    let name = &name[..end.unwrap_or(name.len())];
    let is_name = name.starts_with(|first: char| first.is_ascii_uppercase());
    (is_type && is_name).then_some(name)
}

#[test]
fn a_name_means_one_type() {
    let mut declarations = BTreeMap::<String, Vec<String>>::new();
    for path in files_below(&root().join("src")) {
        if path.extension().is_none_or(|end| end != "rs") {
            continue;
        }
        let relative = path.strip_prefix(root()).expect("it was found there");
        let relative = relative.display().to_string();
        for line in read(&relative).lines() {
            if let Some(name) = declared(line) {
                let places = declarations.entry(name.to_owned()).or_default();
                places.push(relative.clone());
            }
        }
    }
    assert!(declarations.len() > 400, "{}", declarations.len());
    let faults: Vec<_> = declarations
        .iter()
        .filter(|(name, places)| places.len() > 1 && !SHARED_TYPE_NAMES.contains(&name.as_str()))
        .map(|(name, places)| format!("{name}: {}", places.join(", ")))
        .collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    assert_eq!(declared("    pub(super) struct Page<'a> {"), Some("Page"));
    assert_eq!(declared("        type Value = T;"), None);
}
