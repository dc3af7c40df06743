//! Versions of rows, and what a change may be based on.

/// Which versions of a row a change may be based on: what HTTP says with If-Match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BasedOn {
    /// Whichever is current.
    Any,
    /// One of these; without any, the change is refused whatever is current.
    OneOf(Vec<i64>),
}

impl BasedOn {
    /// This version and no other.
    pub fn version(version: i64) -> Self {
        Self::OneOf(vec![version])
    }

    /// Whether a row at `version` may be changed.
    pub fn allows(&self, version: i64) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(versions) => versions.contains(&version),
        }
    }
}
