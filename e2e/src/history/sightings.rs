//! Invariant 3, as seen from outside: a version of a row is one, so all who see it see the same.

use std::collections::HashMap;

use uuid::Uuid;

use super::contents::Contents;
use super::record::{Content, Sight};
use super::story::Stories;
use super::verdict::{Kind, Violation};

/// Compares what reads saw of each version of each row, and what is stored of it in the end.
///
/// Single rows, lists, batches and the databases all tell the two things that are compared, who wrote it and the status.
/// Two writes of unknown outcome may each explain what one of them saw, and yet only one of them can have got the version.
pub(super) fn check(stories: &Stories<'_>, contents: &Contents) -> Vec<Violation> {
    let mut seen: HashMap<(Uuid, i64), (Content, String)> = HashMap::new();
    let mut found: HashMap<(Uuid, i64), Violation> = HashMap::new();
    let mut look = |key: Uuid, version: i64, content: Content, line: &dyn Fn() -> String| {
        let (first, first_line) = seen.entry((key, version)).or_insert_with(|| (content, line()));
        if *first != content {
            // One is enough: each later sight would only say so again.
            found.entry((key, version)).or_insert_with(|| {
                let what = format!("row {key}: version {version} was seen with different contents");
                Violation::new(Kind::VersionTwice, what, vec![first_line.clone(), line()])
            });
        }
    };
    for row in contents.users.iter().chain(&contents.orders) {
        if let Some(content) = row.content {
            look(row.key, row.version, content, &|| row.line());
        }
    }
    for read in &stories.history.reads {
        if let Sight::Found { version, content, .. } = &read.seen
            && !stories.may_be_undone(read)
        {
            look(read.key, *version, *content, &|| read.to_string());
        }
    }
    found.into_values().collect()
}
