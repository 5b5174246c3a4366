//! How much of a kernel a multiprocessor holds at once.

/// Lanes of a warp.
const WARP: u32 = 32;
/// Registers of a quarter of a multiprocessor, where a fourth of the warps live: 64 K in all, on each
/// architecture of the table.
const QUARTER_REGISTERS: u32 = 16 << 10;
/// Registers are given to warps in units of so many.
const REGISTER_UNIT: u32 = 256;
/// Shared memory is given to blocks in units of so many bytes.
const SHARED_UNIT: u32 = 128;
/// Bytes of each block's shared memory that the system keeps.
const SYSTEM_SHARED: u32 = 1 << 10;

/// The limits of a multiprocessor. From the CUDA C++ Programming Guide, table "Technical Specifications per
/// Compute Capability"; the units above are those of NVIDIA's occupancy calculator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Architecture {
    /// The compute capability as one number: 90 for 9.0.
    pub number: u32,
    /// The most warps.
    pub max_warps: u32,
    /// The most blocks.
    max_blocks: u32,
    /// Bytes of shared memory.
    shared_bytes: u32,
}

/// What the kernels are compiled for: A100, other Amperes, Ada, Hopper, and Blackwell in data centers and
/// elsewhere.
pub const ARCHITECTURES: [Architecture; 6] = [
    architecture(80, 64, 32, 164),
    architecture(86, 48, 16, 100),
    architecture(89, 48, 24, 100),
    architecture(90, 64, 32, 228),
    architecture(100, 64, 32, 228),
    architecture(120, 48, 24, 100),
];

const fn architecture(
    number: u32,
    max_warps: u32,
    max_blocks: u32,
    shared_kb: u32,
) -> Architecture {
    Architecture {
        number,
        max_warps,
        max_blocks,
        shared_bytes: shared_kb << 10,
    }
}

impl Architecture {
    /// Warps that are on a multiprocessor at once, in blocks of `threads` threads, with so many registers a
    /// thread (at least one) and bytes of shared memory a block. 0 where not one block fits.
    pub const fn resident_warps(&self, threads: u32, registers: u32, shared_bytes: u32) -> u32 {
        let warps = threads.div_ceil(WARP);
        let warp_registers = (registers * WARP).next_multiple_of(REGISTER_UNIT);
        let of_registers = 4 * (QUARTER_REGISTERS / warp_registers) / warps;
        let shared = (shared_bytes + SYSTEM_SHARED).next_multiple_of(SHARED_UNIT);
        let limits = [
            self.max_warps / warps,
            of_registers,
            self.shared_bytes / shared,
        ];
        let mut blocks = self.max_blocks;
        let mut i = 0;
        while i < limits.len() {
            if limits[i] < blocks {
                blocks = limits[i];
            }
            i += 1;
        }
        blocks * warps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_holds() {
        let [a100, ampere, ada, hopper, ..] = ARCHITECTURES;
        // Warps: 64 and 48.
        assert_eq!(hopper.resident_warps(256, 32, 0), 64);
        assert_eq!(ada.resident_warps(256, 32, 0), 48);
        assert_eq!(ada.resident_warps(1024, 32, 0), 32);
        // Registers: 80 x 32 are 10 units, of which a quarter holds 6 warps.
        assert_eq!(hopper.resident_warps(384, 80, 0), 24);
        assert_eq!(hopper.resident_warps(384, 81, 0), 12);
        assert_eq!(hopper.resident_warps(1024, 255, 0), 0);
        // Blocks: 16 of one warp each.
        assert_eq!(ampere.resident_warps(32, 16, 0), 16);
        assert_eq!(a100.resident_warps(1, 16, 0), 32);
        // Shared memory: 32 KB and 1 KB for the system, of 164 KB and of 100 KB.
        assert_eq!(a100.resident_warps(128, 16, 32 << 10), 4 * 4);
        assert_eq!(ampere.resident_warps(128, 16, 32 << 10), 3 * 4);
    }
}
