//! Models by name: the cache of this machine, and the Hugging Face Hub to fill it from.

mod choose;
mod error;
mod pull;
mod spec;

pub use error::HubError;
pub use model_cache::{Cache, CachedModel, KNOWN_MODELS, KnownModel, known_model, resolve};
pub use pull::Hub;
pub use spec::RepoSpec;
