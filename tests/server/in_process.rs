//! A server in this process, whose backend a test chooses.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;

use hyperion::backend::{Backend, PAGE_TOKENS, Pooling};
use hyperion::chat::ChatTemplate;
use hyperion::cpu::CpuBackend;
use hyperion::engine::{Options, Scheduler};
use hyperion::gguf::Gguf;
use hyperion::model::Model;
use hyperion::server::{self, Access, Config, Exit, Limits, Loaded, ServeError};
use hyperion::tokenizer::Tokenizer;
use serde_json::Value;

use crate::client::{Connection, request_bytes};
use crate::server::{JSON, TEXT, model};

/// How such a server ended.
pub type Outcome = Result<Exit, ServeError<String>>;

/// What runs a model's steps.
pub type MakeBackend = fn(Arc<Model>) -> Box<dyn Backend>;

static INTERRUPT: AtomicBool = AtomicBool::new(false);

pub fn config(port: u16, stall_time: Duration) -> Config {
    let seconds = Duration::from_secs;
    Config {
        host: "127.0.0.1".to_owned(),
        port,
        model_name: "m".to_owned(),
        access: Access::default(),
        limits: Limits {
            body_bytes: 1 << 20,
            prompt_tokens: None,
            answer_tokens: None,
            queue: 10,
            connections: 10,
            idle_time: seconds(3600),
            head_time: seconds(5),
            body_time: seconds(1),
            events_behind: 100,
            stall_time,
        },
        pooling: Pooling::Last,
        logs_prompts: false,
    }
}

/// The CPU, whose steps end in the middle when nobody waits for them.
pub fn on_cpu(model: Arc<Model>) -> Box<dyn Backend> {
    Box::new(CpuBackend::new(model, 2000).interrupted_by(&INTERRUPT))
}

pub fn loaded(backend: MakeBackend) -> Loaded {
    let gguf = Gguf::open(&model()).expect("a file");
    let tokenizer = Tokenizer::from_gguf(&gguf).expect("a tokenizer");
    let template = ChatTemplate::from_gguf(&gguf, &tokenizer).expect("a template");
    let backend = backend(Arc::new(Model::from_gguf(&gguf).expect("a model")));
    let n_tokens = backend.limits().n_pages * PAGE_TOKENS;
    let options = Options {
        context: n_tokens.min(100_000),
        chunk: 64,
        mixed_chunk: 64,
        max_running: 4,
    };
    Loaded {
        scheduler: Scheduler::new(backend, Arc::new(tokenizer), options),
        template: Ok(template),
        interrupt: &INTERRUPT,
    }
}

/// Starts one.
pub fn start(config: Config, backend: MakeBackend) -> (SocketAddr, JoinHandle<Outcome>) {
    let (ready, address) = channel();
    let run = std::thread::spawn(move || {
        let ready = move |address| ready.send(address).expect("somebody waits");
        server::run(config, move || Ok(loaded(backend)), ready)
    });
    (address.recv().expect("it is ready"), run)
}

pub fn ask(address: SocketAddr, body: &Value) -> Connection {
    ask_at(address, TEXT, body)
}

pub fn ask_at(address: SocketAddr, path: &str, body: &Value) -> Connection {
    let mut connection = Connection::open(address);
    let body = body.to_string();
    connection.send(&request_bytes("POST", path, &[JSON], body.as_bytes()));
    connection
}

pub fn get(address: SocketAddr, path: &str) -> crate::client::Reply {
    let mut connection = Connection::open(address);
    connection.send(&request_bytes("GET", path, &[], b""));
    connection.reply()
}

pub fn health(address: SocketAddr) -> u16 {
    get(address, "/health").status
}
