//! The flags of every command that runs a model.

use anyhow::Context;
use clap::{Args, ValueEnum};

use crate::backend::{ActivationPrecision, Backend};
use crate::device::choice::DeviceChoice;
use crate::gpu::DEFAULT_CHUNK;

/// More threads than a machine has cores only get in each other's way, and thousands stop the machine.
const MAX_THREADS: i64 = 512;

/// Tokens of a step in which some requests write and others read their prompts: on an H100 such a step of llama-8b
/// q4_k_m takes less than three times as long as one in which 32 write. With 256 it takes a little more.
pub const MIXED_CHUNK: usize = 192;

/// How a model runs.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Running")]
pub struct RunArgs {
    /// Tokens of prompt and answer together that fit; 0 is as many as the model was trained for
    /// [default: that, at most 4096]
    #[arg(long, value_name = "N")]
    pub ctx: Option<u32>,
    /// Prompt tokens computed in one step; more are quicker on a GPU, and take more of its memory
    /// [default: 2048 on a GPU, 512 on the CPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub chunk: Option<u32>,
    /// CPU threads [default: all cores]
    #[arg(long, short, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=MAX_THREADS))]
    pub threads: Option<u16>,
    /// Where it runs: auto, cpu, cuda, cuda:N or sim
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceChoice::Auto)]
    pub device: DeviceChoice,
    /// What activations are rounded to before they are multiplied with quantized weights [default: q8; on a GPU f16
    /// where the weights are less than 256 MiB]
    #[arg(long, value_enum, value_name = "TYPE")]
    pub activations: Option<ActivationsArg>,
    /// On a GPU, too, the same request gives the same bits whatever runs beside it, after a preemption and from the
    /// prefix cache; slower. The CPU always does
    #[arg(long)]
    pub deterministic: bool,
    /// Say more: the device and what is allocated there, every row of a report
    #[arg(long, short)]
    pub verbose: bool,
}

impl RunArgs {
    /// Prompt tokens that `backend` computes in one step.
    pub fn chunk(&self, backend: &dyn Backend) -> usize {
        self.chunk
            .map_or(backend.default_chunk(), |chunk| chunk as usize)
    }

    /// The same before the device is known: as many as a GPU gets room for.
    pub fn most_chunk(&self) -> usize {
        self.chunk.map_or(DEFAULT_CHUNK, |chunk| chunk as usize)
    }
}

/// Starts as many CPU threads as `args` ask for.
pub fn start_threads(args: &RunArgs) -> anyhow::Result<()> {
    let Some(threads) = args.threads else {
        return Ok(());
    };
    rayon::ThreadPoolBuilder::new()
        .num_threads(usize::from(threads))
        .build_global()
        .context("starting the CPU threads")
}

/// `--activations`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ActivationsArg {
    /// 8-bit integers in blocks of 16 with a scale each; on a GPU where a step is a few tokens.
    Q8,
    /// Half precision everywhere; on the CPU, whose reference this is, not at all.
    F16,
}

impl From<ActivationsArg> for ActivationPrecision {
    fn from(arg: ActivationsArg) -> ActivationPrecision {
        match arg {
            ActivationsArg::Q8 => ActivationPrecision::Q8,
            ActivationsArg::F16 => ActivationPrecision::F16,
        }
    }
}
