//! Server-sent events: an incremental parser from byte slices to event payloads. Bytes only: no IO, no JSON.
//!
//! Follows the event-stream format of the HTML standard: lines end in LF, CRLF or a lone CR; a line that starts with a
//! colon is a comment; several `data` lines of one event are joined with LF; a blank line ends the event. Fields other
//! than `data` carry nothing that a measurement needs and are skipped.
//!
//! An event that lies whole in one slice with a single `data` line (what every engine sends) is handed out as a part of
//! that slice: nothing is copied or allocated.

use memchr::memchr2;

/// Largest event that is kept while it is incomplete; far above any answer, low enough to protect the client.
pub const MAX_EVENT: usize = 32 << 20;

/// Why a stream cannot be read on.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SseError {
    #[error("an event of the stream is larger than {MAX_EVENT} bytes")]
    TooLarge,
}

/// Parser state between two slices of a stream.
#[derive(Debug, Default)]
pub struct SseParser {
    /// An unfinished line from earlier slices.
    line: Vec<u8>,
    /// Payload of the unfinished event from earlier slices.
    data: Vec<u8>,
    /// `data` belongs to an event, even when it is empty.
    has_data: bool,
    /// The last slice ended in CR: a LF that follows belongs to it.
    skip_lf: bool,
    /// A first line has been seen, so that no byte-order mark can follow.
    begun: bool,
}

/// The payload of the event under construction while it lies whole in the current slice.
type Pending<'a> = Option<&'a [u8]>;

impl SseParser {
    /// Forgets the stream; keeps the buffers.
    pub fn reset(&mut self) {
        self.line.clear();
        self.data.clear();
        self.has_data = false;
        self.skip_lf = false;
        self.begun = false;
    }

    /// The next byte begins an event, and not the first one.
    pub fn is_between_events(&self) -> bool {
        self.begun && self.line.is_empty() && !self.has_data && !self.skip_lf
    }

    /// Reads a slice and hands the payload of each event that it completes to `on_event`.
    pub fn feed(&mut self, bytes: &[u8], mut on_event: impl FnMut(&[u8])) -> Result<(), SseError> {
        let mut rest = bytes;
        let mut pending: Pending = None;
        loop {
            if self.skip_lf && !rest.is_empty() {
                self.skip_lf = false;
                rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            }
            let Some(end) = memchr2(b'\n', b'\r', rest) else { break };
            let line = &rest[..end];
            self.skip_lf = rest[end] == b'\r';
            rest = &rest[end + 1..];
            if self.line.is_empty() {
                self.line_done(line, &mut pending, &mut on_event);
            } else {
                let mut joined = std::mem::take(&mut self.line);
                joined.extend_from_slice(line);
                let mut none: Pending = None;
                self.line_done(&joined, &mut none, &mut on_event);
                if let Some(payload) = none {
                    self.keep(payload);
                }
                joined.clear();
                self.line = joined;
            }
        }
        if let Some(payload) = pending {
            self.keep(payload);
        }
        if self.line.len() + self.data.len() + rest.len() > MAX_EVENT {
            return Err(SseError::TooLarge);
        }
        self.line.extend_from_slice(rest);
        Ok(())
    }

    /// The stream has ended as it should: an event whose blank line was left out is handed out too.
    pub fn finish(&mut self, mut on_event: impl FnMut(&[u8])) {
        let line = std::mem::take(&mut self.line);
        let mut pending: Pending = None;
        if !line.is_empty() {
            self.line_done(&line, &mut pending, &mut on_event);
        }
        self.line_done(b"", &mut pending, &mut on_event);
        self.reset();
    }

    fn line_done<'a>(&mut self, line: &'a [u8], pending: &mut Pending<'a>, on_event: &mut impl FnMut(&[u8])) {
        let line = if self.begun { line } else { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) };
        self.begun = true;
        if line.is_empty() {
            return self.dispatch(pending, on_event);
        }
        let Some(value) = data_value(line) else { return };
        match pending.take() {
            None if !self.has_data => *pending = Some(value),
            first => {
                if let Some(first) = first {
                    self.keep(first);
                }
                self.data.push(b'\n');
                self.data.extend_from_slice(value);
            }
        }
    }

    fn keep(&mut self, payload: &[u8]) {
        self.data.extend_from_slice(payload);
        self.has_data = true;
    }

    fn dispatch(&mut self, pending: &mut Pending<'_>, on_event: &mut impl FnMut(&[u8])) {
        if let Some(payload) = pending.take() {
            on_event(payload);
        } else if self.has_data {
            on_event(&self.data);
            self.data.clear();
            self.has_data = false;
        }
    }
}

/// The value of a `data` line, without the one space after the colon; `None` for comments and other fields.
fn data_value(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(b"data")?;
    match rest.split_first() {
        None => Some(b""),
        Some((b':', value)) => Some(value.strip_prefix(b" ").unwrap_or(value)),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events(slices: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut parser = SseParser::default();
        let mut out = Vec::new();
        for slice in slices {
            parser.feed(slice, |e| out.push(e.to_vec())).unwrap();
        }
        parser.finish(|e| out.push(e.to_vec()));
        out
    }

    #[test]
    fn line_ends_comments_fields_and_multi_line_data() {
        let text = b"\xef\xbb\xbf: hello\ndata: a\n\nevent: x\rdata:b\rid: 7\r\rdata: c\r\ndata:  d\r\n\r\n:\n\ndata\n\ndatax: no\n\ndata: [DONE]";
        let expected: [&[u8]; 5] = [b"a", b"b", b"c\n d", b"", b"[DONE]"];
        assert_eq!(events(&[text]), expected);
    }

    #[test]
    fn an_event_of_two_megabytes_comes_through_in_segments() {
        let payload = vec![b'x'; 2 << 20];
        let text = [b"data: ".as_slice(), &payload, b"\n\n"].concat();
        let slices: Vec<&[u8]> = text.chunks(1460).collect();
        assert_eq!(events(&slices), [payload]);
    }

    #[test]
    fn a_whole_event_is_a_part_of_the_slice() {
        let text = b"data: {\"a\":1}\n\ndata: 2\n\n";
        let range = text.as_ptr_range();
        SseParser::default().feed(text, |e| assert!(range.contains(&e.as_ptr()))).unwrap();
    }

    #[test]
    fn between_events_is_known() {
        let mut parser = SseParser::default();
        let states = [b"".as_slice(), b"data: a", b"\n", b"\n", b":", b"\n", b"data: b\r\n\r", b"\n"].map(|part| {
            parser.feed(part, |_| {}).unwrap();
            parser.is_between_events()
        });
        assert_eq!(states, [false, false, false, true, false, true, false, true]);
    }

    #[test]
    fn crlf_cut_between_its_bytes_is_one_line_end() {
        assert_eq!(events(&[b"data: a\r", b"\n\r", b"\ndata: b\r\n", b"\r\n"]), [b"a", b"b"]);
    }

    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(b"data: ".to_vec()),
            Just(b"data:".to_vec()),
            Just(b":".to_vec()),
            Just(b"\n".to_vec()),
            Just(b"\r".to_vec()),
            Just(b"\r\n".to_vec()),
            Just(b"\n\n".to_vec()),
            Just("naïve 日本 🙂".as_bytes().to_vec()),
            Just(b"\xef\xbb\xbf".to_vec()),
            prop::collection::vec(any::<u8>(), 0..4),
        ];
        prop::collection::vec(piece, 0..40).prop_map(|p| p.concat())
    }

    proptest! {
        #[test]
        fn any_split_of_the_same_bytes_gives_the_same_events(text in pieces(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
            let mut at: Vec<usize> = cuts.iter().map(|c| c.index(text.len() + 1)).collect();
            at.extend([0, text.len()]);
            at.sort_unstable();
            let slices: Vec<&[u8]> = at.windows(2).map(|w| &text[w[0]..w[1]]).collect();
            let bytewise: Vec<&[u8]> = text.chunks(1).collect();
            let whole = events(&[&text]);
            prop_assert_eq!(&events(&slices), &whole);
            prop_assert_eq!(&events(&bytewise), &whole);
        }
    }
}
