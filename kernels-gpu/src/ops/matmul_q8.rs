//! Products of quantized matrices with many vectors in 8 bits on integer tensor cores, straight from the blocks.
//!
//! - Formula: see [`MatmulQ8Params`]; the vectors are encoded as [`Q8Vectors`](crate::abi::Q8Vectors) says. The sums of
//!   a unit's 32 products of integers are exact, those over units are f32; minimums are rounded to 10 bits of fraction, as
//!   the sums of the vectors' groups are.
//! - Shapes: up to three matrices of any number of rows; `n_in` a multiple of the block's elements; up to `8 * TILES`
//!   vectors.
//! - Threads: a warp takes [`MATMUL_Q8_ROWS`] rows at a time, [`MATMUL_Q8_STEP`] elements of each after the other, the
//!   warps of a group every so many-th step of the same rows. A lane multiplies its words of two rows
//!   ([`Fragments`]) with its words of each tile's vectors.
//! - Launch: [`MatmulQ8Plan`](crate::abi::MatmulQ8Plan)'s.
//! - Moves: the matrices once, the vectors once for every tile of rows (from the L1 or the L2 cache), the results once.

use cuda_std::prelude::*;
use cuda_std::shared::{Shared, dynamic};

use super::matmul_q8_rows::{RowSteps, Share, row_starts, tile_rows, two_rows};
use super::weights::bytes::Bytes;
use super::weights::{Fragments, Weights};
use crate::abi::{
    ACTIVATION_GROUP, MATMUL_Q8_ROWS, MATMUL_Q8_STEP, MATMUL_Q8_UNITS, MATMUL_Q8_WARPS,
    MATMUL_TILE_VECTORS, MatmulQ8Params, MatvecOrder, matmul_q8_steps, matmul_q8_warp_bytes,
};
use crate::prim::grid;
use crate::prim::load::{global_v2, global_v4};
use crate::prim::math::{fma, to_tf32};
use crate::prim::mma::{mma_s8, mma_s8_short, mma_tf32, mma_u8};

/// A lane's sums: of each tile, rows `g` and `g + 8` with vectors `2t` and `2t + 1`.
type Sums<const TILES: usize> = [[f32; 4]; TILES];

/// Results of a tile of rows with a tile of vectors.
const TILE_RESULTS: u32 = MATMUL_Q8_ROWS * MATMUL_TILE_VECTORS;
/// Words of the elements of a tile of vectors in a step.
const TILE_WORDS: usize = (MATMUL_Q8_STEP * MATMUL_TILE_VECTORS / 4) as usize;
/// Scales of a tile of vectors in a step.
const TILE_SCALES: usize = (MATMUL_Q8_UNITS * MATMUL_TILE_VECTORS) as usize;
const _: () = assert!(ACTIVATION_GROUP == 32);

/// 1.5 * 2^23: to the bits of this f32 an integer below 2^22 can be added.
const INTEGERS: f32 = 12_582_912.0;

/// Does something for each of up to four tiles. A loop would not be unrolled, and the sums would not stay in registers.
macro_rules! each_tile {
    ($count:expr, $tile:ident => $body:block) => {
        each_tile!(@ $count, $tile, $body, 0 1 2 3)
    };
    (@ $count:expr, $tile:ident, $body:block, $($number:literal)*) => {$(
        if $number < $count {
            let $tile: usize = $number;
            $body
        }
    )*};
}

/// The body, for `TILES` tiles of eight vectors, the last of which may have fewer.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn matmul_q8<W: Fragments, const TILES: usize>(p: MatmulQ8Params) {
    let warp = thread::thread_idx_x() / 32;
    let slots =
        dynamic::<u32>().byte_add(warp * const { matmul_q8_warp_bytes(<W as Weights>::TYPE) });
    // No kernel writes weights: the first of them need not wait for the kernels before.
    // SAFETY: the memory is the warp's; all lanes are here.
    let mut rows = unsafe { RowSteps::<W, TILES>::start(&p, slots) };
    let is_beside = p.order == MatvecOrder::Beside as u32;
    if !is_beside {
        grid::wait();
    }

    let Share {
        first_of_block,
        tile_step,
        ..
    } = Share::of_thread::<W, TILES>(&p);
    let mut first = first_of_block;
    // The block's first tile decides for all warps because of the barriers.
    while first < p.tile_ends[2] {
        let share = Share::of_thread::<W, TILES>(&p);
        let tile = first + share.row_group;
        let mut sums: Sums<TILES> = [[0.0; 4]; TILES];
        if tile < p.tile_ends[2] {
            let starts = row_starts::<W>(&p, tile, share.lane / 4);
            let mut step = share.part;
            while step < matmul_q8_steps(p.n_in) {
                // SAFETY: the step before has been read; the whole warp is here; the vectors are as the parameters say.
                unsafe {
                    let slot = rows.next();
                    let lane = Share::of_thread::<W, TILES>(&p).lane;
                    let rows = two_rows::<W>(slot, starts, step, lane / 4);
                    let vectors = Vectors::of_step::<TILES>(&p, step, lane);
                    add_step::<W, TILES>(rows, vectors, lane % 4, &mut sums);
                }
                step += 1 << p.k_groups_log2;
            }
        }
        // SAFETY: the whole block is here; the sums are of its tiles.
        unsafe { add_up::<W, TILES>(&p, sums, tile) };
        first += tile_step;
    }
    if is_beside {
        grid::wait();
    }
}

/// Adds up the sums of the warps that share rows, and writes the results of the tile.
///
/// # Safety
/// The whole block comes here; results and bias are as the parameters say.
#[inline(always)]
unsafe fn add_up<W: Fragments, const TILES: usize>(
    p: &MatmulQ8Params,
    sums: Sums<TILES>,
    tile: u32,
) {
    let all_sums = dynamic::<[f32; 4]>()
        .byte_add(const { MATMUL_Q8_WARPS * matmul_q8_warp_bytes(<W as Weights>::TYPE) });
    let share = Share::of_thread::<W, TILES>(p);
    let first_warp = share.row_group << p.k_groups_log2;
    let of_warp = all_sums.add((first_warp + share.part) * TILES as u32 * 32);
    let mut vectors = 0;
    while vectors < TILES {
        // SAFETY: a place of this thread alone, which the barrier below frees.
        unsafe {
            of_warp
                .add(vectors as u32 * 32 + share.lane)
                .store(sums[vectors]);
        };
        vectors += 1;
    }
    // Publishes the sums of the warps that share rows.
    thread::sync_threads();
    if tile < p.tile_ends[2] {
        let of_group = all_sums.add(first_warp * TILES as u32 * 32);
        // SAFETY: published above.
        unsafe {
            store_results::<TILES>(p, of_group.cast(), tile, 32 * share.part + share.lane);
        }
    }
    // The sums have been read, and may be overwritten.
    thread::sync_threads();
}

/// A lane's part of the vectors of a step.
#[derive(Clone, Copy)]
struct Vectors {
    elements: *const u32,
    scales: *const f32,
    sums: *const f32,
}

impl Vectors {
    #[inline(always)]
    fn of_step<const TILES: usize>(p: &MatmulQ8Params, step: u32, lane: u32) -> Self {
        let tile = step as usize * TILES;
        let (g, t) = (lane / 4, lane % 4);
        Self {
            elements: p
                .x
                .elements
                .ptr()
                .wrapping_add(tile * TILE_WORDS + 4 * lane as usize),
            scales: p
                .x
                .scales
                .ptr()
                .wrapping_add(tile * TILE_SCALES + 4 * t as usize),
            sums: p
                .x
                .sums
                .ptr()
                .wrapping_add(tile * TILE_SCALES + (8 * t + g) as usize),
        }
    }

    /// The words of a pair of units of this lane's vector of a tile.
    ///
    /// # Safety
    /// There is such a tile, and the vectors are as the parameters say.
    #[inline(always)]
    unsafe fn pair(&self, tile: usize, pair: u32) -> [u32; 4] {
        // SAFETY: the caller's; the lane's words begin at a multiple of 16 bytes.
        unsafe {
            global_v4(
                self.elements
                    .wrapping_add(tile * TILE_WORDS + 128 * pair as usize),
            )
        }
    }

    /// The scales of vectors `2t` and `2t + 1` of a tile for a pair of units.
    ///
    /// # Safety
    /// As for [`pair`](Self::pair).
    #[inline(always)]
    unsafe fn scales(&self, tile: usize, pair: u32) -> [f32; 4] {
        let place = self
            .scales
            .wrapping_add(tile * TILE_SCALES + 16 * pair as usize);
        // SAFETY: the caller's; at a multiple of 16 bytes.
        unsafe { global_v4(place.cast()) }.map(f32::from_bits)
    }

    /// The words of a unit alone.
    ///
    /// # Safety
    /// As for [`pair`](Self::pair).
    #[inline(always)]
    unsafe fn unit(&self, tile: usize, unit: u32) -> [u32; 2] {
        let word = 128 * (unit / 2) + 2 * (unit % 2);
        // SAFETY: the caller's; at a multiple of 8 bytes.
        unsafe {
            global_v2(
                self.elements
                    .wrapping_add(tile * TILE_WORDS + word as usize),
            )
        }
    }

    /// The scales of a unit alone.
    ///
    /// # Safety
    /// As for [`pair`](Self::pair).
    #[inline(always)]
    unsafe fn unit_scales(&self, tile: usize, unit: u32) -> [f32; 2] {
        let scale = 16 * (unit / 2) + 2 * (unit % 2);
        let place = self
            .scales
            .wrapping_add(tile * TILE_SCALES + scale as usize);
        // SAFETY: the caller's; at a multiple of 8 bytes.
        unsafe { global_v2(place.cast()) }.map(f32::from_bits)
    }

    /// The sum of unit `4 quad + t` of this lane's vector of a tile.
    ///
    /// # Safety
    /// As for [`pair`](Self::pair).
    #[inline(always)]
    unsafe fn sum(&self, tile: usize, quad: u32) -> f32 {
        // SAFETY: the caller's.
        unsafe {
            *self
                .sums
                .wrapping_add(tile * TILE_SCALES + 32 * quad as usize)
        }
    }
}

/// Adds the products of a step of two rows with all tiles of vectors.
///
/// # Safety
/// The whole warp comes here; the rows have arrived, and the vectors are as the parameters say.
#[inline(always)]
unsafe fn add_step<W: Fragments, const TILES: usize>(
    rows: [Bytes; 2],
    vectors: Vectors,
    t: u32,
    sums: &mut Sums<TILES>,
) {
    // SAFETY: the caller's.
    unsafe {
        let headers = [W::header(rows[0]), W::header(rows[1])];
        let row = |i: usize| Row {
            bytes: rows[i],
            header: headers[i],
            t,
        };
        let rows = [row(0), row(1)];
        if W::MINIMUM {
            subtract_minimums::<W, TILES>(&rows, 0, &vectors, sums);
            subtract_minimums::<W, TILES>(&rows, 1, &vectors, sums);
        }
        let words = rows.map(|row| row.words(0));
        add_pair::<W, TILES>(&rows, &words, 0, &vectors, sums);
        let words = if W::LOADED == 2 {
            rows.map(|row| row.words(2))
        } else {
            words
        };
        add_pair::<W, TILES>(&rows, &words, 1, &vectors, sums);
        let words = rows.map(|row| row.words(4));
        add_pair::<W, TILES>(&rows, &words, 2, &vectors, sums);
        let words = if W::LOADED == 2 {
            rows.map(|row| row.words(6))
        } else {
            words
        };
        add_pair::<W, TILES>(&rows, &words, 3, &vectors, sums);
    }
}

/// A row's step, as a lane reads it.
struct Row<W: Fragments> {
    bytes: Bytes,
    header: W::Header,
    t: u32,
}

impl<W: Fragments> Clone for Row<W> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<W: Fragments> Copy for Row<W> {}

impl<W: Fragments> Row<W> {
    /// # Safety
    /// The step has arrived.
    #[inline(always)]
    unsafe fn words(self, unit: u32) -> W::Words {
        // SAFETY: the caller's.
        unsafe { W::words(self.bytes, unit, self.t) }
    }
}

/// Subtracts the minimums of four units times their sums from all tiles.
///
/// # Safety
/// As for [`add_step`].
#[inline(always)]
unsafe fn subtract_minimums<W: Fragments, const TILES: usize>(
    rows: &[Row<W>; 2],
    quad: u32,
    vectors: &Vectors,
    sums: &mut Sums<TILES>,
) {
    // SAFETY: the caller's.
    unsafe {
        let minimum = |row: &Row<W>| -to_tf32(W::minimum(row.bytes, &row.header, quad, row.t));
        let minimums = [minimum(&rows[0]), minimum(&rows[1])];
        each_tile!(TILES, tile => {
            mma_tf32(&mut sums[tile], minimums, vectors.sum(tile, quad));
        });
    }
}

/// Adds the products of units `2 * pair` and `2 * pair + 1`, whose words these are, with all tiles.
///
/// # Safety
/// As for [`add_step`].
#[inline(always)]
unsafe fn add_pair<W: Fragments, const TILES: usize>(
    rows: &[Row<W>; 2],
    words: &[W::Words; 2],
    pair: u32,
    vectors: &Vectors,
    sums: &mut Sums<TILES>,
) {
    // SAFETY: the caller's.
    unsafe {
        // Two units' words and scales would not fit in the registers of some kernels, which load twice as often instead.
        if const { W::HALVES && matches!(TILES, 2 | 3) || W::SIGNED && TILES == 4 } {
            let unit = Unit::of(rows, words, 2 * pair);
            each_tile!(TILES, tile => {
                let (x, x_scales) = (vectors.unit(tile, 2 * pair), vectors.unit_scales(tile, 2 * pair));
                unit.add_products::<W>(x, x_scales, &mut sums[tile]);
            });
            let unit = Unit::of(rows, words, 2 * pair + 1);
            each_tile!(TILES, tile => {
                let (x, x_scales) = (
                    vectors.unit(tile, 2 * pair + 1),
                    vectors.unit_scales(tile, 2 * pair + 1),
                );
                unit.add_products::<W>(x, x_scales, &mut sums[tile]);
            });
        } else {
            let units = [
                Unit::of(rows, words, 2 * pair),
                Unit::of(rows, words, 2 * pair + 1),
            ];
            each_tile!(TILES, tile => {
                let (x, x_scales) = (vectors.pair(tile, pair), vectors.scales(tile, pair));
                let sums = &mut sums[tile];
                units[0].add_products::<W>([x[0], x[1]], [x_scales[0], x_scales[1]], sums);
                units[1].add_products::<W>([x[2], x[3]], [x_scales[2], x_scales[3]], sums);
            });
        }
    }
}

/// A lane's part of a unit of two rows.
struct Unit {
    /// Of each row the words of both halves.
    fragments: [[u32; 2]; 2],
    /// Of each row the scales of both halves.
    scales: [[f32; 2]; 2],
}

impl Unit {
    /// # Safety
    /// The rows have arrived; the words are theirs.
    #[inline(always)]
    unsafe fn of<W: Fragments>(rows: &[Row<W>; 2], words: &[W::Words; 2], unit: u32) -> Self {
        // SAFETY: the caller's.
        let scales = |row: &Row<W>| unsafe { W::scales(row.bytes, &row.header, unit) };
        Self {
            fragments: [W::fragment(&words[0], unit), W::fragment(&words[1], unit)],
            scales: [scales(&rows[0]), scales(&rows[1])],
        }
    }

    /// Adds the products with a tile's vectors, of which these are the lane's words and their scales.
    ///
    /// # Safety
    /// The whole warp comes here.
    #[inline(always)]
    unsafe fn add_products<W: Fragments>(
        &self,
        x: [u32; 2],
        x_scales: [f32; 2],
        sums: &mut [f32; 4],
    ) {
        const C: u32 = INTEGERS.to_bits();
        let [a, b] = self.fragments;
        let [upper, lower] = self.scales;
        // SAFETY: the caller's.
        unsafe {
            if W::HALVES {
                let first = mma_s8_short(C, [a[0], b[0]], [x[0]]);
                add_scaled(first, [upper[0], lower[0]], x_scales, sums);
                let second = mma_s8_short(C, [a[1], b[1]], [x[1]]);
                add_scaled(second, [upper[1], lower[1]], x_scales, sums);
            } else {
                let rows = [a[0], b[0], a[1], b[1]];
                let products = match W::MINIMUM {
                    true => mma_u8(C, rows, x),
                    false => mma_s8(C, rows, x),
                };
                add_scaled(products, [upper[0], lower[0]], x_scales, sums);
            }
        }
    }
}

/// Adds integers, to which [`INTEGERS`] is added, times their rows' and their vectors' scales.
#[inline(always)]
fn add_scaled(products: [u32; 4], scales: [f32; 2], x_scales: [f32; 2], sums: &mut [f32; 4]) {
    // Exact, as the scales say: so is what the constant's product with a scale is taken away from.
    let offsets = scales.map(|scale| -INTEGERS * scale);
    let mut i = 0;
    while i < 4 {
        let product = fma(f32::from_bits(products[i]), scales[i / 2], offsets[i / 2]);
        sums[i] = fma(product, x_scales[i % 2], sums[i]);
        i += 1;
    }
}

/// Adds up the warps' sums of a tile of rows and writes the results; `thread` of the group's.
///
/// # Safety
/// The sums have been published; results and bias are as the parameters say.
#[inline(always)]
unsafe fn store_results<const TILES: usize>(
    p: &MatmulQ8Params,
    sums: Shared<f32>,
    tile: u32,
    thread: u32,
) {
    let (segment, first_row) = tile_rows(p, tile);
    let mut result = thread;
    while result < TILES as u32 * TILE_RESULTS {
        // Neighbouring threads have neighbouring rows, which lie together in the results.
        let (row, vector) = (result % MATMUL_Q8_ROWS, result / MATMUL_Q8_ROWS);
        let (tile, column) = (vector / MATMUL_TILE_VECTORS, vector % MATMUL_TILE_VECTORS);
        let lane = row % 8 * 4 + column / 2;
        let place = sums.add(tile * TILE_RESULTS + 4 * lane + row / 8 * 2 + column % 2);
        let row = first_row + row;
        if row < segment.n_out && vector < p.vectors {
            let y = segment.y.mut_ptr();
            let y = y.wrapping_add(vector as usize * segment.y_stride as usize + row as usize);
            // SAFETY: the caller's.
            unsafe {
                let mut sum = 0.0;
                if p.accumulate != 0 {
                    sum = *y;
                }
                if !segment.bias.is_null() {
                    sum += *segment.bias.ptr().add(row as usize);
                }
                let mut part = 0;
                while part < 1 << p.k_groups_log2 {
                    sum += place.add(part * TILES as u32 * TILE_RESULTS).load();
                    part += 1;
                }
                *y = sum;
            }
        }
        result += 32 << p.k_groups_log2;
    }
}
