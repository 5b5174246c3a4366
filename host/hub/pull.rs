//! Fetching a file from the Hub into the cache.

use std::env;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use indicatif::ProgressBar;
use model_cache::{Cache, Error as CacheError, StagingLock, byte_bar, verify_file};

use super::choose::{RemoteFile, RepoInfo, choose};
use super::{HubError, RepoSpec};

/// How often a transfer that broke off is continued.
const ATTEMPTS: usize = 3;

/// Upper limit for the description of a repository, which is read into memory.
const MAX_DESCRIPTION: u64 = 64 << 20;

/// The Hugging Face Hub, or a server that speaks its protocol.
#[derive(Debug)]
pub struct Hub {
    endpoint: String,
    token: Option<String>,
    cache: Cache,
}

impl Hub {
    /// The server of `$HF_ENDPOINT`, else the public one; `$HF_TOKEN`, else the token that
    /// Hugging Face's own tools left. Files go to `cache`.
    pub fn from_env(cache: Cache) -> Self {
        let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let endpoint = variable("HF_ENDPOINT").unwrap_or("https://huggingface.co".to_owned());
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let token = variable("HF_TOKEN").or_else(|| hf_hub::Cache::from_env().token());
        Self {
            endpoint,
            token,
            cache,
        }
    }

    /// Makes sure that the file is in the cache, whole and verified, and gives its path.
    ///
    /// # Errors
    /// No such repository or file, a broken connection (the next call continues there), a full
    /// disk, other bytes than announced, or (unless `force`) another file of that name.
    pub fn pull(&self, spec: &RepoSpec, force: bool) -> Result<PathBuf, HubError> {
        let file = choose(spec, self.files(&spec.repo)?)?;
        let target = self.cache.models_dir().join(file.file_name());
        let name = format!("{}/{}", spec.repo, file.path).replace('/', "--");
        let lock = StagingLock::acquire(&self.cache, &name)?;
        if target.exists() {
            if is_same(&target, &file) {
                lock.clear()?;
                return Ok(target);
            }
            if !force {
                return Err(HubError::Exists { path: target });
            }
        }
        let outcome = self.transfer(spec, &file, &lock).and_then(|fetched| {
            fs::rename(&fetched, &target)
                .map_err(|error| CacheError::io("rename to", &target, error).into())
        });
        // What a broken connection left is continued next time. The rest is of no use.
        if !matches!(outcome, Err(HubError::Transfer { .. })) {
            lock.clear()?;
        }
        outcome.map(|()| target)
    }

    /// Downloads into the staging folder and verifies. Gives the file there.
    fn transfer(
        &self,
        spec: &RepoSpec,
        file: &RemoteFile,
        lock: &StagingLock,
    ) -> Result<PathBuf, HubError> {
        let bar = byte_bar(
            format!("fetching {}", file.file_name()),
            file.size.unwrap_or(0),
        );
        let mut attempt = 1;
        let pointer = loop {
            // A new handle each time: hf-hub continues where the file on disk ends.
            let repo = self.api(lock.folder())?.model(spec.repo.clone());
            let error = match repo.download_with_progress(&file.path, Bar(bar.clone())) {
                Ok(path) => break path,
                Err(error) => self.failure(&file.path, lock.folder(), error),
            };
            match error {
                Failure::Temporary(error) if attempt == ATTEMPTS => return Err(error),
                Failure::Temporary(_) => thread::sleep(Duration::from_secs(1)),
                Failure::BadPart(error) if attempt == ATTEMPTS => return Err(error),
                Failure::BadPart(_) => {
                    lock.clear()?;
                    fs::create_dir_all(lock.folder())
                        .map_err(|e| CacheError::io("create the folder", lock.folder(), e))?;
                }
                Failure::Final(error) => return Err(error),
            }
            attempt += 1;
        };
        let size = file.size.or(bar.length()).unwrap_or(0);
        bar.finish_and_clear();
        // hf-hub gives a link into its store of blobs.
        let blob = pointer
            .canonicalize()
            .map_err(|e| CacheError::io("open", &pointer, e))?;
        verify_file(&file.path, &blob, size, file.sha256())?;
        Ok(blob)
    }

    /// All files of a repository.
    fn files(&self, repo: &str) -> Result<Vec<RemoteFile>, HubError> {
        let request = self
            .api(&self.cache.staging_dir())?
            .model(repo.to_owned())
            .info_request();
        let response = request.query("blobs", "true").call().map_err(|error| {
            let reason = error.to_string();
            match error.into_response().map(|response| response.status()) {
                // The Hub answers 401, not 404, to strangers who ask for what is not there.
                Some(status @ (401 | 403 | 404)) => {
                    let endpoint = self.endpoint.clone();
                    HubError::NoRepo {
                        endpoint,
                        repo: repo.to_owned(),
                        status,
                    }
                }
                _ => self.transfer_error(repo, reason),
            }
        })?;
        let mut text = Vec::new();
        response
            .into_reader()
            .take(MAX_DESCRIPTION)
            .read_to_end(&mut text)
            .map_err(|error| self.transfer_error(repo, error.to_string()))?;
        let info: RepoInfo = serde_json::from_slice(&text).map_err(|error| {
            let (endpoint, reason) = (self.endpoint.clone(), error.to_string());
            HubError::BadAnswer {
                endpoint,
                repo: repo.to_owned(),
                reason,
            }
        })?;
        Ok(info.siblings)
    }

    fn api(&self, store: &Path) -> Result<Api, HubError> {
        ApiBuilder::from_cache(hf_hub::Cache::new(store.to_owned()))
            .with_endpoint(self.endpoint.clone())
            .with_token(self.token.clone())
            .with_user_agent("hyperion", env!("CARGO_PKG_VERSION"))
            .build()
            .map_err(|error| self.transfer_error("models", error.to_string()))
    }

    fn transfer_error(&self, what: &str, reason: String) -> HubError {
        HubError::Transfer {
            endpoint: self.endpoint.clone(),
            what: what.to_owned(),
            reason,
        }
    }

    fn failure(&self, what: &str, folder: &Path, error: ApiError) -> Failure {
        let reason = error.to_string();
        match error {
            ApiError::IoError(source) if is_local(&source) => {
                Failure::Final(CacheError::io("write to", folder, source).into())
            }
            ApiError::IoError(_) => Failure::Temporary(self.transfer_error(what, reason)),
            ApiError::InvalidResume => Failure::BadPart(self.transfer_error(what, reason)),
            ApiError::RequestError(error) => {
                match error.into_response().map(|response| response.status()) {
                    None | Some(500..) => Failure::Temporary(self.transfer_error(what, reason)),
                    // Nothing is left to fetch: an earlier run ended between the last byte and
                    // the rename, or the file on the server has changed.
                    Some(416) => Failure::BadPart(self.transfer_error(what, reason)),
                    Some(_) => Failure::Final(self.transfer_error(what, reason)),
                }
            }
            _ => Failure::Final(self.transfer_error(what, reason)),
        }
    }
}

/// What to do about a failed attempt.
enum Failure {
    /// Wait and continue.
    Temporary(HubError),
    /// Start over.
    BadPart(HubError),
    /// Give up.
    Final(HubError),
}

/// Whether the disk failed and not the network, of which hf-hub's error does not tell.
fn is_local(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(
        error.kind(),
        K::StorageFull
            | K::QuotaExceeded
            | K::FileTooLarge
            | K::PermissionDenied
            | K::ReadOnlyFilesystem
            | K::NotFound
    )
}

/// Whether the file on disk is the announced one.
fn is_same(path: &Path, file: &RemoteFile) -> bool {
    file.size
        .is_some_and(|size| verify_file(&file.path, path, size, file.sha256()).is_ok())
}

/// hf-hub's progress on our bar.
struct Bar(ProgressBar);

impl Progress for Bar {
    fn init(&mut self, size: usize, _file: &str) {
        self.0.set_length(size as u64);
        self.0.set_position(0);
    }

    fn update(&mut self, bytes: usize) {
        self.0.inc(bytes as u64);
    }

    fn finish(&mut self) {}
}
