//! One head's vector on the way into attention: norm, rotation. Shared by the kernels that
//! begin with it; a warp handles one head at a time.
//!
//! A lane has every 32nd pair of elements: those that are rotated together, and neighbours behind them.
//! To load a vector and to compute with it are two steps, so that a warp can load several first.

use cuda_std::prelude::*;

use crate::abi::{DevicePtr, ROPE_ADJACENT};
use crate::prim::reduce::warp_sum;

/// Pairs of a lane: of heads of up to 256 elements.
const SLOTS: usize = 4;

/// A lane's pairs of a head, or the cosines and sines that they are rotated by.
pub type Pairs = [[f32; 2]; SLOTS];

/// A head's raw vector and what is done with it.
#[derive(Clone, Copy)]
pub struct Head {
    /// The first of `dim` elements.
    pub x: *const f32,
    /// Weight of the head's RMSNorm, or null.
    pub norm: *const f32,
    /// Elements.
    pub dim: u32,
    /// Added to the mean square.
    pub epsilon: f32,
}

/// The rotation of one position.
#[derive(Clone, Copy)]
pub struct Rotation {
    /// Cosine and sine of each pair.
    pub cos_sin: *const f32,
    /// Rotated pairs; none for a vector that is not rotated.
    pub pairs: u32,
    /// [`ROPE_ADJACENT`] or [`ROPE_HALVES`](crate::abi::ROPE_HALVES).
    pub pairing: u32,
}

impl Rotation {
    /// The rotation at `position` of a table `[context][pairs][2]`.
    ///
    /// # Safety
    /// The table reaches to the position.
    #[inline(always)]
    pub unsafe fn at(table: DevicePtr<f32>, position: u32, pairs: u32, pairing: u32) -> Self {
        let offset = 2 * position as usize * pairs as usize;
        Self {
            // SAFETY: the caller's.
            cos_sin: unsafe { table.ptr().add(offset) },
            pairs,
            pairing,
        }
    }

    /// For values, which are not rotated.
    pub const NONE: Self = Self {
        cos_sin: core::ptr::null(),
        pairs: 0,
        pairing: ROPE_ADJACENT,
    };

    /// What [`load`](Self::load) gives for pairs that are not rotated.
    pub const UNTURNED: Pairs = [[1.0, 0.0]; SLOTS];

    /// Cosine and sine of this lane's pairs.
    ///
    /// # Safety
    /// The table reaches to the position.
    #[inline(always)]
    pub unsafe fn load(&self) -> Pairs {
        let mut turns = Self::UNTURNED;
        let mut slot = 0;
        while slot < SLOTS {
            let pair = pair_of_lane(slot);
            if pair < self.pairs {
                // SAFETY: the table has every rotated pair.
                turns[slot] = unsafe {
                    let turn = self.cos_sin.add(2 * pair as usize);
                    [*turn, *turn.add(1)]
                };
            }
            slot += 1;
        }
        turns
    }

    /// The elements of a pair.
    #[inline(always)]
    fn elements(&self, pair: u32) -> [u32; 2] {
        if pair >= self.pairs || self.pairing == ROPE_ADJACENT {
            [2 * pair, 2 * pair + 1]
        } else {
            [pair, pair + self.pairs]
        }
    }
}

/// What `factors`, f32 `[context]`, has for `position`; 1 where it is null.
///
/// # Safety
/// It is null or reaches to the position.
#[inline(always)]
pub unsafe fn factor_at(factors: DevicePtr<f32>, position: u32) -> f32 {
    if factors.ptr().is_null() {
        return 1.0;
    }
    // SAFETY: the caller's.
    unsafe { *factors.ptr().add(position as usize) }
}

/// The number of this lane's pair in a slot.
#[inline(always)]
fn pair_of_lane(slot: usize) -> u32 {
    32 * slot as u32 + thread::thread_idx_x() % 32
}

impl Head {
    /// This lane's pairs.
    ///
    /// # Safety
    /// The pointers are null or have `dim` elements.
    #[inline(always)]
    pub unsafe fn load(&self, rotation: Rotation) -> Pairs {
        let mut values = [[0.0; 2]; SLOTS];
        let mut slot = 0;
        while slot < SLOTS {
            let pair = pair_of_lane(slot);
            if 2 * pair < self.dim {
                // SAFETY: the elements are in the head.
                values[slot] = rotation
                    .elements(pair)
                    .map(|i| unsafe { *self.x.add(i as usize) });
            }
            slot += 1;
        }
        values
    }

    /// Gives every element `i` of the result to `store(i, value)`, each from one lane. `values` and
    /// `turns` are what this head and the rotation loaded.
    ///
    /// # Safety
    /// The pointers are null or have `dim` elements; all lanes of the warp come here together.
    #[inline(always)]
    pub unsafe fn for_each(
        &self,
        mut values: Pairs,
        rotation: Rotation,
        turns: &Pairs,
        mut store: impl FnMut(u32, f32),
    ) {
        if !self.norm.is_null() {
            let mut squares = 0.0;
            let mut slot = 0;
            while slot < SLOTS {
                let [a, b] = values[slot];
                squares = a.mul_add(a, b.mul_add(b, squares));
                slot += 1;
            }
            // SAFETY: the branch is the same for all lanes.
            let squares = unsafe { warp_sum(squares) };
            let scale = 1.0 / (squares / self.dim as f32 + self.epsilon).sqrt();
            let mut slot = 0;
            while slot < SLOTS {
                let pair = pair_of_lane(slot);
                if 2 * pair < self.dim {
                    // SAFETY: the elements are in the head.
                    let weights = rotation
                        .elements(pair)
                        .map(|i| unsafe { *self.norm.add(i as usize) });
                    values[slot][0] *= scale * weights[0];
                    values[slot][1] *= scale * weights[1];
                }
                slot += 1;
            }
        }
        let mut slot = 0;
        while slot < SLOTS {
            let pair = pair_of_lane(slot);
            if 2 * pair < self.dim {
                let ([a, b], [cos, sin]) = (values[slot], turns[slot]);
                let [first, second] = rotation.elements(pair);
                store(first, a.mul_add(cos, -(b * sin)));
                store(second, a.mul_add(sin, b * cos));
            }
            slot += 1;
        }
    }
}
