//! What Smartsheet's words become, one by one; and the whole connector against its double.

mod mapping;
mod simulated;
