//! A server for tests. It gives scripted answers, one for each connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::thread::{self, JoinHandle};

use super::args::ServerUrl;

pub(super) struct Script {
    url: ServerUrl,
    requests: JoinHandle<Vec<String>>,
}

/// Returns an answer with a JSON body.
#[expect(clippy::unnecessary_wraps, reason = "it is used in lists in which `None` is a connection that breaks")]
pub(super) fn answer(status: u16, json: &str) -> Option<String> {
    let length = json.len();
    Some(format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{json}"))
}

/// Reads a body that comes in chunks.
fn chunks(stream: &mut impl BufRead) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        let mut chunk = vec![0; usize::from_str_radix(line.trim(), 16).unwrap()];
        stream.read_exact(&mut chunk).unwrap();
        stream.read_line(&mut String::new()).unwrap();
        if chunk.is_empty() {
            return body;
        }
        body.extend(chunk);
    }
}

impl Script {
    /// Starts a server that gives these answers in order. For a `None`, it closes the connection without an answer.
    pub(super) fn play(answers: Vec<Option<String>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = ServerUrl::of(listener.local_addr().unwrap());
        let serve = move |answer: Option<String>| {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            let mut request = String::new();
            while !request.ends_with("\r\n\r\n") {
                assert_ne!(stream.read_line(&mut request).unwrap(), 0);
            }
            let length = request
                .to_lowercase()
                .lines()
                .find_map(|line| line.strip_prefix("content-length:").map(|value| value.trim().parse().unwrap()));
            let body = if request.to_lowercase().contains("transfer-encoding: chunked") {
                chunks(&mut stream)
            } else {
                let mut body = vec![0; length.unwrap_or(0)];
                stream.read_exact(&mut body).unwrap();
                body
            };
            let answer = answer.unwrap_or_default().replacen("\r\n", "\r\nConnection: close\r\n", 1);
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
            request + &String::from_utf8_lossy(&body)
        };
        Self { url, requests: thread::spawn(move || answers.into_iter().map(serve).collect()) }
    }

    pub(super) fn url(&self) -> ServerUrl {
        self.url.clone()
    }

    /// Returns the requests after all answers were given.
    pub(super) fn requests(self) -> Vec<String> {
        self.requests.join().unwrap()
    }
}
