//! Models by name: the cache of this machine, and the Hugging Face Hub to fill it from.

mod choose;
mod digest;
mod endpoint;
mod error;
mod files;
mod forward;
mod http;
mod parts;
mod proxy;
mod pull;
mod retry;
mod spec;
mod token;
mod transfer;
mod url;

pub use error::HubError;
pub use model_cache::{Cache, CachedModel, KNOWN_MODELS, KnownModel, known_model, resolve};
pub use pull::Hub;
pub use spec::RepoSpec;
