//! Where requests go: a base URL taken apart, resolved once, and the connections to it.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::Url;

use super::{LoadError, Target, tls};

/// Longest time that opening one connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Engines close idle connections after 5 s; one that has been idle this long is replaced instead of being raced.
const MAX_IDLE: Duration = Duration::from_secs(3);

/// A server, ready to be connected to.
pub struct Endpoint {
    /// For messages: the base URL.
    pub url: String,
    addresses: Vec<SocketAddr>,
    host: String,
    base_path: String,
    headers: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
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
            Some((TlsConnector::from(Arc::new(config)), name))
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

    /// Opens a connection, TLS included, and tells how long that took.
    pub async fn connect(&self) -> std::io::Result<(Connection, Duration)> {
        let begun = Instant::now();
        let io = tokio::time::timeout(CONNECT_TIMEOUT, self.open()).await.map_err(|_| {
            let message = format!("no connection within {} s", CONNECT_TIMEOUT.as_secs());
            std::io::Error::new(std::io::ErrorKind::TimedOut, message)
        })??;
        Ok((Connection { io, last_used: Instant::now(), used: false }, begun.elapsed()))
    }

    async fn open(&self) -> std::io::Result<Io> {
        let mut last = None;
        for address in &self.addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(match &self.tls {
                        None => Io::Plain(stream),
                        Some((connector, name)) => Io::Tls(Box::new(connector.connect(name.clone(), stream).await?)),
                    });
                }
                Err(e) => last = Some(e),
            }
        }
        Err(last.unwrap_or_else(|| std::io::ErrorKind::AddrNotAvailable.into()))
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

/// An open connection.
pub struct Connection {
    io: Io,
    last_used: Instant,
    /// It has carried an exchange: a failure before the first byte of an answer may be the peer's idle timeout.
    pub used: bool,
}

enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    /// Nothing has arrived unasked (an end of stream included) and it has not been idle for too long.
    pub fn is_fresh(&mut self) -> bool {
        let mut byte = [0];
        let mut buf = ReadBuf::new(&mut byte);
        self.last_used.elapsed() < MAX_IDLE
            && self.poll_read(&mut Context::from_waker(Waker::noop()), &mut buf).is_pending()
    }

    /// An exchange has ended; the connection carries the next one.
    pub fn rested(&mut self) {
        self.last_used = Instant::now();
        self.used = true;
    }

    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Io::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }

    pub async fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.io {
            Io::Plain(stream) => send(stream, bytes).await,
            Io::Tls(stream) => send(stream.as_mut(), bytes).await,
        }
    }
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
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
