//! Nothing to do: the kernels are built by `crates/kernels_ptx`, which no change of the host touches.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
}
