//! The connection to the container engine of this host.

use std::path::PathBuf;

use bollard::Docker;

use super::{HubError, reason};

/// Where Docker listens unless told otherwise.
const DEFAULT: &str = "unix:///var/run/docker.sock";

/// A container engine that answers, spoken to in the newest version both sides know.
#[derive(Clone, Debug)]
pub struct Daemon {
    pub docker: Docker,
    /// As it was asked for, such as `unix:///var/run/docker.sock`.
    pub address: String,
    /// The engine's own version, such as `28.2.2`.
    pub version: Option<String>,
}

/// Where an engine is, and how it is spoken to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DaemonAddress {
    /// As in `DOCKER_HOST`; Docker's default when unset.
    pub host: Option<String>,
    /// Directory with `ca.pem`, `cert.pem` and `key.pem`, where the engine is spoken to over TLS, as in
    /// `DOCKER_CERT_PATH`.
    pub tls: Option<PathBuf>,
}

/// How long an engine may take to answer, in seconds; the client's own default.
const PATIENCE: u64 = 120;

impl DaemonAddress {
    fn open(&self, address: &str) -> Result<Docker, bollard::errors::Error> {
        match &self.tls {
            Some(dir) if address.starts_with("tcp://") || address.starts_with("https://") => {
                // Another part of the process may have chosen one already; either will do.
                let _ = rustls::crypto::ring::default_provider().install_default();
                let [key, cert, ca] = ["key.pem", "cert.pem", "ca.pem"].map(|name| dir.join(name));
                Docker::connect_with_ssl(address, &key, &cert, &ca, PATIENCE, bollard::API_DEFAULT_VERSION)
            }
            _ => Docker::connect_with_host(address),
        }
    }
}

impl Daemon {
    /// Connects to an engine.
    pub async fn connect(at: &DaemonAddress) -> Result<Daemon, HubError> {
        let address = at.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(DEFAULT).to_string();
        let missing = |e: bollard::errors::Error| HubError::NoDaemon { address: address.clone(), reason: reason(&e) };
        if !is_here(&address) {
            return Err(HubError::Elsewhere { address });
        }
        let docker = at.open(&address).map_err(missing)?.negotiate_version().await.map_err(missing)?;
        let version = docker.version().await.map_err(missing)?.version;
        Ok(Daemon { docker, address, version })
    }
}

/// Whether the engine's bind mounts and loopback are ours.
fn is_here(address: &str) -> bool {
    let Some((scheme, rest)) = address.split_once("://") else { return true };
    match scheme {
        "unix" | "npipe" => true,
        "tcp" | "http" | "https" => {
            let host = rest.split('/').next().unwrap_or(rest);
            let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
            matches!(host, "localhost" | "127.0.0.1" | "[::1]")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str) -> DaemonAddress {
        DaemonAddress { host: Some(host.into()), tls: None }
    }

    #[tokio::test]
    async fn files_that_tls_needs_are_named() {
        let at = DaemonAddress { tls: Some("/nowhere/certs".into()), ..at("tcp://127.0.0.1:1") };
        let e = Daemon::connect(&at).await.unwrap_err().to_string();
        assert!(e.contains("/nowhere/certs"), "{e}");
    }

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_named() {
        let e = Daemon::connect(&at("unix:///nowhere/docker.sock")).await.unwrap_err();
        assert!(matches!(&e, HubError::NoDaemon { address, .. } if address == "unix:///nowhere/docker.sock"), "{e}");
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let e = Daemon::connect(&at(&format!("tcp://{closed}"))).await.unwrap_err();
        assert!(matches!(e, HubError::NoDaemon { .. }), "{e}");
    }

    #[tokio::test]
    async fn an_engine_on_another_machine_is_refused() {
        assert!(is_here("unix:///run/podman/podman.sock") && is_here("tcp://localhost:2375"));
        for address in ["tcp://10.0.0.1:2375", "ssh://me@host"] {
            let e = Daemon::connect(&at(address)).await.unwrap_err();
            assert!(matches!(e, HubError::Elsewhere { .. }), "{e}");
        }
    }
}
