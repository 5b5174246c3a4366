//! Accepting connections: how many there may be, how slow they may be, and how they end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tower::Service;

use super::Limits;
use super::head_timer::{Arrivals, HeadTimer};
use super::stall::StallLimited;

/// Connections above the limit, each of which is told so.
const RESERVE: usize = 32;
/// How long requests are still taken on connections that are to end.
const GRACE: Duration = Duration::from_millis(200);
/// Rest after an error of the operating system, which is out of files perhaps.
const AFTER_ERROR: Duration = Duration::from_millis(100);

/// What requests can know of their connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// Our address on it.
    pub local: SocketAddr,
    /// Whether it is above the limit.
    pub is_over_limit: bool,
}

/// The connections of a server.
pub struct Connections {
    router: Router,
    limits: Limits,
    within: Arc<Semaphore>,
    reserve: Arc<Semaphore>,
    /// Turns true when connections are to end with the response under way.
    closing: watch::Sender<bool>,
}

impl Connections {
    /// Connections to `router`, none yet.
    pub fn new(router: Router, limits: Limits) -> Connections {
        Connections {
            router,
            limits,
            within: Arc::new(Semaphore::new(limits.connections)),
            reserve: Arc::new(Semaphore::new(RESERVE)),
            closing: watch::channel(false).0,
        }
    }

    /// Accepts connections for ever.
    pub async fn accept(&self, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => self.serve(stream).await,
                Err(_) => tokio::time::sleep(AFTER_ERROR).await,
            }
        }
    }

    /// Ends all connections as soon as the responses under way are complete, and waits for that. Those that come later
    /// serve one request each.
    pub async fn close(&self) {
        self.closing.send_replace(true);
        let all = u32::try_from(self.limits.connections).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        if let Ok(permits) = self.within.acquire_many(all).await {
            permits.forget();
        }
    }

    async fn serve(&self, stream: TcpStream) {
        let permit = self.within.clone().try_acquire_owned();
        let is_over_limit = permit.is_err() && !*self.closing.borrow();
        let permit = match permit {
            Ok(permit) => permit,
            Err(_) => match self.reserve.clone().acquire_owned().await {
                Ok(permit) => permit,
                Err(_) => return,
            },
        };
        let Ok(local) = stream.local_addr() else {
            return;
        };
        let peer = Peer {
            local,
            is_over_limit,
        };
        tokio::spawn(serve(
            stream,
            peer,
            self.router.clone(),
            self.limits,
            self.closing.subscribe(),
            permit,
        ));
    }
}

async fn serve(
    stream: TcpStream,
    peer: Peer,
    router: Router,
    limits: Limits,
    mut closing: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
) {
    // Tokens are small and should not wait for one another.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |mut request: Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer);
        router.clone().call(request)
    });
    let is_last = peer.is_over_limit || *closing.borrow_and_update();
    let arrivals = Arrivals::default();
    let timer = HeadTimer {
        arrivals: arrivals.clone(),
        head_time: limits.head_time,
    };
    let stream = TokioIo::new(StallLimited::new(stream, limits.stall_time, arrivals));
    let connection = http1::Builder::new()
        .timer(timer)
        .header_read_timeout(limits.idle_time)
        .keep_alive(!is_last)
        .serve_connection(stream, service);
    let mut connection = std::pin::pin!(connection);
    // What goes wrong on a connection is its client's affair.
    if is_last {
        let _ = connection.await;
        return;
    }
    tokio::select! {
        _ = connection.as_mut() => {}
        () = closed(&mut closing) => {
            // A request that was sent before the client could know is told so, not cut off.
            if timeout(GRACE, connection.as_mut()).await.is_err() {
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            }
        }
    }
}

async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}
