//! Enforces the tables of `docs/ARCHITECTURE.md`: the modules that each module may use, and the
//! modules that may name certain other crates.

use std::path::Path;

use crate::{
    files_below,
    paths::{Named, named_in, tests_that_are_shipped},
    read, root, table,
};

/// The content of both tables.
struct Directions {
    /// Each module, with the modules that it may use.
    modules: Vec<(String, Vec<String>)>,
    /// Each path of another crate, with the modules that may name it.
    foreign: Vec<(String, Vec<String>)>,
}

impl Directions {
    fn of_the_paper() -> Self {
        let paper = read("docs/ARCHITECTURE.md");
        let rows = |head: &[&str]| {
            table(&paper, head)
                .into_iter()
                .flat_map(|row| {
                    let allowed = words(&row[1]);
                    words(&row[0])
                        .into_iter()
                        .map(move |name| (name, allowed.clone()))
                })
                .collect()
        };
        Self {
            modules: rows(&["module", "may use"]),
            foreign: rows(&["path", "named only in"]),
        }
    }

    fn allowed(&self, module: &str) -> Option<&[String]> {
        let row = self.modules.iter().find(|(name, _)| name == module)?;
        Some(&row.1)
    }

    /// The fault, if this module may not name this path.
    fn fault(&self, module: &str, named: &Named) -> Option<String> {
        let path = named.segments.join("::");
        let foreign = self.foreign.iter().find(|(prefix, modules)| {
            let is_it = path == *prefix || path.starts_with(&format!("{prefix}::"));
            is_it && !modules.iter().any(|allowed| allowed == module)
        });
        if let Some((prefix, modules)) = foreign {
            return Some(format!(
                "{module} names {path}; {prefix} is for {} only",
                modules.join(", ")
            ));
        }
        let (first, used) = (named.segments.first()?, named.segments.get(1)?);
        if first != "crate" || used == module {
            return None;
        }
        if named.is_handed_on {
            return Some(format!("{module} hands on {path}, which is not its own"));
        }
        let is_module = self.allowed(used).is_some();
        let is_allowed = self.allowed(module)?.contains(used);
        (is_module && !is_allowed).then(|| format!("{module} may not use {used}: {path}"))
    }
}

/// The words in backticks in a table cell.
fn words(cell: &str) -> Vec<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// The module path of a file under `src`, as segments.
fn module_of(file: &Path) -> Vec<String> {
    let relative = file.with_extension("");
    let mut segments: Vec<_> = relative
        .iter()
        .map(|segment| segment.to_str().expect("our names are ASCII").to_owned())
        .collect();
    if segments.last().is_some_and(|last| last == "mod") {
        segments.pop();
    }
    segments
}

#[test]
fn every_module_uses_only_what_the_table_allows() {
    let directions = Directions::of_the_paper();
    let sources = root().join("src");
    let mut faults = Vec::new();
    for file in files_below(&sources) {
        let relative = file.strip_prefix(&sources).expect("it was found there");
        if file.extension().is_none_or(|end| end != "rs") || relative == Path::new("lib.rs") {
            continue;
        }
        let segments = module_of(relative);
        let module = &segments[0];
        assert!(
            directions.allowed(module).is_some(),
            "docs/ARCHITECTURE.md does not say what {module} may use"
        );
        let source = std::fs::read_to_string(&file).expect("a source is text");
        let segments: Vec<_> = segments.iter().map(String::as_str).collect();
        for line in tests_that_are_shipped(&source) {
            faults.push(format!(
                "src/{}:{line}: tests without cfg(test)",
                relative.display()
            ));
        }
        for named in named_in(&source, &segments) {
            if named.is_in_tests {
                continue;
            }
            if let Some(fault) = directions.fault(module, &named) {
                faults.push(format!(
                    "src/{}:{}: {fault}",
                    relative.display(),
                    named.line
                ));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn the_table_has_no_circles() {
    let directions = Directions::of_the_paper();
    for (at, (module, uses)) in directions.modules.iter().enumerate() {
        for used in uses {
            let place = directions.modules.iter().position(|(name, _)| name == used);
            assert!(
                place.is_some_and(|place| place > at),
                "{module} may use {used}, so {used} must stand below it"
            );
        }
    }
}

#[test]
fn every_row_of_the_table_is_a_module_there_is() {
    let lib = read("src/lib.rs");
    let directions = Directions::of_the_paper();
    let declared: Vec<_> = lib
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .collect();
    for (module, _) in &directions.modules {
        let is_there = module == "main" || declared.contains(&module.as_str());
        assert!(is_there, "there is no module {module}");
    }
    for module in declared {
        assert!(directions.allowed(module).is_some(), "{module} has no row");
    }
}

#[test]
fn the_checker_catches_what_is_planted() {
    let directions = Directions::of_the_paper();
    let planted = [
        ("http", "use crate::store::Store;"),
        (
            "http",
            "use crate::{error::Error, outbound::{self, Caller}};",
        ),
        ("http", "fn f() { crate::connectors::registry(); }"),
        ("http", "mod inner { use super::super::store::Store; }"),
        ("http", "fn f() { println!(\"{}\", crate::store::NAME) }"),
        ("connectors", "use crate::gateway::Gateway;"),
        ("connectors", "type A = reqwest::Client;"),
        ("directory", "use std::{collections::BTreeMap, fs};"),
        ("directory", "use crate::clock::Clock;"),
        ("model", "async fn f() { tokio::task::yield_now().await }"),
        ("gateway", "use sqlx::Row;"),
        ("http", "use governor as g;"),
        ("gateway", "pub use crate::store::Store;"),
        ("store", "use moka::sync::Cache;"),
        ("outbound", "use crate::config::Config;"),
        ("cli", "use actix_web::web;"),
        ("http", "use crate::gateway::{Gateway, admin::Operator};"),
        ("app", "use smartsheet_simulator::Simulator;"),
        ("main", "fn main() { rolecall::gateway::f() }"),
    ];
    for (module, source) in planted {
        let found = named_in(source, &[module])
            .iter()
            .any(|named| directions.fault(module, named).is_some());
        assert!(found, "{module}: {source}");
    }
}

#[test]
fn the_checker_lets_pass_what_is_allowed() {
    let directions = Directions::of_the_paper();
    let fine = [
        (
            "http",
            "use crate::{error::Error, gateway::Gateway}; use actix_web::web;",
        ),
        (
            "http",
            "use super::query::Query; pub use self::answer::finish;",
        ),
        (
            "gateway",
            "use crate::{store::Store, outbound::Caller}; use moka::sync::Cache;",
        ),
        (
            "directory",
            "use std::collections::BTreeMap; /* use std::fs; */",
        ),
        (
            "store",
            "use sqlx::Row; const NOTE: &str = \"crate::gateway\";",
        ),
        ("main", "fn main() { rolecall::cli::run() }"),
    ];
    for (module, source) in fine {
        for named in named_in(source, &[module]) {
            assert_eq!(directions.fault(module, &named), None, "{module}: {source}");
        }
    }
}
