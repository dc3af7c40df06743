//! Everything asked for once more, when nothing disturbs any longer.

use futures::StreamExt;

use super::client::Client;
use crate::history::record::Outcome;

/// So many repeats without an answer are told of.
const MOST_UNANSWERED: usize = 5;

/// How the repeats of a run ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repeats {
    /// Writes that were asked for again.
    pub asked: usize,
    /// Those of them that got an answer in the end, whichever: what it had to be is for the judge to say.
    pub answered: usize,
    /// Of the others, the first few: the operation, and why there was no answer.
    pub troubles: Vec<String>,
}

impl Client {
    /// Repeats every write that is kept to be repeated: each has to get its first answer.
    ///
    /// The answers are for the judge; this looks only at whether there was one.
    pub async fn repeat_all(&self, at_once: usize) -> Repeats {
        let kept = self.population().repeatable();
        let asked = kept.len();
        let repeats = futures::stream::iter(kept).map(|repeatable| async move {
            let (answers, _) = self.write(&repeatable).await;
            let mut outcomes = answers.iter().map(|(outcome, _)| outcome);
            let unknown = outcomes.find(|outcome| matches!(outcome, Outcome::Unknown(_)));
            unknown.map(|outcome| format!("{} {}: {outcome}", repeatable.method, repeatable.path))
        });
        let unanswered: Vec<String> = repeats
            .buffer_unordered(at_once)
            .filter_map(std::future::ready)
            .collect()
            .await;
        Repeats {
            asked,
            answered: asked - unanswered.len(),
            troubles: unanswered.into_iter().take(MOST_UNANSWERED).collect(),
        }
    }
}
