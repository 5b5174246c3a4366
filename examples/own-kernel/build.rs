//! Compiles the kernels to PTX.

use std::path::PathBuf;

use cuda_builder::{CudaBuilder, NvvmArch};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let built = CudaBuilder::new("kernels")
        .arch(NvvmArch::Compute80)
        .copy_to(out.join("kernels.ptx"))
        .build();
    if let Err(error) = built {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}
