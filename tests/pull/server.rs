//! A small server with the parts of the Hub's protocol that a download uses: the description of a
//! repository, a redirect from the file to where its content is, and byte ranges.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use model_cache::HashingWriter;

/// How the server misbehaves.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// So many transfers of content end after a third of what is left.
    pub broken_transfers: usize,
    /// The content that is sent is not the announced one.
    pub corrupt: bool,
    /// Ranges are ignored: the whole content is sent every time.
    pub ignores_ranges: bool,
}

/// A server of one repository, `owner/repo`, whose files all have the same content.
pub struct Server {
    pub endpoint: String,
    pub content: Vec<u8>,
    state: Arc<Mutex<State>>,
}

struct State {
    faults: Faults,
    ranges: Vec<String>,
}

impl Server {
    pub fn start(files: &[&str], faults: Faults) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let content: Vec<u8> = (0..300_000_u32)
            .map(|i| (i.wrapping_mul(i) >> 7) as u8)
            .collect();
        let state = Arc::new(Mutex::new(State {
            faults,
            ranges: Vec::new(),
        }));
        let server = Self {
            endpoint: endpoint.clone(),
            content: content.clone(),
            state,
        };

        let description = description(files, &content);
        let state = Arc::clone(&server.state);
        // Ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (endpoint, description) = (endpoint.clone(), description.clone());
                let (content, state) = (content.clone(), Arc::clone(&state));
                thread::spawn(move || {
                    Connection {
                        stream,
                        endpoint,
                        description,
                        content,
                        state,
                    }
                    .serve()
                });
            }
        });
        server
    }

    /// The ranges of content that were asked for, without the one-byte probes.
    pub fn ranges(&self) -> Vec<String> {
        self.state.lock().unwrap().ranges.clone()
    }

    pub fn set_faults(&self, faults: Faults) {
        self.state.lock().unwrap().faults = faults;
    }
}

fn sha256(bytes: &[u8]) -> String {
    let mut writer = HashingWriter::new(std::io::sink());
    writer.write_all(bytes).unwrap();
    writer.finish().2
}

fn description(files: &[&str], content: &[u8]) -> String {
    let files: Vec<_> = files
        .iter()
        .map(|name| {
            serde_json::json!({
                "rfilename": name, "size": content.len(), "lfs": { "sha256": sha256(content) },
            })
        })
        .collect();
    serde_json::json!({ "sha": "c0ffee", "siblings": files }).to_string()
}

struct Connection {
    stream: TcpStream,
    endpoint: String,
    description: String,
    content: Vec<u8>,
    state: Arc<Mutex<State>>,
}

impl Connection {
    /// Answers one request; a client that went away is its own business.
    fn serve(mut self) -> Option<()> {
        let mut reader = BufReader::new(self.stream.try_clone().ok()?);
        let mut request = String::new();
        reader.read_line(&mut request).ok()?;
        let path = request.split(' ').nth(1)?.to_owned();
        let mut range = String::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
                range = value.trim().to_owned();
            }
        }
        match path.as_str() {
            "/api/models/owner/repo/revision/main?blobs=true" => {
                let body = self.description.clone();
                self.respond("200 OK", "", body.as_bytes())
            }
            "/content" => self.respond_with_content(&range),
            _ if path.starts_with("/owner/repo/resolve/main/") => {
                let headers = format!(
                    "Location: {}/content\r\nX-Repo-Commit: c0ffee\r\nX-Linked-Etag: \"{}\"\r\n",
                    self.endpoint,
                    sha256(&self.content)
                );
                self.respond("302 Found", &headers, b"")
            }
            _ => self.respond("404 Not Found", "", b"not found"),
        }
    }

    fn respond(&mut self, status: &str, headers: &str, body: &[u8]) -> Option<()> {
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        self.stream.write_all(head.as_bytes()).ok()?;
        self.stream.write_all(body).ok()
    }

    fn respond_with_content(&mut self, range: &str) -> Option<()> {
        let is_probe = range == "0-0";
        let mut content = std::mem::take(&mut self.content);
        let total = content.len();
        let faults = {
            let mut state = self.state.lock().unwrap();
            if !is_probe {
                state.ranges.push(range.to_owned());
            }
            let faults = state.faults;
            if !is_probe && faults.broken_transfers > 0 {
                state.faults.broken_transfers -= 1;
            }
            faults
        };
        if faults.corrupt {
            content[total / 2] ^= 1;
        }
        let (first, last) = range.split_once('-')?;
        let first: usize = first.parse().ok()?;
        let last = last.parse().unwrap_or(total - 1);
        if faults.ignores_ranges && !is_probe {
            return self.respond("200 OK", "", &content);
        }
        if first >= total {
            return self.respond("416 Range Not Satisfiable", "", b"");
        }
        let headers = format!("Content-Range: bytes {first}-{last}/{total}\r\n");
        let body = &content[first..=last];
        if !is_probe && faults.broken_transfers > 0 {
            let head = format!(
                "HTTP/1.1 206 Partial Content\r\n{headers}Content-Length: {}\r\n\r\n",
                body.len()
            );
            self.stream.write_all(head.as_bytes()).ok()?;
            return self.stream.write_all(&body[..body.len() / 3]).ok();
        }
        self.respond("206 Partial Content", &headers, body)
    }
}
