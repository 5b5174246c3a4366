//! A step of a matrix product in 8 bits: a lane's words of two rows, times its words of all tiles of vectors.

use super::weights::Fragments;
use super::weights::bytes::Bytes;
use crate::abi::{
    ACTIVATION_GROUP, MATMUL_Q8_STEP, MATMUL_Q8_UNITS, MATMUL_TILE_VECTORS, MatmulQ8Params,
};
use crate::prim::load::{global_v2, global_v4};
use crate::prim::math::{fma, to_tf32};
use crate::prim::mma::{mma_s8, mma_s8_short, mma_tf32, mma_u8};

/// A lane's sums: of each tile, rows `g` and `g + 8` with vectors `2t` and `2t + 1`.
pub type Sums<const TILES: usize> = [[f32; 4]; TILES];

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

/// A lane's part of the vectors of a step.
#[derive(Clone, Copy)]
pub struct Vectors {
    elements: *const u32,
    scales: *const f32,
    sums: *const f32,
}

impl Vectors {
    /// The part of lane `lane` of step `step`.
    #[inline(always)]
    pub fn of_step<const TILES: usize>(p: &MatmulQ8Params, step: u32, lane: u32) -> Self {
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
pub unsafe fn add_step<W: Fragments, const TILES: usize>(
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
