//! The server's side: a null server in a process of its own, and what it says was true.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use llmatrix::load::null_server::{Script, Server};
use serde::Deserialize;

/// Serves until the process is killed; says first where.
pub fn serve(ttft_us: u64, itl_us: u64, per_segment: u32) {
    let script = Script { ttft: Duration::from_micros(ttft_us), itl: Duration::from_micros(itl_us), per_segment };
    llmatrix::host::raise_open_files();
    let server = Server::bind(script, false, Arc::default()).expect("a free port");
    println!("{}", server.address().expect("a bound address"));
    server.serve();
}

/// A null server on core 0; killed with this.
pub struct Null {
    child: Child,
    pub address: String,
}

impl Drop for Null {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the server did since it was last asked.
#[derive(Deserialize)]
pub struct Truth {
    pub first_request_ns: u64,
    /// Sequence, read, first token, last token (ns), tokens.
    served: Vec<[u64; 5]>,
}

impl Truth {
    /// The answers of so many tokens; probes are shorter.
    fn answers(&self, tokens: u64) -> impl Iterator<Item = &[u64; 5]> {
        self.served.iter().filter(move |s| s[4] == tokens)
    }

    pub fn ttft_ms(&self, tokens: u64) -> f64 {
        let (n, sum) = self.answers(tokens).fold((0, 0), |(n, sum), [_, read, first, ..]| (n + 1, sum + first - read));
        sum as f64 / f64::from(n) / 1e6
    }

    pub fn itl_ms(&self, tokens: u64) -> f64 {
        let (n, sum) =
            self.answers(tokens).fold((0, 0), |(n, sum), [_, _, first, last, _]| (n + tokens - 1, sum + last - first));
        sum as f64 / n as f64 / 1e6
    }

    /// From the first request read to the last token written.
    pub fn tokens_per_s(&self, tokens: u64) -> f64 {
        let from = self.answers(tokens).map(|s| s[1]).min().unwrap_or(0);
        let to = self.answers(tokens).map(|s| s[3]).max().unwrap_or(0);
        (self.answers(tokens).count() as u64 * tokens) as f64 / ((to - from) as f64 / 1e9)
    }
}

impl Null {
    pub fn start(ttft: Duration, itl: Duration, per_segment: u32) -> Null {
        let this = std::env::current_exe().expect("the benchmark's own path");
        let args = [ttft.as_micros().to_string(), itl.as_micros().to_string(), per_segment.to_string()];
        let mut child = super::child::spawn(
            0,
            Command::new(this).arg("serve").args(args).stdout(Stdio::piped()).stdin(Stdio::null()),
        );
        let mut address = String::new();
        let stdout = child.stdout.take().expect("stdout is a pipe");
        BufReader::new(stdout).read_line(&mut address).expect("the server says where it is");
        Null { child, address: address.trim().to_string() }
    }

    /// What was served since this was last called.
    pub fn truth(&self) -> Truth {
        let mut stream = TcpStream::connect(&self.address).expect("the server is there");
        write!(stream, "GET /truth HTTP/1.1\r\nhost: x\r\n\r\n").expect("the server reads");
        let mut reader = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).expect("an HTTP head");
            if let Some(n) = line.strip_prefix("content-length: ") {
                length = n.trim().parse().expect("a length");
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("the whole body");
        serde_json::from_slice(&body).expect("the truth is JSON")
    }
}
