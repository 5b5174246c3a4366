//! Types whose elements come in blocks of 32 or 256.

use std::borrow::Cow;

use bytemuck::Pod;

use super::simd::{self, Kernel, LANES};

/// A block layout that can be decoded, 32 elements at a time.
pub(super) trait Block: Pod {
    /// Groups of 32 elements in a block.
    const GROUPS: usize;

    /// The elements `32 * group .. 32 * group + 32`, in order. Implementations are
    /// `#[inline(always)]`, as [`Kernel`] demands.
    fn group(&self, group: usize) -> [f32; LANES];
}

/// The bytes as blocks: in place where they are aligned, as tensors of a mapped file are.
pub(super) fn cast<T: Pod>(bytes: &[u8]) -> Cow<'_, [T]> {
    match bytemuck::try_cast_slice(bytes) {
        Ok(blocks) => Cow::Borrowed(blocks),
        Err(_) => Cow::Owned(
            bytes
                .chunks_exact(size_of::<T>())
                .map(bytemuck::pod_read_unaligned)
                .collect(),
        ),
    }
}

pub(super) fn dequantize<B: Block>(bytes: &[u8], out: &mut [f32]) {
    simd::dispatch(Dequantize {
        blocks: &cast::<B>(bytes),
        out,
    });
}

pub(super) fn dot<B: Block>(bytes: &[u8], x: &[f32]) -> f32 {
    simd::dispatch(Dot {
        blocks: &cast::<B>(bytes),
        x,
    })
}

struct Dequantize<'a, B> {
    blocks: &'a [B],
    out: &'a mut [f32],
}

impl<B: Block> Kernel for Dequantize<'_, B> {
    type Output = ();

    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let groups = self.out.as_chunks_mut::<LANES>().0;
        for (block, groups) in self.blocks.iter().zip(groups.chunks_exact_mut(B::GROUPS)) {
            for (g, group) in groups.iter_mut().enumerate() {
                *group = block.group(g);
            }
        }
    }
}

struct Dot<'a, B> {
    blocks: &'a [B],
    x: &'a [f32],
}

impl<B: Block> Kernel for Dot<'_, B> {
    type Output = f32;

    #[inline(always)]
    fn run<const FUSED: bool>(self) -> f32 {
        let groups = self.x.as_chunks::<LANES>().0;
        let mut sums = [0.0; LANES];
        for (block, groups) in self.blocks.iter().zip(groups.chunks_exact(B::GROUPS)) {
            for (g, x) in groups.iter().enumerate() {
                simd::accumulate::<FUSED>(&mut sums, &block.group(g), x);
            }
        }
        simd::total(sums)
    }
}
