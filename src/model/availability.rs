//! Availability of the store.

/// The operations that the store currently supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Availability {
    /// The store answers and accepts writes.
    Writable,
    /// The store answers but accepts no writes.
    ReadOnly,
    /// The store does not answer.
    Unreachable,
}

impl Availability {
    pub const ALL: [Self; 3] = [Self::Writable, Self::ReadOnly, Self::Unreachable];

    /// The value in `GET /health/ready`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Writable => "writable",
            Self::ReadOnly => "read_only",
            Self::Unreachable => "unreachable",
        }
    }
}
