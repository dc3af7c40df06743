//! Setting lost passwords over the master's local socket.
//!
//! Inside the pod the operating system's user `postgres` is the superuser without a password. The statements go in by
//! standard input, with SCRAM verifiers instead of passwords, and are kept out of the server's log.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use secrecy::{ExposeSecret as _, SecretString};
use store::admin::{Role, scram_verifier};

use super::build::SystemPasswords;
use super::pod_exec::{self, ExecError};

/// A reset that did not happen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResetError {
    #[error(transparent)]
    Exec(#[from] ExecError),
    #[error("psql in pod {pod} could not set the passwords ({exit_code:?}): {stderr}")]
    Psql {
        pod: String,
        exit_code: Option<i32>,
        stderr: String,
    },
}

/// Sets what Patroni and the operator log in with. The programs' roles follow over an ordinary connection.
pub(crate) async fn reset(pods: &Api<Pod>, master: &str, passwords: &SystemPasswords) -> Result<(), ResetError> {
    let command = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-f", "-"];
    let verifiers = [
        ("postgres", scram_verifier(&passwords.superuser)),
        (Role::Replication.name(), scram_verifier(&passwords.replication)),
        (Role::Rewind.name(), scram_verifier(&passwords.rewind)),
    ];
    let outcome = pod_exec::run(pods, master, &command, &statements(&verifiers)).await?;
    match outcome.exit_code {
        Some(0) => Ok(()),
        exit_code => Err(ResetError::Psql {
            pod: master.to_owned(),
            exit_code,
            stderr: outcome.stderr.chars().take(200).collect(),
        }),
    }
}

/// `synchronous_commit = local`: a standby that has lost its password cannot confirm the very commit that would let it
/// in again.
fn statements(verifiers: &[(&str, SecretString)]) -> String {
    let mut text = "SET log_statement = 'none';\nSET log_min_duration_statement = -1;\n\
                    SET log_min_error_statement = 'panic';\nSET synchronous_commit = local;\n"
        .to_owned();
    for (role, verifier) in verifiers {
        text.push_str(&format!("ALTER ROLE {role} PASSWORD '{}';\n", verifier.expose_secret()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statement_is_kept_out_of_the_log_and_does_not_wait_for_a_standby() {
        let text = statements(&[("postgres", SecretString::from("SCRAM-SHA-256$4096:c2FsdA==$a:b"))]);
        let alter = text.find("ALTER ROLE").expect("the statement");
        for setting in [
            "log_statement",
            "log_min_duration_statement",
            "log_min_error_statement",
            "synchronous_commit",
        ] {
            assert!(text.find(setting).is_some_and(|at| at < alter), "{setting}");
        }
        assert!(text.contains("ALTER ROLE postgres PASSWORD 'SCRAM-SHA-256$4096:c2FsdA==$a:b';"));
    }
}
