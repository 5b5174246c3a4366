//! A client that can do whatever a bad one does: HTTP by hand over a plain connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Longer than anything here should take.
const PATIENCE: Duration = Duration::from_secs(50);

/// A response.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a text")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!(
                "no JSON: {error} in {:?}",
                String::from_utf8_lossy(&self.body)
            )
        })
    }

    /// The body of a success.
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }

    /// The error of a failure with `status`.
    pub fn error(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        let error = self.json()["error"].clone();
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{error}"
        );
        assert!(error["type"].is_string(), "{error}");
        error
    }
}

/// A connection on which a request was sent.
pub struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    pub fn open(address: SocketAddr) -> Connection {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Connection {
            reader: BufReader::new(stream),
        }
    }

    /// Sends `bytes` as they are; false where the server has closed the connection.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.reader.get_mut().write_all(bytes).is_ok()
    }

    /// The one response that is wanted.
    pub fn reply(mut self) -> Reply {
        self.next_reply()
    }

    /// Reads the head of a response and what follows it up to the end.
    pub fn next_reply(&mut self) -> Reply {
        let (status, headers) = self.head();
        let mut reply = Reply {
            status,
            headers,
            body: Vec::new(),
        };
        let is_chunked = reply.header("transfer-encoding") == Some("chunked");
        let length = reply.header("content-length").and_then(|n| n.parse().ok());
        match (is_chunked, length) {
            (true, _) => {
                while let Some(chunk) = self.chunk() {
                    reply.body.extend(chunk);
                }
            }
            (false, Some(length)) => {
                reply.body = vec![0; length];
                self.reader.read_exact(&mut reply.body).expect("a body");
            }
            (false, None) => {
                self.reader.read_to_end(&mut reply.body).expect("a body");
            }
        }
        reply
    }

    /// The response's status and headers.
    pub fn head(&mut self) -> (u16, Vec<(String, String)>) {
        let line = self.line().expect("a response");
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status in {line:?}"));
        let mut headers = Vec::new();
        loop {
            let line = self.line().expect("the rest of a head");
            let Some((name, value)) = line.split_once(':') else {
                return (status, headers);
            };
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// The next chunk of a body; none at its end.
    fn chunk(&mut self) -> Option<Vec<u8>> {
        let size = self.line().expect("a chunk's size");
        let size = usize::from_str_radix(size.trim(), 16).expect("a size");
        let mut chunk = vec![0; size + 2];
        self.reader.read_exact(&mut chunk).expect("a chunk");
        chunk.truncate(size);
        (size > 0).then_some(chunk)
    }

    /// The next event of a stream as its `data` says; none at the end of the body.
    pub fn event(&mut self) -> Option<String> {
        loop {
            // A comment or an event each, as the server flushes them.
            let chunk = String::from_utf8(self.chunk()?).expect("a text");
            if let Some(data) = chunk.lines().find_map(|line| line.strip_prefix("data: ")) {
                return Some(data.to_owned());
            }
        }
    }

    /// How many bytes come before the connection ends or breaks.
    pub fn rest(&mut self) -> usize {
        let mut buffer = vec![0; 1 << 16];
        let mut all = 0;
        while let Ok(n @ 1..) = self.reader.read(&mut buffer) {
            all += n;
        }
        all
    }

    /// The next line, without its end; none where the connection ends or breaks.
    pub fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line.trim_end_matches(['\r', '\n']).to_owned()),
        }
    }
}

/// The bytes of a request whose connection serves no other one.
pub fn request_bytes(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let has = |wanted: &str| {
        headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case(wanted))
    };
    let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
    if !has("host") {
        head += "host: localhost\r\n";
    }
    if !has("content-length") {
        head += &format!("content-length: {}\r\n", body.len());
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";
    [head.as_bytes(), body].concat()
}
