//! Keys that requests need.

use std::fmt;

use axum::http::{HeaderMap, HeaderValue, header};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// Keys by their digests, which are of one length and tell nothing of the keys.
#[derive(Clone, Default)]
pub struct ApiKeys {
    digests: Vec<[u8; 32]>,
}

impl ApiKeys {
    /// These keys; none is needed where there is none.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a str>) -> ApiKeys {
        let digests = keys.into_iter().map(|key| digest(key.as_bytes()));
        ApiKeys {
            digests: digests.collect(),
        }
    }

    /// Whether a request with `headers` may be answered: as `Authorization: Bearer KEY` or as `x-api-key: KEY`.
    pub fn admit(&self, headers: &HeaderMap) -> bool {
        self.digests.is_empty() || given(headers).any(|key| self.holds(key))
    }

    /// Takes as long for any key.
    fn holds(&self, key: &[u8]) -> bool {
        let given = digest(key);
        let digests = self.digests.iter();
        let found = digests.fold(Choice::from(0), |found, known| found | known.ct_eq(&given));
        found.into()
    }
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.digests.len())
    }
}

fn digest(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

/// As bytes, because a key may have any letters.
fn given(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let bytes = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
    let bearer = bytes(header::AUTHORIZATION.as_str()).and_then(|value| {
        let (scheme, key) = value.split_at_checked("Bearer ".len())?;
        let is_bearer = scheme.eq_ignore_ascii_case(b"bearer ");
        is_bearer.then(|| key.trim_ascii())
    });
    bearer.into_iter().chain(bytes("x-api-key"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        [(name, value)]
            .into_iter()
            .map(|(name, value)| {
                (
                    name.parse().expect("a name"),
                    HeaderValue::from_bytes(value.as_bytes()).expect("a value"),
                )
            })
            .collect()
    }

    #[test]
    fn one_of_the_keys_is_needed_in_one_of_the_headers() {
        let keys = ApiKeys::new(["one", "two", "clé"]);
        assert!(keys.admit(&headers("authorization", "Bearer clé")));
        assert!(keys.admit(&headers("x-api-key", "clé")));
        assert!(keys.admit(&headers("authorization", "Bearer two")));
        assert!(keys.admit(&headers("authorization", "bearer one")));
        assert!(keys.admit(&headers("x-api-key", "one")));
        for (name, value) in [
            ("authorization", "one"),
            ("authorization", "Basic one"),
            ("authorization", "Bearer on"),
            ("authorization", "Bearer"),
            ("authorization", "Bearer "),
            ("x-api-key", ""),
            ("x-api-key", "three"),
            ("cookie", "one"),
        ] {
            assert!(!keys.admit(&headers(name, value)), "{name}: {value}");
        }
        assert!(!keys.admit(&HeaderMap::new()));
        assert!(ApiKeys::default().admit(&HeaderMap::new()));
    }

    #[test]
    fn keys_are_not_printed() {
        assert_eq!(format!("{:?}", ApiKeys::new(["secret"])), "1 keys");
    }
}
