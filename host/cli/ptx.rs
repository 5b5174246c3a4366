//! `hyperion ptx`: the GPU kernels that this program carries.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;

use crate::gpu::facts::{KernelFacts, facts};
use crate::gpu::ptx::{PtxModule, modules};

/// Lists the kernels whose names contain one of the patterns, or all: bytes of parameters and of static
/// shared memory, the most threads of a block, the widest load of a thread, and instructions by kind.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hyperion ptx
  hyperion ptx q4_k attention
  hyperion ptx --kernel matvec_q4_k_q8_n1 --arch 80
  hyperion ptx --json matvec")]
pub struct PtxArgs {
    /// Parts of kernel names
    patterns: Vec<String>,
    /// Print the PTX of one kernel
    #[arg(long, value_name = "NAME", conflicts_with_all = ["patterns", "json"])]
    kernel: Option<String>,
    /// The architecture that the kernels were compiled for [default: the newest]
    #[arg(long, value_name = "80|90", value_parser = parse_arch)]
    arch: Option<u32>,
    /// Print a JSON list
    #[arg(long)]
    json: bool,
}

/// `90` or `sm_90`.
fn parse_arch(text: &str) -> Result<u32, String> {
    let number = text.strip_prefix("sm_").unwrap_or(text);
    let known: Vec<u32> = modules().iter().map(|m| m.compute_capability).collect();
    let arch = number.parse().ok().filter(|arch| known.contains(arch));
    arch.ok_or_else(|| format!("the kernels are compiled for {known:?}"))
}

/// Runs the command.
///
/// # Errors
/// No kernel of that name, or stdout cannot be written.
pub fn run(args: &PtxArgs) -> anyhow::Result<ExitCode> {
    let wanted = |module: &&PtxModule| {
        args.arch
            .is_none_or(|arch| module.compute_capability == arch)
    };
    let module = modules()
        .iter()
        .rfind(wanted)
        .context("this program has no kernels")?;
    let mut out = io::stdout().lock();
    if let Some(name) = &args.kernel {
        match module.entry_text(name) {
            Some(text) => writeln!(out, "{text}")?,
            None => bail!("there is no kernel `{name}`{}", hint(module, name)),
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut kernels = facts(module)?;
    let matches = |kernel: &KernelFacts| {
        let mut patterns = args.patterns.iter();
        args.patterns.is_empty() || patterns.any(|pattern| kernel.name.contains(pattern.as_str()))
    };
    kernels.retain(matches);
    if kernels.is_empty() {
        bail!("no kernel's name contains {}", args.patterns.join(" or "));
    }
    if args.json {
        serde_json::to_writer_pretty(&mut out, &kernels).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        write_table(&mut out, &kernels)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The names that begin as `name` does, as far as any do.
fn hint(module: &PtxModule, name: &str) -> String {
    let shared = |kernel: &str| {
        kernel
            .bytes()
            .zip(name.bytes())
            .take_while(|(a, b)| a == b)
            .count()
    };
    let names = module.kernels.iter().map(|kernel| kernel.name);
    let longest = names.clone().map(shared).max().unwrap_or(0);
    let near: Vec<&str> = names
        .filter(|name| shared(name) == longest)
        .take(3)
        .collect();
    match longest {
        0..=2 => "; `hyperion ptx` lists all".to_owned(),
        _ => format!("; there are {}", near.join(", ")),
    }
}

fn write_table(out: &mut impl Write, kernels: &[KernelFacts]) -> io::Result<()> {
    let width = kernels
        .iter()
        .map(|kernel| kernel.name.len())
        .max()
        .unwrap_or(0);
    writeln!(
        out,
        "{:width$} params shared threads  load │  total  loads stores tensor  float    int lanes barriers",
        "kernel"
    )?;
    for kernel in kernels {
        let mix = &kernel.mix;
        writeln!(
            out,
            "{:width$} {:>6} {:>5}{} {:>7} {:>5} │ {:>6} {:>6} {:>6} {:>6} {:>6} {:>6} {:>5} {:>8}",
            kernel.name,
            kernel.param_bytes,
            kernel.static_shared_bytes,
            if kernel.dynamic_shared { '+' } else { ' ' },
            kernel.max_threads,
            kernel.widest_load,
            mix.total(),
            mix.loads,
            mix.stores,
            mix.tensor,
            mix.float,
            mix.integer,
            mix.lanes,
            mix.barriers,
        )?;
    }
    Ok(())
}
