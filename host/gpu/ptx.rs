//! The PTX that this binary carries, and the table of its kernels.

/// The kernels compiled for one architecture.
#[derive(Clone, Copy, Debug)]
pub struct PtxModule {
    /// The lowest compute capability that runs it, as one number: 80 for 8.0.
    pub compute_capability: u32,
    /// The PTX text.
    pub ptx: &'static str,
    /// Its kernels, in the text's order.
    pub kernels: &'static [KernelEntry],
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

impl PtxModule {
    /// The text of a kernel.
    pub fn entry_text(&self, name: &str) -> Option<&'static str> {
        let begin = self.ptx.find(&format!("\n.visible .entry {name}("))? + 1;
        let end = self.ptx[begin..].find("\n}")? + begin + 2;
        Some(&self.ptx[begin..end])
    }

    /// The kernel of that name.
    pub fn kernel(&self, name: &str) -> Option<&'static KernelEntry> {
        self.kernels.iter().find(|kernel| kernel.name == name)
    }
}

/// The modules, lowest compute capability first; each has the same kernels.
pub fn modules() -> &'static [PtxModule] {
    const MODULES: &[PtxModule] = include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
    MODULES
}

/// The best module for a GPU; `None` where the GPU is older than all.
pub fn for_compute_capability(major: u32, minor: u32) -> Option<&'static PtxModule> {
    let capability = major * 10 + minor;
    modules()
        .iter()
        .rfind(|module| module.compute_capability <= capability)
}

#[cfg(test)]
mod tests {
    use kernels_gpu::ops::norm::RMS_NORM_F32;

    use super::*;

    #[test]
    fn a_gpu_gets_the_highest_module_that_it_runs() {
        let chosen = |major, minor| {
            for_compute_capability(major, minor).map(|module| module.compute_capability)
        };
        assert_eq!(chosen(7, 5), None);
        assert_eq!(chosen(8, 0), Some(80));
        assert_eq!(chosen(8, 9), Some(80));
        assert_eq!(chosen(9, 0), Some(90));
        assert_eq!(chosen(12, 0), Some(90));
    }

    #[test]
    fn modules_have_the_same_kernels_and_the_definitions_match_them() {
        let [first, others @ ..] = modules() else {
            panic!("no modules")
        };
        for module in others {
            for kernel in first.kernels {
                assert_eq!(module.kernel(kernel.name), Some(kernel));
            }
            assert_eq!(module.kernels.len(), first.kernels.len());
        }
        let entry = first.kernel(RMS_NORM_F32.name).unwrap();
        assert_eq!(entry.param_bytes, RMS_NORM_F32.param_bytes());
        assert_eq!(entry.max_threads, RMS_NORM_F32.max_threads);
    }

    #[test]
    fn kernels_call_nothing_and_know_their_address_spaces() {
        for module in modules() {
            for line in module.ptx.lines().map(str::trim_start) {
                let bad = ["ld.b", "ld.v", "st.b", "st.v", "call"]
                    .iter()
                    .any(|i| line.starts_with(i));
                assert!(!bad, "sm_{}: {line}", module.compute_capability);
            }
        }
    }
}
