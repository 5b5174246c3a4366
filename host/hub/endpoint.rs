//! The server that models come from.

use std::fmt;

use ureq::http::Uri;

use super::HubError;
use super::url::{Origin, encode_path};

/// A server that speaks the Hub's protocol, possibly below a path: `http://mirror.example/hf`.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    base: String,
    origin: Origin,
}

impl Endpoint {
    /// # Errors
    /// The text is no HTTP URL, or holds what an endpoint cannot have.
    pub fn new(text: &str) -> Result<Self, HubError> {
        let bad = |reason| HubError::BadEndpoint { reason };
        let base = text.trim().trim_end_matches('/');
        let no_url = "is not a URL such as https://huggingface.co";
        let url: Uri = base.parse().map_err(|_| bad(no_url))?;
        let origin = Origin::of(&url).ok_or(bad(no_url))?;
        if base.contains(['?', '#']) {
            return Err(bad("has more than a server and a path"));
        }
        if url.authority().is_some_and(|a| a.as_str().contains('@')) {
            return Err(bad("holds a user name; put an access token into HF_TOKEN"));
        }
        Ok(Self {
            base: base.to_owned(),
            origin,
        })
    }

    /// The server without the path.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Where the description of a repository is.
    pub fn description(&self, repo: &str) -> Option<Uri> {
        let repo = encode_path(repo);
        self.url(&format!("api/models/{repo}/revision/main?blobs=true"))
    }

    /// Where a file is.
    pub fn file(&self, repo: &str, path: &str) -> Option<Uri> {
        let (repo, path) = (encode_path(repo), encode_path(path));
        self.url(&format!("{repo}/resolve/main/{path}"))
    }

    /// `None` where it is longer than URLs can be.
    fn url(&self, rest: &str) -> Option<Uri> {
        format!("{}/{rest}", self.base).parse().ok()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_kept() {
        let endpoint = Endpoint::new("http://mirror.example:8080/some/prefix/").unwrap();
        assert_eq!(
            endpoint.description("a/b").unwrap().to_string(),
            "http://mirror.example:8080/some/prefix/api/models/a/b/revision/main?blobs=true"
        );
        assert_eq!(
            endpoint.file("a/b", "c/#?%.gguf").unwrap().to_string(),
            "http://mirror.example:8080/some/prefix/a/b/resolve/main/c/%23%3F%25.gguf"
        );
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        for bad in [
            "",
            "huggingface.co",
            "ftp://huggingface.co",
            "https://",
            "https://user:secret@huggingface.co",
            "https://huggingface.co?token=secret",
            "https://a b",
        ] {
            let message = Endpoint::new(bad).unwrap_err().to_string();
            assert!(message.starts_with("HF_ENDPOINT ") && !message.contains("secret"));
        }
    }
}
