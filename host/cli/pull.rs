//! `hyperion pull`.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;

use crate::hub::{self, Cache, Hub};

const EXAMPLES: &str = "\
Examples:
  hyperion pull smollm2                        A model with a short name
  hyperion pull Qwen/Qwen3-0.6B-GGUF           Its Q4_K_M file, or its only one
  hyperion pull Qwen/Qwen3-0.6B-GGUF:Q8_0      The file whose name contains Q8_0

Environment:
  HYPERION_CACHE  Where models are kept (default: ~/.cache/hyperion)
  HF_ENDPOINT     Another server than https://huggingface.co
  HF_TOKEN        Access token for gated and private repositories";

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

/// Fetches the model and prints the path of its file.
///
/// # Errors
/// The model does not exist or cannot be fetched whole.
pub fn run(args: &PullArgs) -> anyhow::Result<ExitCode> {
    let cache = Cache::from_env()?;
    let path = match hub::known_model(&args.model) {
        Some(model) => cache.fetch(model)?,
        None => Hub::from_env(cache).pull(&args.model.parse()?, args.force)?,
    };
    writeln!(io::stdout(), "{}", path.display())?;
    Ok(ExitCode::SUCCESS)
}
