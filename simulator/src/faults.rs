//! Fault injection: rules that select requests and the fault for each.
//!
//! A rule has a match and a fault. Every rule counts its matching requests; the first rule that
//! matches and is due applies. Faults that change a reply are applied here or by the lists; the
//! server executes those that break the connection.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use crate::call::{BASE, Call, Reply};

/// A rule in the body of `POST /__control/faults`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    #[serde(default, rename = "match")]
    matches: Match,
    /// The number of matching requests that pass first.
    #[serde(default)]
    after: u64,
    /// The number of times that the rule applies; no limit if absent.
    times: Option<u64>,
    fault: Fault,
    #[serde(skip)]
    seen: u64,
    #[serde(skip)]
    struck: u64,
}

/// The conditions on a request. An absent condition matches every request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Match {
    method: Option<String>,
    /// With or without the version: `/2.0/users` and `/users` are equal.
    path_prefix: Option<String>,
    token: Option<String>,
    page: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    Status {
        status: u16,
        error_code: Option<u32>,
        retry_after: Option<String>,
    },
    Delay {
        ms: u64,
    },
    Trickle {
        bytes_per_s: u64,
    },
    Reset,
    DropReply,
    Truncate {
        bytes: usize,
    },
    Body {
        status: u16,
        content_type: String,
        body: String,
    },
    /// Sends a successful reply in another form and with another status: `{{name}}` stands for the
    /// reply's field of that name. A refusal is not changed.
    Reshape {
        status: u16,
        body: String,
    },
    OmitField {
        field: String,
    },
    UnknownEnum {
        field: String,
    },
    EmptyPage,
    CapRows {
        rows: usize,
    },
    RepeatPage,
    DuplicateRows {
        ratio: f64,
    },
}

impl Fault {
    fn is_for_lists(&self) -> bool {
        matches!(
            self,
            Fault::EmptyPage
                | Fault::CapRows { .. }
                | Fault::RepeatPage
                | Fault::DuplicateRows { .. }
        )
    }

    fn check(&self) -> Result<(), String> {
        let is_header = |text: &str| text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        match self {
            Fault::Status { status, .. }
            | Fault::Body { status, .. }
            | Fault::Reshape { status, .. }
                if !(200..600).contains(status) =>
            {
                Err(format!("{status} is not a final HTTP status"))
            }
            Fault::Status {
                retry_after: Some(value),
                ..
            } if !is_header(value) => Err("retry_after is a header: printable ASCII".to_owned()),
            Fault::Body { content_type, .. } if !is_header(content_type) => {
                Err("content_type is a header: printable ASCII".to_owned())
            }
            Fault::Trickle { bytes_per_s: 0 } => Err("bytes_per_s is at least 1".to_owned()),
            Fault::DuplicateRows { ratio } if !(0.0..=1.0).contains(ratio) => {
                Err("ratio is from 0 to 1".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Changes the reply, if this fault is of that kind.
    pub fn edit(&self, reply: &mut Reply) {
        let edit = |edit: &dyn Fn(&mut Value)| -> Option<Bytes> {
            let mut body: Value = serde_json::from_slice(&reply.body).ok()?;
            edit(&mut body);
            serde_json::to_vec(&body).ok().map(Bytes::from)
        };
        let edited = match self {
            Fault::OmitField { field } => edit(&|body| {
                for object in objects_with(body, field) {
                    object.remove(field);
                }
            }),
            Fault::UnknownEnum { field } => edit(&|body| {
                for object in objects_with(body, field) {
                    object.insert(field.clone(), Value::from("SOMETHING_NEW"));
                }
            }),
            _ => None,
        };
        if let Some(body) = edited {
            reply.body = body;
        }
        if let Fault::Reshape { status, body } = self
            && (200..300).contains(&reply.status)
        {
            reply.body = filled(body, &reply.body).into();
            reply.status = *status;
        }
    }
}

/// Fills the fields of a reply into a form: texts unquoted, other values as JSON.
fn filled(form: &str, served: &[u8]) -> String {
    let served: Value = serde_json::from_slice(served).unwrap_or_default();
    let fields = served.as_object().into_iter().flatten();
    fields.fold(form.to_owned(), |form, (name, value)| {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        form.replace(&format!("{{{{{name}}}}}"), &text)
    })
}

type Object = serde_json::Map<String, Value>;

/// The object itself if it has the field, else its rows that have it: `data` or a group's
/// `members`.
fn objects_with<'a>(body: &'a mut Value, field: &str) -> Vec<&'a mut Object> {
    let Some(object) = body.as_object_mut() else {
        return Vec::new();
    };
    if object.contains_key(field) {
        return vec![object];
    }
    let mut found = Vec::new();
    for (name, rows) in object.iter_mut() {
        if matches!(name.as_str(), "data" | "members") {
            let rows = rows.as_array_mut().into_iter().flatten();
            found.extend(
                rows.filter_map(Value::as_object_mut)
                    .filter(|row| row.contains_key(field)),
            );
        }
    }
    found
}

impl Match {
    fn is_met(&self, call: &Call, token: Option<&str>) -> bool {
        let path_begins = |prefix: &String| {
            let bare = call.path.strip_prefix(BASE).unwrap_or(&call.path);
            call.path.starts_with(prefix.as_str()) || bare.starts_with(prefix.as_str())
        };
        self.method
            .as_ref()
            .is_none_or(|method| method.eq_ignore_ascii_case(&call.method))
            && self.path_prefix.as_ref().is_none_or(path_begins)
            && self.token.as_ref().is_none_or(|name| token == Some(name))
            && self.page.is_none_or(|page| call.page() == Some(page))
    }
}

/// The active rules.
#[derive(Clone, Debug, Default)]
pub struct Faults(Vec<Rule>);

impl Faults {
    /// Validates a list of rules; one invalid rule refuses them all.
    pub fn new(rules: Vec<Rule>) -> Result<Self, String> {
        for (index, rule) in rules.iter().enumerate() {
            rule.fault
                .check()
                .map_err(|why| format!("fault {index}: {why}"))?;
        }
        Ok(Self(rules))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The fault for this request, if there is one.
    pub fn strike(&mut self, call: &Call, token: Option<&str>) -> Option<Fault> {
        let is_list = call.is_list();
        let mut struck = None;
        for rule in &mut self.0 {
            if !rule.matches.is_met(call, token) || (rule.fault.is_for_lists() && !is_list) {
                continue;
            }
            rule.seen += 1;
            let is_due =
                rule.seen > rule.after && rule.times.is_none_or(|times| rule.struck < times);
            if is_due && struck.is_none() {
                rule.struck += 1;
                struck = Some(rule.fault.clone());
            }
        }
        struck
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(rules: Value) -> Faults {
        Faults::new(serde_json::from_value(rules).unwrap()).unwrap()
    }

    fn get(path: &str) -> Call {
        Call {
            method: "GET".into(),
            path: path.into(),
            ..Call::default()
        }
    }

    #[test]
    fn the_first_that_matches_and_is_due_strikes() {
        let mut faults = faults(serde_json::json!([
            {"match": {"path_prefix": "/users"}, "after": 1, "times": 1, "fault": {"kind": "reset"}},
            {"match": {"method": "get"}, "fault": {"kind": "delay", "ms": 1}},
        ]));
        let call = get("/2.0/users");
        assert_eq!(faults.strike(&call, None), Some(Fault::Delay { ms: 1 }));
        assert_eq!(faults.strike(&call, None), Some(Fault::Reset));
        assert_eq!(faults.strike(&call, None), Some(Fault::Delay { ms: 1 }));
    }

    #[test]
    fn faults_for_lists_leave_other_calls_alone() {
        let mut faults = faults(serde_json::json!([{"times": 1, "fault": {"kind": "empty_page"}}]));
        assert_eq!(faults.strike(&get("/2.0/users/me"), None), None);
        assert_eq!(
            faults.strike(&get("/2.0/groups"), None),
            Some(Fault::EmptyPage)
        );
        assert_eq!(faults.strike(&get("/2.0/groups"), None), None);
    }

    #[test]
    fn what_was_served_is_said_in_another_form() {
        let fault: Fault = serde_json::from_value(serde_json::json!({
            "kind": "reshape", "status": 500,
            "body": r#"{"t":{"a":"{{access_token}}","e":{{expires_in}},"x":"{{none}}"}}"#,
        }))
        .unwrap();
        let served = serde_json::json!({"access_token": "A", "expires_in": 7});
        let mut reply = Reply::json(200, &served);
        fault.edit(&mut reply);
        assert_eq!(reply.status, 500);
        assert_eq!(reply.body, r#"{"t":{"a":"A","e":7,"x":"{{none}}"}}"#);
        let mut refused = Reply::json(400, &served);
        fault.edit(&mut refused);
        assert_eq!(refused.status, 400);
        assert_eq!(refused.body, r#"{"access_token":"A","expires_in":7}"#);
    }

    #[test]
    fn a_list_call_without_a_page_is_page_one() {
        let rules = serde_json::json!([{"match": {"page": 1}, "fault": {"kind": "reset"}}]);
        assert_eq!(
            faults(rules.clone()).strike(&get("/2.0/users"), None),
            Some(Fault::Reset)
        );
        assert_eq!(faults(rules).strike(&get("/2.0/users/me"), None), None);
    }
}
