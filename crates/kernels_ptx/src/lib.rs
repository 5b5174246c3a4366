//! The GPU kernels as PTX, and the table of them.
//!
//! A crate of its own, so that the kernels are compiled from a build's first second on, beside everything else, and
//! not again when the host changes.

use std::sync::OnceLock;

#[cfg(test)]
mod pack;

/// The kernels compiled for one architecture.
#[derive(Debug)]
pub struct PtxModule {
    /// The lowest compute capability that runs it, as one number: 80 for 8.0.
    pub compute_capability: u32,
    /// Its kernels, in the text's order.
    pub kernels: &'static [KernelEntry],
    /// Bytes of the text.
    len: usize,
    /// The text as an LZ4 block.
    packed: &'static [u8],
    text: OnceLock<String>,
}

/// A kernel of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelEntry {
    /// The name to launch it by.
    pub name: &'static str,
    /// Bytes of its parameter struct.
    pub param_bytes: usize,
    /// The most threads that a block may have.
    pub max_threads: u32,
}

/// The modules, lowest compute capability first; each has the same kernels.
pub fn modules() -> &'static [PtxModule] {
    &MODULES
}

include!(concat!(env!("OUT_DIR"), "/modules.rs"));

impl PtxModule {
    const fn new(
        compute_capability: u32,
        len: usize,
        packed: &'static [u8],
        kernels: &'static [KernelEntry],
    ) -> PtxModule {
        PtxModule {
            compute_capability,
            kernels,
            len,
            packed,
            text: OnceLock::new(),
        }
    }

    /// The PTX text. It is unpacked when it is first asked for, which takes some milliseconds, and then kept.
    pub fn ptx(&'static self) -> &'static str {
        self.text.get_or_init(|| {
            let text = lz4_flex::block::decompress(self.packed, self.len);
            let text = text.expect("what the build packed");
            String::from_utf8(text).expect("PTX is text")
        })
    }

    /// The kernel of that name.
    pub fn kernel(&self, name: &str) -> Option<&'static KernelEntry> {
        self.kernels.iter().find(|kernel| kernel.name == name)
    }
}
