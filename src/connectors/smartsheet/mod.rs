//! Smartsheet.

/// The connector for the Smartsheet API 2.0.
pub struct Smartsheet;
