//! One head's vector on the way into attention: bias, norm, rotation. Shared by the kernels that
//! begin with it; a warp handles one head at a time.

use cuda_std::prelude::*;

use crate::abi::{DevicePtr, ROPE_ADJACENT};
use crate::prim::reduce::warp_sum;

/// A head's raw vector and what is done with it.
#[derive(Clone, Copy)]
pub struct Head {
    /// The first of `dim` elements.
    pub x: *const f32,
    /// Bias of the same elements, or null.
    pub bias: *const f32,
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
}

impl Head {
    /// # Safety
    /// `i` is an element of the head.
    #[inline(always)]
    unsafe fn biased(&self, i: u32) -> f32 {
        let i = i as usize;
        // SAFETY: the caller's.
        unsafe {
            let x = *self.x.add(i);
            if self.bias.is_null() {
                x
            } else {
                x + *self.bias.add(i)
            }
        }
    }

    /// # Safety
    /// `i` is an element of the head.
    #[inline(always)]
    unsafe fn normed(&self, i: u32, scale: f32) -> f32 {
        // SAFETY: the caller's.
        unsafe {
            if self.norm.is_null() {
                self.biased(i)
            } else {
                self.biased(i) * scale * *self.norm.add(i as usize)
            }
        }
    }

    /// Gives every element `i` of the result to `store(i, value)`, each from one lane.
    ///
    /// # Safety
    /// The pointers are null or have `dim` elements; all lanes of the warp come here together.
    #[inline(always)]
    pub unsafe fn for_each(&self, rotation: Rotation, mut store: impl FnMut(u32, f32)) {
        let lane = thread::thread_idx_x() % 32;
        // SAFETY: the indices are below `dim`; the branch is the same for all lanes.
        unsafe {
            let mut scale = 1.0;
            if !self.norm.is_null() {
                let mut squares = 0.0;
                let mut i = lane;
                while i < self.dim {
                    let x = self.biased(i);
                    squares = x.mul_add(x, squares);
                    i += 32;
                }
                scale = 1.0 / (warp_sum(squares) / self.dim as f32 + self.epsilon).sqrt();
            }
            let mut pair = lane;
            while pair < rotation.pairs {
                let (first, second) = if rotation.pairing == ROPE_ADJACENT {
                    (2 * pair, 2 * pair + 1)
                } else {
                    (pair, pair + rotation.pairs)
                };
                let (a, b) = (self.normed(first, scale), self.normed(second, scale));
                let turn = rotation.cos_sin.add(2 * pair as usize);
                let (cos, sin) = (*turn, *turn.add(1));
                store(first, a.mul_add(cos, -(b * sin)));
                store(second, a.mul_add(sin, b * cos));
                pair += 32;
            }
            let mut i = 2 * rotation.pairs + lane;
            while i < self.dim {
                store(i, self.normed(i, scale));
                i += 32;
            }
        }
    }
}
