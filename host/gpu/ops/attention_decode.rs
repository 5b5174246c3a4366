//! The launch of attention for one new token of each sequence: how many blocks share a context, and with how many
//! threads.

use kernels_gpu::abi::{
    AttentionDecodeParams, DECODE_MAX_SPLITS, DECODE_SHARED_THREADS, KernelDef, decode_grid_y,
    decode_shared_bytes, decode_threads,
};
use kernels_gpu::ops::attention_decode::*;

use crate::backend::{PAGE_TOKENS, Row};
use crate::device::{DeviceError, Result};
use crate::gpu::launcher::{Geometry, at, untyped};
use crate::gpu::pass::Pass;
use crate::gpu::workspace::{SHARED_BLOCKS, grid_y};
use crate::model::Config;

/// Keys and values are f16.
const KV_ELEMENT_BYTES: usize = 2;

/// Pages that one block attends to as quickly as several do.
const UNSHARED_PAGES: u32 = 4;

/// The type of attention's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MixedType {
    /// For the matrix-vector kernels.
    F32,
    /// For products in f16.
    F16,
}

/// Blocks that share the context of each of `n` sequences, the longest of `longest` tokens: a power of two, so that
/// few graphs serve all lengths, of at least two pages each, because to begin and to put the parts together takes as
/// long, and together no more than run at the same time.
pub fn attention_splits(config: &Config, multiprocessors: u32, n: usize, longest: usize) -> u32 {
    let pages = longest.div_ceil(PAGE_TOKENS) as u32;
    if pages <= UNSHARED_PAGES {
        return 1;
    }
    // Blocks of a multiprocessor, which the registers limit.
    let resident = match config.head_dim {
        ..=64 => 4,
        65..=128 => 2,
        _ => 1,
    };
    let others = grid_y(config) * n as u32;
    splits(pages, resident * multiprocessors, others)
}

impl Pass<'_> {
    /// Bytes of keys and values that a layer's attention reads.
    fn cache_bytes(&self, layer: usize, rows: &[Row<'_>]) -> usize {
        let config = self.config;
        let window = config.layers[layer].window.unwrap_or(usize::MAX);
        let tokens: usize = rows.iter().map(|row| row.end().min(window)).sum();
        2 * tokens * config.kv_width() * KV_ELEMENT_BYTES
    }

    /// Attention of the step's first rows, of one token each, from Q, K and V as the products left them, to `mixed`
    /// in type `ty`; `splits` blocks share a context. Where their keys and values are cached already (`is_cached`), rows
    /// may be positions of one sequence.
    pub fn decode_attention(
        &self,
        layer: usize,
        splits: u32,
        ty: MixedType,
        rows: &[Row<'_>],
        is_cached: bool,
    ) -> Result<()> {
        let (config, w) = (self.config, self.workspace);
        let rotation = self.rotation(layer);
        let [q_norm, k_norm] = self.head_norms(layer);
        let block = match splits {
            1 => decode_threads(config.head_dim as u32),
            _ => DECODE_SHARED_THREADS,
        };
        let params = AttentionDecodeParams {
            q: at(&w.q, 0),
            k: at(&w.k, 0),
            v: at(&w.v, 0),
            q_norm,
            k_norm,
            rope: rotation.table,
            q_factors: self.query_factors(),
            kv: self.cache.layer(layer),
            page_table: self.inputs.page_table(0),
            positions: self.inputs.positions(0),
            out: untyped(&w.mixed),
            partial: at(&w.partial, 0),
            arrived: at(&w.arrived, 0),
            n_heads: config.n_heads as u32,
            n_kv_heads: config.n_kv_heads as u32,
            pairs: rotation.pairs,
            pairing: rotation.pairing,
            q_stride: config.q_width() as u32,
            kv_stride: config.kv_width() as u32,
            max_pages: self.inputs.max_pages(),
            page_stride: self.cache.page_stride,
            window: self.window(layer),
            scale: config.attention_scale,
            epsilon: config.rms_eps,
            out_f16: (ty == MixedType::F16).into(),
            is_cached: is_cached.into(),
            reserved: 0,
        };
        let (n_heads, n_kv_heads) = (config.n_heads as u32, config.n_kv_heads as u32);
        let geometry = Geometry {
            grid: [
                splits,
                decode_grid_y(n_heads, n_kv_heads),
                rows.len() as u32,
            ],
            block,
            shared_bytes: decode_shared_bytes(config.head_dim as u32, block),
        };
        let kernel = decode_kernel(config.head_dim)?;
        self.launcher.moves(self.cache_bytes(layer, rows));
        // SAFETY: the workspace has room for these sequences and splits; `check_step` saw to pages.
        unsafe { self.launcher.launch(&kernel, geometry, &params) }
    }
}

/// Blocks that share a context of `pages` pages, where `at_once` blocks run at the same time and there are
/// `others` contexts or heads.
fn splits(pages: u32, at_once: u32, others: u32) -> u32 {
    let room = at_once.min(SHARED_BLOCKS) / others;
    let most = 1 << room.clamp(1, DECODE_MAX_SPLITS).ilog2();
    pages.div_ceil(2).next_power_of_two().min(most)
}

fn decode_kernel(head_dim: usize) -> Result<KernelDef<AttentionDecodeParams>> {
    Ok(match head_dim {
        32 => ATTENTION_DECODE_32,
        64 => ATTENTION_DECODE_64,
        80 => ATTENTION_DECODE_80,
        96 => ATTENTION_DECODE_96,
        128 => ATTENTION_DECODE_128,
        256 => ATTENTION_DECODE_256,
        other => {
            return Err(DeviceError::Unsupported(format!(
                "heads of {other} elements have no attention kernel"
            )));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_share_contexts_have_room_for_their_parts() {
        for pages in [5, 6, 64, 512, 2048] {
            for at_once in [1, 8, 264, 528, 1_000_000] {
                for others in 1..=64 * 128 {
                    let splits = splits(pages, at_once, others);
                    assert!(splits.is_power_of_two() && splits <= DECODE_MAX_SPLITS);
                    // One block alone has no parts.
                    let all = splits * others;
                    assert!(splits == 1 || all <= SHARED_BLOCKS.min(at_once));
                }
            }
        }
    }

    #[test]
    fn contexts_are_shared_as_far_as_blocks_run_at_once() {
        // 132 multiprocessors with two blocks each, and 8 KV heads.
        let of = |sequences: u32| splits(512, 264, 8 * sequences);
        assert_eq!([1, 4, 8, 16, 17, 64].map(of), [32, 8, 4, 2, 1, 1]);
        assert_eq!(splits(5, 264, 8), 4);
    }
}
