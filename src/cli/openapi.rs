//! `rolecall openapi`: prints the OpenAPI document, as committed in `openapi/openapi.json`.

use super::{Failure, say};
use crate::http;

pub fn run() -> Result<(), Failure> {
    say(http::document().to_pretty_json().map_err(Failure::other)?)
}
