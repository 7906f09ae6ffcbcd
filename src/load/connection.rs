//! One connection: a socket that never blocks, with TLS where the endpoint wants it. Registered with a poll that tells
//! edges: whoever is told that it is ready reads until [`Read::Drained`].

use std::io::{Error, ErrorKind, Read as _, Result, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::ClientConnection;

use super::endpoint::TlsSettings;

/// Engines close idle connections after 5 s; one that has been idle this long is replaced instead of being raced.
const MAX_IDLE: Duration = Duration::from_secs(3);

/// A connection, open or being opened.
pub struct Connection {
    socket: TcpStream,
    /// TCP is up.
    connected: bool,
    tls: Option<Box<ClientConnection>>,
    /// The peer has closed its side, or will not send more.
    pub read_closed: bool,
    last_used: Instant,
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// So many bytes; there may be more.
    More(usize),
    /// So many bytes, and no more for now: an edge follows when there are.
    Last(usize),
    /// Nothing, for now.
    Drained,
    /// Nothing, for ever.
    End,
}

impl Connection {
    /// Begins to open one.
    pub fn open(
        address: SocketAddr,
        tls: Option<&TlsSettings>,
        registry: &Registry,
        token: Token,
    ) -> Result<Connection> {
        let mut socket = TcpStream::connect(address)?;
        registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        let tls = match tls {
            None => None,
            Some(TlsSettings { config, name }) => {
                let mut tls = ClientConnection::new(Arc::clone(config), name.clone()).map_err(Error::other)?;
                // A request is handed over whole.
                tls.set_buffer_limit(None);
                Some(Box::new(tls))
            }
        };
        Ok(Connection { socket, connected: false, tls, read_closed: false, last_used: Instant::now() })
    }

    /// Goes on with opening it. `true` once it can carry a request.
    pub fn establish(&mut self) -> Result<bool> {
        if !self.connected {
            if let Some(e) = self.socket.take_error()? {
                return Err(e);
            }
            match self.socket.peer_addr() {
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::NotConnected => return Ok(false),
                Err(e) => return Err(e),
            }
            self.socket.set_nodelay(true)?;
            self.connected = true;
        }
        let Some(tls) = &mut self.tls else { return Ok(true) };
        while tls.is_handshaking() {
            if tls.wants_write() {
                if !flush(tls, &mut self.socket)? {
                    return Ok(false);
                }
            } else if !receive(tls, &mut self.socket)? {
                return Ok(false);
            }
        }
        flush(tls, &mut self.socket)?;
        Ok(true)
    }

    /// An exchange has ended; the connection carries the next one.
    pub fn rested(&mut self) {
        self.last_used = Instant::now();
    }

    /// It has not been idle for too long.
    pub fn is_fresh(&self) -> bool {
        self.last_used.elapsed() < MAX_IDLE
    }

    /// Reads once.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<Read> {
        let Some(tls) = &mut self.tls else {
            return match retry(|| self.socket.read(buffer)) {
                Ok(0) => Ok(Read::End),
                // Less than was asked for is all that there was. Where the peer has closed, its end is still to be read,
                // and no edge will tell of it.
                Ok(n) if n < buffer.len() && !self.read_closed => Ok(Read::Last(n)),
                Ok(n) => Ok(Read::More(n)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(Read::Drained),
                Err(e) => Err(e),
            };
        };
        loop {
            match tls.reader().read(buffer) {
                Ok(0) => return Ok(Read::End),
                Ok(n) => return Ok(Read::More(n)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    if !receive(tls, &mut self.socket)? {
                        return Ok(Read::Drained);
                    }
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Hands bytes over; gives how many were taken.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        match &mut self.tls {
            None => match retry(|| self.socket.write(bytes)) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(0),
                other => other,
            },
            Some(tls) => {
                let n = tls.writer().write(bytes)?;
                flush(tls, &mut self.socket)?;
                Ok(n)
            }
        }
    }

    /// Sends what TLS has taken but not sent yet.
    pub fn flush(&mut self) -> Result<()> {
        if let Some(tls) = &mut self.tls {
            flush(tls, &mut self.socket)?;
        }
        Ok(())
    }

    /// Nothing has arrived unasked, an end included.
    pub fn is_silent(&mut self) -> bool {
        matches!(self.read(&mut [0]), Ok(Read::Drained))
    }
}

fn retry<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Sends what TLS has to send; `false` when the socket takes no more for now.
fn flush(tls: &mut ClientConnection, socket: &mut TcpStream) -> Result<bool> {
    while tls.wants_write() {
        match retry(|| tls.write_tls(socket)) {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(e) => return Err(e),
        }
    }
    Ok(true)
}

/// Takes in records; `false` when the socket has none for now.
fn receive(tls: &mut ClientConnection, socket: &mut TcpStream) -> Result<bool> {
    match retry(|| tls.read_tls(socket)) {
        Ok(0) if tls.is_handshaking() => {
            Err(Error::new(ErrorKind::UnexpectedEof, "the peer hung up during the TLS handshake"))
        }
        // The reader tells a clean end from a torn one.
        Ok(_) => {
            let processed = tls.process_new_packets();
            // An alert tells the peer what was wrong.
            let sent = flush(tls, socket);
            processed.map_err(|e| Error::new(ErrorKind::InvalidData, e))?;
            sent?;
            Ok(true)
        }
        Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(false),
        Err(e) => Err(e),
    }
}
