//! The ordinals a cluster consists of.

use std::{collections::BTreeSet, fmt, str::FromStr};

/// A set of ordinals, written as `0-2,5`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Roster(BTreeSet<u16>);

/// A text that is no roster.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a list of ordinals such as 0-2,5")]
pub(crate) struct BadRoster(String);

impl Roster {
    /// The ordinals in their order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.0.iter().copied()
    }

    pub(crate) fn contains(&self, ordinal: u16) -> bool {
        self.0.contains(&ordinal)
    }

    /// The highest ordinal in it.
    pub(crate) fn highest(&self) -> Option<u16> {
        self.0.last().copied()
    }
}

impl FromIterator<u16> for Roster {
    fn from_iter<I: IntoIterator<Item = u16>>(ordinals: I) -> Self {
        Self(ordinals.into_iter().collect())
    }
}

impl fmt::Display for Roster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ordinals = self.iter().peekable();
        let mut first = true;
        while let Some(from) = ordinals.next() {
            let mut to = from;
            while let Some(next) = ordinals.next_if(|next| u32::from(*next) == u32::from(to) + 1) {
                to = next;
            }
            if !first {
                f.write_str(",")?;
            }
            first = false;
            if from == to {
                write!(f, "{from}")?
            } else {
                write!(f, "{from}-{to}")?
            }
        }
        Ok(())
    }
}

impl FromStr for Roster {
    type Err = BadRoster;

    fn from_str(text: &str) -> Result<Self, BadRoster> {
        let bad = || BadRoster(text.to_owned());
        let mut ordinals = BTreeSet::new();
        for part in text.split(',') {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            let from: u16 = from.parse().map_err(|_| bad())?;
            let to: u16 = to.parse().map_err(|_| bad())?;
            if from > to {
                return Err(bad());
            }
            ordinals.extend(from..=to);
        }
        Ok(Self(ordinals))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_roster_is_read_as_it_was_written() {
        for (ordinals, text) in [
            (vec![0], "0"),
            (vec![0, 1, 2], "0-2"),
            (vec![0, 1, 2, 5, 7, 8], "0-2,5,7-8"),
            (vec![u16::MAX - 1, u16::MAX], "65534-65535"),
        ] {
            let roster: Roster = ordinals.into_iter().collect();
            assert_eq!(roster.to_string(), text);
            assert_eq!(text.parse(), Ok(roster));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "a", "2-0", "0,,1", "0-", "65536", "0 - 2"] {
            assert!(text.parse::<Roster>().is_err(), "{text}");
        }
    }
}
