//! Compares the documents that describe the code with the code.

use std::collections::BTreeMap;

use rolecall::{
    error::Kind,
    http::{self, error::status},
    model::audit_log::AuditAction,
    telemetry::metrics::ALL,
};
use serde_json::Value;

use crate::{files_below, read, root, table};

/// The operations of the OpenAPI document, by `GET /path`.
fn operations() -> BTreeMap<String, Value> {
    let document = serde_json::to_value(http::document()).expect("the document is plain data");
    let paths = document["paths"].as_object().expect("paths by template");
    paths
        .iter()
        .flat_map(|(path, item)| {
            let item = item.as_object().expect("operations by method");
            item.iter().map(move |(method, operation)| {
                (
                    format!("{} {path}", method.to_uppercase()),
                    operation.clone(),
                )
            })
        })
        .collect()
}

#[test]
fn the_error_table_of_the_api_guide_is_the_code_s() {
    let mut kinds = Kind::ALL;
    kinds.sort_by_key(|kind| status(*kind));
    let expected: Vec<_> = kinds
        .iter()
        .map(|kind| {
            vec![
                status(*kind).to_string(),
                format!("`{}`", kind.code()),
                kind.hint().to_owned(),
            ]
        })
        .collect();
    let written = table(&read("docs/API.md"), &["status", "code", "what to do"]);
    let lines: Vec<_> = expected
        .iter()
        .map(|row| format!("| {} |", row.join(" | ")))
        .collect();
    assert!(
        written == expected,
        "the table in docs/API.md must be:\n{}",
        lines.join("\n")
    );
}

#[test]
fn the_api_guide_says_what_every_action_of_the_audit_log_is() {
    let written: Vec<_> = table(&read("docs/API.md"), &["action", "says"])
        .into_iter()
        .map(|row| row[0].trim_matches('`').to_owned())
        .collect();
    let expected = AuditAction::ALL.map(AuditAction::as_str);
    assert_eq!(written, expected);
}

#[test]
fn the_table_of_metrics_in_the_operators_guide_is_the_code_s() {
    let expected: Vec<_> = ALL
        .iter()
        .map(|metric| {
            let labels: Vec<_> = metric
                .labels
                .iter()
                .map(|label| format!("`{}`", label.name))
                .collect();
            vec![
                format!("`{}`", metric.name),
                metric.kind.as_str().to_owned(),
                labels.join(" "),
                metric.help.to_owned(),
            ]
        })
        .collect();
    let written = table(
        &read("docs/OPERATIONS.md"),
        &["metric", "kind", "labels", "says"],
    );
    let lines: Vec<_> = expected
        .iter()
        .map(|row| format!("| {} |", row.join(" | ")))
        .collect();
    assert!(
        written == expected,
        "the table in docs/OPERATIONS.md must be:\n{}",
        lines.join("\n")
    );
}

#[test]
fn every_route_is_explained() {
    for (name, operation) in operations() {
        for key in ["summary", "description", "operationId"] {
            let text = operation[key].as_str().unwrap_or_default();
            assert!(!text.trim().is_empty(), "{name} has no {key}");
        }
        assert!(
            operation["tags"].as_array().is_some_and(|it| it.len() == 1),
            "{name} must have one tag"
        );
        let parameters = operation["parameters"].as_array();
        let mut seen = Vec::new();
        for parameter in parameters.into_iter().flatten() {
            let place = (&parameter["in"], &parameter["name"]);
            let text = parameter["description"].as_str().unwrap_or_default();
            assert!(
                !text.trim().is_empty(),
                "{name}: {place:?} is not explained"
            );
            assert!(!seen.contains(&place), "{name}: {place:?} is there twice");
            seen.push(place);
        }
    }
}

#[test]
fn every_target_of_the_makefile_has_a_help_text() {
    let makefile = read("Makefile");
    let phony = makefile
        .lines()
        .find_map(|line| line.strip_prefix(".PHONY:"))
        .expect("the Makefile declares its targets");
    let declared: Vec<_> = phony.split_whitespace().collect();
    for line in makefile.lines() {
        let is_rule = line.starts_with(|first: char| first.is_ascii_lowercase());
        let Some((target, rest)) = line.split_once(':').filter(|_| is_rule) else {
            continue;
        };
        let help = rest.split_once("## ").map(|(_, help)| help.trim());
        assert!(help.is_some_and(|help| !help.is_empty()), "{target}");
        assert!(declared.contains(&target), "{target} is not in .PHONY");
    }
}

#[test]
fn every_link_between_our_papers_leads_somewhere() {
    for file in files_below(root()) {
        if file.extension().is_none_or(|end| end != "md") {
            continue;
        }
        let text = std::fs::read_to_string(&file).expect("a paper is text");
        let folder = file.parent().expect("a file is in a folder");
        for target in text.split("](").skip(1) {
            let target = target.split([')', '#']).next().unwrap_or_default();
            let is_ours = !target.is_empty() && !target.contains("://");
            assert!(
                !is_ours || folder.join(target).exists(),
                "{}: {target}",
                file.display()
            );
        }
        // Text in backticks that begins with one of these folders is a path, too.
        for name in text.split('`').skip(1).step_by(2) {
            let is_path = ["src/", "tests/", "config/", "docs/", "simulator/"]
                .iter()
                .any(|start| name.starts_with(start))
                && !name.contains(|c: char| c.is_ascii_uppercase() || c == '{' || c == ' ');
            assert!(
                !is_path || root().join(name).exists() || folder.join(name).exists(),
                "{}: {name}",
                file.display()
            );
        }
    }
}

#[test]
fn every_reference_in_the_api_document_leads_somewhere() {
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str));
                members
                    .values()
                    .for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let document = serde_json::to_value(http::document()).expect("the document is plain data");
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        let place = reference.strip_prefix('#').expect("a reference is local");
        assert!(document.pointer(place).is_some(), "{reference}");
    }
}

/// A path of the machine that the file was written on is of no use to others, and reveals private
/// details.
#[test]
fn no_file_names_a_path_of_somebody_s_machine() {
    let own = root().to_str().expect("a path in UTF-8").to_owned();
    let private: Vec<_> = ["home", "root", "Users", "work", "tmp", "mnt"]
        .map(|first| format!("/{first}/"))
        .into_iter()
        .chain([own])
        .collect();
    for file in files_below(root()) {
        let Ok(text) = std::fs::read_to_string(&file) else {
            continue;
        };
        for (line, content) in (1..).zip(text.lines()) {
            for path in &private {
                let is_named = content.match_indices(path.as_str()).any(|(at, _)| {
                    let before = content[..at].chars().next_back();
                    !before.is_some_and(|c| c.is_alphanumeric() || "./}>_-".contains(c))
                });
                assert!(!is_named, "{}:{line} names {path}", file.display());
            }
        }
    }
}
