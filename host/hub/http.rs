//! GET requests to the Hub: redirects, credentials, proxies, timeouts.

use std::env;
use std::io;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ureq::http::header::{HeaderMap, LOCATION, RETRY_AFTER};
use ureq::http::{Response, Uri, uri};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, DefaultConnector};
use ureq::{Agent, Body, Proxy, ProxyProtocol};

use super::forward::AbsoluteForm;
use super::proxy::Proxies;
use super::token::Token;
use super::url::{Origin, resolve};

/// Redirects in a row. The Hub needs one or two.
const MOST_REDIRECTS: usize = 10;

/// What a server may take for the head of its answer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Sends requests to one server, and wherever that redirects them.
pub(super) struct Client {
    agent: Agent,
    home: Origin,
    token: Option<Token>,
    proxies: Proxies,
    idle: Duration,
}

/// A request without the wanted answer.
#[derive(Debug)]
pub(super) struct Failed {
    /// Why, in words that hold no secret.
    pub reason: String,
    /// The server's answer, where there was one.
    pub status: Option<u16>,
    /// Whether the same request may succeed later.
    pub is_temporary: bool,
    /// How long the server asks to wait.
    pub wait: Option<Duration>,
}

impl Failed {
    /// What may be better the next time.
    pub fn temporary(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            status: None,
            is_temporary: true,
            wait: None,
        }
    }

    /// What will not be.
    pub fn permanent(reason: impl Into<String>) -> Self {
        Self {
            is_temporary: false,
            ..Self::temporary(reason)
        }
    }

    /// An answer with an unwanted status.
    fn status(status: u16, headers: &HeaderMap) -> Self {
        let wait = headers.get(RETRY_AFTER).and_then(|value| {
            // The other form is a date, which servers of files do not send.
            let seconds = value.to_str().ok()?.trim().parse().ok()?;
            Some(Duration::from_secs(seconds))
        });
        Self {
            reason: format!("the server answers with status {status}"),
            status: Some(status),
            is_temporary: matches!(status, 408 | 425 | 429 | 500..),
            wait,
        }
    }
}

impl From<ureq::Error> for Failed {
    fn from(error: ureq::Error) -> Self {
        use ureq::Error as E;
        let reason = match &error {
            E::Timeout(_) => "the server does not answer in time".to_owned(),
            E::HostNotFound => "the server's name is not known".to_owned(),
            // These may quote what a server sent.
            E::BadUri(_) | E::Http(_) | E::Protocol(_) => {
                "the server's answer is not HTTP".to_owned()
            }
            E::Io(error) => error.to_string(),
            other => other.to_string(),
        };
        match error {
            E::Timeout(_)
            | E::HostNotFound
            | E::Io(_)
            | E::ConnectionFailed
            | E::ConnectProxyFailed(_)
            | E::Protocol(_) => Self::temporary(reason),
            _ => Self::permanent(reason),
        }
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        ureq::Error::from(error).into()
    }
}

impl Client {
    /// A client that shows `token` to the server of `home` alone. A server that sends nothing for
    /// `idle` has failed.
    pub fn new(home: Origin, token: Option<Token>, idle: Duration) -> Self {
        let agent = Agent::new_with_config(settings(idle, None));
        let proxies = Proxies::from_variables(|name| env::var(name).ok());
        Self {
            agent,
            home,
            token,
            proxies,
            idle,
        }
    }

    /// Silence after which a transfer counts as stalled.
    pub fn idle(&self) -> Duration {
        self.idle
    }

    /// The answer to a request for `url`, behind all redirects: the content from byte `from` on, where the
    /// server knows ranges. Its status is 200 or 206.
    pub fn get(&self, url: &Uri, from: Option<u64>) -> Result<Response<Body>, Failed> {
        let mut url = url.clone();
        for _ in 0..=MOST_REDIRECTS {
            let answer = self.send(&url, from)?;
            match answer.status().as_u16() {
                200 | 206 => return Ok(answer),
                301 | 302 | 303 | 307 | 308 => url = redirect(&url, answer.headers())?,
                status => return Err(Failed::status(status, answer.headers())),
            }
        }
        Err(Failed::permanent("the server redirects for ever"))
    }

    /// One request.
    fn send(&self, url: &Uri, from: Option<u64>) -> Result<Response<Body>, Failed> {
        let proxy = self.proxies.of(url).map_err(Failed::permanent)?;
        let mut request = match proxy {
            Some(proxy) if is_forwarded(url, &proxy) => forwarded(url, &proxy, self.idle)?,
            proxy => self.agent.get(url).config().proxy(proxy).build(),
        };
        if let Some(from) = from {
            request = request.header("Range", format!("bytes={from}-"));
        }
        if let Some(token) = &self.token
            && Origin::of(url).as_ref() == Some(&self.home)
        {
            request = request.header("Authorization", token.header());
        }
        Ok(request.call()?)
    }
}

/// Redirects are followed here and not by ureq, so that every request gets its own credentials and
/// its own proxy.
fn settings(idle: Duration, proxy: Option<Proxy>) -> ureq::config::Config {
    Agent::config_builder()
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .proxy(proxy)
        .user_agent(concat!("hyperion/", env!("CARGO_PKG_VERSION")))
        // Ranges and digests are those of the file itself.
        .accept_encoding("identity")
        .timeout_resolve(Some(idle))
        .timeout_connect(Some(idle))
        .timeout_recv_response(Some(HEAD_TIMEOUT))
        .timeout_per_read(Some(idle))
        .timeout_per_write(Some(idle))
        .build()
}

/// Where an answer leads.
fn redirect(from: &Uri, headers: &HeaderMap) -> Result<Uri, Failed> {
    let location = headers.get(LOCATION).map(|value| value.as_bytes());
    let location = location.and_then(|bytes| str::from_utf8(bytes).ok());
    let target = location.and_then(|location| resolve(from, location));
    let Some(target) = target else {
        return Err(Failed::permanent("the server redirects to nowhere"));
    };
    let is_plain = |url| Origin::of(url).is_some_and(|origin| origin.is_plain());
    if is_plain(&target) && !is_plain(from) {
        let reason = "the server redirects from https to http, where anybody can listen";
        return Err(Failed::permanent(reason));
    }
    Ok(target)
}

/// Whether requests for `url` are sent to the proxy itself, not through a tunnel.
fn is_forwarded(url: &Uri, proxy: &Proxy) -> bool {
    let speaks_http = matches!(proxy.protocol(), ProxyProtocol::Http | ProxyProtocol::Https);
    speaks_http && url.scheme_str() == Some("http")
}

/// A request for `url`, which is plain HTTP, to a proxy that speaks HTTP.
fn forwarded(
    url: &Uri,
    proxy: &Proxy,
    idle: Duration,
) -> Result<ureq::RequestBuilder<ureq::typestate::WithoutBody>, Failed> {
    let unusable = |_| Failed::permanent("the proxy's URL cannot be used");
    let server = url.authority().map_or("", uri::Authority::as_str);
    let scheme = match proxy.protocol() {
        ProxyProtocol::Https => "https",
        _ => "http",
    };
    let to_proxy = Uri::builder()
        .scheme(scheme)
        .authority(format!("{}:{}", proxy.host(), proxy.port()))
        .path_and_query(url.path_and_query().map_or("/", |path| path.as_str()))
        .build()
        .map_err(unusable)?;
    let connector = DefaultConnector::new().chain(AbsoluteForm {
        server: format!("http://{server}"),
    });
    let agent = Agent::with_parts(settings(idle, None), connector, DefaultResolver::default());
    let mut request = agent.get(to_proxy).header("Host", server);
    if proxy.username().is_some() || proxy.password().is_some() {
        let user = proxy.username().unwrap_or_default();
        let password = proxy.password().unwrap_or_default();
        let encoded = BASE64_STANDARD.encode(format!("{user}:{password}"));
        request = request.header("Proxy-Authorization", format!("Basic {encoded}"));
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirected(from: &str, location: &str) -> Result<String, String> {
        let headers = HeaderMap::from_iter([(LOCATION, location.parse().unwrap())]);
        let to = redirect(&from.parse().unwrap(), &headers);
        to.map(|url| url.to_string()).map_err(|error| error.reason)
    }

    #[test]
    fn redirects_never_lose_encryption() {
        let secure = redirected("https://hub/a", "https://cdn/b");
        assert_eq!(secure.unwrap(), "https://cdn/b");
        assert!(redirected("http://hub/a", "https://cdn/b").is_ok());
        let message = redirected("https://hub/a", "http://cdn/?secret").unwrap_err();
        assert!(message.contains("http") && !message.contains("secret"));
        assert!(redirected("https://hub/a", "ftp://cdn/b").is_err());
    }
}
