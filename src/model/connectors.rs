//! The static description of a connector, known before any account is linked.

/// A connector: its key in `provider`, its display name and its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectorMeta {
    pub provider: &'static str,
    pub name: &'static str,
    pub models: Models,
}

/// The fields of each kind of record that this provider can fill. A field that only some tokens may
/// see is included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Models {
    pub users: &'static [&'static str],
    pub roles: &'static [&'static str],
    pub groups: &'static [&'static str],
}
