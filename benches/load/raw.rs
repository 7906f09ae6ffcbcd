//! The physical limit of this task: one thread, one edge-triggered epoll, one read and one look at the clock a token,
//! lines counted with memchr. It understands nothing of what it reads, and keeps nothing but the times it is asked for.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use rustix::event::epoll;

use super::clients::Said;

struct Stream {
    socket: TcpStream,
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
    let (mut sent, mut done, mut lines) = (0, 0, 0usize);
    for stream in all.iter_mut().take(requests as usize) {
        stream.send(&request);
        sent += 1;
    }
    let mut events = vec![epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 1024];
    while done < requests {
        let n = epoll::wait(&epoll, &mut events[..], None).expect("epoll waits");
        for event in &events[..n] {
            let stream = &mut all[event.data.u64() as usize];
            let n = match stream.socket.read(&mut buffer) {
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => continue,
                Err(e) => panic!("{e}"),
            };
            let now = Instant::now();
            assert!(n > 0, "the server closed a connection");
            let bytes = &buffer[..n];
            lines += memchr::memchr_iter(b'\n', bytes).count();
            // The head comes alone.
            if bytes.starts_with(b"HTTP") && bytes.ends_with(b"\r\n\r\n") {
                continue;
            }
            match stream.last.replace(now) {
                None => ttft_ns.push((now - stream.start).as_nanos() as u64),
                Some(last) => gaps.push((now - last).as_nanos() as u64),
            }
            if bytes.ends_with(b"\r\n0\r\n\r\n") {
                done += 1;
                if sent < requests {
                    stream.send(&request);
                    sent += 1;
                }
            }
        }
    }
    assert!(lines > 0);
    gaps.sort_unstable();
    println!("{}", Said::of_ns(&ttft_ns, &gaps).json());
}

fn open(address: &str, epoll: &impl std::os::fd::AsFd, number: u64) -> Stream {
    let socket = TcpStream::connect(address).expect("the server is there");
    socket.set_nodelay(true).expect("a socket option");
    socket.set_nonblocking(true).expect("a socket option");
    let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
    epoll::add(epoll, &socket, epoll::EventData::new_u64(number), flags).expect("epoll takes a socket");
    Stream { socket, start: Instant::now(), last: None }
}

impl Stream {
    fn send(&mut self, request: &[u8]) {
        (self.start, self.last) = (Instant::now(), None);
        let n = self.socket.write(request).expect("the server reads");
        assert_eq!(n, request.len(), "a request fits into the socket");
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
