//! Matrices side by side whose products with the same vectors a kernel writes, and what it should write.

use std::fmt::Debug;

use kernels_gpu::abi::{DevicePtr, MatvecSegment, WeightType};

use crate::harness::{Case, Random, Tolerance, widen};
use crate::weights::Matrix;

/// Products of up to three matrices with vectors.
#[derive(Clone, Copy)]
pub struct Products {
    pub ty: WeightType,
    /// Rows of each matrix; 0 for one that is left out.
    pub n_out: [usize; 3],
    pub n_in: usize,
    pub vectors: usize,
    /// Whether results are added to what is there.
    pub accumulate: bool,
    /// Whether there are biases.
    pub bias: bool,
}

/// What a matrix's results should be.
pub struct Expected {
    y: DevicePtr<f32>,
    after: Vec<f64>,
    /// The largest sum of magnitudes of the terms of a result.
    largest: f64,
    /// The largest magnitude of each vector's results, before they are added to anything.
    pub maxima: Vec<f64>,
}

impl Products {
    /// Those of one matrix, whose rows are whole blocks, alone.
    pub fn new(ty: WeightType, n_out: usize, n_in: usize, vectors: usize) -> Self {
        Self {
            ty,
            n_out: [n_out, 0, 0],
            n_in: n_in.next_multiple_of(ty.block_elements() as usize),
            vectors,
            accumulate: false,
            bias: false,
        }
    }

    /// The case of a launch, and where its numbers come from.
    pub fn case(&self, plan: &impl Debug) -> (Case, Random) {
        let Self {
            ty, n_in, vectors, ..
        } = self;
        let name = ty.name();
        let case = Case::new(format!(
            "{name} {:?}x{n_in}, {vectors} vectors, {plan:?}",
            self.n_out
        ));
        (case, Random::new((n_in * self.n_out[0] + vectors) as u64))
    }

    /// Random matrices on the device, and their products with `x`, `[vectors][n_in]`, in f64: weights as `weight` takes
    /// them, each vector times its factor.
    pub fn random(
        &self,
        case: &mut Case,
        random: &mut Random,
        x: &[f64],
        weight: fn(f32) -> f64,
        factors: &[f64],
    ) -> ([MatvecSegment; 3], Vec<Expected>) {
        let mut segments = [MatvecSegment::NONE; 3];
        let mut expected = Vec::new();
        for (segment, &n_out) in segments.iter_mut().zip(&self.n_out) {
            if n_out == 0 {
                continue;
            }
            let matrix = Matrix::random(self.ty, n_out, self.n_in, random);
            let y_stride = n_out + 3;
            let before = random.floats(self.vectors * y_stride, 1.0);
            let bias = self.bias.then(|| random.floats(n_out, 1.0));
            *segment = MatvecSegment {
                weights: case.input("weights", &matrix.bytes),
                y: case.in_out("y", &before),
                bias: bias
                    .as_ref()
                    .map_or(DevicePtr::NULL, |bias| case.input("bias", bias)),
                n_out: n_out as u32,
                y_stride: y_stride as u32,
            };
            let weights: Vec<f64> = matrix.values.iter().map(|&w| weight(w)).collect();
            let mut after = widen(&before);
            let (mut largest, mut maxima) = (0f64, vec![0f64; self.vectors]);
            for (t, x) in x.chunks_exact(self.n_in).enumerate() {
                for (o, row) in weights.chunks_exact(self.n_in).enumerate() {
                    let terms = || row.iter().zip(x).map(|(w, x)| w * x * factors[t]);
                    let y = &mut after[t * y_stride + o];
                    let bias = bias.as_ref().map_or(0.0, |bias| bias[o].into());
                    let sum = terms().sum::<f64>() + bias;
                    *y = if self.accumulate { *y + sum } else { sum };
                    maxima[t] = maxima[t].max(sum.abs());
                    largest = largest.max(terms().map(f64::abs).sum());
                }
            }
            expected.push(Expected {
                y: segment.y,
                after,
                largest,
                maxima,
            });
        }
        (segments, expected)
    }
}

impl Expected {
    /// Compares what the kernel wrote, each result within `share` of the largest sum of magnitudes, because of `reason`.
    pub fn check(&self, case: &Case, share: f64, reason: &'static str) {
        let tolerance = Tolerance {
            relative: 1.2e-7,
            absolute: share * self.largest,
            reason,
        };
        case.check(self.y, &self.after, tolerance);
    }
}
