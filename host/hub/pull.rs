//! Fetching a model from the Hub into the cache.
//!
//! Which files there are, their sizes and digests come from the Hub's description of the repository. What
//! the transfer's own headers say is not needed, and nothing of it becomes a path or a promise.

use std::env;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model_cache::{Cache, Error as CacheError, StagingLock, byte_bar};

use super::choose::choose;
use super::digest::Digest;
use super::endpoint::Endpoint;
use super::files::{RemoteFile, RepoInfo};
use super::http::{Client, Failed};
use super::retry::retried;
use super::token::Token;
use super::transfer::{Broken, Pace, Transfer};
use super::{HubError, RepoSpec};
use crate::escape::escape;

/// Upper limit for the description of a repository, which is read into memory.
const MAX_DESCRIPTION: usize = 64 << 20;

/// Silence in seconds after which a connection counts as stalled: the default of `huggingface_hub`.
const IDLE_SECONDS: u64 = 10;

/// The Hugging Face Hub, or a server that speaks its protocol.
pub struct Hub {
    endpoint: Endpoint,
    client: Client,
    cache: Cache,
}

impl Hub {
    /// The server of `$HF_ENDPOINT`, else the public one; `$HF_TOKEN`, else the token that
    /// Hugging Face's own tools left. Files go to `cache`.
    ///
    /// # Errors
    /// The endpoint is no URL, or the token has characters that none has.
    pub fn from_env(cache: Cache) -> Result<Self, HubError> {
        let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let endpoint = variable("HF_ENDPOINT").unwrap_or("https://huggingface.co".to_owned());
        let endpoint = Endpoint::new(&endpoint)?;
        // As in `huggingface_hub`.
        let idle = variable("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|seconds| seconds.parse().ok());
        let idle = Duration::from_secs(idle.unwrap_or(IDLE_SECONDS).max(1));
        let client = Client::new(endpoint.origin().clone(), Token::from_env()?, idle);
        Ok(Self {
            endpoint,
            client,
            cache,
        })
    }

    /// Makes sure that the model is in the cache, whole and verified, and gives the path of its file, the first
    /// one where it is split into parts.
    ///
    /// # Errors
    /// No such repository or file, a broken connection (the next call continues there), a full
    /// disk, other bytes than announced, or (unless `force`) another file of that name.
    pub fn pull(&self, spec: &RepoSpec, force: bool) -> Result<PathBuf, HubError> {
        let files = choose(spec, self.files(&spec.repo)?)?;
        let paths = files
            .iter()
            .map(|file| self.pull_file(&spec.repo, file, force));
        let paths = paths.collect::<Result<Vec<_>, _>>()?;
        paths.into_iter().next().ok_or_else(|| HubError::NoGguf {
            repo: spec.repo.clone(),
        })
    }

    fn pull_file(&self, repo: &str, file: &RemoteFile, force: bool) -> Result<PathBuf, HubError> {
        let Some((size, digest)) = file.content() else {
            return Err(HubError::NoDigest {
                endpoint: self.endpoint.to_string(),
                file: file.path.clone(),
            });
        };
        // The name is a plain one: `choose` takes no others.
        let target = self.cache.models_dir().join(file.file_name());
        let lock = StagingLock::acquire(&self.cache, file.file_name())?;
        if target.exists() {
            if digest.verify(&file.path, &target, size).is_ok() {
                lock.clear()?;
                return Ok(target);
            }
            if !force {
                return Err(HubError::Exists { path: target });
            }
        }
        let part = lock.folder().join(format!("{}.part", digest.digits()));
        let fetched = self.fetch(repo, file, &part, size, &digest).and_then(|()| {
            fs::rename(&part, &target)
                .map_err(|error| CacheError::io("rename to", &target, error).into())
        });
        // What a broken connection left is continued next time. The rest is of no use.
        if !matches!(fetched, Err(HubError::Transfer { .. })) {
            lock.clear()?;
        }
        fetched.map(|()| target)
    }

    /// Fetches and verifies the file at `part`.
    fn fetch(
        &self,
        repo: &str,
        file: &RemoteFile,
        part: &Path,
        size: u64,
        digest: &Digest,
    ) -> Result<(), HubError> {
        let url = self.endpoint.file(repo, &file.path);
        let url = url.ok_or_else(|| self.error(&file.path, "its name is too long"))?;
        let bar = byte_bar(format!("fetching {}", escape(file.file_name())), size);
        let transfer = Transfer {
            client: &self.client,
            url: &url,
            size,
            part,
            bar: &bar,
        };
        let is_continued = fs::metadata(part).is_ok_and(|meta| meta.len() > 0);
        let explain = |broken| match broken {
            Broken::Remote(failed) => self.error(&file.path, &failed.reason),
            Broken::Local(error) => error.into(),
        };
        transfer.run().map_err(explain)?;
        let mut verified = digest.verify(&file.path, part, size);
        if is_continued && matches!(verified, Err(CacheError::Mismatch { .. })) {
            // What an earlier run left may have been the bad half.
            transfer.start_over().map_err(explain)?;
            transfer.run().map_err(explain)?;
            verified = digest.verify(&file.path, part, size);
        }
        bar.finish_and_clear();
        Ok(verified?)
    }

    /// All files of a repository.
    fn files(&self, repo: &str) -> Result<Vec<RemoteFile>, HubError> {
        let url = self.endpoint.description(repo);
        let url = url.ok_or_else(|| self.error(repo, "its name is too long"))?;
        let text = retried(|| self.read(&url)).map_err(|failed| match failed.status {
            // The Hub answers 401, not 404, to strangers who ask for what is not there.
            Some(status @ (401 | 403 | 404)) => HubError::NoRepo {
                endpoint: self.endpoint.to_string(),
                repo: repo.to_owned(),
                status,
            },
            _ => self.error(repo, &failed.reason),
        })?;
        let info: RepoInfo =
            serde_json::from_slice(&text).map_err(|error| HubError::BadAnswer {
                endpoint: self.endpoint.to_string(),
                repo: repo.to_owned(),
                reason: error.to_string(),
            })?;
        Ok(info.siblings)
    }

    fn read(&self, url: &ureq::http::Uri) -> Result<Vec<u8>, Failed> {
        let answer = self.client.get(url, None)?;
        let mut body = answer.into_body().into_reader();
        let mut pace = Pace::new(&self.client);
        let (mut text, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
        loop {
            let n = body.read(&mut buffer)?;
            text.extend_from_slice(&buffer[..n]);
            if n == 0 {
                return Ok(text);
            }
            if text.len() > MAX_DESCRIPTION {
                return Err(Failed::permanent("the description is endless"));
            }
            pace.check(n as u64)?;
        }
    }

    fn error(&self, what: &str, reason: &str) -> HubError {
        HubError::Transfer {
            endpoint: self.endpoint.to_string(),
            what: what.to_owned(),
            reason: reason.to_owned(),
        }
    }
}
