//! Compares a GPU with the simulator, instruction by instruction: `conformance [DEVICE]` runs every case of
//! `cases.txt` on both, with 256 inputs each, and tells where they differ by more than the case allows.
//!
//! DEVICE is `cuda`, the default, `cuda:N` or `sim`. The GPU needs compute capability 9.0. Exit code 1 if
//! anything differs. The binary needs no files.

mod compare;
mod suite;

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::{Context, Result};
use hyperion::device::Device;
use hyperion::device::choice::{self, DeviceChoice};
use hyperion::device::sim::SimDevice;
use hyperion::ptx::{PtxImage, PtxText};
use ptx_sim::Module;

use suite::{Case, THREADS};

fn main() -> Result<ExitCode> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "cuda".into());
    let choice: DeviceChoice = name.parse().map_err(anyhow::Error::msg)?;
    let cases = suite::cases()?;
    let text: &str = suite::ptx(&cases).leak();
    let image = |arch| PtxImage {
        arch,
        text: PtxText::Plain(text),
    };
    // The simulator passes for a GPU of compute capability 8.0, and knows the instructions of later ones.
    let simulator = SimDevice::open(&[image(80)])?;
    let arch = if choice == DeviceChoice::Sim { 80 } else { 90 };
    let opened = choice::open(choice, &[image(arch)])?;
    let device = opened
        .device
        .context("the CPU runs no instructions of a GPU")?;

    println!("{}", device.info());
    let mut differ = 0;
    for (index, case) in cases.iter().enumerate() {
        if let Some(difference) = difference(&*device, &simulator, index, case)? {
            differ += 1;
            println!("{}: {difference}", case.body);
        }
    }
    let instructions = opcodes(text)?.len();
    println!(
        "{instructions} instructions, {} cases, {differ} differ",
        cases.len()
    );
    Ok(match differ {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// What differs in a case, in words.
///
/// # Errors
/// The simulator fails.
fn difference(
    device: &dyn Device,
    simulator: &SimDevice,
    index: usize,
    case: &Case,
) -> Result<Option<String>> {
    let expected = suite::run(simulator, index).with_context(|| case.body)?;
    let actual = match suite::run(device, index) {
        Ok(actual) => actual,
        Err(error) => return Ok(Some(format!("{error:#}"))),
    };
    let wrong = |&i: &usize| !case.comparison.agree(actual[i], expected[i]);
    let wrong: Vec<usize> = (0..expected.len()).filter(wrong).collect();
    let Some(&first) = wrong.first() else {
        return Ok(None);
    };
    let inputs = suite::inputs();
    let input = |i: usize| inputs[first % THREADS + i * THREADS];
    Ok(Some(format!(
        "{} of {} results differ, first {:#010x}, {:#010x} on the simulator, from {:#010x}, {:#010x}, \
         {:#010x} (may differ: {:?})",
        wrong.len(),
        expected.len(),
        actual[first],
        expected[first],
        input(0),
        input(1),
        input(2),
        case.comparison
    )))
}

/// The instructions that the kernels consist of.
fn opcodes(text: &str) -> Result<BTreeSet<String>> {
    let module = Module::parse(text)?;
    let instructions = module.kernels().flat_map(|kernel| kernel.instructions());
    Ok(instructions
        .map(|found| found.opcode().to_owned())
        .collect())
}
