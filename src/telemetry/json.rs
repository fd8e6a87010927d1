//! Formats a log line as one flat JSON object: time, level, the event's fields, target.
//!
//! Every request has a line in the access log, so fields are written straight into the line.

use std::fmt::{self, Write};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

/// Initial capacity of a line: enough for one of the access log.
const ROOM: usize = 320;

/// The prefix of the fields in which the bridge from the crate `log` passes a record's metadata.
const BRIDGED: &str = "log.";

pub(super) struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::with_capacity(ROOM);
        line.push_str(r#"{"timestamp":""#);
        SystemTime.format_time(&mut Writer::new(&mut line))?;
        let metadata = event.metadata();
        line.push_str(r#"","level":""#);
        line.push_str(metadata.level().as_str());
        line.push('"');
        let mut fields = JsonFields {
            line,
            bridged_target: None,
        };
        event.record(&mut fields);
        let JsonFields {
            mut line,
            bridged_target,
        } = fields;
        line.push_str(r#","target":"#);
        quote(
            &mut line,
            bridged_target.as_deref().unwrap_or(metadata.target()),
        );
        line.push_str("}\n");
        writer.write_str(&line)
    }
}

/// Appends fields to an open JSON object that already has one.
struct JsonFields {
    line: String,
    /// The target of a record from the crate `log`, in place of the bridge's own target.
    bridged_target: Option<String>,
}

impl JsonFields {
    fn name(&mut self, field: &Field) {
        self.line.push(',');
        quote(&mut self.line, field.name());
        self.line.push(':');
    }

    /// A value that Rust and JSON write in the same way.
    fn plain(&mut self, field: &Field, value: impl fmt::Display) {
        self.name(field);
        write!(self.line, "{value}").expect("writing to a String does not fail");
    }
}

impl Visit for JsonFields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name().strip_prefix(BRIDGED) {
            Some("target") => self.bridged_target = Some(value.to_owned()),
            Some(_) => {}
            None => {
                self.name(field);
                quote(&mut self.line, value);
            }
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if !field.name().starts_with(BRIDGED) {
            self.plain(field, value);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, value);
    }

    /// Messages, and values that are logged by their `Display` or `Debug`.
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// Appends a text as a JSON string.
fn quote(line: &mut String, text: &str) {
    let is_plain = |byte| byte >= b' ' && byte != b'"' && byte != b'\\';
    if text.bytes().all(is_plain) {
        line.push('"');
        line.push_str(text);
        line.push('"');
    } else {
        line.push_str(&serde_json::Value::from(text).to_string());
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use serde_json::{Value, json};

    use super::*;

    /// The lines that `work` logs.
    fn logged(work: impl FnOnce()) -> Vec<Value> {
        let paper = Arc::new(Mutex::new(Vec::new()));
        let pen = Arc::clone(&paper);
        let subscriber = tracing_subscriber::fmt()
            .event_format(Json)
            .with_writer(move || Pen(Arc::clone(&pen)))
            .finish();
        // With a single subscriber, tracing lets the first thread that reaches a log statement
        // decide whether it is enabled. A test in another thread would disable it for this one.
        let _second = tracing::Dispatch::new(tracing_subscriber::registry());
        tracing::subscriber::with_default(subscriber, work);
        let text = String::from_utf8(paper.lock().unwrap().clone()).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    struct Pen(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Pen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_one_flat_object() {
        let mut lines = logged(|| {
            tracing::info!(
                target: "rolecall::access",
                route = "/iam/users",
                status = 200,
                ms = 3_u64,
                cold = false,
                error = %"it broke",
                "request",
            );
        });
        let mut line = lines.pop().unwrap();
        let time = line["timestamp"].take();
        assert!(time.as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
        let expected = json!({
            "timestamp": null, "level": "INFO", "message": "request", "route": "/iam/users",
            "status": 200, "ms": 3, "cold": false, "error": "it broke", "target": "rolecall::access",
        });
        assert_eq!(line, expected);
        assert!(lines.is_empty());
    }

    #[test]
    fn no_text_can_break_out_of_its_line() {
        let evil = "a\"b\\c\nd\r\u{1b}[31m\u{2028}é\0";
        let lines = logged(|| {
            tracing::warn!(word = evil, "{evil}");
            tracing::warn!(debug = ?evil);
        });
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["word"], evil);
        assert_eq!(lines[0]["message"], evil);
        assert_eq!(lines[1]["debug"], format!("{evil:?}"));
    }
}
