//! The column-major matrix product that cuBLAS is given, and its definition.

use super::gemm::GemmType;
use rayon::prelude::*;
use std::fmt;

/// What BLAS does to an operand before it multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Nothing.
    N,
    /// Transposes it.
    T,
}

/// The column-major call `C[m, n] = factor op_a(A)[m, k] op_b(B)[k, n] (+ C)` as cuBLAS is given it;
/// A and B are f16, sums are f32.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GemmCall {
    /// What is done to A.
    pub op_a: Op,
    /// What is done to B.
    pub op_b: Op,
    /// Rows of C.
    pub m: u32,
    /// Columns of C.
    pub n: u32,
    /// Length of the sums.
    pub k: u32,
    /// Device address of A.
    pub a: u64,
    /// Elements from one column of A to the next.
    pub lda: u32,
    /// Device address of B.
    pub b: u64,
    /// Elements from one column of B to the next.
    pub ldb: u32,
    /// Device address of C.
    pub c: u64,
    /// Elements from one column of C to the next.
    pub ldc: u32,
    /// Element type of C.
    pub c_ty: GemmType,
    /// Factor on the product, BLAS's alpha.
    pub factor: f32,
    /// Whether C is added to, or overwritten.
    pub accumulate: bool,
}

impl GemmCall {
    /// The call for the row-major `y[tokens, n_out] = x[tokens, n_in] W[n_out, n_in]^T` whose rows
    /// follow each other without padding; the addresses are still to be filled in.
    pub fn row_major(tokens: u32, n_in: u32, n_out: u32, c_ty: GemmType) -> GemmCall {
        GemmCall {
            op_a: Op::T,
            op_b: Op::N,
            m: n_out,
            n: tokens,
            k: n_in,
            a: 0,
            lda: n_in,
            b: 0,
            ldb: n_in,
            c: 0,
            ldc: n_out,
            c_ty,
            factor: 1.0,
            accumulate: false,
        }
    }

    /// Elements that the call spans in A, B and C.
    pub fn extents(&self) -> (usize, usize, usize) {
        let span = |ld: u32, rows: u32, cols: u32| {
            (cols as usize).saturating_sub(1) * ld as usize + rows as usize
        };
        let (m, n, k) = (self.m, self.n, self.k);
        let a = if self.op_a == Op::N {
            span(self.lda, m, k)
        } else {
            span(self.lda, k, m)
        };
        let b = if self.op_b == Op::N {
            span(self.ldb, k, n)
        } else {
            span(self.ldb, n, k)
        };
        (a, b, span(self.ldc, m, n))
    }
}

impl fmt::Display for GemmCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let GemmCall {
            op_a,
            op_b,
            m,
            n,
            k,
            lda,
            ldb,
            ldc,
            c_ty,
            ..
        } = self;
        write!(
            f,
            "op_a={op_a:?} op_b={op_b:?} m={m} n={n} k={k} lda={lda} ldb={ldb} ldc={ldc} \
             c={c_ty:?} beta={}",
            u8::from(self.accumulate)
        )
    }
}

/// The product by BLAS's definition, in f64: `a`, `b` and `c` hold [`GemmCall::extents`] elements.
/// The simulator multiplies with it, and tests hold cuBLAS against it.
///
/// # Panics
/// A slice is shorter than its extent.
pub fn gemm_reference(call: &GemmCall, a: &[f64], b: &[f64], c: &mut [f64]) {
    let (m, k) = (call.m as usize, call.k as usize);
    let (lda, ldb, ldc) = (call.lda as usize, call.ldb as usize, call.ldc as usize);
    c.par_chunks_mut(ldc)
        .take(call.n as usize)
        .enumerate()
        .for_each(|(j, column)| {
            for (i, out) in column[..m].iter_mut().enumerate() {
                let before = if call.accumulate { *out } else { 0.0 };
                let mut sum = 0.0;
                for p in 0..k {
                    let left = if call.op_a == Op::N {
                        a[p * lda + i]
                    } else {
                        a[i * lda + p]
                    };
                    let right = if call.op_b == Op::N {
                        b[j * ldb + p]
                    } else {
                        b[p * ldb + j]
                    };
                    sum += left * right;
                }
                *out = before + f64::from(call.factor) * sum;
            }
        });
}
