//! HTTP/1.1 answers, incrementally: bytes in, body slices out. No IO. Handles chunked, counted and close-delimited
//! bodies, chunk extensions, trailers and interim (1xx) answers; never copies a body byte.

/// Largest head that is accepted.
const MAX_HEAD: usize = 64 * 1024;
const MAX_HEADERS: usize = 96;

/// Why an answer is not HTTP/1.1.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum HttpError {
    #[error("the answer is not HTTP/1.1: {0}")]
    Head(String),
    #[error("the head of the answer is larger than {MAX_HEAD} bytes")]
    HeadTooLarge,
    #[error("the chunked body of the answer is malformed")]
    Chunk,
    #[error("the body is encoded with `{0}`, which was not asked for")]
    Encoded(String),
    #[error("the connection closed before the answer was complete")]
    Closed,
}

/// What the head of an answer says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    pub status: u16,
    pub content_type: String,
    /// Of a redirect.
    pub location: Option<String>,
    stream: bool,
}

impl Head {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body is one that a stream of events may come in.
    pub fn is_stream(&self) -> bool {
        self.stream
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    /// In a chunk's size line.
    Size {
        value: u64,
        digits: bool,
        extension: bool,
    },
    Data {
        left: u64,
    },
    /// The line end after a chunk's data.
    DataEnd,
    /// In a line after the last chunk; `empty` until it holds a byte.
    Trailer {
        empty: bool,
    },
    Counted {
        left: u64,
    },
    UntilClose,
    Done,
}

/// Reads one answer at a time.
#[derive(Debug)]
pub struct ResponseReader {
    state: State,
    buffer: Vec<u8>,
    head: Head,
    keep_alive: bool,
    any: bool,
}

impl Default for ResponseReader {
    fn default() -> Self {
        ResponseReader { state: State::Head, buffer: Vec::new(), head: Head::default(), keep_alive: true, any: false }
    }
}

impl ResponseReader {
    /// Ready for the next answer; keeps the buffers.
    pub fn reset(&mut self) {
        self.state = State::Head;
        self.buffer.clear();
        self.keep_alive = true;
        self.any = false;
    }

    /// The head, once it is complete.
    pub fn head(&self) -> Option<&Head> {
        (self.state != State::Head).then_some(&self.head)
    }

    /// The answer is complete.
    pub fn done(&self) -> bool {
        self.state == State::Done
    }

    /// A byte of the answer has been read.
    pub fn any(&self) -> bool {
        self.any
    }

    /// The connection can carry another request.
    pub fn reusable(&self) -> bool {
        self.done() && self.keep_alive
    }

    /// Reads a slice and hands out the parts of it that are body.
    pub fn feed(&mut self, bytes: &[u8], mut on_body: impl FnMut(&Head, &[u8])) -> Result<(), HttpError> {
        self.any |= !bytes.is_empty();
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = match self.state {
                State::Head => self.read_head(rest)?,
                State::Counted { left } => {
                    let (body, after) = split(rest, left);
                    on_body(&self.head, body);
                    let left = left - body.len() as u64;
                    self.state = if left == 0 { State::Done } else { State::Counted { left } };
                    after
                }
                State::Data { left } => {
                    let (body, after) = split(rest, left);
                    on_body(&self.head, body);
                    let left = left - body.len() as u64;
                    self.state = if left == 0 { State::DataEnd } else { State::Data { left } };
                    after
                }
                State::UntilClose => {
                    on_body(&self.head, rest);
                    &[]
                }
                State::Size { .. } | State::DataEnd | State::Trailer { .. } => self.read_framing(rest)?,
                // Bytes that nobody asked for: the connection is not used again.
                State::Done => {
                    self.keep_alive = false;
                    &[]
                }
            };
        }
        Ok(())
    }

    /// The peer closed the connection.
    pub fn eof(&mut self) -> Result<(), HttpError> {
        self.keep_alive = false;
        match self.state {
            State::UntilClose | State::Done => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(HttpError::Closed),
        }
    }

    /// Chunk framing: what usually stands between two chunks at once, anything else by the byte.
    fn read_framing<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], HttpError> {
        let bytes = match (self.state, bytes) {
            (State::DataEnd, [b'\r', b'\n', rest @ ..]) => {
                self.state = State::Size { value: 0, digits: false, extension: false };
                rest
            }
            _ => bytes,
        };
        if let State::Size { digits: false, .. } = self.state
            && let Some((left, rest)) = plain_size(bytes)
        {
            self.state = State::Data { left };
            return Ok(rest);
        }
        if bytes.is_empty() { Ok(bytes) } else { self.read_framing_byte(bytes) }
    }

    /// One byte of chunk framing.
    fn read_framing_byte<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], HttpError> {
        let (byte, rest) = (bytes[0], &bytes[1..]);
        self.state = match (self.state, byte) {
            (State::Size { digits: false, .. }, b'\n') => return Err(HttpError::Chunk),
            (State::Size { value: 0, .. }, b'\n') => State::Trailer { empty: true },
            (State::Size { value, .. }, b'\n') => State::Data { left: value },
            (State::Size { value, digits, extension: false }, b) => match char::from(b).to_digit(16) {
                Some(digit) if value >> 56 == 0 => {
                    State::Size { value: value << 4 | u64::from(digit), digits: true, extension: false }
                }
                None if digits => State::Size { value, digits, extension: true },
                _ => return Err(HttpError::Chunk),
            },
            (state @ State::Size { .. }, _) => state,
            (State::DataEnd, b'\r') => State::DataEnd,
            (State::DataEnd, b'\n') => State::Size { value: 0, digits: false, extension: false },
            (State::Trailer { empty: true }, b'\n') => State::Done,
            (State::Trailer { .. }, b'\n') => State::Trailer { empty: true },
            (State::Trailer { empty }, b'\r') => State::Trailer { empty },
            (State::Trailer { .. }, _) => State::Trailer { empty: false },
            _ => return Err(HttpError::Chunk),
        };
        Ok(rest)
    }

    fn read_head<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], HttpError> {
        let before = self.buffer.len();
        if before == 0
            && let Some(used) = self.parse_head_of(bytes)?
        {
            return Ok(&bytes[used..]);
        }
        self.buffer.extend_from_slice(bytes);
        let buffer = std::mem::take(&mut self.buffer);
        let parsed = self.parse_head_of(&buffer);
        self.buffer = buffer;
        match parsed? {
            Some(used) => {
                self.buffer.clear();
                Ok(&bytes[used - before..])
            }
            None if self.buffer.len() > MAX_HEAD => Err(HttpError::HeadTooLarge),
            None => Ok(&[]),
        }
    }

    /// Length of the head, when it is complete.
    fn parse_head_of(&mut self, bytes: &[u8]) -> Result<Option<usize>, HttpError> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let used = match response.parse(bytes) {
            Ok(httparse::Status::Complete(used)) => used,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(e) => return Err(HttpError::Head(e.to_string())),
        };
        let status = response.code.unwrap_or(0);
        // 101 would leave HTTP; nobody asked for it.
        if (100..200).contains(&status) && status != 101 {
            return Ok(Some(used));
        }
        self.head.status = status;
        self.state = self.framing(&response)?;
        Ok(Some(used))
    }

    fn framing(&mut self, response: &httparse::Response) -> Result<State, HttpError> {
        self.head.content_type.clear();
        self.head.location = None;
        self.keep_alive = response.version == Some(1);
        let (mut chunked, mut length) = (false, None);
        for header in response.headers.iter() {
            let value = String::from_utf8_lossy(header.value);
            let value = value.trim();
            if header.name.eq_ignore_ascii_case("content-type") {
                self.head.content_type.push_str(&value.to_ascii_lowercase());
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                chunked = value.to_ascii_lowercase().ends_with("chunked");
            } else if header.name.eq_ignore_ascii_case("content-length") {
                length = Some(value.parse().map_err(|_| HttpError::Head(format!("content-length is `{value}`")))?);
            } else if header.name.eq_ignore_ascii_case("connection") {
                let value = value.to_ascii_lowercase();
                self.keep_alive = (self.keep_alive || value.contains("keep-alive")) && !value.contains("close");
            } else if header.name.eq_ignore_ascii_case("location") {
                self.head.location = Some(value.to_string());
            } else if header.name.eq_ignore_ascii_case("content-encoding") && !value.eq_ignore_ascii_case("identity") {
                return Err(HttpError::Encoded(value.to_string()));
            }
        }
        self.head.stream = self.head.is_success() && !self.head.content_type.starts_with("application/json");
        Ok(match (self.head.status, chunked, length) {
            (204 | 304, _, _) | (_, false, Some(0)) => State::Done,
            (_, true, _) => State::Size { value: 0, digits: false, extension: false },
            (_, false, Some(left)) => State::Counted { left },
            (_, false, None) => State::UntilClose,
        })
    }
}

/// A whole size line without extensions, of a chunk that is not the last, and what follows it.
fn plain_size(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (i, byte) in bytes.iter().take(8).enumerate() {
        match char::from(*byte).to_digit(16) {
            Some(digit) => value = value << 4 | u64::from(digit),
            None if value > 0 => return bytes[i..].strip_prefix(b"\r\n").map(|rest| (value, rest)),
            None => return None,
        }
    }
    None
}

fn split(bytes: &[u8], at: u64) -> (&[u8], &[u8]) {
    bytes.split_at(usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(reader: &mut ResponseReader, slices: &[&[u8]]) -> Result<Vec<u8>, HttpError> {
        let mut body = Vec::new();
        for slice in slices {
            reader.feed(slice, |_, part| body.extend_from_slice(part))?;
        }
        Ok(body)
    }

    const CHUNKED: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n5;name=\"v\"\r\nhello\r\n1F\r\n0123456789abcdef0123456789abcde\r\n0\r\nX-Trailer: 1\r\n\r\n";

    #[test]
    fn chunked_with_extensions_trailers_and_an_interim_answer() {
        let mut reader = ResponseReader::default();
        let body = read(&mut reader, &[CHUNKED]).unwrap();
        assert_eq!(body, b"hello0123456789abcdef0123456789abcde");
        assert!(reader.reusable());
        assert_eq!(reader.head().unwrap().content_type, "text/event-stream");
    }

    #[test]
    fn counted_close_delimited_and_empty_bodies() {
        let mut reader = ResponseReader::default();
        let body = read(&mut reader, &[b"HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\nabc"]).unwrap();
        assert_eq!((body.as_slice(), reader.reusable()), (b"abc".as_slice(), true));
        reader.reset();
        assert_eq!(read(&mut reader, &[b"HTTP/1.1 200 OK\r\n\r\nab", b"c"]).unwrap(), b"abc");
        assert!(!reader.done());
        reader.eof().unwrap();
        assert!(reader.done() && !reader.reusable());
        reader.reset();
        read(&mut reader, &[b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"]).unwrap();
        assert!(reader.done() && !reader.reusable());
    }

    #[test]
    fn what_is_not_http_or_ends_early_is_an_error() {
        let fail = |slices: &[&[u8]]| {
            let mut reader = ResponseReader::default();
            read(&mut reader, slices).and_then(|_| reader.eof()).unwrap_err()
        };
        assert!(matches!(fail(&[b"SSH-2.0-x\r\n\r\n"]), HttpError::Head(_)));
        assert_eq!(fail(&[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"]), HttpError::Chunk);
        assert_eq!(fail(&[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc"]), HttpError::Closed);
        assert_eq!(fail(&[b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc"]), HttpError::Closed);
        assert_eq!(fail(&[b""]), HttpError::Closed);
        assert!(matches!(fail(&[b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"]), HttpError::Encoded(_)));
        assert_eq!(
            fail(&[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n"]),
            HttpError::Chunk
        );
    }

    proptest! {
        #[test]
        fn any_split_reads_the_same(cuts in prop::collection::vec(0..CHUNKED.len(), 0..10)) {
            let mut at = cuts;
            at.extend([0, CHUNKED.len()]);
            at.sort_unstable();
            let slices: Vec<&[u8]> = at.windows(2).map(|w| &CHUNKED[w[0]..w[1]]).collect();
            let mut reader = ResponseReader::default();
            let body = read(&mut reader, &slices).unwrap();
            prop_assert_eq!(body, b"hello0123456789abcdef0123456789abcde".to_vec());
            prop_assert!(reader.reusable());
        }
    }
}
