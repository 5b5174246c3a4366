//! From binding a port to the last answer.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::connections::Connections;
use super::engine_thread::{EngineFailure, EngineThread};
use super::metrics::EngineMetrics;
use super::router::router;
use super::state::{Loaded, Phase, Served, ServerState, now};
use super::{Config, Limits};
use crate::grammar::Grammars;

/// How long clients get to read the error of a device that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// Why a server ended that should not have.
#[derive(Debug, thiserror::Error)]
pub enum ServeError<E> {
    /// Nobody can reach it.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// Where it should have listened.
        address: String,
        /// Why it cannot.
        source: io::Error,
    },
    /// The runtime or its signals.
    #[error("starting the server")]
    Start(#[source] io::Error),
    /// There is no model to serve.
    #[error("loading the model")]
    Load(E),
    /// The engine ended.
    #[error(transparent)]
    Engine(#[from] EngineFailure),
}

/// How a server ended that was told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All answers under way were completed.
    Drained,
    /// It was told twice.
    Forced,
}

/// Runs a server until it is told to end. `load` gives the model while `/health` says that it is not there yet, and
/// `ready` hears where it listens as soon as it answers.
///
/// # Errors
/// The address is taken, there is no model, or the device failed.
pub fn run<E: Send + 'static>(
    config: Config,
    load: impl FnOnce() -> Result<Loaded, E> + Send + 'static,
    ready: impl FnOnce(SocketAddr),
) -> Result<Exit, ServeError<E>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("http")
        .build()
        .map_err(ServeError::Start)?;
    let exit = runtime.block_on(serve(config, load, ready));
    // What is left is for nobody.
    runtime.shutdown_background();
    exit
}

async fn serve<E: Send + 'static>(
    config: Config,
    load: impl FnOnce() -> Result<Loaded, E> + Send + 'static,
    ready: impl FnOnce(SocketAddr),
) -> Result<Exit, ServeError<E>> {
    let listener = bind(&config).await?;
    let address = listener.local_addr().map_err(ServeError::Start)?;
    let limits = config.limits;
    let state = Arc::new(ServerState::new(config));
    let connections = Arc::new(Connections::new(router(state.clone()), limits));
    let mut signals = Signals::new().map_err(ServeError::Start)?;
    tokio::spawn({
        let connections = connections.clone();
        async move { connections.accept(listener).await }
    });

    let (loaded, mut ended) =
        start_engine(load, limits, state.metrics.engine.clone()).map_err(ServeError::Start)?;
    let served = tokio::select! {
        loaded = loaded => loaded.map_err(|_| EngineFailure::Panic)?.map_err(ServeError::Load)?,
        // Nothing runs yet.
        () = signals.next() => return Ok(Exit::Drained),
    };
    state.serve(served);
    ready(address);
    if let Ok(served) = state.served().cloned() {
        // Nobody waits for it, but for a first request that needs it and comes at once.
        tokio::task::spawn_blocking(move || served.grammars.warm_up());
    }

    tokio::select! {
        () = signals.next() => {}
        failure = &mut ended => {
            state.advance(Phase::Failed);
            let _ = tokio::time::timeout(AFTER_FAILURE, connections.close()).await;
            return Err(failure.unwrap_or(EngineFailure::Panic).into());
        }
    }
    state.advance(Phase::Draining);
    tokio::select! {
        () = connections.close() => Ok(Exit::Drained),
        () = signals.next() => Ok(Exit::Forced),
        failure = ended => Err(failure.unwrap_or(EngineFailure::Panic).into()),
    }
}

async fn bind<E>(config: &Config) -> Result<TcpListener, ServeError<E>> {
    let bound = TcpListener::bind((config.host.as_str(), config.port)).await;
    bound.map_err(|source| ServeError::Bind {
        address: format!("{}:{}", config.host, config.port),
        source,
    })
}

/// The end of the engine's thread, if it ends by itself.
type Ended = oneshot::Receiver<EngineFailure>;

/// Starts the thread that loads the model and then runs the engine.
fn start_engine<E: Send + 'static>(
    load: impl FnOnce() -> Result<Loaded, E> + Send + 'static,
    limits: Limits,
    metrics: EngineMetrics,
) -> io::Result<(oneshot::Receiver<Result<Served, E>>, Ended)> {
    let (loaded, when_loaded) = oneshot::channel();
    let (ended, when_ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || {
            let model = match load() {
                Ok(model) => model,
                Err(error) => {
                    let _ = loaded.send(Err(error));
                    return;
                }
            };
            let tokenizer = model.scheduler.tokenizer().clone();
            let width = model.scheduler.model().config.width;
            let (mut thread, engine) =
                EngineThread::new(model.scheduler, model.interrupt, &limits, metrics);
            let _ = loaded.send(Ok(Served {
                engine,
                grammars: Grammars::new(&tokenizer),
                tokenizer,
                template: model.template,
                width,
                created: now(),
            }));
            // A thread that panics drops `ended`, which is noticed. Giving back what a failed device holds may take a
            // while, and comes after that.
            if let Err(failure) = thread.run() {
                let _ = ended.send(failure);
            }
        })?;
    Ok((when_loaded, when_ended))
}

/// What tells a server to end.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn new() -> io::Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    #[cfg(not(unix))]
    fn new() -> io::Result<Signals> {
        Ok(Signals {})
    }

    /// Waits for the next one.
    #[cfg(unix)]
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Waits for the next one.
    #[cfg(not(unix))]
    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
