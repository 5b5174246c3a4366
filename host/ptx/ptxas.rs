//! What a GPU makes of a kernel: its registers and spills as `ptxas` reports them, and its machine code.
//!
//! The driver has the same compiler inside, in its own version, so what it makes of the PTX may differ a little.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use rayon::prelude::*;
use serde::Serialize;
use tempfile::TempDir;

use super::error::{PtxError, Result};
use super::images::{embedded, select};
use super::modules::{KernelEntry, KernelTexts, PtxModule, modules};
use super::occupancy::Architecture;
use super::tools;

/// Kernels that one `ptxas` compiles: few enough to keep all cores busy to the end, and enough that reading
/// what all kernels share does not count.
const KERNELS_A_RUN: usize = 16;

/// What a kernel takes of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Resources {
    /// The compute capability as one number: 90 for 9.0.
    pub architecture: u32,
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of a thread's stack: spills, and arrays that did not stay in registers.
    pub stack_bytes: u32,
    /// Bytes that a thread's code stores for want of registers.
    pub spill_store_bytes: u32,
    /// Bytes that it loads again.
    pub spill_load_bytes: u32,
    /// Static shared memory in bytes.
    pub static_shared_bytes: u32,
    /// Warps on a multiprocessor at once, in blocks as large as they may be. Dynamic shared memory, which a
    /// launch chooses, may leave room for fewer.
    pub resident_warps: u32,
    /// Warps that a multiprocessor has room for.
    pub max_warps: u32,
}

/// The resources that the kernels of these names take on a GPU of that architecture, in the names' order. The
/// kernels are compiled from the module that such a GPU gets, on all cores.
///
/// # Errors
/// There is no `ptxas`, or it refuses a kernel: with the line of the module's text.
pub fn resources(names: &[&str], architecture: &Architecture) -> Result<Vec<Resources>> {
    let module = module(architecture)?;
    let runs: Result<Vec<Vec<Resources>>> = names
        .par_chunks(KERNELS_A_RUN)
        .map(|names| {
            let (_folder, report) = compile(module, names, architecture)?;
            let of = |name: &&str| {
                let kernel = module.kernel(name)?;
                read_report(&report, kernel, architecture)
            };
            let silent = |name: &str| PtxError::Tool {
                name: "ptxas",
                reason: format!("it reports nothing of kernel `{name}`"),
            };
            names
                .iter()
                .map(|name| of(name).ok_or_else(|| silent(name)))
                .collect()
        })
        .collect();
    Ok(runs?.concat())
}

/// The machine code of a kernel as `nvdisasm` prints it.
///
/// # Errors
/// There is no such kernel, no `ptxas` or no `nvdisasm`, or one of them fails.
pub fn sass(name: &str, architecture: &Architecture) -> Result<String> {
    let (folder, _) = compile(module(architecture)?, &[name], architecture)?;
    let arguments = ["--print-code".into(), folder.path().join(CUBIN).into()];
    Ok(tools::run("nvdisasm", &arguments)?.out)
}

/// The compiled file's name in its folder.
const CUBIN: &str = "kernels.cubin";

/// The module that such a GPU gets.
fn module(architecture: &Architecture) -> Result<&'static PtxModule> {
    let capability = (architecture.number / 10, architecture.number % 10);
    let image = select(&embedded(), capability).ok();
    let module = image.and_then(|image| {
        let mut modules = modules().iter();
        modules.find(|module| module.compute_capability == image.arch)
    });
    module.ok_or_else(|| {
        PtxError::Unreadable(format!("there is none for sm_{}", architecture.number))
    })
}

/// Compiles kernels into a folder, with what `ptxas` says of them.
fn compile(
    module: &'static PtxModule,
    names: &[&str],
    architecture: &Architecture,
) -> Result<(TempDir, String)> {
    let text = KernelTexts::find(module.ptx()).only(|name| names.contains(&name));
    let text = text.ok_or_else(|| PtxError::NoKernel {
        name: names.join(", "),
        count: module.kernels.len(),
    })?;
    let failed = |error: std::io::Error| PtxError::Tool {
        name: "ptxas",
        reason: format!("no folder for its files: {error}"),
    };
    let folder = tempfile::tempdir().map_err(failed)?;
    let input = folder.path().join("kernels.ptx");
    fs::write(&input, text).map_err(failed)?;
    let arguments = arguments(architecture, &input, &folder.path().join(CUBIN));
    let report = tools::run("ptxas", &arguments)?.messages;
    Ok((folder, report))
}

fn arguments(architecture: &Architecture, input: &Path, output: &Path) -> [OsString; 6] {
    [
        "--verbose".into(),
        "--gpu-name".into(),
        format!("sm_{}", architecture.number).into(),
        input.into(),
        "--output-file".into(),
        output.into(),
    ]
}

/// What the report says of a kernel:
///
/// ```text
/// ptxas info    : Function properties for NAME
///     8 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
/// ptxas info    : Used 96 registers, used 1 barriers, 1536 bytes smem
/// ```
fn read_report(
    report: &str,
    kernel: &KernelEntry,
    architecture: &Architecture,
) -> Option<Resources> {
    let is_heading = |line: &&str| {
        let name = line
            .split_once("Function properties for ")
            .map(|(_, name)| name.trim());
        name == Some(kernel.name)
    };
    let mut lines = report.lines().skip_while(|line| !is_heading(line)).skip(1);
    let frame = lines.next()?;
    let used = lines.next()?;
    let registers = number_before(used, " registers")?;
    let static_shared_bytes = number_before(used, " bytes smem").unwrap_or(0);
    Some(Resources {
        architecture: architecture.number,
        registers,
        stack_bytes: number_before(frame, " bytes stack frame")?,
        spill_store_bytes: number_before(frame, " bytes spill stores")?,
        spill_load_bytes: number_before(frame, " bytes spill loads")?,
        static_shared_bytes,
        resident_warps: architecture.resident_warps(
            kernel.max_threads,
            registers,
            static_shared_bytes,
        ),
        max_warps: architecture.max_warps,
    })
}

/// The number that stands before `what`.
fn number_before(line: &str, what: &str) -> Option<u32> {
    let before = &line[..line.find(what)?];
    let number = before.rsplit(|c: char| !c.is_ascii_digit()).next()?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::occupancy::ARCHITECTURES;
    use super::*;

    const REPORT: &str = "ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'kernel_a' for 'sm_80'
ptxas info    : Function properties for kernel_a
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 96 registers, used 1 barriers, 16 bytes cumulative stack size, 1536 bytes smem, 528 bytes cmem[0]
ptxas info    : Compile time = 14.187 ms
ptxas info    : Function properties for kernel
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 16 registers, used 0 barriers
";

    #[test]
    fn reports_are_read() {
        let kernel = |name| KernelEntry {
            name,
            param_bytes: 8,
            max_threads: 320,
        };
        let read = |name| read_report(REPORT, &kernel(name), &ARCHITECTURES[0]);
        let expected = Resources {
            architecture: 80,
            registers: 96,
            stack_bytes: 16,
            spill_store_bytes: 8,
            spill_load_bytes: 12,
            static_shared_bytes: 1536,
            resident_warps: 20,
            max_warps: 64,
        };
        assert_eq!(read("kernel_a"), Some(expected));
        let other = read("kernel").unwrap();
        assert_eq!(
            (
                other.registers,
                other.stack_bytes,
                other.static_shared_bytes
            ),
            (16, 0, 0)
        );
        assert_eq!(read("kernel_b"), None);
    }
}
