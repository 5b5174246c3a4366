//! The tensor types that kernels read weights in, and the parameters of the kernels that decode them.

use super::{DevicePtr, kernel_params};
use crate::quant::*;

/// Units of a tile: one a lane.
const TILE_UNITS: u32 = 32;

/// One row a type: variant, name in kernel names, elements and bytes of a block.
macro_rules! weight_types {
    ($($variant:ident = $name:literal, $elements:expr, $bytes:expr;)*) => {
        /// The type of a weight matrix: ggml's types and names.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs)] // the variants are ggml's names
        pub enum WeightType {
            $($variant,)*
        }

        impl WeightType {
            /// All types.
            pub const ALL: &[WeightType] = &[$(WeightType::$variant,)*];

            /// ggml's name in lower case, as kernel names have it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(WeightType::$variant => $name,)*
                }
            }

            /// Elements of a block; 1 for the plain types.
            pub const fn block_elements(self) -> u32 {
                match self {
                    $(WeightType::$variant => $elements as u32,)*
                }
            }

            /// Bytes of a block.
            pub const fn block_bytes(self) -> u32 {
                match self {
                    $(WeightType::$variant => $bytes as u32,)*
                }
            }
        }
    };
}

weight_types! {
    F32 = "f32", 1, 4;
    F16 = "f16", 1, 2;
    BF16 = "bf16", 1, 2;
    Q4_0 = "q4_0", SMALL_BLOCK, size_of::<BlockQ40>();
    Q4_1 = "q4_1", SMALL_BLOCK, size_of::<BlockQ41>();
    Q5_0 = "q5_0", SMALL_BLOCK, size_of::<BlockQ50>();
    Q5_1 = "q5_1", SMALL_BLOCK, size_of::<BlockQ51>();
    Q8_0 = "q8_0", SMALL_BLOCK, size_of::<BlockQ80>();
    Q2K = "q2_k", SUPER_BLOCK, size_of::<BlockQ2K>();
    Q3K = "q3_k", SUPER_BLOCK, size_of::<BlockQ3K>();
    Q4K = "q4_k", SUPER_BLOCK, size_of::<BlockQ4K>();
    Q5K = "q5_k", SUPER_BLOCK, size_of::<BlockQ5K>();
    Q6K = "q6_k", SUPER_BLOCK, size_of::<BlockQ6K>();
    IQ4NL = "iq4_nl", SMALL_BLOCK, size_of::<BlockIq4Nl>();
    IQ4XS = "iq4_xs", SUPER_BLOCK, size_of::<BlockIq4Xs>();
    MXFP4 = "mxfp4", SMALL_BLOCK, size_of::<BlockMxfp4>();
}

impl WeightType {
    /// Whether the elements lie in blocks with scales.
    pub const fn is_quantized(self) -> bool {
        self.block_elements() > 1
    }

    /// Elements that one lane takes at a time: a group of 32 of a quantized type, 8 of a plain one.
    pub const fn unit(self) -> u32 {
        if self.is_quantized() { 32 } else { 8 }
    }

    /// Bytes of a row of `n` elements; `n` is a multiple of the block's.
    pub const fn row_bytes(self, n: u32) -> u32 {
        n / self.block_elements() * self.block_bytes()
    }

    /// Elements of a tile, which a warp takes at a time.
    pub const fn tile_elements(self) -> u32 {
        TILE_UNITS * self.unit()
    }

    /// Bytes of a tile.
    pub const fn tile_bytes(self) -> u32 {
        self.row_bytes(self.tile_elements())
    }

    /// Tiles that a warp of a matrix-vector kernel takes at a time: two of the types in which two units
    /// share their bytes, which then are loaded once, and of those whose units are small.
    pub const fn matvec_tiles(self) -> u32 {
        match self {
            Self::Q4K | Self::Q5K | Self::Q6K | Self::F16 | Self::BF16 => 2,
            _ => 1,
        }
    }

    /// Whether every block begins at a multiple of 16 bytes.
    pub const fn is_aligned(self) -> bool {
        self.block_bytes().is_multiple_of(16)
    }

    /// Bytes that a tile takes up in shared memory.
    pub const fn slot_bytes(self) -> u32 {
        self.span_bytes(self.tile_elements())
    }

    /// Bytes that `n` neighbouring elements (whole blocks) take up in shared memory, where they lie as
    /// far from a multiple of 16 as in global memory and are followed by
    /// [`over_read`](Self::over_read) bytes.
    pub const fn span_bytes(self, n: u32) -> u32 {
        let misalignment = if self.is_aligned() { 0 } else { 15 };
        (misalignment + self.row_bytes(n) + self.over_read()).next_multiple_of(16)
    }

    /// Bytes behind a block that its decoder may load without using them: a word, where blocks are
    /// not whole words.
    pub const fn over_read(self) -> u32 {
        if self.block_bytes().is_multiple_of(4) {
            0
        } else {
            4
        }
    }
}

/// Warps of a block of the kernels that decode weights.
pub const DECODE_WARPS: u32 = 8;

/// Dynamic shared memory of a warp of them: two tiles of blocks and one of results, of
/// `element_bytes` bytes each.
pub const fn decode_warp_bytes(ty: WeightType, element_bytes: u32) -> u32 {
    2 * ty.slot_bytes() + ty.tile_elements() * element_bytes
}

/// The launch of a kernel that decodes weights; its blocks have [`DECODE_WARPS`] warps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodePlan {
    /// Blocks.
    pub grid: [u32; 3],
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
}

impl DecodePlan {
    /// For `dequantize_*` of `n` elements.
    pub fn dequantize(ty: WeightType, n: u64, multiprocessors: u32) -> Self {
        let blocks = n.div_ceil((ty.tile_elements() * DECODE_WARPS) as u64);
        // As many as a multiprocessor can hold, at 64 warps.
        let resident = 8 * multiprocessors;
        Self {
            grid: [blocks.min(resident as u64) as u32, 1, 1],
            shared_bytes: DECODE_WARPS * decode_warp_bytes(ty, 2),
        }
    }

    /// For `embed_*` of `tokens` rows of `width` elements.
    pub fn embed(ty: WeightType, tokens: u32, width: u32) -> Self {
        let blocks = width.div_ceil(ty.tile_elements() * DECODE_WARPS);
        Self {
            grid: [tokens, blocks, 1],
            shared_bytes: DECODE_WARPS * decode_warp_bytes(ty, 4),
        }
    }
}

kernel_params! {
    /// `y[i] = weights[i]` as f16.
    pub struct DequantizeParams [32] {
        /// Blocks, at a multiple of 16 bytes.
        pub weights: DevicePtr<u8>,
        /// Elements, f16, at a multiple of 16 bytes.
        pub y: DevicePtr<()>,
        /// Elements: a multiple of the block's.
        pub n: u64,
        /// Factor on the elements of types that are not quantized.
        pub factor: f32,
        /// Zero.
        pub reserved: u32,
    }

    /// `y[t][i] = table[tokens[t]][i] * scale`.
    pub struct EmbedParams [40] {
        /// The table's blocks, row after row, at a multiple of 16 bytes.
        pub table: DevicePtr<u8>,
        /// Row numbers.
        pub tokens: DevicePtr<u32>,
        /// Rows, f32, at a multiple of 16 bytes.
        pub y: DevicePtr<f32>,
        /// Elements of a row: a multiple of the block's.
        pub width: u32,
        /// Rows of the table: a token outside of it gives zeros.
        pub rows: u32,
        /// Factor.
        pub scale: f32,
        /// Zero.
        pub reserved: u32,
    }
}
