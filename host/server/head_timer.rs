//! How long a client may take for the head of a request, and how long a connection may rest before it.
//!
//! hyper has one time for both, and would close connections that rest for as long as a head may take: clients keep
//! them for a minute and more, and a request that is sent while one closes fails.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

/// How often something arrived on a connection.
#[derive(Debug, Clone, Default)]
pub struct Arrivals(Arc<AtomicU64>);

impl Arrivals {
    /// Something arrived.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The timer of one connection, which hyper asks for one thing: when to give up waiting for a head. It gives hyper's
/// deadline to a connection that rests, and `head_time` to a head whose first bytes have arrived.
#[derive(Debug, Clone)]
pub struct HeadTimer {
    /// Of the connection.
    pub arrivals: Arrivals,
    /// From a head's first bytes to its end.
    pub head_time: Duration,
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(HeadWait {
            deadline: Box::pin(tokio::time::sleep_until(deadline.into())),
            rests_at: Some(self.arrivals.count()),
            timer: self.clone(),
        })
    }
}

/// Ends when a head has not come in time. hyper polls it whenever something has arrived.
struct HeadWait {
    deadline: Pin<Box<tokio::time::Sleep>>,
    /// What had arrived before, as long as nothing else has.
    rests_at: Option<u64>,
    timer: HeadTimer,
}

impl Future for HeadWait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let arrived = self.timer.arrivals.count();
        if self.rests_at.is_some_and(|before| before != arrived) {
            self.rests_at = None;
            let within = tokio::time::Instant::now() + self.timer.head_time;
            self.deadline.as_mut().reset(within);
        }
        ready!(self.deadline.as_mut().poll(context));
        Poll::Ready(())
    }
}

impl Sleep for HeadWait {}
