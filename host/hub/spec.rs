//! `OWNER/REPO[:FILE]`.

use std::fmt;
use std::str::FromStr;

use super::HubError;

/// A model on the Hub as the user names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoSpec {
    /// `OWNER/REPO`.
    pub repo: String,
    /// A file's name or a part of it.
    pub file: Option<String>,
}

impl FromStr for RepoSpec {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self, HubError> {
        let (repo, file) = match text.split_once(':') {
            Some((repo, file)) => (repo, Some(file)),
            None => (text, None),
        };
        let valid = repo.split('/').count() == 2
            && repo.split('/').all(is_repo_name)
            && file.is_none_or(|file| !file.is_empty());
        if !valid {
            return Err(HubError::BadSpec {
                spec: text.to_owned(),
            });
        }
        Ok(Self {
            repo: repo.to_owned(),
            file: file.map(str::to_owned),
        })
    }
}

impl fmt::Display for RepoSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{}:{file}", self.repo),
            None => f.write_str(&self.repo),
        }
    }
}

/// The Hub's rule; it also keeps `..` and separators out of URLs and paths.
fn is_repo_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && !name.starts_with('.') && name.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_are_parsed() {
        let spec: RepoSpec = "Qwen/Qwen3-0.6B-GGUF".parse().unwrap();
        assert_eq!(
            spec,
            RepoSpec {
                repo: "Qwen/Qwen3-0.6B-GGUF".into(),
                file: None
            }
        );
        let spec: RepoSpec = "a/b:c/d.gguf".parse().unwrap();
        assert_eq!(
            spec,
            RepoSpec {
                repo: "a/b".into(),
                file: Some("c/d.gguf".into())
            }
        );
        assert_eq!(spec.to_string(), "a/b:c/d.gguf");
        for bad in [
            "",
            "a",
            "a/",
            "/b",
            "a/b/c",
            "a/..",
            "a/b:",
            "a b/c",
            "https://x/a/b",
        ] {
            assert!(bad.parse::<RepoSpec>().is_err(), "{bad:?}");
        }
    }
}
