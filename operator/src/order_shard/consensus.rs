//! Who may become master, by Patroni's own list.

use std::collections::BTreeMap;

use super::build::{dcs, labels::names};

/// Whom Patroni may promote in place of a master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standbys {
    /// These: they have, or vote on, every acknowledged commit. Perhaps none.
    Named(Vec<String>),
    /// Any member: the list was never written.
    Anybody,
    /// The list is that of another master, who wrote it last.
    OfAnotherMaster(String),
}

/// Name of the ConfigMap with the list.
pub(crate) fn sync_config_map(shard: &str) -> String {
    names::dcs(shard, dcs::SYNC)
}

/// Reads the list that `master` has written.
pub(crate) fn standbys(annotations: &BTreeMap<String, String>, master: &str) -> Standbys {
    let text = |key: &str| annotations.get(key).filter(|value| !value.is_empty());
    match text("leader") {
        None => Standbys::Anybody,
        Some(leader) if leader != master => Standbys::OfAnotherMaster(leader.clone()),
        Some(_) => Standbys::Named(
            text("sync_standby")
                .map(|names| names.split(',').map(|name| name.trim().to_owned()).collect())
                .unwrap_or_default(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whom_the_master_itself_has_named_may_follow_it() {
        let list = |leader: &str, standbys: &str| {
            BTreeMap::from([
                ("leader".to_owned(), leader.to_owned()),
                ("sync_standby".to_owned(), standbys.to_owned()),
            ])
        };
        let named = |names: &[&str]| Standbys::Named(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(standbys(&list("a-0", "a-1, a-2"), "a-0"), named(&["a-1", "a-2"]));
        assert_eq!(standbys(&list("a-0", ""), "a-0"), named(&[]));
        assert_eq!(
            standbys(&list("a-1", "a-0"), "a-0"),
            Standbys::OfAnotherMaster("a-1".to_owned())
        );
        assert_eq!(standbys(&BTreeMap::new(), "a-0"), Standbys::Anybody);
    }
}
