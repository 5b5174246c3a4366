//! The tensor types that kernels read weights in, and the parameters of the kernels that unpack them.

use super::{DevicePtr, kernel_params};
use crate::quant::*;
use crate::weight_types;

/// Units of a tile: one a lane.
const TILE_UNITS: u32 = 32;

/// The enum, from the [table](weight_types).
macro_rules! define_weight_type {
    (
        {}
        plain { $($plain:ident = $plain_id:literal, $plain_ggml:literal, $plain_name:ident, $one:literal, $scalar:ty, $_p:ident;)* }
        quantized { $($quantized:ident = $id:literal, $ggml:literal, $name:ident, $elements:ident, $block:ident, $_q:ident;)* }
    ) => {
        /// The type of a weight matrix: ggml's types and names.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs)] // the variants are ggml's names
        pub enum WeightType {
            $($plain,)*
            $($quantized,)*
        }

        impl WeightType {
            /// All types.
            pub const ALL: &[WeightType] = &[$(WeightType::$plain,)* $(WeightType::$quantized,)*];

            /// ggml's number of the type.
            pub const fn id(self) -> u32 {
                match self {
                    $(WeightType::$plain => $plain_id,)*
                    $(WeightType::$quantized => $id,)*
                }
            }

            /// The type with ggml's number `id`, if kernels read it.
            pub const fn from_id(id: u32) -> Option<WeightType> {
                match id {
                    $($plain_id => Some(WeightType::$plain),)*
                    $($id => Some(WeightType::$quantized),)*
                    _ => None,
                }
            }

            /// ggml's name in lower case, as kernel names have it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(WeightType::$plain => stringify!($plain_name),)*
                    $(WeightType::$quantized => stringify!($name),)*
                }
            }

            /// Elements of a block; 1 for the plain types.
            pub const fn block_elements(self) -> u32 {
                match self {
                    $(WeightType::$plain => $one,)*
                    $(WeightType::$quantized => $elements as u32,)*
                }
            }

            /// Bytes of a block.
            pub const fn block_bytes(self) -> u32 {
                match self {
                    $(WeightType::$plain => size_of::<$scalar>() as u32,)*
                    $(WeightType::$quantized => size_of::<$block>() as u32,)*
                }
            }
        }
    };
}

weight_types!(define_weight_type);

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

    /// Bytes behind a block that unpacking it may load without using them: a word, where blocks are
    /// not whole words.
    pub const fn over_read(self) -> u32 {
        if self.block_bytes().is_multiple_of(4) {
            0
        } else {
            4
        }
    }
}

/// Warps of a block of the kernels that unpack weights.
pub const UNPACK_WARPS: u32 = 8;

/// Threads of a block of them.
pub const UNPACK_THREADS: u32 = 32 * UNPACK_WARPS;

/// Dynamic shared memory of a warp of them: two tiles of blocks and one of results, of
/// `element_bytes` bytes each.
pub const fn unpack_warp_bytes(ty: WeightType, element_bytes: u32) -> u32 {
    2 * ty.slot_bytes() + ty.tile_elements() * element_bytes
}

/// The launch of a kernel that unpacks weights; its blocks have [`UNPACK_THREADS`] threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnpackPlan {
    /// Blocks.
    pub grid: [u32; 3],
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
}

impl UnpackPlan {
    /// For `dequantize_*` of `n` elements.
    pub fn dequantize(ty: WeightType, n: u64, multiprocessors: u32) -> Self {
        let blocks = n.div_ceil((ty.tile_elements() * UNPACK_WARPS) as u64);
        // As many as a multiprocessor can hold, at 64 warps.
        let resident = 8 * multiprocessors;
        Self {
            grid: [blocks.min(resident as u64) as u32, 1, 1],
            shared_bytes: UNPACK_WARPS * unpack_warp_bytes(ty, 2),
        }
    }

    /// For `embed_*` of `tokens` rows of `width` elements.
    pub fn embed(ty: WeightType, tokens: u32, width: u32) -> Self {
        let blocks = width.div_ceil(ty.tile_elements() * UNPACK_WARPS);
        Self {
            grid: [tokens, blocks, 1],
            shared_bytes: UNPACK_WARPS * unpack_warp_bytes(ty, 4),
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
