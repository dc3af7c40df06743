//! The cryptography that every TLS client of the tests uses; the API itself is called without TLS.

use std::sync::Once;

/// Chooses it, once a process; clients made before would have none.
pub(crate) fn choose_provider() {
    static CHOSEN: Once = Once::new();
    CHOSEN.call_once(|| {
        // Fails only when one is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}
