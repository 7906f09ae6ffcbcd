//! The connection to the container engine of this host.

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

impl Daemon {
    /// Connects to the engine at `host` (as in `DOCKER_HOST`), or at Docker's default.
    pub async fn connect(host: Option<&str>) -> Result<Daemon, HubError> {
        let address = host.filter(|h| !h.is_empty()).unwrap_or(DEFAULT).to_string();
        let missing = |e: bollard::errors::Error| HubError::NoDaemon { address: address.clone(), reason: reason(&e) };
        if !is_here(&address) {
            return Err(HubError::Elsewhere { address });
        }
        let docker =
            Docker::connect_with_host(&address).map_err(missing)?.negotiate_version().await.map_err(missing)?;
        let version = docker.version().await.map_err(missing)?.version;
        Ok(Daemon { docker, address, version })
    }
}

/// Whether the engine's bind mounts and loopback are ours.
fn is_here(address: &str) -> bool {
    let Some((scheme, rest)) = address.split_once("://") else { return true };
    match scheme {
        "unix" | "npipe" => true,
        "tcp" | "http" => {
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

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_named() {
        let e = Daemon::connect(Some("unix:///nowhere/docker.sock")).await.unwrap_err();
        assert!(matches!(&e, HubError::NoDaemon { address, .. } if address == "unix:///nowhere/docker.sock"), "{e}");
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let e = Daemon::connect(Some(&format!("tcp://{closed}"))).await.unwrap_err();
        assert!(matches!(e, HubError::NoDaemon { .. }), "{e}");
    }

    #[tokio::test]
    async fn an_engine_on_another_machine_is_refused() {
        assert!(is_here("unix:///run/podman/podman.sock") && is_here("tcp://localhost:2375"));
        for address in ["tcp://10.0.0.1:2375", "ssh://me@host"] {
            let e = Daemon::connect(Some(address)).await.unwrap_err();
            assert!(matches!(e, HubError::Elsewhere { .. }), "{e}");
        }
    }
}
