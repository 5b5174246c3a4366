//! The vectors of a matrix-vector kernel on their way to shared memory: residual, RMSNorm, encoding.
//!
//! The factor `1 / rms` of the norm is the same for a whole vector, so the results are multiplied by it in
//! the end: the vectors need not be read twice, nor wait for the sum of their squares.

use cuda_std::shared::Shared;
use cuda_std::{prelude::*, static_shared};

use super::activations::Activations;
use super::weights::Weights;
use crate::abi::{ACTIVATION_GROUP, MATVEC_MAX_WARPS, MatvecParams};
use crate::prim::half::Activation;
use crate::prim::load::prefetch;
use crate::prim::math::{fma, recip_approx, rsqrt_approx};
use crate::prim::reduce::{shuffle_xor, warp_sum};

/// Elements that a warp encodes together, eight a lane.
const WARP_ELEMENTS: u32 = 256;

/// Elements of a lane, and the norm's factors for them.
type Loaded = ([f32; 8], [f32; 8]);

/// Fetches the factors of the norms, which no kernel writes, into the L2 cache: meanwhile the weights of
/// all other blocks have passed through it.
#[inline(always)]
pub fn prefetch_norm(p: &MatvecParams) {
    // A thread for each line of 128 bytes.
    let mut i = 32 * thread::thread_idx_x();
    while i < p.n_in {
        if !p.norm_weight.is_null() {
            prefetch(p.norm_weight.ptr().wrapping_add(i as usize));
        }
        if !p.residual.is_null() {
            prefetch(p.residual_weight.ptr().wrapping_add(i as usize));
        }
        i += 32 * thread::block_dim_x();
    }
}

/// Encodes all vectors (times `norm_weight`), and puts each warp's sum of their squares into `squares`; a
/// barrier must follow. The first block writes the vectors with the residual added to `x_out`.
///
/// # Safety
/// All threads of the block come here together; the launch conditions of the kernel.
#[inline(always)]
pub unsafe fn encode_input<W: Weights, A: Activations<W>>(
    p: &MatvecParams,
    activations: A,
    squares: Shared<f32>,
) {
    let lane = thread::thread_idx_x() % 32;
    let warp = thread::thread_idx_x() / 32;
    let stride = 8 * thread::block_dim_x();
    let padded = p.n_in.next_multiple_of(ACTIVATION_GROUP);

    let residual_squares = static_shared![f32; crate::abi::MATVEC_SQUARES];
    if !p.residual.is_null() {
        let mut vector = 0;
        while vector < p.vectors {
            let mut sum = 0.0;
            let mut i = 4 * thread::thread_idx_x();
            while i < p.n_in {
                // SAFETY: inside the vector.
                sum = unsafe { add_squares(load::<W>(p, p.residual.ptr(), vector, i), sum) };
                i += stride / 2;
            }
            // SAFETY: whole warps are here.
            unsafe { store_warp_sum(residual_squares, vector, sum) };
            vector += 1;
        }
        // Publishes the sums.
        thread::sync_threads();
    }

    let mut vector = 0;
    while vector < p.vectors {
        let residual_norm = if p.residual.is_null() {
            0.0
        } else {
            // SAFETY: published above; whole warps are here.
            unsafe { inverse_norm(p, residual_squares, vector, 32) }
        };
        // Four elements of the vector and their factors; zeros behind its end.
        let quad = |i: u32| -> ([f32; 4], [f32; 4]) {
            if i >= p.n_in {
                return ([0.0; 4], [1.0; 4]);
            }
            // SAFETY: inside the vectors; only the first block writes, and nothing reads x_out here.
            unsafe {
                let mut weight = [1.0; 4];
                if !p.norm_weight.is_null() {
                    weight = load::<W>(p, p.norm_weight.ptr(), 0, i);
                }
                let mut x = load::<W>(p, p.x.ptr(), vector, i);
                if !p.residual.is_null() {
                    let residual = load::<W>(p, p.residual.ptr(), vector, i);
                    let weight = load::<W>(p, p.residual_weight.ptr(), 0, i);
                    let mut k = 0;
                    while k < 4 {
                        x[k] = (residual[k] * residual_norm).mul_add(weight[k], x[k]);
                        k += 1;
                    }
                    if thread::block_idx_x() == 0 {
                        store::<W>(p, vector, i, x);
                    }
                }
                (x, weight)
            }
        };
        let load_eight = |i: u32| -> Loaded {
            let ([a, b, c, d], v) = quad(i);
            let ([e, f, g, h], w) = quad(i + 4);
            (
                [a, b, c, d, e, f, g, h],
                [v[0], v[1], v[2], v[3], w[0], w[1], w[2], w[3]],
            )
        };
        let mut sum = 0.0;
        let mut encode = |i: u32, (mut values, weights): Loaded| {
            let mut k = 0;
            while k < 8 {
                sum = values[k].mul_add(values[k], sum);
                values[k] *= weights[k];
                k += 1;
            }
            // SAFETY: the warp is here with neighbouring elements.
            unsafe { activations.encode(vector, i, values) };
        };
        // The bounds are the same for a whole warp, so that its lanes stay together. Two rounds are loaded
        // before the first is encoded, because a load takes longer than that.
        let mut begin = WARP_ELEMENTS * warp;
        while begin < padded {
            let i = begin + 8 * lane;
            let first = load_eight(i);
            if begin + stride < padded {
                let second = load_eight(i + stride);
                encode(i, first);
                encode(i + stride, second);
            } else {
                encode(i, first);
            }
            begin += 2 * stride;
        }
        // SAFETY: whole warps are here.
        unsafe { store_warp_sum(squares, vector, sum) };
        vector += 1;
    }
}

/// `1 / sqrt(mean of squares + epsilon)` of a vector, which may be another one for each `lanes` (a power of
/// two) neighbouring lanes.
///
/// # Safety
/// All warps' sums have been published; whole warps come here.
#[inline(always)]
pub unsafe fn inverse_norm(p: &MatvecParams, squares: Shared<f32>, vector: u32, lanes: u32) -> f32 {
    let warps = thread::block_dim_x() / 32;
    let mut sum = 0.0;
    let mut warp = thread::thread_idx_x() % lanes;
    while warp < warps {
        // SAFETY: the caller's.
        sum += unsafe { squares.add(vector * MATVEC_MAX_WARPS + warp).load() };
        warp += lanes;
    }
    let mut distance = lanes / 2;
    while distance > 0 {
        // SAFETY: the caller's.
        sum += unsafe { shuffle_xor(sum, distance) };
        distance /= 2;
    }
    // Within 4e-7 of the exact quotient and root, which take ten times as long.
    rsqrt_approx(fma(sum, recip_approx(p.n_in as f32), p.epsilon))
}

/// # Safety
/// Whole warps come here; nothing else uses the memory before the next barrier.
#[inline(always)]
unsafe fn store_warp_sum(squares: Shared<f32>, vector: u32, sum: f32) {
    let thread = thread::thread_idx_x();
    // SAFETY: the caller's.
    unsafe {
        let sum = warp_sum(sum);
        if thread.is_multiple_of(32) {
            let place = squares.add(vector * MATVEC_MAX_WARPS + thread / 32);
            place.store(sum);
        }
    }
}

#[inline(always)]
fn add_squares(v: [f32; 4], sum: f32) -> f32 {
    let sum = v[0].mul_add(v[0], v[1].mul_add(v[1], sum));
    v[2].mul_add(v[2], v[3].mul_add(v[3], sum))
}

/// Elements `i` to `i + 3` of a vector. Those behind the end, which only plain types can have, are zeros.
///
/// # Safety
/// Element `i` is in the vector.
#[inline(always)]
unsafe fn load<W: Weights>(p: &MatvecParams, x: *const f32, vector: u32, i: u32) -> [f32; 4] {
    // SAFETY: the caller's; the vectors are aligned.
    unsafe {
        let x = x.add(vector as usize * p.x_stride as usize + i as usize);
        if W::TYPE.is_quantized() || i + 4 <= p.n_in {
            f32::load4(x)
        } else {
            let element = |k: u32| {
                if i + k < p.n_in {
                    *x.add(k as usize)
                } else {
                    0.0
                }
            };
            [element(0), element(1), element(2), 0.0]
        }
    }
}

/// Writes elements `i` to `i + 3` of a vector of `x_out`, as far as they are inside.
///
/// # Safety
/// Element `i` is in the vector.
#[inline(always)]
unsafe fn store<W: Weights>(p: &MatvecParams, vector: u32, i: u32, values: [f32; 4]) {
    // SAFETY: the caller's; the vectors are aligned.
    unsafe {
        let x = p.x_out.mut_ptr();
        let x = x.add(vector as usize * p.x_stride as usize + i as usize);
        if W::TYPE.is_quantized() || i + 4 <= p.n_in {
            f32::store4(x, values);
        } else {
            let mut k = 0;
            while k < 3 {
                if i + k < p.n_in {
                    *x.add(k as usize) = values[k as usize];
                }
                k += 1;
            }
        }
    }
}
