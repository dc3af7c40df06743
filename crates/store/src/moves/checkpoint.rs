//! Where tests hold a move, and rules they take away from it to see the loss. Outside of tests nothing of it is left.

/// A rule of safety that is Rust and not SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A step counts only when every member that may be promoted has it.
    Durability,
    /// A state that was only read is confirmed before it is acted on.
    Confirmation,
    /// The target has applied everything up to the freeze before it is compared.
    Marker,
    /// The rows are compared before the commit point.
    Comparison,
}

#[cfg(not(test))]
pub(super) const fn is_skipped(_: Rule) -> bool {
    false
}

#[cfg(not(test))]
pub(super) async fn reach(_: &'static str) {}

#[cfg(test)]
pub(crate) use in_tests::*;

#[cfg(test)]
mod in_tests {
    use std::sync::Arc;

    use futures::future::BoxFuture;

    use super::Rule;

    type Hook = Arc<dyn Fn(&'static str) -> BoxFuture<'static, ()> + Send + Sync>;

    tokio::task_local! {
        static SKIPPED: &'static [Rule];
        static HOOK: Hook;
    }

    pub(crate) fn is_skipped(rule: Rule) -> bool {
        SKIPPED.try_with(|skipped| skipped.contains(&rule)).unwrap_or(false)
    }

    pub(crate) async fn reach(point: &'static str) {
        if let Ok(hook) = HOOK.try_with(Arc::clone) {
            hook(point).await;
        }
    }

    /// Runs a future without these rules.
    pub(crate) async fn without<F: Future>(rules: &'static [Rule], future: F) -> F::Output {
        SKIPPED.scope(rules, future).await
    }

    /// Runs a future, and `then` when it comes to `point`.
    pub(crate) async fn at_checkpoint<F: Future>(
        point: &'static str,
        then: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static,
        future: F,
    ) -> F::Output {
        let hook: Hook = Arc::new(
            move |reached| {
                if reached == point { then() } else { Box::pin(async {}) }
            },
        );
        HOOK.scope(hook, future).await
    }
}
