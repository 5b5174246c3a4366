//! Activations as 8-bit integers in shared memory, for products with quantized weights by `dp4a`.
//!
//! Each group of 32 elements has a scale `d = max |x| / 127` and `q = round(x / d)`, halves to even;
//! each half of a group has the sum of its `q`, times `d`, for the weights' minimums.

use cuda_std::shared::{Shared, dynamic};
use cuda_std::thread;

use crate::abi::{Q8_GROUP, Q8_SUM_GROUP};
use crate::prim::half::Activation;
use crate::prim::integer::{pack_i8x4, round_to_i32};
use crate::prim::reduce::{lanes_max, lanes_sum};

/// Several vectors of `n_in` elements in the block's dynamic shared memory: all values, then all
/// scales, then all sums.
#[derive(Clone, Copy)]
pub struct Q8Vectors {
    values: Shared<u32>,
    scales: Shared<f32>,
    sums: Shared<f32>,
    n_in: u32,
}

/// A place in one of the vectors.
#[derive(Clone, Copy)]
pub struct Q8Slice {
    values: Shared<u32>,
    scales: Shared<f32>,
    sums: Shared<f32>,
}

impl Q8Vectors {
    /// The layout of `vectors` vectors; see
    /// [`matvec_shared_bytes`](crate::abi::matvec_shared_bytes).
    #[inline(always)]
    pub fn new(vectors: u32, n_in: u32) -> Self {
        let values = dynamic::<u32>();
        let scales = values.byte_add(vectors * n_in).cast::<f32>();
        let sums = scales.add(vectors * (n_in / Q8_GROUP));
        Self {
            values,
            scales,
            sums,
            n_in,
        }
    }

    /// Element `element` of vector `vector`; a multiple of 32.
    #[inline(always)]
    pub fn at(self, vector: u32, element: u32) -> Q8Slice {
        let element = vector * self.n_in + element;
        Q8Slice {
            values: self.values.byte_add(element),
            scales: self.scales.add(element / Q8_GROUP),
            sums: self.sums.add(element / Q8_SUM_GROUP),
        }
    }

    /// Quantizes a vector, all threads of the block together; a barrier must follow before it is
    /// read.
    ///
    /// # Safety
    /// `x` is `n_in` readable f32 at a multiple of 16 bytes; `n_in` is a multiple of 32. The block is
    /// of one dimension, a multiple of 32.
    #[inline(always)]
    pub unsafe fn quantize(self, vector: u32, x: *const f32) {
        let slice = self.at(vector, 0);
        let mut first = 4 * (thread::thread_idx_x() - thread::thread_idx_x() % 32);
        let offset = 4 * (thread::thread_idx_x() % 32);
        // A warp takes 128 elements, a lane four, eight lanes a group. The condition is the warp's, so
        // that all lanes shuffle; lanes behind the end of the vector hold zeros, and whole groups.
        while first < self.n_in {
            let i = first + offset;
            let inside = i < self.n_in;
            // SAFETY: in bounds; the warp is whole.
            unsafe {
                let v = if inside {
                    f32::load4(x.add(i as usize))
                } else {
                    [0.0; 4]
                };
                let largest = v[0].abs().max(v[1].abs()).max(v[2].abs().max(v[3].abs()));
                let largest = lanes_max::<8>(largest);
                let scale = largest * (1.0 / 127.0);
                let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
                let q = v.map(|v| round_to_i32(v * inverse));
                let sum = lanes_sum::<4>((q[0] + q[1] + q[2] + q[3]) as f32);
                if inside {
                    slice.values.add(i / 4).store(pack_i8x4(q));
                    if i.is_multiple_of(Q8_GROUP) {
                        slice.scales.add(i / Q8_GROUP).store(scale);
                    }
                    if i.is_multiple_of(Q8_SUM_GROUP) {
                        slice.sums.add(i / Q8_SUM_GROUP).store(scale * sum);
                    }
                }
            }
            first += 4 * thread::block_dim_x();
        }
    }
}

impl Q8Slice {
    /// 16 values from `element` (a multiple of 16) on.
    ///
    /// # Safety
    /// The elements are inside the vector, quantized, and published by a barrier.
    #[inline(always)]
    pub unsafe fn values16(self, element: u32) -> [u32; 4] {
        // SAFETY: the caller's.
        unsafe { self.values.byte_add(element).cast::<[u32; 4]>().load() }
    }

    /// The scale of the group in which `element` is.
    ///
    /// # Safety
    /// As for [`values16`](Self::values16).
    #[inline(always)]
    pub unsafe fn scale(self, element: u32) -> f32 {
        // SAFETY: the caller's.
        unsafe { self.scales.add(element / Q8_GROUP).load() }
    }

    /// The sum of the 16 elements from `element` (a multiple of 16) on.
    ///
    /// # Safety
    /// As for [`values16`](Self::values16).
    #[inline(always)]
    pub unsafe fn sum16(self, element: u32) -> f32 {
        // SAFETY: the caller's.
        unsafe { self.sums.add(element / Q8_SUM_GROUP).load() }
    }
}
