//! The two releases, and what they are made of.

use std::path::Path;

/// The release of the resource definitions.
pub const DEFINITIONS: &str = "ringwright-crds";
/// The release of the platform, and the prefix of its objects' names.
pub const RELEASE: &str = "ringwright";
/// What serves orders, for `kubectl rollout`.
pub const WORKLOADS: [&str; 5] = [
    "statefulset/ringwright-rabbitmq",
    "deployment/ringwright-order-api",
    "deployment/ringwright-notifier",
    "deployment/ringwright-mail",
    "deployment/ringwright-sms-gateway",
];

/// Helm's arguments that install the definitions or bring them up to date, from the folder of the charts. Always by Helm,
/// for it takes over nothing that it has not installed.
#[must_use]
pub fn install_definitions(charts: &Path) -> Vec<String> {
    upgrade(DEFINITIONS, charts)
}

/// kubectl's arguments that wait until the definitions are served.
pub const DEFINITIONS_ARE_SERVED: [&str; 5] = [
    "wait",
    "--for=condition=Established",
    "--timeout=60s",
    "crd/orderclusters.ringwright.dev",
    "crd/ordershards.ringwright.dev",
];

/// Helm's arguments that install the platform for development, or bring it up to date. A setting is `path=value`.
#[must_use]
pub fn install_platform(charts: &Path, namespace: &str, settings: &[&str]) -> Vec<String> {
    let mut arguments = upgrade(RELEASE, charts);
    let values = charts.join(RELEASE).join("values-dev.yaml");
    arguments.extend(["--namespace".to_owned(), namespace.to_owned()]);
    arguments.extend(["--values".to_owned(), text(&values)]);
    for setting in settings {
        arguments.extend(["--set".to_owned(), (*setting).to_owned()]);
    }
    arguments
}

/// A release has the name of its chart.
fn upgrade(release: &str, charts: &Path) -> Vec<String> {
    let chart = text(&charts.join(release));
    vec!["upgrade".to_owned(), "--install".to_owned(), release.to_owned(), chart]
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_installed_from_its_chart_with_the_settings_of_development() {
        let arguments = install_platform(Path::new("/src/charts"), "shop", &["notifier.enabled=false"]);
        assert_eq!(
            arguments.join(" "),
            "upgrade --install ringwright /src/charts/ringwright --namespace shop \
             --values /src/charts/ringwright/values-dev.yaml --set notifier.enabled=false"
        );
    }
}
