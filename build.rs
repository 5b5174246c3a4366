//! Compiles `kernels-gpu` to PTX for each architecture and writes the table that
//! `host/ptx/modules.rs` embeds.

use std::error::Error;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

use cuda_builder::{CudaBuilder, NvvmArch, ptx};

/// The baseline, and the first that has programmatic dependent launch. Later GPUs run the PTX of the
/// highest that is not above them.
const ARCHITECTURES: [NvvmArch; 2] = [NvvmArch::Compute80, NvvmArch::Compute90];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Err(error) = build() {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

fn build() -> Result<(), Box<dyn Error>> {
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let kernels =
        Path::new(&env::var_os("CARGO_MANIFEST_DIR").ok_or("CARGO_MANIFEST_DIR is not set")?)
            .join("kernels-gpu");
    let mut table = String::from("&[\n");
    for arch in ARCHITECTURES {
        let file = format!("kernels_{arch}.ptx");
        let path = CudaBuilder::new(&kernels)
            .arch(arch)
            .copy_to(out_dir.join(&file))
            .build()?;
        writeln!(
            table,
            "PtxModule {{ compute_capability: {}, ptx: include_str!(concat!(env!(\"OUT_DIR\"), \"/{file}\")), kernels: &[",
            arch.number()
        )?;
        for entry in ptx::entries(&fs::read_to_string(path)?)? {
            let [param_bytes] = entry.param_bytes[..] else {
                return Err(format!(
                    "kernel {} takes {} parameters, not one struct",
                    entry.name,
                    entry.param_bytes.len()
                )
                .into());
            };
            let max_threads = entry
                .max_threads
                .ok_or(format!("kernel {} has no max_threads", entry.name))?;
            writeln!(
                table,
                "    KernelEntry {{ name: {:?}, param_bytes: {param_bytes}, max_threads: {max_threads} }},",
                entry.name
            )?;
        }
        table.push_str("] },\n");
    }
    table.push_str("]\n");
    fs::write(out_dir.join("kernels.rs"), table)?;
    Ok(())
}
