//! What can go wrong on the way from the Hub.

use std::path::PathBuf;

/// An error of the Hub.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Not a short name and not `OWNER/REPO[:FILE]`.
    #[error(
        "{spec:?} is neither the short name of a model (`hyperion models` lists them) nor of the \
         form OWNER/REPO[:FILE]"
    )]
    BadSpec {
        /// The text as it was given.
        spec: String,
    },

    /// The repository does not exist, or needs a token.
    #[error(
        "{endpoint} shows no repository {repo} (status {status}): check the name; if it is \
         private or gated, set HF_TOKEN"
    )]
    NoRepo {
        /// The server.
        endpoint: String,
        /// The repository.
        repo: String,
        /// HTTP status.
        status: u16,
    },

    /// The repository holds no GGUF file.
    #[error("{repo} holds no GGUF file: look for a repository whose name ends in -GGUF")]
    NoGguf {
        /// The repository.
        repo: String,
    },

    /// No file of the repository is meant, or several are.
    #[error("{problem} in {repo}; choose one:{}", list(repo, choices))]
    Choose {
        /// The repository.
        repo: String,
        /// Why there is no choice yet.
        problem: String,
        /// Names of its GGUF files.
        choices: Vec<String>,
    },

    /// The model is cut into several files.
    #[error(
        "{file} is one part of a split model, which hyperion does not read: take a single file"
    )]
    Split {
        /// The file.
        file: String,
    },

    /// A different file has that name already.
    #[error("{} is another file of the same name: remove it, or replace it with --force", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },

    /// The server's answer makes no sense.
    #[error("{endpoint} gave an answer about {repo} that makes no sense: {reason}")]
    BadAnswer {
        /// The server.
        endpoint: String,
        /// The repository.
        repo: String,
        /// What is wrong.
        reason: String,
    },

    /// The transfer failed. What had arrived is kept, and the next try continues there.
    #[error("cannot fetch {what} from {endpoint}: {reason}")]
    Transfer {
        /// The server.
        endpoint: String,
        /// Repository or file.
        what: String,
        /// The reason. Text, not a source: a broken network connection must not be taken for a
        /// closed stdout, which looks the same as an I/O error.
        reason: String,
    },

    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] model_cache::Error),
}

fn list(repo: &str, files: &[String]) -> String {
    files
        .iter()
        .map(|file| format!("\n  hyperion pull {repo}:{file}"))
        .collect()
}
