//! The access token: where it is found, and that it is never shown.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::HubError;

/// An access token. Its debug output is no secret.
pub(super) struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// `$HF_TOKEN`, else the token that Hugging Face's own tools left.
    ///
    /// # Errors
    /// It has characters that no header may hold; the error does not show it.
    pub fn from_env() -> Result<Option<Self>, HubError> {
        let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        if let Some(text) = variable("HF_TOKEN") {
            return Self::new(&text, Path::new("HF_TOKEN"));
        }
        match token_file(variable) {
            Some(path) => match fs::read_to_string(&path) {
                Ok(text) => Self::new(&text, &path),
                Err(_) => Ok(None),
            },
            None => Ok(None),
        }
    }

    fn new(text: &str, found_in: &Path) -> Result<Option<Self>, HubError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        if text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(Some(Self(text.to_owned())));
        }
        Err(HubError::BadToken {
            found_in: found_in.to_owned(),
        })
    }

    /// The value of an `Authorization` header.
    pub fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

/// Where `huggingface_hub` keeps the token.
fn token_file(variable: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    if let Some(path) = variable("HF_TOKEN_PATH") {
        return Some(path.into());
    }
    let home = variable("HF_HOME").map(PathBuf::from).or_else(|| {
        let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".cache")))?;
        Some(cache.join("huggingface"))
    })?;
    Some(home.join("token"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_shown() {
        let place = Path::new("HF_TOKEN");
        let token = Token::new(" hf_secret\n", place).unwrap().unwrap();
        assert_eq!(token.header(), "Bearer hf_secret");
        assert!(!format!("{token:?}").contains("secret"));
        let message = Token::new("hf_secret\r\nHost: evil", place)
            .unwrap_err()
            .to_string();
        assert!(message.contains("HF_TOKEN") && !message.contains("secret"));
        assert!(Token::new(" \n", place).unwrap().is_none());
    }

    #[test]
    fn the_file_is_where_other_tools_keep_it() {
        let file = |variables: &[(&str, &str)]| {
            token_file(|name| {
                let found = variables.iter().find(|(variable, _)| *variable == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        let home = ("HOME", "/h");
        assert_eq!(file(&[home]), Some("/h/.cache/huggingface/token".into()));
        assert_eq!(file(&[home, ("HF_HOME", "/f")]), Some("/f/token".into()));
        assert_eq!(file(&[home, ("HF_TOKEN_PATH", "/t")]), Some("/t".into()));
        assert_eq!(file(&[]), None);
    }
}
