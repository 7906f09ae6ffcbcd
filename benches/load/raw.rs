//! The physical limit of this task: one thread, one edge-triggered epoll, one read and one look at the clock a token,
//! lines counted with memchr. It understands nothing of what it reads, and keeps nothing but the times it is asked for.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use rustix::event::epoll;

use super::clients::Said;

/// Lines of an answer: head, four for each event in its chunk, usage and `[DONE]` as well, and the last chunk.
fn lines(tokens: u32) -> usize {
    4 + 4 * (tokens as usize + 2) + 2
}

struct Stream {
    socket: TcpStream,
    lines: usize,
    start: Instant,
    last: Option<Instant>,
}

/// Sends `requests` requests of `tokens` tokens over `streams` streams and prints what it saw.
pub fn run(address: &str, streams: usize, requests: u64, tokens: u32) {
    llmatrix::host::raise_open_files();
    let request = request(tokens);
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll");
    let mut all: Vec<Stream> = (0..streams).map(|i| open(address, &epoll, i as u64)).collect();
    let mut buffer = vec![0; 128 * 1024];
    let (mut ttft_ns, mut gaps) = (Vec::new(), Vec::new());
    let (mut sent, mut done, lines) = (0, 0, lines(tokens));
    for stream in all.iter_mut().take(requests as usize) {
        stream.send(&request);
        sent += 1;
    }
    let mut events = vec![epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 1024];
    while done < requests {
        let n = epoll::wait(&epoll, &mut events[..], None).expect("epoll waits");
        for event in &events[..n] {
            let stream = &mut all[event.data.u64() as usize];
            while let Some(n) = stream.read(&mut buffer) {
                let now = Instant::now();
                let before = stream.tokens(tokens);
                stream.lines += memchr::memchr_iter(b'\n', &buffer[..n]).count();
                for _ in before..stream.tokens(tokens) {
                    match stream.last.replace(now) {
                        None => ttft_ns.push((now - stream.start).as_nanos() as u64),
                        Some(last) => gaps.push((now - last).as_nanos() as u64),
                    }
                }
                if stream.lines == lines {
                    done += 1;
                    if sent < requests {
                        stream.send(&request);
                        sent += 1;
                    }
                }
                if n < buffer.len() {
                    break;
                }
            }
        }
    }
    gaps.sort_unstable();
    println!("{}", Said::of_ns(&ttft_ns, &gaps).json());
}

fn open(address: &str, epoll: &impl std::os::fd::AsFd, number: u64) -> Stream {
    let socket = TcpStream::connect(address).expect("the server is there");
    socket.set_nodelay(true).expect("a socket option");
    socket.set_nonblocking(true).expect("a socket option");
    let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
    epoll::add(epoll, &socket, epoll::EventData::new_u64(number), flags).expect("epoll takes a socket");
    Stream { socket, lines: 0, start: Instant::now(), last: None }
}

impl Stream {
    fn send(&mut self, request: &[u8]) {
        (self.lines, self.start, self.last) = (0, Instant::now(), None);
        let n = self.socket.write(request).expect("the server reads");
        assert_eq!(n, request.len(), "a request fits into the socket");
    }

    /// Token events that are complete so far.
    fn tokens(&self, all: u32) -> usize {
        (self.lines.saturating_sub(4) / 4).min(all as usize)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Option<usize> {
        match self.socket.read(buffer) {
            Ok(0) => panic!("the server closed a connection"),
            Ok(n) => Some(n),
            Err(e) if e.kind() == ErrorKind::WouldBlock => None,
            Err(e) => panic!("{e}"),
        }
    }
}

/// As long as the load generator's own, of 512 token ids.
fn request(tokens: u32) -> Vec<u8> {
    let ids: Vec<String> = (0..512).map(|i| (1000 + i).to_string()).collect();
    let body = format!(
        "{{\"prompt\":[{}],\"ignore_eos\":true,\"max_tokens\":{tokens},\"min_tokens\":{tokens},\"model\":\"null\",\"stream\":true,\"stream_options\":{{\"include_usage\":true}},\"temperature\":0}}",
        ids.join(",")
    );
    format!("POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}
