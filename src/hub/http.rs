//! The HTTP client of registries and hubs, and what is said when it fails.

use std::time::Duration;

/// How long a host may take to be reached.
const CONNECT: Duration = Duration::from_secs(10);

/// A client that goes through the proxies that the environment names. A request says itself how long it may take.
pub fn client() -> Result<reqwest::Client, String> {
    // Another part of the process may have chosen one already; either will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let agent = concat!("llmatrix/", env!("CARGO_PKG_VERSION"));
    let builder = reqwest::Client::builder().user_agent(agent).connect_timeout(CONNECT);
    builder.build().map_err(|e| reason(&e))
}

/// An error with its causes and without its URL, which may hold a signature: reqwest's own text leaves out why a
/// connection failed.
pub fn reason(e: &reqwest::Error) -> String {
    let mut causes: Vec<String> = Vec::new();
    let mut source = std::error::Error::source(e);
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    match (causes.is_empty(), e.is_timeout()) {
        (false, _) => causes.join(": "),
        (true, true) => "it does not answer".into(),
        (true, false) => "the request failed".into(),
    }
}
