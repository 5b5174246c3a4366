//! Compiles `kernels-gpu` to PTX for each architecture, side by side, and writes the packed texts and the table
//! that `src/lib.rs` includes.

use std::error::Error;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, thread};

use cuda_builder::{CudaBuilder, NvvmArch, ptx};

#[path = "src/pack.rs"]
mod pack;

/// The baseline, and the first that has programmatic dependent launch. Later GPUs run the PTX of the
/// highest that is not above them.
const ARCHITECTURES: [NvvmArch; 2] = [NvvmArch::Compute80, NvvmArch::Compute90];

type BuildResult<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Err(error) = build() {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

fn build() -> BuildResult<()> {
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let manifest = env::var_os("CARGO_MANIFEST_DIR").ok_or("CARGO_MANIFEST_DIR is not set")?;
    // Without `..`: cargo's list of sources has the paths as they are given here.
    let crates = Path::new(&manifest).parent();
    let workspace = crates.and_then(Path::parent).ok_or("no workspace")?;
    let kernels = &workspace.join("kernels-gpu");
    let rows = thread::scope(|scope| {
        let builds = ARCHITECTURES.map(|arch| {
            let out_dir = &out_dir;
            scope.spawn(move || row(arch, kernels, out_dir))
        });
        let rows = builds.map(|build| build.join().map_err(|_| "a build panicked")?);
        rows.into_iter().collect::<BuildResult<String>>()
    })?;
    let table = format!(
        "static MODULES: [PtxModule; {}] = [\n{rows}];\n",
        ARCHITECTURES.len()
    );
    fs::write(out_dir.join("modules.rs"), table)?;
    Ok(())
}

/// Compiles for `arch`; gives its row of the table.
fn row(arch: NvvmArch, kernels: &Path, out_dir: &Path) -> BuildResult<String> {
    let path = CudaBuilder::new(kernels)
        .arch(arch)
        .copy_to(out_dir.join(format!("kernels_{arch}.ptx")))
        .build()?;
    let text = fs::read_to_string(path)?;
    let text = without_comments(&text);
    let packed = format!("kernels_{arch}.lz4");
    fs::write(out_dir.join(&packed), pack::pack(text.as_bytes()))?;

    let mut row = String::new();
    writeln!(
        row,
        "PtxModule::new({}, {}, include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{packed}\")), &[",
        arch.number(),
        text.len()
    )?;
    for entry in ptx::entries(&text)? {
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
            row,
            "    KernelEntry {{ name: {:?}, param_bytes: {param_bytes}, max_threads: {max_threads} }},",
            entry.name
        )?;
    }
    row.push_str("]),\n");
    Ok(row)
}

/// `text` without the lines that are nothing but a comment: a fifth of it, around each inline instruction.
fn without_comments(text: &str) -> String {
    let lines = text.split_inclusive('\n');
    lines
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect()
}
