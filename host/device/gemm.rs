//! Matrix products in row-major terms, and their mapping to the call that BLAS wants.
//!
//! A row-major `[rows, cols]` matrix is, to column-major BLAS, its transpose `cols x rows` with the
//! row stride as leading dimension. So `y[tokens, n_out] = x[tokens, n_in] W[n_out, n_in]^T` is the
//! column-major product `y^T = W x^T` with `op_a = T, m = n_out, n = tokens, k = n_in,
//! lda = n_in, ldb = n_in, ldc = n_out` (strides of padded rows in place of these).

use super::buffer::BufferSlice;
use super::error::{DeviceError, Result};
use super::gemm_call::GemmCall;

/// Element type of a matrix in device memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GemmType {
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    F32,
}

impl GemmType {
    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            GemmType::F16 => 2,
            GemmType::F32 => 4,
        }
    }
}

/// A row-major matrix in device memory.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    /// Where it lies.
    pub data: BufferSlice<'a>,
    /// Its elements.
    pub ty: GemmType,
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// Elements from one row to the next, at least `cols`.
    pub stride: usize,
}

impl<'a> Matrix<'a> {
    /// A matrix whose rows follow each other without padding.
    pub fn dense(data: BufferSlice<'a>, ty: GemmType, rows: usize, cols: usize) -> Self {
        Matrix {
            data,
            ty,
            rows,
            cols,
            stride: cols,
        }
    }
}

/// `y = factor x W^T`, or that added to `y`, in row-major terms, accumulated in f32.
#[derive(Debug, Clone, Copy)]
pub struct Gemm<'a> {
    /// Activations `[tokens, n_in]`, f16.
    pub x: Matrix<'a>,
    /// Weights `[n_out, n_in]`, f16.
    pub w: Matrix<'a>,
    /// Result `[tokens, n_out]`, f16 or f32.
    pub y: Matrix<'a>,
    /// Factor on the product.
    pub factor: f32,
    /// Whether the product is added to `y`.
    pub accumulate: bool,
}

impl Gemm<'_> {
    /// The column-major call.
    ///
    /// # Errors
    /// Shapes or types that do not fit together, a matrix that is longer than its memory, or a size
    /// over cuBLAS's 32-bit limit.
    pub fn call(&self) -> Result<GemmCall> {
        let Gemm {
            x,
            w,
            y,
            factor,
            accumulate,
        } = self;
        let shapes = || format!("x {}, W {}, y {}", shape(x), shape(w), shape(y));
        let expected = "expected x [tokens, n_in], W [n_out, n_in], y [tokens, n_out]";
        if x.cols != w.cols || y.rows != x.rows || y.cols != w.rows {
            return Err(DeviceError::Gemm(format!("{}; {expected}", shapes())));
        }
        if x.ty != GemmType::F16 || w.ty != GemmType::F16 {
            return Err(DeviceError::Gemm(format!(
                "operands must be f16: {}",
                shapes()
            )));
        }
        for (name, matrix) in [("x", x), ("W", w), ("y", y)] {
            check_matrix(name, matrix)?;
        }
        let (tokens, n_in, n_out) = (x.rows as u32, x.cols as u32, w.rows as u32);
        Ok(GemmCall {
            a: w.data.addr(),
            lda: w.stride as u32,
            b: x.data.addr(),
            ldb: x.stride as u32,
            c: y.data.addr(),
            ldc: y.stride as u32,
            factor: *factor,
            accumulate: *accumulate,
            ..GemmCall::row_major(tokens, n_in, n_out, y.ty)
        })
    }
}

fn shape(matrix: &Matrix<'_>) -> String {
    format!(
        "[{}, {}] {:?} of row stride {}",
        matrix.rows, matrix.cols, matrix.ty, matrix.stride
    )
}

fn check_matrix(name: &str, matrix: &Matrix<'_>) -> Result<()> {
    let refuse = |why: String| {
        let label = matrix.data.label();
        Err(DeviceError::Gemm(format!(
            "{name} (`{label}`) {}: {why}",
            shape(matrix)
        )))
    };
    let limit = i32::MAX as usize;
    if matrix.rows == 0 || matrix.cols == 0 || matrix.stride < matrix.cols {
        return refuse("rows and columns must not be 0, nor the stride below the columns".into());
    }
    if matrix.rows > limit || matrix.stride > limit {
        return refuse(format!("sizes over {limit} are outside cuBLAS's range"));
    }
    // Both factors are below 2^31: no overflow in 64 bits.
    let bytes = ((matrix.rows - 1) * matrix.stride + matrix.cols) * matrix.ty.size();
    if bytes > matrix.data.len() {
        return refuse(format!(
            "needs {bytes} bytes, its memory has {}",
            matrix.data.len()
        ));
    }
    if !matrix.data.addr().is_multiple_of(matrix.ty.size() as u64) {
        return refuse(format!("address {:#x} is not aligned", matrix.data.addr()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::buffer::{Allocator, Buffer};
    use super::super::gemm_call::{Op, gemm_reference};
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    struct NoMemory;

    impl Allocator for NoMemory {
        unsafe fn free(&self, _addr: u64, _len: usize) {}
    }

    fn buffer(len: usize) -> Buffer {
        // SAFETY: the address is never used.
        unsafe { Buffer::from_raw(Arc::new(NoMemory), 0x100, len, "test") }
    }

    /// Small integers, so that every sum is exact and equality means equality.
    fn numbers(count: usize, seed: u64) -> Vec<f64> {
        let mut state = seed;
        let mut next = || {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            ((state >> 60) as f64) - 8.0
        };
        (0..count).map(|_| next()).collect()
    }

    proptest! {
        #[test]
        fn the_column_major_call_is_the_row_major_product(
            tokens in 1usize..7, n_in in 1usize..9, n_out in 1usize..9,
            pads in (0usize..3, 0usize..3, 0usize..3), accumulate: bool,
        ) {
            let (sx, sw, sy) = (n_in + pads.0, n_in + pads.1, n_out + pads.2);
            let memory = buffer(4096);
            let matrix = |ty, rows, cols, stride| {
                Matrix { data: memory.all(), ty, rows, cols, stride }
            };
            let call = Gemm {
                x: matrix(GemmType::F16, tokens, n_in, sx),
                w: matrix(GemmType::F16, n_out, n_in, sw),
                y: matrix(GemmType::F32, tokens, n_out, sy),
                factor: 1.0,
                accumulate,
            }.call().unwrap();
            let (x, w) = (numbers(tokens * sx, 1), numbers(n_out * sw, 2));
            let before = numbers(tokens * sy, 3);
            let mut y = before.clone();
            gemm_reference(&call, &w, &x, &mut y);
            for t in 0..tokens {
                for o in 0..sy {
                    let old = before[t * sy + o];
                    let expected = if o >= n_out { old } else {
                        let dot: f64 = (0..n_in).map(|i| x[t * sx + i] * w[o * sw + i]).sum();
                        if accumulate { old + dot } else { dot }
                    };
                    prop_assert_eq!(y[t * sy + o], expected);
                }
            }
            let (a, b, c) = call.extents();
            prop_assert_eq!(a, (n_out - 1) * sw + n_in);
            prop_assert_eq!(b, (tokens - 1) * sx + n_in);
            prop_assert_eq!(c, (tokens - 1) * sy + n_out);
        }
    }

    #[test]
    fn the_call_reads_as_the_design_says() {
        let memory = buffer(1 << 20);
        let dense = |rows, cols| Matrix::dense(memory.all(), GemmType::F16, rows, cols);
        let gemm = Gemm {
            x: dense(5, 64),
            w: dense(96, 64),
            y: dense(5, 96),
            factor: 1.0,
            accumulate: false,
        };
        assert_eq!(
            gemm.call().unwrap().to_string(),
            "op_a=T op_b=N m=96 n=5 k=64 lda=64 ldb=64 ldc=96 c=F16 beta=0"
        );
    }

    #[test]
    fn the_old_engines_call_reads_the_weights_transposed() {
        // W is 2x2, [[1, 2], [3, 4]]; x = [1, 10]. N with lda = n_out gives W^T x.
        let memory = buffer(64);
        let dense = |rows, cols| Matrix::dense(memory.all(), GemmType::F16, rows, cols);
        let right = Gemm {
            x: dense(1, 2),
            w: dense(2, 2),
            y: dense(1, 2),
            factor: 1.0,
            accumulate: false,
        };
        let right = right.call().unwrap();
        let wrong = GemmCall {
            op_a: Op::N,
            ..right
        };
        let (w, x) = ([1.0, 2.0, 3.0, 4.0], [1.0, 10.0]);
        let mut y = [0.0; 2];
        gemm_reference(&right, &w, &x, &mut y);
        assert_eq!(y, [21.0, 43.0]);
        gemm_reference(&wrong, &w, &x, &mut y);
        assert_eq!(y, [31.0, 42.0]);
    }

    #[test]
    fn operands_that_do_not_fit_are_refused() {
        let memory = buffer(64);
        let half = |rows, cols| Matrix::dense(memory.all(), GemmType::F16, rows, cols);
        let good = Gemm {
            x: half(2, 4),
            w: half(3, 4),
            y: half(2, 3),
            factor: 1.0,
            accumulate: false,
        };
        assert!(good.call().is_ok());
        let single = Matrix {
            ty: GemmType::F32,
            ..half(2, 4)
        };
        let odd = memory.slice(1, 63).unwrap();
        let huge = usize::try_from(i32::MAX).unwrap() + 1;
        for (bad, part) in [
            (
                Gemm {
                    x: half(2, 5),
                    ..good
                },
                "expected x [tokens, n_in]",
            ),
            (
                Gemm {
                    y: half(3, 2),
                    ..good
                },
                "expected x [tokens, n_in]",
            ),
            (Gemm { x: single, ..good }, "must be f16"),
            (
                Gemm {
                    x: half(0, 4),
                    y: half(0, 3),
                    ..good
                },
                "must not be 0",
            ),
            (
                Gemm {
                    w: Matrix {
                        stride: 3,
                        ..half(3, 4)
                    },
                    ..good
                },
                "stride",
            ),
            (
                Gemm {
                    w: Matrix {
                        stride: 30,
                        ..half(3, 4)
                    },
                    ..good
                },
                "needs 128 bytes",
            ),
            (
                Gemm {
                    w: Matrix {
                        stride: huge,
                        ..half(3, 4)
                    },
                    ..good
                },
                "cuBLAS's range",
            ),
            (
                Gemm {
                    x: Matrix {
                        data: odd,
                        ..half(2, 4)
                    },
                    ..good
                },
                "not aligned",
            ),
        ] {
            let text = bad.call().unwrap_err().to_string();
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
