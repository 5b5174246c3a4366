//! Quantized weights as integers, 256 elements at a time: what products with 8-bit activations read.
//!
//! An element is `scale * factor * (level - center) + offset`: `level` a byte, `factor` a small integer of its group of
//! 32 or half of it, `scale` and `offset` floats. Factors of super-blocks stay integers, so that the sum of half a
//! group is exact: below 2^24 in all types.

use std::borrow::Cow;

use bytemuck::Pod;
use kernels_gpu::quant::*;
use kernels_gpu::weight_types;

use super::GgmlType;
use super::block::cast;
use super::simd::Simd;
use super::simd::integers::GROUPS;

/// Elements of a chunk.
pub const CHUNK: usize = 256;

/// What the bytes of levels are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Levels {
    /// Signed; nothing is subtracted.
    Signed,
    /// Below 64; nothing is subtracted.
    Unsigned,
    /// Below 64; 2 to this power is subtracted.
    Centered(u32),
}

/// For what there is a number of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Each {
    /// There is none.
    None,
    /// A group of 32.
    Group,
    /// Each half of a group.
    Half,
}

/// The numbers beside the levels of the eight groups of a chunk.
pub struct Scales<S: Simd> {
    /// Of each group.
    pub scale: S::EightFloats,
    /// Of the groups' first halves and of their last ones, the same where [`Chunk::FACTORS`] is by group.
    pub factors: [S::Eight; 2],
    /// The same for offsets.
    pub offsets: [S::EightFloats; 2],
}

impl<S: Simd> Scales<S> {
    /// Scales alone.
    #[inline(always)]
    pub(super) fn of(simd: S, scale: S::EightFloats) -> Scales<S> {
        Scales {
            scale,
            factors: [simd.load_eight(&[1; 8]); 2],
            offsets: [simd.splat_eight(0.0); 2],
        }
    }
}

/// Eight blocks of 32 elements, or a super-block. Implementations are `#[inline(always)]`, as
/// [`Kernel`](super::simd::Kernel) demands; zeroed bytes are a chunk of zeros.
pub trait Chunk: Pod {
    /// What its bytes of levels are.
    const LEVELS: Levels;
    /// For what it has factors.
    const FACTORS: Each;
    /// For what it has offsets.
    const OFFSETS: Each;

    /// The levels of a group.
    fn levels<S: Simd>(&self, simd: S, group: usize) -> S::Group;

    /// What stands beside the levels.
    fn scales<S: Simd>(&self, simd: S) -> Scales<S>;
}

/// What is done with chunks of any type.
pub trait WithChunk {
    /// What it gives.
    type Output;

    /// Does it.
    fn run<C: Chunk>(self) -> Self::Output;
}

/// The chunk of a block's layout, by what the table of types calls its number of elements.
macro_rules! chunk_of {
    (SMALL_BLOCK, $block:ident) => {
        [$block; 8]
    };
    (SUPER_BLOCK, $block:ident) => {
        $block
    };
}

macro_rules! define_with_chunk {
    (
        {}
        plain { $($_plain:tt)* }
        quantized { $($quantized:ident = $_id:literal, $_ggml:literal, $_name:ident, $elements:ident, $block:ident, $_q:ident;)* }
    ) => {
        /// Runs `work` for the chunks of `ty`; `None` where its elements are plain numbers.
        pub fn with_chunk<W: WithChunk>(ty: GgmlType, work: W) -> Option<W::Output> {
            match ty {
                $(GgmlType::$quantized => Some(work.run::<chunk_of!($elements, $block)>()),)*
                _ => None,
            }
        }
    };
}
weight_types!(define_with_chunk);

/// A row's bytes as chunks, and what is left behind the last whole one as the last groups of another chunk: its first
/// groups are those before them, which come twice, or zeros.
#[inline]
pub fn chunks_of<C: Chunk>(row: &[u8]) -> [Cow<'_, [C]>; 2] {
    let rest = row.len() % size_of::<C>();
    let whole = cast(&row[..row.len() - rest]);
    let last = match row.len().checked_sub(size_of::<C>()) {
        _ if rest == 0 => Cow::Borrowed(&[][..]),
        Some(start) => cast(&row[start..]),
        None => {
            let mut last = C::zeroed();
            let start = size_of::<C>() - rest;
            bytemuck::bytes_of_mut(&mut last)[start..].copy_from_slice(row);
            Cow::Owned(vec![last])
        }
    };
    [whole, last]
}

/// In which chunk group `group` of `n_groups` is, and where in it.
#[inline]
pub fn place_of(group: usize, n_groups: usize) -> (usize, usize) {
    let (chunk, rest) = (group / GROUPS, n_groups % GROUPS);
    match chunk == n_groups / GROUPS {
        true => (chunk, group % GROUPS + GROUPS - rest),
        false => (chunk, group % GROUPS),
    }
}
