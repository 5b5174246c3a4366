//! Products of a quantized matrix with one to eight vectors, straight from the blocks.
//!
//! - Formula: `y[t][o] = sum over i of weights[o][i] * x[t][i]`, `x` rounded to 8 bits in groups of 32
//!   (see [`q8`](super::q8)); optionally added to what is in `y`.
//! - Shapes: any `n_out`; `n_in` a multiple of the block's elements; `vectors` up to the number in the
//!   kernel's name.
//! - Threads: a warp a row at a time, a few lanes a block ([`MatvecBlock`]); the rows go round all warps
//!   of the grid. Each block first quantizes all vectors into shared memory.
//! - Launch: block = 32 * [`MATVEC_WARPS`], grid = any (about two blocks a multiprocessor), dynamic
//!   shared memory = `matvec_shared_bytes`. `weights` and `x` are aligned to 16 bytes, `x_stride` is a
//!   multiple of 4.
//! - Moves: the matrix once, `x` once a block (from L2), `y` once.

use cuda_std::prelude::*;

use super::entry_points;
use super::matvec_block::{MatvecBlock, Q4K};
use super::q8::Q8Vectors;
use crate::abi::{MATVEC_WARPS, MatvecParams};
use crate::prim::grid;
use crate::prim::reduce::warp_sum;

entry_points! {
    /// Q4_K, one vector.
    MATVEC_Q4_K_Q8_N1 = matvec_q4_k_q8_n1(MatvecParams), max_threads = 32 * MATVEC_WARPS => matvec::<Q4K, 1>;
    /// Q4_K, up to two vectors.
    MATVEC_Q4_K_Q8_N2 = matvec_q4_k_q8_n2(MatvecParams), max_threads = 32 * MATVEC_WARPS => matvec::<Q4K, 2>;
    /// Q4_K, up to four vectors.
    MATVEC_Q4_K_Q8_N4 = matvec_q4_k_q8_n4(MatvecParams), max_threads = 32 * MATVEC_WARPS => matvec::<Q4K, 4>;
    /// Q4_K, up to eight vectors.
    MATVEC_Q4_K_Q8_N8 = matvec_q4_k_q8_n8(MatvecParams), max_threads = 32 * MATVEC_WARPS => matvec::<Q4K, 8>;
}

/// Where a lane is in the matrix.
#[derive(Clone, Copy)]
struct Place {
    row: u32,
    block: u32,
}

/// The body, for up to `N` vectors.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn matvec<Q: MatvecBlock, const N: usize>(p: MatvecParams) {
    grid::launch_dependents();
    let lane = thread::thread_idx_x() % 32;
    let (part, first_block) = (lane % Q::LANES, lane / Q::LANES);
    let blocks_at_once = 32 / Q::LANES;
    let blocks = p.n_in / Q::ELEMENTS;
    let rows_at_once = thread::grid_dim_x() * MATVEC_WARPS;

    let weights = p.weights.ptr();
    let row_bytes = blocks as usize * Q::BYTES as usize;
    let load = |at: Place| {
        // SAFETY: the place is in the matrix.
        unsafe {
            let block = weights.add(at.row as usize * row_bytes + (at.block * Q::BYTES) as usize);
            Q::load(block, part)
        }
    };
    // A lane without a block in this row, or without a row, loads the last one and drops it: a load
    // under a condition would wait for the condition.
    let clamp = |at: Place| Place {
        row: at.row.min(p.n_out - 1),
        block: at.block.min(blocks - 1),
    };

    let mut row = thread::block_idx_x() * MATVEC_WARPS + thread::thread_idx_x() / 32;
    // No kernel writes weights: their first load need not wait for the kernels before.
    let mut current = load(clamp(Place {
        row,
        block: first_block,
    }));
    grid::wait();

    let x = Q8Vectors::new(N as u32, p.n_in);
    let mut vector = 0;
    while vector < p.vectors {
        // SAFETY: the launch conditions.
        unsafe { x.quantize(vector, p.x.ptr().add(vector as usize * p.x_stride as usize)) };
        vector += 1;
    }
    // Publishes the quantized vectors.
    thread::sync_threads();

    while row < p.n_out {
        let mut sums = [0f32; N];
        let mut block = first_block;
        // The bound is the warp's, so that its lanes stay together.
        let mut group = 0;
        while group < blocks {
            // The next blocks are under way while these are multiplied.
            let next = if group + blocks_at_once < blocks {
                Place {
                    row,
                    block: block + blocks_at_once,
                }
            } else {
                Place {
                    row: row + rows_at_once,
                    block: first_block,
                }
            };
            let loaded = load(clamp(next));
            if block < blocks {
                let mut n = 0;
                while n < N {
                    if (n as u32) < p.vectors {
                        // SAFETY: the block is in the vectors, which the barrier published.
                        unsafe {
                            sums[n] += Q::dot(&current, part, x.at(n as u32, block * Q::ELEMENTS));
                        }
                    }
                    n += 1;
                }
            }
            current = loaded;
            block += blocks_at_once;
            group += blocks_at_once;
        }
        let mut n = 0;
        while n < N {
            // SAFETY: the whole warp is here; y has the element.
            unsafe {
                let sum = warp_sum(sums[n]);
                if lane == 0 && (n as u32) < p.vectors {
                    let y = p.y.mut_ptr().add(n * p.y_stride as usize + row as usize);
                    *y = if p.accumulate != 0 { *y + sum } else { sum };
                }
            }
            n += 1;
        }
        row += rows_at_once;
    }
}
