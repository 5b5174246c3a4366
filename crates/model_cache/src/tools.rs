//! NVIDIA's programs for looking into compiled kernels.

use crate::Piece;

/// A program whose exact bytes are known in advance, shipped whole in a Python wheel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownTool {
    /// Its name, also that of its file in the cache.
    pub name: &'static str,
    /// Where it is in its wheel. The wheel holds more, which is not kept.
    pub piece: Piece,
    /// SHA-256 of the program, lower-case hexadecimal.
    pub sha256: &'static str,
}

/// The tools for this machine: `ptxas`, which compiles PTX for a GPU, and `nvdisasm`, which prints the result.
/// None where NVIDIA's wheels have none: they are for Linux with glibc on x86-64 and aarch64.
pub const fn known_tools() -> &'static [KnownTool] {
    if cfg!(all(
        target_os = "linux",
        target_env = "gnu",
        target_arch = "x86_64"
    )) {
        &X86_64
    } else if cfg!(all(
        target_os = "linux",
        target_env = "gnu",
        target_arch = "aarch64"
    )) {
        &AARCH64
    } else {
        &[]
    }
}

const X86_64: [KnownTool; 2] = [
    ptxas(
        37_741_528,
        37_384_532,
        "daba837a68265cae38c832d13399b61dab811891de9b8914defddef143b849f2",
    ),
    nvdisasm(
        5_816_912,
        5_170_654,
        "3bf19e7ab706ed8f68ecc2403d277b97dc110c52e0ac4c4f0c8eada5f7889c3c",
    ),
];

const AARCH64: [KnownTool; 2] = [
    ptxas(
        31_548_264,
        32_455_430,
        "a1941a04ca4fd233b2fbe50c625b1e72b3d5f79ebe80209a272c85482dfbb487",
    ),
    nvdisasm(
        5_841_232,
        5_156_579,
        "29aa9750249f95271b6095fc874f357945b0a73193097576f8d2bcceedd57241",
    ),
];

/// CUDA 13.0's, which knows every architecture from Ampere to Blackwell.
const fn ptxas(size: u64, wheel_size: u64, sha256: &'static str) -> KnownTool {
    KnownTool {
        name: "ptxas",
        piece: Piece {
            package: "nvidia-cuda-nvcc",
            version: "13.0.88",
            member: "nvidia/cu13/bin/ptxas",
            size,
            wheel_size,
        },
        sha256,
    }
}

/// Newer than `ptxas`, because the wheels of CUDA 13.0 lack it.
const fn nvdisasm(size: u64, wheel_size: u64, sha256: &'static str) -> KnownTool {
    KnownTool {
        name: "nvdisasm",
        piece: Piece {
            package: "nvidia-cuda-nvdisasm",
            version: "13.5.37",
            member: "nvidia/cu13/bin/nvdisasm",
            size,
            wheel_size,
        },
        sha256,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_processors_have_the_same_tools() {
        for (a, b) in X86_64.iter().zip(&AARCH64) {
            assert_eq!((a.name, a.piece.version), (b.name, b.piece.version));
            assert_ne!(a.sha256, b.sha256);
            assert!([a, b].iter().all(|tool| tool.sha256.len() == 64));
        }
    }
}
