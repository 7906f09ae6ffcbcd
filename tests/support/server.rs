//! A server that is not ours: HTTP/1.1 over plain sockets and threads, answering what the test says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value as Json, json};

/// What a client asked.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Json,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Tokens that the client asks for.
    pub fn max_tokens(&self) -> u64 {
        let asked = self.body.get("max_tokens").or(self.body.get("max_completion_tokens"));
        asked.and_then(Json::as_u64).unwrap_or(16)
    }

    /// Tokens of the prompt: ids as they are, of a text one per word.
    pub fn prompt_tokens(&self) -> usize {
        let words = |text: &Json| text.as_str().map_or(0, |t| t.split_whitespace().count());
        match self.body.get("prompt") {
            Some(Json::Array(ids)) => ids.len(),
            Some(text) => words(text),
            None => self.body["messages"].as_array().into_iter().flatten().map(|m| words(&m["content"])).sum(),
        }
    }
}

/// What the server says.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    /// Written one after the other.
    pub parts: Vec<String>,
    /// The connection ends with the answer, which then has no length.
    pub close: bool,
}

impl Answer {
    pub fn json(status: u16, body: &Json) -> Answer {
        Answer { status, content_type: "application/json", parts: vec![body.to_string()], close: false }
    }

    pub fn error(status: u16, message: &str) -> Answer {
        Answer::json(status, &json!({ "error": { "message": message, "type": "invalid_request_error" } }))
    }

    pub fn html(status: u16, body: &str) -> Answer {
        Answer { status, content_type: "text/html", parts: vec![body.to_string()], close: false }
    }

    /// A stream as the OpenAI API defines it: one event per token, usage at the end, `[DONE]`.
    pub fn stream(request: &Request) -> Answer {
        let n = request.max_tokens();
        let chat = request.path.ends_with("/chat/completions");
        let event = |choices: Json, usage: Json| format!("data: {}\n\n", json!({ "choices": choices, "usage": usage }));
        let mut parts = Vec::new();
        for i in 0..n {
            let end = if i + 1 == n { json!("length") } else { Json::Null };
            let choice = match chat {
                true => json!({ "index": 0, "delta": { "content": " tok" }, "finish_reason": end }),
                false => json!({ "index": 0, "text": " tok", "finish_reason": end }),
            };
            parts.push(event(json!([choice]), Json::Null));
        }
        if request.body["stream_options"]["include_usage"] == true {
            let input = request.prompt_tokens() as u64;
            let usage = json!({ "prompt_tokens": input, "completion_tokens": n, "total_tokens": input + n });
            parts.push(event(json!([]), usage));
        }
        parts.push("data: [DONE]\n\n".into());
        Answer { status: 200, content_type: "text/event-stream", parts, close: false }
    }

    pub fn without_done(mut self) -> Answer {
        self.parts.retain(|p| !p.contains("[DONE]"));
        self
    }

    pub fn closing(mut self) -> Answer {
        self.close = true;
        self
    }
}

/// `/v1/models` with one model.
pub fn models(name: &str) -> Answer {
    Answer::json(200, &json!({ "object": "list", "data": [{ "id": name, "object": "model" }] }))
}

/// A running server. Dropping it ends the listening; its connections end with their clients.
pub struct Server {
    address: String,
    seen: Arc<Mutex<Vec<Request>>>,
    stopped: Arc<AtomicBool>,
}

impl Server {
    pub fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
        let stopped: Arc<AtomicBool> = Arc::default();
        let server = Server { address, seen: seen.clone(), stopped: stopped.clone() };
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (answer, seen) = (answer.clone(), seen.clone());
                let Ok(stream) = stream else { continue };
                std::thread::spawn(move || {
                    // A client that goes away is no error.
                    let _ = serve(stream, &seen, &*answer);
                });
            }
        });
        server
    }

    /// A good OpenAI-compatible server with one model.
    pub fn openai(model: &'static str) -> Server {
        Server::start(move |request| match request.path.as_str() {
            "/v1/models" => models(model),
            "/v1/completions" | "/v1/chat/completions" => Answer::stream(request),
            _ => Answer::error(404, "no such path"),
        })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().expect("no thread panicked").clone()
    }

    /// Requests that asked for a generation.
    pub fn generations(&self) -> Vec<Request> {
        self.seen().into_iter().filter(|r| r.method == "POST").collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address);
    }
}

fn serve(
    stream: TcpStream,
    seen: &Mutex<Vec<Request>>,
    answer: &(dyn Fn(&Request) -> Answer + Send + Sync),
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader)? {
        seen.lock().expect("no thread panicked").push(request.clone());
        let Answer { status, content_type, parts, close } = answer(&request);
        let framing = if close { "connection: close" } else { "transfer-encoding: chunked" };
        write!(writer, "HTTP/1.1 {status} Whatever\r\ncontent-type: {content_type}\r\n{framing}\r\n\r\n")?;
        for part in parts {
            match close {
                true => writer.write_all(part.as_bytes())?,
                false => write!(writer, "{:x}\r\n{part}\r\n", part.len())?,
            }
            writer.flush()?;
        }
        if close {
            return writer.shutdown(std::net::Shutdown::Both);
        }
        writer.write_all(b"0\r\n\r\n")?;
    }
    Ok(())
}

fn read(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_string);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_string()));
    }
    let length = headers.iter().find(|(n, _)| n == "content-length").and_then(|(_, v)| v.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = serde_json::from_slice(&body).unwrap_or(Json::Null);
    Ok(Some(Request { method, path, headers, body }))
}
