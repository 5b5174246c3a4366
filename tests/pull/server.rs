//! A small server with the parts of the Hub's protocol that a download uses: the description of a
//! repository, a redirect from the file to another server that has its content, and byte ranges. It can
//! misbehave in many ways, and it can be a proxy.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use model_cache::HashingWriter;

/// How the server misbehaves.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// So many transfers of content end after a third of what is left.
    pub broken_transfers: usize,
    /// So many transfers of content fall silent after a third of what is left.
    pub stalled_transfers: usize,
    /// Content comes at ten bytes a second.
    pub dripping: bool,
    /// So many requests for the description get no answer.
    pub silent_descriptions: usize,
    /// So many requests get this status with these headers.
    pub refusals: usize,
    pub refusal: &'static str,
    /// The content that is sent is not the announced one.
    pub corrupt: bool,
    /// More than the announced content is sent.
    pub endless: bool,
    /// What is done about ranges.
    pub ranges: Ranges,
    /// Headers of the redirect and of the content.
    pub headers: &'static str,
    /// Where files redirect to, instead of to their content.
    pub location: Option<&'static str>,
    /// Files are sent without a redirect.
    pub direct: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ranges {
    #[default]
    Honoured,
    /// The whole content is sent every time.
    Ignored,
    /// The answer is of a range that begins one byte later.
    Wrong,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// Of the first line: a path, or a URL where a proxy is asked.
    pub target: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
}

/// A server of one repository, `owner/repo`, whose files all have the same content.
pub struct Server {
    pub endpoint: String,
    pub content: Vec<u8>,
    shared: Arc<Shared>,
}

struct Shared {
    /// Path that all others are below.
    prefix: String,
    /// Where the content is: another origin.
    storage: String,
    content: Vec<u8>,
    description: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    faults: Faults,
    hub: Vec<Request>,
    storage: Vec<Request>,
}

impl Server {
    pub fn start(files: &[&str], faults: Faults) -> Self {
        Self::start_below("", &description(files), faults)
    }

    /// A server whose paths are below `prefix`, and which says `description` of its repository.
    pub fn start_below(prefix: &str, description: &str, faults: Faults) -> Self {
        let [hub, storage] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let url = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let endpoint = url(&hub) + prefix;
        let shared = Arc::new(Shared {
            prefix: prefix.to_owned(),
            storage: url(&storage),
            content: content(),
            description: description.to_owned(),
            state: Mutex::new(State {
                faults,
                ..State::default()
            }),
        });
        let of_hub = Arc::clone(&shared);
        listen(hub, move |connection| of_hub.serve_hub(connection));
        let of_storage = Arc::clone(&shared);
        listen(storage, move |connection| {
            of_storage.serve_storage(connection)
        });
        Self {
            endpoint,
            content: content(),
            shared,
        }
    }

    /// The ranges of content that were asked for.
    pub fn ranges(&self) -> Vec<String> {
        let state = self.shared.state.lock().unwrap();
        let range = |request: &Request| request.headers.get("range").cloned().unwrap_or_default();
        state.storage.iter().map(range).collect()
    }

    /// What the Hub was asked.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.state.lock().unwrap().hub.clone()
    }

    /// What the server of the content was asked.
    pub fn storage_requests(&self) -> Vec<Request> {
        self.shared.state.lock().unwrap().storage.clone()
    }

    pub fn set_faults(&self, faults: Faults) {
        self.shared.state.lock().unwrap().faults = faults;
    }
}

/// What every file holds.
pub fn content() -> Vec<u8> {
    let bytes = (0..300_000_u32).map(|i| (i.wrapping_mul(i) >> 7) as u8);
    bytes.collect()
}

pub fn content_sha256() -> String {
    let mut writer = HashingWriter::new(std::io::sink());
    writer.write_all(&content()).unwrap();
    writer.finish().2
}

/// What the Hub says of a repository with these files.
pub fn description(files: &[&str]) -> String {
    let files: Vec<_> = files
        .iter()
        .map(|name| {
            serde_json::json!({
                "rfilename": name,
                "size": content().len(),
                "lfs": { "sha256": content_sha256(), "size": content().len() },
            })
        })
        .collect();
    serde_json::json!({ "sha": "c0ffee", "siblings": files }).to_string()
}

/// Runs `serve` for every connection until the test's process ends.
fn listen(listener: TcpListener, serve: impl Fn(Connection) -> Option<()> + Send + Sync + 'static) {
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = Arc::clone(&serve);
            // A client that went away is its own business.
            thread::spawn(move || Connection::accept(stream).and_then(|c| serve(c)));
        }
    });
}

/// A connection with its one request.
struct Connection {
    stream: TcpStream,
    request: Request,
}

impl Connection {
    fn accept(stream: TcpStream) -> Option<Self> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let target = line.split(' ').nth(1)?.to_owned();
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        Some(Self {
            stream,
            request: Request { target, headers },
        })
    }

    fn respond(&mut self, status: &str, headers: &str, body: &[u8]) -> Option<()> {
        self.respond_with_part(status, headers, body, body.len())
    }

    /// Announces `body` and sends `sent` bytes of it.
    fn respond_with_part(
        &mut self,
        status: &str,
        headers: &str,
        body: &[u8],
        sent: usize,
    ) -> Option<()> {
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        self.stream.write_all(head.as_bytes()).ok()?;
        self.stream.write_all(&body[..sent]).ok()
    }
}

/// Longer than any test waits.
fn fall_silent() {
    thread::sleep(Duration::from_secs(600));
}

/// Whether one more of `left` is due.
fn take(left: &mut usize) -> bool {
    let due = *left > 0;
    *left -= usize::from(due);
    due
}

impl Shared {
    fn serve_hub(&self, mut connection: Connection) -> Option<()> {
        let target = connection.request.target.clone();
        let (faults, silent, refused) = {
            let mut state = self.state.lock().unwrap();
            state.hub.push(connection.request.clone());
            let is_description = target.contains("/api/models/");
            let silent = is_description && take(&mut state.faults.silent_descriptions);
            let refused = take(&mut state.faults.refusals);
            (state.faults.clone(), silent, refused)
        };
        if silent {
            fall_silent();
        }
        if refused {
            return connection.respond(faults.refusal, faults.headers, b"no");
        }
        let Some(path) = target.strip_prefix(&self.prefix) else {
            return connection.respond("404 Not Found", "", b"not below the prefix");
        };
        match path {
            "/api/models/owner/repo/revision/main?blobs=true" => {
                connection.respond("200 OK", "", self.description.as_bytes())
            }
            _ if path.starts_with("/owner/repo/resolve/main/") && faults.direct => {
                self.respond_with_content(connection)
            }
            _ if path.starts_with("/owner/repo/resolve/main/") => {
                let location = faults.location.map_or_else(
                    || format!("{}/content?signature=secret-of-the-url", self.storage),
                    str::to_owned,
                );
                let headers = format!("Location: {location}\r\n{}", faults.headers);
                connection.respond("302 Found", &headers, b"")
            }
            _ => connection.respond("404 Not Found", "", b"not found"),
        }
    }

    fn serve_storage(&self, connection: Connection) -> Option<()> {
        let mut state = self.state.lock().unwrap();
        state.storage.push(connection.request.clone());
        drop(state);
        self.respond_with_content(connection)
    }

    fn respond_with_content(&self, mut connection: Connection) -> Option<()> {
        let (faults, broken, stalled) = {
            let mut state = self.state.lock().unwrap();
            let broken = take(&mut state.faults.broken_transfers);
            let stalled = take(&mut state.faults.stalled_transfers);
            (state.faults.clone(), broken, stalled)
        };
        let mut content = self.content.clone();
        let total = content.len();
        if faults.corrupt {
            content[total / 2] ^= 1;
        }
        if faults.endless {
            content.extend_from_slice(&self.content);
        }
        let range = connection.request.headers.get("range").cloned();
        let range = range.filter(|_| faults.ranges != Ranges::Ignored);
        let mut headers = faults.headers.to_owned();
        let (status, body) = match range {
            None => ("200 OK", &content[..]),
            Some(range) => {
                let first = range.strip_prefix("bytes=")?.strip_suffix('-')?;
                let first: usize = first.parse().ok()?;
                let first = first + usize::from(faults.ranges == Ranges::Wrong);
                if first >= total {
                    return connection.respond("416 Range Not Satisfiable", "", b"");
                }
                let last = total - 1;
                headers += &format!("Content-Range: bytes {first}-{last}/{total}\r\n");
                ("206 Partial Content", &content[first..])
            }
        };
        let sent = match broken || stalled {
            _ if faults.dripping => 0,
            true => body.len() / 3,
            false => body.len(),
        };
        connection.respond_with_part(status, &headers, body, sent)?;
        if faults.dripping {
            for byte in body {
                connection.stream.write_all(&[*byte]).ok()?;
                thread::sleep(Duration::from_millis(100));
            }
        }
        if stalled {
            fall_silent();
        }
        Some(())
    }
}

/// A proxy that passes requests on: whole URLs, and tunnels for `CONNECT`.
pub struct Proxy {
    pub address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Proxy {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let seen = Arc::clone(&requests);
        listen(listener, move |connection| {
            seen.lock().unwrap().push(connection.request.clone());
            forward(connection)
        });
        Self { address, requests }
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn forward(mut client: Connection) -> Option<()> {
    let url = client.request.target.strip_prefix("http://")?.to_owned();
    let (server, path) = url.split_at(url.find('/')?);
    let mut upstream = TcpStream::connect(server).ok()?;
    let mut head = format!("GET {path} HTTP/1.1\r\n");
    for (name, value) in &client.request.headers {
        if !name.starts_with("proxy-") {
            head += &format!("{name}: {value}\r\n");
        }
    }
    upstream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
    std::io::copy(&mut upstream, &mut client.stream).ok()?;
    Some(())
}
