//! Products in f64, several at a time, for use inside a [`Kernel`](crate::gguf::quant::simd::Kernel).

use crate::gguf::quant::simd::{DOUBLES, Simd};

/// A number that is multiplied as a double.
pub trait Element: Copy + Sync {
    /// The number.
    fn double(self) -> f64;

    /// Several of them. `#[inline(always)]`, as kernels demand.
    fn load<S: Simd>(simd: S, from: &[Self; DOUBLES]) -> S::Doubles;
}

impl Element for f32 {
    #[inline(always)]
    fn double(self) -> f64 {
        f64::from(self)
    }

    #[inline(always)]
    fn load<S: Simd>(simd: S, from: &[f32; DOUBLES]) -> S::Doubles {
        simd.widen(from)
    }
}

impl Element for f64 {
    #[inline(always)]
    fn double(self) -> f64 {
        self
    }

    #[inline(always)]
    fn load<S: Simd>(simd: S, from: &[f64; DOUBLES]) -> S::Doubles {
        simd.load_doubles(from)
    }
}

/// The products of each of `a` with each of `b`, all of one length. Their sums stay in registers
/// while everything else is loaded once, so `R * C` should leave room among the
/// [registers](Simd::DOUBLES_HELD) for `R + 1` more.
#[inline(always)]
pub fn dots<S: Simd, T: Element, const R: usize, const C: usize>(
    simd: S,
    a: [&[T]; R],
    b: [&[f64]; C],
) -> [[f64; C]; R] {
    let (chunks, len) = (a[0].len() / DOUBLES, a[0].len());
    // All of one length, so that one bound check serves all.
    let a_chunks: [&[[T; DOUBLES]]; R] = a.map(|a| &a.as_chunks().0[..chunks]);
    let b_chunks: [&[[f64; DOUBLES]]; C] = b.map(|b| &b.as_chunks().0[..chunks]);
    let mut sums = [[simd.splat_doubles(0.0); C]; R];
    for chunk in 0..chunks {
        let mut loaded = [simd.splat_doubles(0.0); R];
        for r in 0..R {
            loaded[r] = T::load(simd, &a_chunks[r][chunk]);
        }
        for c in 0..C {
            let b = simd.load_doubles(&b_chunks[c][chunk]);
            for r in 0..R {
                sums[r][c] = simd.mul_add_doubles(loaded[r], b, sums[r][c]);
            }
        }
    }
    let mut out = [[0.0; C]; R];
    for r in 0..R {
        for c in 0..C {
            out[r][c] = simd.sum_doubles(sums[r][c]);
            for i in chunks * DOUBLES..len {
                out[r][c] += a[r][i].double() * b[c][i];
            }
        }
    }
    out
}

/// `out += sum of factors[r] * rows[r]`, all of one length.
#[inline(always)]
pub fn add_scaled<S: Simd, T: Element, const R: usize>(
    simd: S,
    out: &mut [f64],
    factors: [f64; R],
    rows: [&[T]; R],
) {
    let (out_chunks, out_rest) = out.as_chunks_mut::<DOUBLES>();
    let chunks = out_chunks.len();
    let row_chunks: [&[[T; DOUBLES]]; R] = rows.map(|row| &row.as_chunks().0[..chunks]);
    for (chunk, out) in out_chunks.iter_mut().enumerate() {
        let mut sum = simd.load_doubles(out);
        for r in 0..R {
            let row = T::load(simd, &row_chunks[r][chunk]);
            sum = simd.mul_add_doubles(simd.splat_doubles(factors[r]), row, sum);
        }
        simd.store_doubles(sum, out);
    }
    for (i, out) in out_rest.iter_mut().enumerate() {
        for r in 0..R {
            *out += factors[r] * rows[r][chunks * DOUBLES + i].double();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::quant::simd::{Kernel, dispatch};

    fn wave(n: usize, step: f64) -> Vec<f64> {
        (0..n).map(|i| (i as f64 * step).sin()).collect()
    }

    struct Both<'a>(&'a [Vec<f32>], &'a [Vec<f64>]);

    impl Kernel for Both<'_> {
        type Output = ([[f64; 2]; 3], Vec<f64>);

        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> Self::Output {
            let a = [&self.0[0][..], &self.0[1], &self.0[2]];
            let b = [&self.1[0][..], &self.1[1]];
            let mut sum = self.1[0].clone();
            add_scaled(simd, &mut sum, [0.5, -2.0, 3.0], a);
            (dots(simd, a, b), sum)
        }
    }

    #[test]
    fn any_length_adds_up() {
        for len in [0, 1, 8, 15, 64, 83] {
            let a = [0.37, 0.91, 1.7].map(|step| wave(len, step));
            let a = a.map(|a| a.into_iter().map(|v| v as f32).collect::<Vec<_>>());
            let b = [0.71, 1.3].map(|step| wave(len, step));
            let (dots, sum) = dispatch(Both(&a, &b));
            // A hundred terms below 3, each rounded to 53 bits.
            let close = |found: f64, exact: f64| assert!((found - exact).abs() < 1e-13);
            for (a, dots) in a.iter().zip(dots) {
                for (b, found) in b.iter().zip(dots) {
                    let exact = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * b).sum();
                    close(found, exact);
                }
            }
            for i in 0..len {
                let at = |row: usize| f64::from(a[row][i]);
                close(sum[i], b[0][i] + 0.5 * at(0) - 2.0 * at(1) + 3.0 * at(2));
            }
        }
    }
}
