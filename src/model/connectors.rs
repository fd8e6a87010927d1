//! What a connector says of itself, before anybody has linked an account.

/// A connector, by the word in `provider` and by its name for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectorMeta {
    pub provider: &'static str,
    pub name: &'static str,
    pub models: Models,
}

/// The fields of each kind of record that can hold something. A field that this provider never
/// fills is not among them; one that a token may not see is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Models {
    pub users: &'static [&'static str],
    pub roles: &'static [&'static str],
    pub groups: &'static [&'static str],
}
