//! Types whose elements come in blocks of 32 or 256.

use std::borrow::Cow;

use bytemuck::Pod;

use super::simd::integers::GROUP;
use super::simd::{self, Kernel, LANES, Simd};

/// A block layout that can be unpacked, 32 elements at a time.
pub(super) trait Block: Pod {
    /// Groups of 32 elements in a block.
    const GROUPS: usize;

    /// The elements `32 * group .. 32 * group + 32`, in order. Implementations are
    /// `#[inline(always)]`, as [`Kernel`] demands.
    fn group<S: Simd>(&self, simd: S, group: usize) -> [S::Floats; 2];
}

/// The bytes as blocks: in place where they are aligned, as tensors of a mapped file are.
#[inline]
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

struct Dequantize<'a, B> {
    blocks: &'a [B],
    out: &'a mut [f32],
}

impl<B: Block> Kernel for Dequantize<'_, B> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut groups = self.out.as_chunks_mut::<GROUP>().0.iter_mut();
        for block in self.blocks {
            for (g, out) in (0..B::GROUPS).zip(&mut groups) {
                let unpacked = block.group(simd, g);
                let out = out.as_chunks_mut::<LANES>().0;
                simd.store(unpacked[0], &mut out[0]);
                simd.store(unpacked[1], &mut out[1]);
            }
        }
    }
}
