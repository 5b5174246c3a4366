//! Plain HTTP through a proxy.
//!
//! Such a request names the whole URL in its first line (RFC 9112, section 3.2.2), and that is all that many
//! proxies allow to ports other than 443. `ureq` would open a tunnel instead. So the request goes
//! to the proxy as if that were the server, and the first line is completed here.

use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// Completes the first line of requests with the server's `http://HOST[:PORT]`.
#[derive(Debug)]
pub(super) struct AbsoluteForm {
    pub server: String,
}

impl<In: Transport> Connector<In> for AbsoluteForm {
    type Out = AbsoluteRequests<In>;

    fn connect(
        &self,
        _details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        Ok(chained.map(|inner| AbsoluteRequests {
            inner,
            server: self.server.clone(),
        }))
    }
}

/// A connection whose requests get absolute URLs.
#[derive(Debug)]
pub(super) struct AbsoluteRequests<In> {
    inner: In,
    server: String,
}

impl<In: Transport> Transport for AbsoluteRequests<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        const METHOD: &[u8] = b"GET ";
        let server = self.server.as_bytes();
        let output = self.inner.buffers().output();
        let longer = amount + server.len();
        // Nothing but whole heads of GET requests is ever sent here.
        if !output.starts_with(b"GET /") || longer > output.len() {
            let message = "a request too long for a proxy";
            return Err(std::io::Error::other(message).into());
        }
        output.copy_within(METHOD.len()..amount, METHOD.len() + server.len());
        output[METHOD.len()..][..server.len()].copy_from_slice(server);
        self.inner.transmit_output(longer, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}
