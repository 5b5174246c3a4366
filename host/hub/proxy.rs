//! Which proxy a URL goes through, by the environment's variables as curl reads them.
//!
//! `http_proxy`, `https_proxy` and `all_proxy` name proxies, `no_proxy` the hosts that need none. Each
//! but `http_proxy` may be in capitals too; `HTTP_PROXY` is not read, because a CGI server sets it from
//! a header of its client's. A proxy without a scheme is HTTP's, one without a port listens at 1080.

use std::net::IpAddr;

use ureq::Proxy;
use ureq::http::Uri;

/// What the environment says about proxies.
#[derive(Default)]
pub(super) struct Proxies {
    http: Option<Setting>,
    https: Option<Setting>,
    exceptions: Vec<String>,
}

/// A variable and its value, which may hold a password.
#[derive(Clone)]
struct Setting {
    variable: &'static str,
    value: String,
}

impl Proxies {
    /// From the variables that `variable` looks up.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let first = |names: &[&'static str]| {
            names.iter().find_map(|&name| {
                let value = variable(name).filter(|value| !value.is_empty())?;
                Some(Setting {
                    variable: name,
                    value,
                })
            })
        };
        let exceptions = first(&["no_proxy", "NO_PROXY"]).map_or_else(Vec::new, |setting| {
            let separated = setting.value.split([',', ' ', '\t']);
            let hosts = separated.filter(|host| !host.is_empty());
            hosts.map(str::to_owned).collect()
        });
        Self {
            http: first(&["http_proxy", "all_proxy", "ALL_PROXY"]),
            https: first(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
            exceptions,
        }
    }

    /// The proxy on the way to `url`, if any.
    ///
    /// # Errors
    /// The variable's value is no proxy; the text names the variable and not its value.
    pub fn of(&self, url: &Uri) -> Result<Option<Proxy>, String> {
        let setting = match url.scheme_str() {
            Some("https") => &self.https,
            _ => &self.http,
        };
        let (Some(setting), Some(host)) = (setting, url.host()) else {
            return Ok(None);
        };
        if self.excepts(host) {
            return Ok(None);
        }
        let proxy = normal_form(&setting.value).and_then(|url| Proxy::new(&url).ok());
        match proxy {
            Some(proxy) => Ok(Some(proxy)),
            None => Err(format!("{} does not hold a proxy's URL", setting.variable)),
        }
    }

    /// Whether `host` is reached without a proxy.
    fn excepts(&self, host: &str) -> bool {
        if let [only] = self.exceptions.as_slice()
            && only == "*"
        {
            return true;
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        match bare.parse::<IpAddr>() {
            Ok(address) => self.exceptions.iter().any(|e| covers(e, address)),
            Err(_) => self.exceptions.iter().any(|e| is_domain_of(e, host)),
        }
    }
}

/// Whether `exception` (an address, or a network such as `10.0.0.0/8`) covers `address`.
fn covers(exception: &str, address: IpAddr) -> bool {
    let (network, bits) = match exception.split_once('/') {
        Some((network, bits)) => (network, Some(bits)),
        None => (exception, None),
    };
    let network = network.trim_start_matches('[').trim_end_matches(']');
    let (width, difference) = match (network.parse(), address) {
        (Ok(IpAddr::V4(network)), IpAddr::V4(address)) => {
            // In the high half, so that both families are compared alike.
            (32, u128::from(network.to_bits() ^ address.to_bits()) << 96)
        }
        (Ok(IpAddr::V6(network)), IpAddr::V6(address)) => {
            (128, network.to_bits() ^ address.to_bits())
        }
        _ => return false,
    };
    match bits.map_or(Ok(width), str::parse::<u32>) {
        Ok(bits) if bits <= width => difference.leading_zeros() >= bits,
        _ => false,
    }
}

/// Whether `host` is `exception`, or below it.
fn is_domain_of(exception: &str, host: &str) -> bool {
    let plain = |name: &str| name.trim_end_matches('.').to_ascii_lowercase();
    let (domain, host) = (plain(exception), plain(host));
    let domain = domain.strip_prefix('.').unwrap_or(&domain);
    if domain.is_empty() {
        return false;
    }
    host.strip_suffix(domain)
        .is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// The proxy's URL with its scheme and port.
fn normal_form(value: &str) -> Option<String> {
    let (scheme, rest) = match value.split_once("://") {
        Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
        None => ("http".to_owned(), value),
    };
    let scheme = match scheme.as_str() {
        "socks" => "socks4",
        known @ ("http" | "https" | "socks4" | "socks4a" | "socks5" | "socks5h") => known,
        _ => return None,
    };
    let authority = rest.split(['/', '?', '#']).next()?;
    let server = authority.rsplit('@').next()?;
    let after_address = server.rsplit(']').next()?;
    let port = match (after_address.contains(':'), scheme) {
        (true, _) => "",
        (false, "https") => ":443",
        (false, _) => ":1080",
    };
    (!server.is_empty()).then(|| format!("{scheme}://{authority}{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        Proxies::from_variables(|name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn proxy(variables: &[(&str, &str)], url: &str) -> Option<String> {
        let found = proxies(variables).of(&url.parse().unwrap()).unwrap();
        found.map(|proxy| format!("{}:{}", proxy.host(), proxy.port()))
    }

    #[test]
    fn variables_are_read_as_curl_reads_them() {
        let (plain, secure) = ("http://hub/", "https://hub/");
        let p = Some("p:3128".to_owned());
        assert_eq!(proxy(&[("http_proxy", "http://p:3128")], plain), p);
        assert_eq!(proxy(&[("http_proxy", "http://p:3128")], secure), None);
        assert_eq!(proxy(&[("HTTP_PROXY", "http://p:3128")], plain), None);
        assert_eq!(proxy(&[("HTTPS_PROXY", "p:3128")], secure), p);
        let both = [("https_proxy", "p:3128"), ("HTTPS_PROXY", "q:1")];
        assert_eq!(proxy(&both, secure), p);
        for url in [plain, secure] {
            assert_eq!(proxy(&[("ALL_PROXY", "http://p:3128/x")], url), p);
            let empty = [
                ("http_proxy", ""),
                ("https_proxy", ""),
                ("all_proxy", "p:3128"),
            ];
            assert_eq!(proxy(&empty, url), p);
        }
        let ports = [
            ("p", "p:1080"),
            ("http://u:p%40w@p", "p:1080"),
            ("https://p", "p:443"),
            ("socks5h://p", "p:1080"),
            ("http://[::1]", "[::1]:1080"),
            ("http://[::1]:8", "[::1]:8"),
        ];
        for (value, expected) in ports {
            let found = proxy(&[("https_proxy", value)], secure);
            assert_eq!(found.as_deref(), Some(expected), "{value}");
        }
    }

    #[test]
    fn a_bad_proxy_is_named_without_its_value() {
        for value in [
            "ftp://u:secret@p",
            "http://u:secret@",
            "http://u:secret@a b:1",
        ] {
            let proxies = proxies(&[("https_proxy", value)]);
            let message = proxies.of(&"https://hub/".parse().unwrap()).unwrap_err();
            assert!(message.contains("https_proxy") && !message.contains("secret"));
        }
    }

    #[test]
    fn exceptions_are_matched_as_curl_matches_them() {
        let excepted =
            |no_proxy: &str, host: &str| proxies(&[("no_proxy", no_proxy)]).excepts(host);
        for (no_proxy, host) in [
            ("*", "anything"),
            ("hub.example", "hub.example"),
            ("hub.example", "HUB.example."),
            ("example", "hub.example"),
            (".example", "hub.example"),
            (".example", "example"),
            ("a, b\texample.com.", "x.example.com"),
            ("127.0.0.1", "127.0.0.1"),
            ("10.0.0.0/8", "10.1.2.3"),
            ("0.0.0.0/0", "10.1.2.3"),
            ("::1", "[::1]"),
            ("fe80::/10", "[fe80::1]"),
        ] {
            assert!(excepted(no_proxy, host), "{no_proxy} covers {host}");
        }
        for (no_proxy, host) in [
            ("", "hub"),
            ("*.example", "hub.example"),
            ("ample", "hub.example"),
            ("hub.example", "example"),
            ("127.0.0.1", "127.0.0.10"),
            ("0.0.1", "127.0.0.1"),
            ("10.0.0.0/8", "11.1.2.3"),
            ("10.0.0.0/33", "10.0.0.0"),
            ("10.0.0.0/x", "10.0.0.0"),
            ("::1", "127.0.0.1"),
            (".", "hub"),
        ] {
            assert!(
                !excepted(no_proxy, host),
                "{no_proxy} does not cover {host}"
            );
        }
    }
}
