//! The vectors of a matrix-vector kernel on their way to shared memory: residual, RMSNorm, encoding.
//!
//! The factor `1 / rms` of the norm is the same for a whole vector, so the results are multiplied by it in
//! the end: the vectors need not be read twice, nor wait for the sum of their squares.

use cuda_std::shared::Shared;
use cuda_std::{prelude::*, static_shared};

use super::activations::VectorEncoding;
use super::weights::Weights;
use crate::abi::{ACTIVATION_GROUP, MATVEC_WARP_SQUARES, MatvecParams};
use crate::prim::half::Element;
use crate::prim::load::prefetch;
use crate::prim::math::{fma, recip_approx, rsqrt_approx};
use crate::prim::reduce::warp_sum;

/// Elements that a warp encodes together, eight a lane.
const WARP_ELEMENTS: u32 = 256;

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
pub unsafe fn encode_input<W: Weights, A: VectorEncoding<W>>(
    p: &MatvecParams,
    activations: A,
    squares: Shared<f32>,
) {
    let residual_squares = static_shared![f32; crate::abi::MATVEC_SQUARES];
    if !p.residual.is_null() {
        // SAFETY: all threads are here.
        unsafe { square_residuals::<W>(p, residual_squares) };
    }
    // The bounds are the same for a whole warp, so that its lanes stay together.
    let first = 8 * thread::thread_idx_x();
    let stride = 8 * thread::block_dim_x();
    let padded = p.n_in.next_multiple_of(ACTIVATION_GROUP);
    let first_of_warp = WARP_ELEMENTS * (thread::thread_idx_x() / 32);

    let mut vector = 0;
    while vector < p.vectors {
        let mut sum = 0.0;
        let mut offset = 0;
        while first_of_warp + offset < padded {
            let i = first + offset;
            let (mut values, mut factors) = ([0.0; 8], [1.0; 8]);
            if i < p.n_in {
                // SAFETY: inside the vectors; the sums of squares are published.
                unsafe {
                    values = load8::<W>(p, p.x.ptr(), vector, i);
                    if !p.norm_weight.is_null() {
                        factors = load8::<W>(p, p.norm_weight.ptr(), 0, i);
                    }
                    if !p.residual.is_null() {
                        add_residual::<W>(p, residual_squares, vector, i, &mut values);
                    }
                }
            }
            let mut k = 0;
            while k < 8 {
                sum = values[k].mul_add(values[k], sum);
                values[k] *= factors[k];
                k += 1;
            }
            // SAFETY: the warp is here with neighbouring elements.
            unsafe { activations.encode(vector, i, values) };
            offset += stride;
        }
        // SAFETY: whole warps are here.
        unsafe { store_warp_sum(squares, vector, sum) };
        vector += 1;
    }
}

/// Sums of squares of the residual vectors, published.
///
/// # Safety
/// All threads of the block come here together; the launch conditions of the kernel.
#[inline(always)]
unsafe fn square_residuals<W: Weights>(p: &MatvecParams, squares: Shared<f32>) {
    let mut vector = 0;
    while vector < p.vectors {
        let mut sum = 0.0;
        let mut i = 8 * thread::thread_idx_x();
        while i < p.n_in {
            // SAFETY: inside the vector.
            let values = unsafe { load8::<W>(p, p.residual.ptr(), vector, i) };
            let mut k = 0;
            while k < 8 {
                sum = values[k].mul_add(values[k], sum);
                k += 1;
            }
            i += 8 * thread::block_dim_x();
        }
        // SAFETY: whole warps are here.
        unsafe { store_warp_sum(squares, vector, sum) };
        vector += 1;
    }
    // Publishes the sums.
    thread::sync_threads();
}

/// Adds `rms_norm(residual) * residual_weight` to eight elements of `x`. The first block writes the sum to
/// `x_out`.
///
/// # Safety
/// Element `i` is in the vectors; the sums of the residual's squares have been published. Nothing reads
/// `x_out` in this kernel.
#[inline(always)]
unsafe fn add_residual<W: Weights>(
    p: &MatvecParams,
    squares: Shared<f32>,
    vector: u32,
    i: u32,
    x: &mut [f32; 8],
) {
    // SAFETY: the caller's.
    unsafe {
        let norm = inverse_norm(p, squares, vector);
        let residual = load8::<W>(p, p.residual.ptr(), vector, i);
        let weight = load8::<W>(p, p.residual_weight.ptr(), 0, i);
        let mut k = 0;
        while k < 8 {
            x[k] = (residual[k] * norm).mul_add(weight[k], x[k]);
            k += 1;
        }
        if thread::block_idx_x() == 0 {
            store8::<W>(p, vector, i, *x);
        }
    }
}

/// `1 / sqrt(mean of squares + epsilon)` of a vector, which may be another one for each lane.
///
/// # Safety
/// All warps' sums have been published.
#[inline(always)]
pub unsafe fn inverse_norm(p: &MatvecParams, squares: Shared<f32>, vector: u32) -> f32 {
    let squares = squares.add(vector * MATVEC_WARP_SQUARES);
    let mut sums = [0.0; 4];
    let mut warp = 0;
    // Every lane adds all of them, which takes less time than to exchange them.
    while warp < MATVEC_WARP_SQUARES {
        // SAFETY: the caller's.
        let four = unsafe { squares.add(warp).cast::<[u32; 4]>().load() };
        let mut i = 0;
        while i < 4 {
            sums[i] += f32::from_bits(four[i]);
            i += 1;
        }
        warp += 4;
    }
    let sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    // Within 4e-7 of the exact quotient and root, which take ten times as long.
    rsqrt_approx(fma(sum, recip_approx(p.n_in as f32), p.epsilon))
}

/// # Safety
/// Whole warps come here; nothing else uses the memory before the next barrier.
#[inline(always)]
unsafe fn store_warp_sum(squares: Shared<f32>, vector: u32, sum: f32) {
    let thread = thread::thread_idx_x();
    let warps = thread::block_dim_x() / 32;
    // SAFETY: the caller's.
    unsafe {
        let sum = warp_sum(sum);
        if thread.is_multiple_of(32) {
            let squares = squares.add(vector * MATVEC_WARP_SQUARES);
            let mut warp = thread / 32;
            squares.add(warp).store(sum);
            // The places of warps that there are not.
            warp += warps;
            while warp < MATVEC_WARP_SQUARES {
                squares.add(warp).store(0.0);
                warp += warps;
            }
        }
    }
}

/// Elements `i` to `i + 7` of a vector. Those behind the end, which only plain types can have, are zeros.
///
/// # Safety
/// Element `i` is in the vector.
#[inline(always)]
unsafe fn load8<W: Weights>(p: &MatvecParams, x: *const f32, vector: u32, i: u32) -> [f32; 8] {
    // SAFETY: the caller's; the vectors are aligned.
    unsafe {
        let x = x.add((vector * p.x_stride + i) as usize);
        if W::TYPE.is_quantized() || i + 8 <= p.n_in {
            let ([a, b, c, d], [e, f, g, h]) = (f32::load4(x), f32::load4(x.add(4)));
            [a, b, c, d, e, f, g, h]
        } else {
            let mut values = [0.0; 8];
            let mut k = 0;
            while k < 8 {
                if i + (k as u32) < p.n_in {
                    values[k] = *x.add(k);
                }
                k += 1;
            }
            values
        }
    }
}

/// Writes elements `i` to `i + 7` of a vector of `x_out`, as far as they are inside.
///
/// # Safety
/// Element `i` is in the vector.
#[inline(always)]
unsafe fn store8<W: Weights>(p: &MatvecParams, vector: u32, i: u32, values: [f32; 8]) {
    // SAFETY: the caller's; the vectors are aligned.
    unsafe {
        let x = p.x_out.mut_ptr().add((vector * p.x_stride + i) as usize);
        if W::TYPE.is_quantized() || i + 8 <= p.n_in {
            let [a, b, c, d, e, f, g, h] = values;
            f32::store4(x, [a, b, c, d]);
            f32::store4(x.add(4), [e, f, g, h]);
        } else {
            let mut k = 0;
            while k < 8 {
                if i + (k as u32) < p.n_in {
                    *x.add(k) = values[k];
                }
                k += 1;
            }
        }
    }
}
