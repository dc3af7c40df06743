//! What `spec.postgres.durability` means to Patroni.

use crds::Durability;

/// How a commit is confirmed, as Patroni's `synchronous_mode` and `synchronous_mode_strict` know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Commit {
    /// By the master alone; a failover may lose what was acknowledged last.
    Asynchronous,
    /// By the master and one named standby. A standby that dies stalls writes until Patroni has taken another one or,
    /// unless `strict`, none.
    Synchronous {
        /// Writes wait for as long as there is no standby.
        strict: bool,
    },
    /// By the master and whichever standby answers first: with three members or more, one may die without a stall.
    Quorum {
        /// Writes wait for as long as there is no standby.
        strict: bool,
    },
}

impl Commit {
    /// The way to commit that fulfils `durability` with so many `instances`.
    pub(crate) fn of(durability: Durability, instances: u32) -> Self {
        let strict = durability == Durability::Required;
        match (durability, instances) {
            (Durability::None, _) | (Durability::Preferred, 0..=1) => Self::Asynchronous,
            (_, 0..=2) => Self::Synchronous { strict },
            _ => Self::Quorum { strict },
        }
    }

    /// Patroni's `synchronous_mode`.
    pub(crate) fn mode(self) -> serde_json::Value {
        match self {
            Self::Asynchronous => false.into(),
            Self::Synchronous { .. } => true.into(),
            Self::Quorum { .. } => "quorum".into(),
        }
    }

    /// Patroni's `synchronous_mode_strict`.
    pub(crate) fn strict(self) -> bool {
        matches!(self, Self::Synchronous { strict: true } | Self::Quorum { strict: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durability_and_instances_decide_how_a_commit_is_confirmed() {
        use Commit::{Asynchronous, Quorum, Synchronous};
        let cases = [
            (Durability::None, 1, Asynchronous),
            (Durability::None, 3, Asynchronous),
            (Durability::Preferred, 1, Asynchronous),
            (Durability::Preferred, 2, Synchronous { strict: false }),
            (Durability::Preferred, 3, Quorum { strict: false }),
            (Durability::Required, 2, Synchronous { strict: true }),
            (Durability::Required, 3, Quorum { strict: true }),
            (Durability::Required, 5, Quorum { strict: true }),
        ];
        for (durability, instances, expected) in cases {
            assert_eq!(
                Commit::of(durability, instances),
                expected,
                "{durability:?} with {instances}"
            );
        }
    }

    #[test]
    fn required_never_falls_back_to_a_commit_without_a_standby() {
        // One instance cannot fulfil it (the specification is refused before), but the mapping must not weaken it.
        assert!(Commit::of(Durability::Required, 1).strict());
    }
}
