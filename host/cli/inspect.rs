//! `hyperion inspect`: what a GGUF file holds.

mod json;
mod statistics;
mod text;

use std::io;
use std::process::ExitCode;

use clap::Args;

use super::count::{MOST, count};
use crate::gguf::{Gguf, Tensor};
use crate::hub;
use crate::model::{Model, Unused};
use statistics::Statistics;

/// Arguments of `hyperion inspect`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hyperion inspect smollm2
  hyperion inspect model.gguf --tensor blk.0.attn_q.weight -n 20
  hyperion inspect model.gguf --json | jq -r '.metadata.\"tokenizer.chat_template\"'")]
pub struct InspectArgs {
    /// A GGUF file, or the short name of a model in the cache (see `hyperion models`)
    pub model: String,
    /// Show this tensor: its first values, decoded, and statistics of all
    #[arg(long, value_name = "NAME")]
    pub tensor: Option<String>,
    /// Values of the tensor to show
    #[arg(
        long,
        short = 'n',
        value_name = "N",
        default_value_t = 100,
        requires = "tensor",
        value_parser = count(0..=MOST)
    )]
    pub values: usize,
    /// Print JSON, which holds long strings and arrays in full
    #[arg(long)]
    pub json: bool,
}

/// Prints the file's metadata, its table of tensors, and what the model does not use; or one tensor.
///
/// # Errors
/// The file cannot be read, lacks the tensor, or stdout cannot be written.
pub fn run(args: &InspectArgs) -> anyhow::Result<ExitCode> {
    let gguf = Gguf::open(&hub::resolve(&args.model)?)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    match (&args.tensor, args.json) {
        (None, false) => text::write_file(&mut out, &gguf, &Use::of(&gguf))?,
        (None, true) => json::write_file(&mut out, &gguf, &Use::of(&gguf))?,
        (Some(name), json) => {
            let tensor = gguf.require(name)?;
            let (values, statistics) = first_values(tensor, args.values);
            if json {
                json::write_tensor(&mut out, tensor, &values, &statistics)?;
            } else {
                text::write_tensor(&mut out, tensor, &values, &statistics)?;
            }
        }
    }
    io::Write::flush(&mut out)?;
    Ok(ExitCode::SUCCESS)
}

/// What of a file the engine makes use of.
enum Use {
    /// The file holds no tensors: a vocabulary.
    Nothing,
    /// It runs, without these keys and tensors.
    Runs(Vec<Unused>),
    /// It does not run, for this reason.
    Fails(String),
}

impl Use {
    fn of(gguf: &Gguf) -> Use {
        if gguf.n_tensors() == 0 {
            return Use::Nothing;
        }
        match Model::from_gguf(gguf) {
            Ok(model) => Use::Runs(model.unused),
            Err(error) => Use::Fails(error.to_string()),
        }
    }
}

/// The first `n` values, and the statistics of all. One row is decoded at a time: a tensor may be
/// larger than memory.
fn first_values(tensor: &Tensor, n: usize) -> (Vec<f32>, Statistics) {
    let mut first = Vec::new();
    let mut statistics = Statistics::default();
    let mut row = vec![0.0; tensor.row_len()];
    for i in 0..tensor.n_rows() {
        tensor.dequantize_rows(i..i + 1, &mut row);
        first.extend(row.iter().take(n - first.len()));
        row.iter().for_each(|&value| statistics.add(value));
    }
    (first, statistics)
}

/// The shape as frameworks print it: the dimension whose elements lie side by side comes last.
fn row_major(dims: &[usize]) -> Vec<usize> {
    dims.iter().rev().copied().collect()
}
