//! `hyperion ptx`: the GPU kernels that this program carries.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use rayon::prelude::*;
use serde::Serialize;

use crate::ptx::facts::{InstructionMix, KernelFacts, facts};
use crate::ptx::occupancy::{ARCHITECTURES, Architecture};
use crate::ptx::ptxas::{self, Resources};
use crate::ptx::{KernelTexts, PtxModule, modules};

/// Lists the kernels whose names contain one of the patterns, or all: bytes of parameters and of static
/// shared memory, the most threads of a block, the widest load of a thread, and instructions by kind.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hyperion ptx
  hyperion ptx q4_k attention
  hyperion ptx --resources sm_90,sm_120 matvec
  hyperion ptx --kernel matvec_q4_k_q8_n1 --arch 80
  hyperion ptx --kernel matvec_q4_k_q8_n1 --sass sm_90
  hyperion ptx --json matvec

--resources and --sass need NVIDIA's ptxas and nvdisasm, which `cargo xtask setup` fetches.")]
pub struct PtxArgs {
    /// Parts of kernel names
    patterns: Vec<String>,
    /// Print the PTX of one kernel
    #[arg(long, value_name = "NAME", conflicts_with_all = ["patterns", "json", "resources"])]
    kernel: Option<String>,
    /// The architecture that the kernels were compiled for [default: the newest]
    #[arg(long, value_name = "80|90", value_parser = parse_arch)]
    arch: Option<u32>,
    /// Show what the kernels take of these GPUs in place of the instructions: registers and stack of a
    /// thread, bytes spilled (stored/loaded), warps on a multiprocessor of those it has room for (blocks
    /// as large as they may be, without dynamic shared memory)
    #[arg(long, value_name = "ARCH,...", value_delimiter = ',', value_parser = parse_gpu)]
    resources: Vec<&'static Architecture>,
    /// Print the kernel's machine code for this GPU instead of its PTX
    #[arg(long, value_name = "ARCH", requires = "kernel", conflicts_with = "arch", value_parser = parse_gpu)]
    sass: Option<&'static Architecture>,
    /// Print a JSON list
    #[arg(long)]
    json: bool,
}

/// A kernel of the list.
#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    facts: KernelFacts,
    /// By architecture, as asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resources: Vec<Resources>,
}

/// `90` or `sm_90`.
fn parse_arch(text: &str) -> Result<u32, String> {
    let number = text.strip_prefix("sm_").unwrap_or(text);
    let known: Vec<u32> = modules().iter().map(|m| m.compute_capability).collect();
    let arch = number.parse().ok().filter(|arch| known.contains(arch));
    arch.ok_or_else(|| format!("the kernels are compiled for {known:?}"))
}

/// `120` or `sm_120`.
fn parse_gpu(text: &str) -> Result<&'static Architecture, String> {
    let number = text.strip_prefix("sm_").unwrap_or(text).parse().ok();
    let known = || ARCHITECTURES.map(|arch| format!("sm_{}", arch.number));
    let found = ARCHITECTURES
        .iter()
        .find(|arch| Some(arch.number) == number);
    found.ok_or_else(|| format!("known are {}", known().join(", ")))
}

/// Runs the command.
///
/// # Errors
/// No kernel of that name, no tool that is needed, or stdout cannot be written.
pub fn run(args: &PtxArgs) -> anyhow::Result<ExitCode> {
    let wanted = |module: &&'static PtxModule| {
        args.arch
            .is_none_or(|arch| module.compute_capability == arch)
    };
    let module = modules()
        .iter()
        .rfind(wanted)
        .context("this program has no kernels")?;
    let mut out = io::stdout().lock();
    if let Some(name) = &args.kernel {
        let Some(ptx) = KernelTexts::find(module.ptx()).get(name) else {
            bail!("there is no kernel `{name}`{}", hint(module, name));
        };
        match args.sass {
            Some(arch) => write!(out, "{}", ptxas::sass(name, arch)?)?,
            None => writeln!(out, "{ptx}")?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let rows = rows(args, module)?;
    if args.json {
        serde_json::to_writer_pretty(&mut out, &rows).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        write_table(&mut out, &rows)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The kernels that the patterns choose.
fn rows(args: &PtxArgs, module: &'static PtxModule) -> anyhow::Result<Vec<Row>> {
    let has = |name: &str, pattern: &String| name.contains(pattern.as_str());
    for pattern in &args.patterns {
        if !module
            .kernels
            .iter()
            .any(|kernel| has(kernel.name, pattern))
        {
            bail!(
                "no kernel's name contains `{pattern}`{}",
                hint(module, pattern)
            );
        }
    }
    let mut kernels = facts(module)?;
    kernels.retain(|kernel| {
        args.patterns.is_empty()
            || args
                .patterns
                .iter()
                .any(|pattern| has(&kernel.name, pattern))
    });
    let names: Vec<&str> = kernels.iter().map(|kernel| kernel.name.as_str()).collect();
    let of_each = args
        .resources
        .par_iter()
        .map(|arch| ptxas::resources(&names, arch));
    let of_each: Vec<Vec<Resources>> = of_each.collect::<Result<_, _>>()?;
    let row = |(index, facts)| Row {
        facts,
        resources: of_each.iter().map(|kernels| kernels[index]).collect(),
    };
    Ok(kernels.into_iter().enumerate().map(row).collect())
}

/// The names that have the longest part of `name`, not counting underscores.
fn hint(module: &PtxModule, name: &str) -> String {
    let plain = |name: &str| name.replace('_', "").to_lowercase();
    let wanted = plain(name);
    let common = |kernel: &str| {
        let kernel = plain(kernel);
        let longest_at = |from: usize| {
            let rest = &wanted[from..];
            let ends = rest.char_indices().map(|(at, c)| at + c.len_utf8());
            ends.take_while(|&end| kernel.contains(&rest[..end])).last()
        };
        let begins = wanted.char_indices().map(|(from, _)| from);
        begins.filter_map(longest_at).max().unwrap_or(0)
    };
    let names = module.kernels.iter().map(|kernel| kernel.name);
    let longest = names.clone().map(common).max().unwrap_or(0);
    let near: Vec<&str> = names
        .filter(|name| common(name) == longest)
        .take(3)
        .collect();
    match longest {
        0..=2 => "; `hyperion ptx` lists all".to_owned(),
        _ => format!("; there are {}", near.join(", ")),
    }
}

fn write_table(out: &mut impl Write, rows: &[Row]) -> io::Result<()> {
    let width = rows
        .iter()
        .map(|row| row.facts.name.len())
        .max()
        .unwrap_or(0);
    write!(out, "{:width$} params shared threads  load", "kernel")?;
    let resources = rows.first().map_or(&[][..], |row| &row.resources);
    for Resources { architecture, .. } in resources {
        write!(out, " │ sm_{architecture:<3} regs stack spilled warps")?;
    }
    match resources {
        [] => writeln!(
            out,
            " │  total  loads stores tensor  float    int lanes barriers"
        )?,
        _ => writeln!(out)?,
    }
    for Row { facts, resources } in rows {
        write!(
            out,
            "{:width$} {:>6} {:>5}{} {:>7} {:>5}",
            facts.name,
            facts.param_bytes,
            facts.static_shared_bytes,
            if facts.dynamic_shared { '+' } else { ' ' },
            facts.max_threads,
            facts.widest_load,
        )?;
        for of_arch in resources {
            write_resources(out, of_arch)?;
        }
        if resources.is_empty() {
            write_mix(out, &facts.mix)?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn write_resources(out: &mut impl Write, resources: &Resources) -> io::Result<()> {
    let Resources {
        registers,
        stack_bytes,
        spill_store_bytes,
        spill_load_bytes,
        ..
    } = resources;
    let spilled = match (spill_store_bytes, spill_load_bytes) {
        (0, 0) => "0".to_owned(),
        (stored, loaded) => format!("{stored}/{loaded}"),
    };
    let warps = format!("{}/{}", resources.resident_warps, resources.max_warps);
    write!(
        out,
        " │ {registers:>11} {stack_bytes:>5} {spilled:>7} {warps:>5}"
    )
}

fn write_mix(out: &mut impl Write, mix: &InstructionMix) -> io::Result<()> {
    write!(
        out,
        " │ {:>6} {:>6} {:>6} {:>6} {:>6} {:>6} {:>5} {:>8}",
        mix.total(),
        mix.loads,
        mix.stores,
        mix.tensor,
        mix.float,
        mix.integer,
        mix.lanes,
        mix.barriers,
    )
}
