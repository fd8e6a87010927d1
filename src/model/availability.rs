//! What the store can be used for.

/// What the store can be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Availability {
    /// It answers and takes writes.
    Writable,
    /// It answers, and nothing can be written.
    ReadOnly,
    /// It does not answer.
    Unreachable,
}

impl Availability {
    pub const ALL: [Self; 3] = [Self::Writable, Self::ReadOnly, Self::Unreachable];

    /// As `GET /health/ready` has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Writable => "writable",
            Self::ReadOnly => "read_only",
            Self::Unreachable => "unreachable",
        }
    }
}
