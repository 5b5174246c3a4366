//! `hyperion pull`.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::anyhow;
use clap::Args;

use crate::escape::escape;
use crate::hub::{self, Cache, Hub, HubError};

const EXAMPLES: &str = "\
Examples:
  hyperion pull smollm2                        A model with a short name
  hyperion pull Qwen/Qwen3-0.6B-GGUF           Its Q4_K_M file, or its only one
  hyperion pull Qwen/Qwen3-0.6B-GGUF:Q8_0      The file whose name contains Q8_0

Environment:
  HYPERION_CACHE  Where models are kept (default: ~/.cache/hyperion)
  HF_ENDPOINT     Another server than https://huggingface.co, also below a path
  HF_TOKEN        Access token for gated and private repositories
  HF_HUB_DOWNLOAD_TIMEOUT  Seconds of silence after which a connection has failed (default: 10)
  http_proxy, HTTPS_PROXY, ALL_PROXY, NO_PROXY  As curl reads them";

/// Arguments of `hyperion pull`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct PullArgs {
    /// A short name, or OWNER/REPO[:FILE] on the Hugging Face Hub; FILE is a file name or a part
    /// of one
    #[arg(value_name = "MODEL")]
    model: String,
    /// Replace another file of the same name
    #[arg(long)]
    force: bool,
}

/// Fetches the model and prints the path of its file; of a split model, its first.
///
/// # Errors
/// The model does not exist or cannot be fetched whole.
pub fn run(args: &PullArgs) -> anyhow::Result<ExitCode> {
    let cache = Cache::from_env()?;
    let path = match hub::known_model(&args.model) {
        Some(model) => cache.fetch(model)?,
        None => Hub::from_env(cache)?
            .pull(&args.model.parse()?, args.force)
            .map_err(explain)?,
    };
    writeln!(io::stdout(), "{}", escape(&path.to_string_lossy()))?;
    Ok(ExitCode::SUCCESS)
}

/// Adds what the user can do.
fn explain(error: HubError) -> anyhow::Error {
    match &error {
        HubError::Choose { repo, choices, .. } => {
            let lines = choices.iter().map(|file| {
                let file = escape(file);
                format!("\n  hyperion pull {repo}:{file}")
            });
            let lines: String = lines.collect();
            anyhow!("{error}; choose one:{lines}")
        }
        HubError::Exists { .. } => anyhow!("{error}: remove it, or replace it with --force"),
        _ => error.into(),
    }
}
