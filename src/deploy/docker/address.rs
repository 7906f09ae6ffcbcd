//! Where a container answers. Its own address on the container network is the direct way; a published port goes through a
//! process of the container engine that merges and delays frames, and is for hosts that cannot reach that network.

use std::io::ErrorKind;
use std::time::Duration;

use bollard::models::ContainerInspectResponse;
use tokio::net::TcpStream;

/// How long a host on the other side of a bridge may take to answer or refuse.
const REACH: Duration = Duration::from_secs(2);

/// The addresses of one port of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// `172.17.0.2:8000`.
    pub bridge: Option<String>,
    /// `127.0.0.1:32768`.
    pub published: Option<String>,
}

impl Addresses {
    /// What the engine says of a running container.
    pub fn of(found: &ContainerInspectResponse, port: u16) -> Addresses {
        let network = found.network_settings.as_ref();
        let mut ips: Vec<(&String, &String)> = network
            .and_then(|n| n.networks.as_ref())
            .into_iter()
            .flatten()
            .filter_map(|(name, endpoint)| Some((name, endpoint.ip_address.as_ref().filter(|ip| !ip.is_empty())?)))
            .collect();
        ips.sort();
        let bindings = network.and_then(|n| n.ports.as_ref()).and_then(|p| p.get(&format!("{port}/tcp")));
        let host_port = bindings.and_then(|b| b.as_ref()?.iter().find_map(|b| b.host_port.clone()));
        Addresses {
            bridge: ips.first().map(|(_, ip)| format!("{ip}:{port}")),
            published: host_port.filter(|p| !p.is_empty()).map(|p| format!("127.0.0.1:{p}")),
        }
    }

    /// Those that this host can get to. A refusal is an answer: the server is only not there yet.
    pub async fn reachable(self) -> Addresses {
        let bridge = match &self.bridge {
            Some(address) => reaches(address).await,
            None => false,
        };
        Addresses { bridge: self.bridge.filter(|_| bridge), ..self }
    }
}

async fn reaches(address: &str) -> bool {
    match tokio::time::timeout(REACH, TcpStream::connect(address)).await {
        Ok(Ok(_)) => true,
        Ok(Err(e)) => e.kind() == ErrorKind::ConnectionRefused,
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_from_the_engines_answer() {
        let found: ContainerInspectResponse = serde_json::from_value(serde_json::json!({
            "NetworkSettings": {
                "Ports": {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "32768"}], "8002/tcp": null},
                "Networks": {"bridge": {"IPAddress": "172.17.0.2"}, "none": {"IPAddress": ""}}
            }
        }))
        .unwrap();
        let found_at = Addresses::of(&found, 8000);
        assert_eq!(found_at.bridge.as_deref(), Some("172.17.0.2:8000"));
        assert_eq!(found_at.published.as_deref(), Some("127.0.0.1:32768"));
        assert_eq!(Addresses::of(&found, 8002).published, None);
        assert_eq!(Addresses::of(&ContainerInspectResponse::default(), 1), Addresses::default());
    }

    #[tokio::test]
    async fn a_refusal_counts_as_reached() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        assert!(reaches(&address).await);
        drop(listener);
        assert!(reaches(&address).await);
        let nowhere = Addresses { bridge: None, published: Some("127.0.0.1:1".into()) };
        assert_eq!(nowhere.clone().reachable().await, nowhere);
    }
}
