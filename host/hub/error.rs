//! What can go wrong on the way from the Hub.

use std::path::PathBuf;

use crate::escape::escape;

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
    #[error("{problem} in {repo}")]
    Choose {
        /// The repository.
        repo: String,
        /// Why there is no choice yet.
        problem: String,
        /// Names of its GGUF files.
        choices: Vec<String>,
    },

    /// A part of a split model is not there.
    #[error(
        "{} is one part of a model of which {repo} lacks {}",
        escape(file),
        escape(missing)
    )]
    MissingPart {
        /// The repository.
        repo: String,
        /// The part that was asked for.
        file: String,
        /// The part that is missing.
        missing: String,
    },

    /// The server does not tell what the file must be, so nothing would show if it were another.
    #[error("{endpoint} does not tell size and digest of {}", escape(file))]
    NoDigest {
        /// The server.
        endpoint: String,
        /// The file.
        file: String,
    },

    /// `HF_ENDPOINT` cannot be used.
    #[error("HF_ENDPOINT {reason}")]
    BadEndpoint {
        /// What is wrong, without the value: it may hold a password.
        reason: &'static str,
    },

    /// The token cannot be sent.
    #[error("the token of {} has characters that no token has", found_in.display())]
    BadToken {
        /// Variable or file.
        found_in: PathBuf,
    },

    /// A different file has that name already.
    #[error("{} is another file of the same name", escape(&path.to_string_lossy()))]
    Exists {
        /// The file.
        path: PathBuf,
    },

    /// The server's answer makes no sense.
    #[error(
        "{endpoint} gave an answer about {repo} that makes no sense: {}",
        escape(reason)
    )]
    BadAnswer {
        /// The server.
        endpoint: String,
        /// The repository.
        repo: String,
        /// What is wrong.
        reason: String,
    },

    /// The transfer failed. What had arrived is kept, and the next try continues there.
    #[error("cannot fetch {} from {endpoint}: {}", escape(what), escape(reason))]
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
