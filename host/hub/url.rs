//! URLs: made from names, followed through redirects, compared by server.

use std::fmt::Write;

use ureq::http::Uri;

/// A server as far as credentials are concerned: scheme, host in lower case, port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// `None` where the URL is relative or of another scheme than HTTP's.
    pub fn of(url: &Uri) -> Option<Origin> {
        let scheme = url.scheme_str()?.to_ascii_lowercase();
        let default = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let host = url.host().filter(|host| !host.is_empty())?;
        Some(Origin {
            host: host.to_ascii_lowercase(),
            port: url.port_u16().unwrap_or(default),
            scheme,
        })
    }

    /// Whether what is sent there can be read on the way.
    pub fn is_plain(&self) -> bool {
        self.scheme == "http"
    }
}

/// `path` with every byte encoded that is not plain in a URL; slashes still separate.
pub(super) fn encode_path(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                out.push(char::from(byte));
            }
            byte => push_encoded(&mut out, byte),
        }
    }
    out
}

fn push_encoded(out: &mut String, byte: u8) {
    // Writing to a string cannot fail.
    let _ = write!(out, "%{byte:02X}");
}

/// Where a `Location` header leads from `base` (RFC 3986, section 5.2). `None` where it is no HTTP URL. A
/// user name or password in it is dropped: it is not ours to send.
pub(super) fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.trim().split('#').next()?;
    let scheme = base.scheme_str()?;
    let text = if is_absolute(location) {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else {
        let origin = format!("{scheme}://{}", base.authority()?);
        match location.chars().next() {
            None => base.to_string(),
            Some('/') => origin + location,
            Some('?') => origin + base.path() + location,
            Some(_) => {
                let folder = base
                    .path()
                    .rfind('/')
                    .map_or("/", |end| &base.path()[..=end]);
                origin + folder + location
            }
        }
    };
    let (scheme, rest) = text.split_once("://")?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit('@').next()?;
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    let mut url = format!("{scheme}://{host}{}", tidy(&without_dots(path)));
    if let Some(query) = query {
        url.push('?');
        url.push_str(&tidy(query));
    }
    let url: Uri = url.parse().ok()?;
    Origin::of(&url).map(|_| url)
}

/// Whether it begins with a scheme.
fn is_absolute(location: &str) -> bool {
    location.split_once("://").is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
    })
}

/// Removes `.` and `..` segments.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    for (index, segment) in segments.iter().enumerate() {
        let is_last = index + 1 == segments.len();
        match *segment {
            "." | ".." => {
                if *segment == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

/// Servers send `Location` headers with characters that no URL may hold; browsers encode them.
fn tidy(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            0..=b' ' | b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x7f.. => {
                push_encoded(&mut out, byte);
            }
            byte => out.push(char::from(byte)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded() {
        assert_eq!(encode_path("sub/m-Q4_K_M.gguf"), "sub/m-Q4_K_M.gguf");
        assert_eq!(
            encode_path("a b/#1?x=%41\\ü+&"),
            "a%20b/%231%3Fx%3D%2541%5C%C3%BC%2B%26"
        );
    }

    #[test]
    fn locations_are_resolved() {
        let base: Uri = "https://hub.example:8443/pre/fix/file?x=1".parse().unwrap();
        let to = |location| resolve(&base, location).map(|url| url.to_string());
        for (location, url) in [
            ("http://Other/a%20b?q=1#frag", "http://Other/a%20b?q=1"),
            ("//cdn.example/x", "https://cdn.example/x"),
            ("/x/y?z", "https://hub.example:8443/x/y?z"),
            ("x", "https://hub.example:8443/pre/fix/x"),
            ("../x/./y", "https://hub.example:8443/pre/x/y"),
            ("../../../x/..", "https://hub.example:8443/"),
            ("?q", "https://hub.example:8443/pre/fix/file?q"),
            ("/a b|ü", "https://hub.example:8443/a%20b%7C%C3%BC"),
            ("http://user:secret@other/x", "http://other/x"),
            ("http://other", "http://other/"),
            (
                "/to?u=http://other/",
                "https://hub.example:8443/to?u=http://other/",
            ),
        ] {
            assert_eq!(to(location).as_deref(), Some(url), "{location}");
        }
        for location in [
            "ftp://other/x",
            "file:///etc/passwd",
            "http://",
            "http://a b/",
            "http:///x",
        ] {
            assert_eq!(to(location), None, "{location}");
        }
    }

    #[test]
    fn origins_are_told_apart() {
        let origin = |url: &str| Origin::of(&url.parse().unwrap()).unwrap();
        assert_eq!(
            origin("https://Hub.example/a"),
            origin("https://hub.EXAMPLE:443/b")
        );
        for other in [
            "http://hub.example/",
            "https://hub.example:444/",
            "https://sub.hub.example/",
        ] {
            assert_ne!(origin("https://hub.example/"), origin(other), "{other}");
        }
    }
}
