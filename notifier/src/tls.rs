//! One implementation of cryptography for everything in the process.

/// Makes `ring` the process-wide default of rustls, which the HTTP client asks for. Doing so again changes nothing.
pub fn install_crypto_provider() {
    // An error only says that a default is there already.
    rustls::crypto::ring::default_provider().install_default().ok();
}
