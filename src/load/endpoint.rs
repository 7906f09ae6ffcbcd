//! Where requests go: a base URL taken apart and looked up once, and what every request to it begins with.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use url::Url;

use super::{LoadError, Target, tls};

/// How TLS is spoken with a server.
pub struct TlsSettings {
    pub config: Arc<ClientConfig>,
    pub name: ServerName<'static>,
}

/// A server, ready to be connected to.
pub struct Endpoint {
    /// For messages: the base URL.
    pub url: String,
    addresses: Vec<SocketAddr>,
    host: String,
    base_path: String,
    headers: String,
    tls: Option<TlsSettings>,
}

impl Endpoint {
    /// Takes the target's URL apart and looks its host up.
    pub async fn resolve(target: &Target) -> Result<Endpoint, LoadError> {
        let url = parse_url(&target.base_url)?;
        let host = url.host_str().unwrap_or_default().to_string();
        let port = url.port_or_known_default().unwrap_or(80);
        let headers = header_lines(&target.headers)?;
        let tls = if url.scheme() == "https" {
            let config = tls::client_config(&target.tls)?;
            let name = ServerName::try_from(host.trim_matches(['[', ']']).to_string())
                .map_err(|e| LoadError::Url { url: target.base_url.clone(), message: e.to_string() })?;
            Some(TlsSettings { config: Arc::new(config), name })
        } else {
            None
        };
        let unknown = |message: String| LoadError::Unreachable { url: target.base_url.clone(), message };
        let found = tokio::net::lookup_host((host.trim_matches(['[', ']']), port)).await;
        let addresses: Vec<SocketAddr> = found.map_err(|e| unknown(format!("cannot look up {host}: {e}")))?.collect();
        if addresses.is_empty() {
            return Err(unknown(format!("{host} has no address")));
        }
        let shown_port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
        Ok(Endpoint {
            url: target.base_url.clone(),
            addresses,
            host: format!("{host}{shown_port}"),
            base_path: url.path().trim_end_matches('/').to_string(),
            headers,
            tls,
        })
    }

    /// Everything of a POST request before the value of `content-length`.
    pub fn post_head(&self, path: &str) -> Vec<u8> {
        let (base, host, own) = (&self.base_path, &self.host, &self.headers);
        format!(
            "POST {base}{path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: llmatrix/{}\r\naccept: text/event-stream, application/json\r\naccept-encoding: identity\r\ncontent-type: application/json\r\n{own}content-length: ",
            env!("CARGO_PKG_VERSION")
        )
        .into_bytes()
    }

    /// A whole GET request.
    pub fn get(&self, path: &str) -> Vec<u8> {
        let (base, host, own) = (&self.base_path, &self.host, &self.headers);
        format!(
            "GET {base}{path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: llmatrix/{}\r\naccept-encoding: identity\r\n{own}\r\n",
            env!("CARGO_PKG_VERSION")
        )
        .into_bytes()
    }

    /// Where it can be reached, in the order to try.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// How TLS is spoken; `None` where it is not.
    pub fn tls(&self) -> Option<&TlsSettings> {
        self.tls.as_ref()
    }
}

fn parse_url(text: &str) -> Result<Url, LoadError> {
    let bad = |message: &str| LoadError::Url { url: text.to_string(), message: message.to_string() };
    let url = Url::parse(text).map_err(|e| bad(&format!("{e}; write it as http://HOST:PORT")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("only http and https are spoken"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(bad("it names no host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("credentials do not belong in the URL: set an `authorization` header"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("a base URL has no query and no fragment"));
    }
    Ok(url)
}

fn header_lines(headers: &[(String, String)]) -> Result<String, LoadError> {
    const OURS: [&str; 6] = ["host", "content-length", "transfer-encoding", "connection", "accept-encoding", "expect"];
    let mut lines = String::new();
    for (name, value) in headers {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        let printable = |b: u8| b == b'\t' || b == b' ' || b.is_ascii_graphic() || b >= 0x80;
        // The value may be a secret: the message names the header only.
        if name.is_empty() || !name.bytes().all(token) || !value.bytes().all(printable) {
            return Err(LoadError::Header { name: name.clone(), message: "has characters that no header may hold" });
        }
        if OURS.iter().any(|ours| name.eq_ignore_ascii_case(ours)) {
            return Err(LoadError::Header { name: name.clone(), message: "is set by the load generator itself" });
        }
        lines.push_str(&format!("{name}: {value}\r\n"));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked() {
        assert!(parse_url("http://127.0.0.1:8000/base/").is_ok());
        for (url, expected) in [
            ("127.0.0.1:8000", "http://HOST:PORT"),
            ("ftp://x", "only http"),
            ("http://u:p@x", "credentials"),
            ("http://x/?a=1", "query"),
        ] {
            let e = parse_url(url).unwrap_err().to_string();
            assert!(e.contains(expected), "{e}");
        }
    }

    #[test]
    fn headers_cannot_smuggle_and_values_are_not_shown() {
        let one = |name: &str, value: &str| header_lines(&[(name.to_string(), value.to_string())]);
        assert_eq!(one("authorization", "Bearer x").unwrap(), "authorization: Bearer x\r\n");
        let e = one("x", "secret\r\nevil: 1").unwrap_err().to_string();
        assert!(!e.contains("secret"), "{e}");
        assert!(one("Host", "x").is_err());
        assert!(one("a b", "x").is_err());
    }
}
