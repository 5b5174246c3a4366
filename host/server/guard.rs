//! Who is let in: a web page must not reach a server on its visitor's machine.
//!
//! A hostile page can send a browser to a name of its own that suddenly is an address of the visitor's network (DNS
//! rebinding). It cannot choose the `Host` that the browser sends then, nor hide its `Origin`, so that both are looked
//! at, of every request. Only then comes the key.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::config::Access;
use super::connections::Peer;
use super::state::ServerState;
use crate::openai::{ApiError, ErrorKind};

/// Seconds for which a browser may remember what it was allowed.
const CORS_MAX_AGE: &str = "600";

/// What may be read without a key.
const PUBLIC: [&str; 3] = ["/", "/favicon.ico", "/health"];

/// Lets a request pass whose host and origin are accepted and which has a key, if one is needed.
pub async fn guard(
    State(state): State<Arc<ServerState>>,
    request: Request,
    next: Next,
) -> Response {
    let access = &state.config.access;
    let host = match check_host(&request, &state.config.host, access) {
        Ok(host) => host,
        Err(error) => return error.into_response(),
    };
    let origin = match check_origin(request.headers(), host.as_ref(), access) {
        Ok(origin) => origin,
        Err(error) => return error.into_response(),
    };
    let mut response = match (&origin, request.method()) {
        (Some(_), &Method::OPTIONS) => preflight(request.headers()),
        _ => match check_key(&request, access) {
            Ok(()) => next.run(request).await,
            Err(error) => error.into_response(),
        },
    };
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
        let exposed = HeaderValue::from_static("x-request-id, retry-after");
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
    response
}

/// The host that the client believes to talk to. Programs other than browsers may leave it out.
fn check_host(
    request: &Request,
    bound: &str,
    access: &Access,
) -> Result<Option<Authority>, ApiError> {
    // Also where there are several, of which a proxy may have looked at another one.
    let named = request.headers().get_all(header::HOST).iter();
    let named = named.map(|host| Authority::try_from(host.as_bytes()));
    let in_target = request.uri().authority().cloned().map(Ok);
    let mut found = None;
    for authority in named.chain(in_target) {
        let authority = authority.ok().filter(is_plain);
        let authority = authority.ok_or_else(|| forbidden("the Host header is not a host"))?;
        let peer = request.extensions().get::<Peer>();
        let local = peer.map(|peer| peer.local.ip());
        if !is_accepted(authority.host(), local, bound, access) {
            return Err(forbidden(
                "this Host is not one of the server's; it can be allowed when the server is started",
            ));
        }
        found = Some(authority);
    }
    Ok(found)
}

/// Whether it is a host, perhaps with a port, and nothing else.
fn is_plain(authority: &Authority) -> bool {
    let host = authority.host();
    match authority.port_u16() {
        Some(port) => authority.as_str() == format!("{host}:{port}"),
        None => authority.as_str() == host,
    }
}

fn is_accepted(host: &str, local: Option<IpAddr>, bound: &str, access: &Access) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = host.strip_suffix('.').unwrap_or(host);
    if let Ok(ip) = host.parse::<IpAddr>() {
        let ip = ip.to_canonical();
        let is_any = bound
            .parse::<IpAddr>()
            .is_ok_and(|bound| bound.is_unspecified());
        // An address in place of a name was not rebound.
        if is_any || ip.is_loopback() || local.is_some_and(|local| local.to_canonical() == ip) {
            return true;
        }
    }
    let is = |name: &str| name.eq_ignore_ascii_case(host);
    is("localhost")
        || is(bound)
        || access
            .allowed_hosts
            .iter()
            .any(|name| name == "*" || is(name))
}

/// The origin of a page from elsewhere that may ask; none for our own pages, and for what is no browser.
fn check_origin(
    headers: &HeaderMap,
    host: Option<&Authority>,
    access: &Access,
) -> Result<Option<HeaderValue>, ApiError> {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return Ok(None);
    };
    let text = origin.to_str().unwrap_or("");
    let authority = text
        .strip_prefix("http://")
        .or(text.strip_prefix("https://"));
    if let (Some(authority), Some(host)) = (authority, host)
        && authority.eq_ignore_ascii_case(host.as_str())
    {
        return Ok(None);
    }
    let allowed = |allowed: &String| allowed == "*" || allowed.eq_ignore_ascii_case(text);
    match access.cors_origins.iter().any(allowed) {
        true => Ok(Some(origin.clone())),
        false => Err(forbidden(
            "web pages of this Origin may not ask; it can be allowed when the server is started",
        )),
    }
}

/// What a browser asks before it sends a page's request.
fn preflight(headers: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let answer = response.headers_mut();
    let methods = HeaderValue::from_static("GET, POST");
    answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    let age = HeaderValue::from_static(CORS_MAX_AGE);
    answer.insert(header::ACCESS_CONTROL_MAX_AGE, age);
    let asked = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
    let asked = asked.and_then(|names| names.to_str().ok()).unwrap_or("");
    // Whichever headers a client adds: none but the key and the type means anything here.
    let names = asked.split(',').map(str::trim);
    let names = names.filter(|name| HeaderName::try_from(*name).is_ok());
    let names = names.collect::<Vec<_>>().join(", ");
    if let Ok(names) = HeaderValue::try_from(names) {
        answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names);
    }
    response
}

fn check_key(request: &Request, access: &Access) -> Result<(), ApiError> {
    if PUBLIC.contains(&request.uri().path()) || access.api_keys.admit(request.headers()) {
        return Ok(());
    }
    let message = "an API key is needed, as `Authorization: Bearer KEY` or `x-api-key: KEY`";
    Err(ApiError {
        kind: ErrorKind::AuthenticationError,
        code: Some("invalid_api_key"),
        ..ApiError::with_status(401, message)
    })
}

fn forbidden(message: &str) -> ApiError {
    ApiError {
        kind: ErrorKind::PermissionError,
        ..ApiError::with_status(403, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(host: &str, bound: &str) -> bool {
        let local = Some(IpAddr::from([192, 168, 0, 5]));
        let access = Access {
            allowed_hosts: vec!["llm.example".to_owned()],
            ..Access::default()
        };
        is_accepted(host, local, bound, &access)
    }

    #[test]
    fn hosts_are_this_machine_or_allowed() {
        for host in [
            "localhost",
            "LOCALHOST",
            "localhost.",
            "127.0.0.1",
            "127.1.2.3",
            "[::1]",
            "192.168.0.5",
            "[::ffff:192.168.0.5]",
            "llm.example",
            "box",
        ] {
            assert!(accepted(host, "box"), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "192.168.0.6",
            "xlocalhost",
            "",
        ] {
            assert!(!accepted(host, "127.0.0.1"), "{host}");
        }
        assert!(accepted("10.0.0.1", "0.0.0.0"), "bound everywhere");
        assert!(!accepted("evil.example", "0.0.0.0"));
    }

    #[test]
    fn origins_are_our_own_or_allowed() {
        let access = Access {
            cors_origins: vec!["https://page.example".to_owned()],
            ..Access::default()
        };
        let host = Authority::from_static("localhost:8080");
        let check = |origin: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
            check_origin(&headers, Some(&host), &access).map(|origin| origin.is_some())
        };
        assert_eq!(check("http://localhost:8080"), Ok(false));
        assert_eq!(check("https://page.example"), Ok(true));
        for foreign in [
            "null",
            "http://evil.example",
            "http://localhost:3000",
            "http://page.example",
            "file://localhost:8080",
        ] {
            assert!(check(foreign).is_err(), "{foreign}");
        }
        let none = HeaderMap::new();
        assert_eq!(check_origin(&none, Some(&host), &access), Ok(None));
    }
}
