//! Powers of two that keep the f16 operands of products in f16's range.
//!
//! A norm's output is at most `sqrt(width)` times its largest weight, whatever its input, so that one scale
//! serves all rows; so does one for a residual stream of nothing but embeddings and outputs of norms. Matrices that
//! are not quantized may be of any range. All are 1 in ordinary models.

use half::bf16;
use kernels_gpu::prim::scale::{F16_MAX, scale_to_range};
use rayon::prelude::*;

use super::weights::GpuMatrix;
use super::workspace::Workspace;
use crate::device::Buffer;
use crate::gguf::{GgmlType, Tensor};
use crate::model::{Config, Model};

/// Where the largest weight of an ordinary matrix is: from here up, the weights that matter are ordinary numbers
/// in f16, whose smallest is 2^-14.
const SMALL: f32 = 1.0 / 256.0;

/// Factor on the embeddings on the device. The residual stream is divided by the model's factor on what is added to
/// it there, so that sums need none: a norm of it is the same with [`stream_epsilon`].
pub fn stream_embedding_scale(config: &Config) -> f32 {
    config.embedding_scale / config.residual_scale
}

/// What norms of the residual stream add to the mean square on the device, where the stream is divided by the
/// model's factor on what is added to it. No model with such a factor has norms of a block's output.
pub fn stream_epsilon(config: &Config) -> f32 {
    config.rms_eps / (config.residual_scale * config.residual_scale)
}

/// What the inputs of a model's products are divided by: outputs of norms, or the residual stream.
pub struct NormScales {
    /// Of each block's attention norm, or of the stream there.
    pub attn: Vec<f32>,
    /// Of each block's feed-forward norm, or of the stream there.
    pub ffn: Vec<f32>,
    /// Of the last norm.
    pub output: f32,
}

impl NormScales {
    /// Those of `model`.
    pub fn of(model: &Model) -> NormScales {
        let mut stream = StreamBound::of(model);
        let (mut attn, mut ffn) = (Vec::new(), Vec::new());
        for layer in &model.weights.layers {
            attn.push(stream.input_scale(layer.attn_norm.as_deref()));
            stream.add(layer.post_attn_norm.as_deref());
            ffn.push(stream.input_scale(layer.ffn_norm.as_deref()));
            stream.add(layer.post_ffn_norm.as_deref());
        }
        NormScales {
            attn,
            ffn,
            output: range_scale(norm_bound(&model.logit_norm())),
        }
    }
}

/// The largest magnitude that a norm's output can have.
fn norm_bound(weight: &[f32]) -> f32 {
    /// For the roundings of the norm.
    const MARGIN: f32 = 1.01;
    let largest = weight.iter().fold(0f32, |most, w| most.max(w.abs()));
    largest * (weight.len() as f32).sqrt() * MARGIN
}

/// The largest magnitude that the residual stream can have, of a model whose products read it as it is: embeddings
/// and outputs of norms are all that is added to it.
struct StreamBound(f32);

impl StreamBound {
    fn of(model: &Model) -> StreamBound {
        let reads_stream = model.weights.layers.iter().any(|l| l.attn_norm.is_none());
        StreamBound(match reads_stream {
            true => largest(&model.weights.token_embd) * stream_embedding_scale(&model.config),
            false => 0.0,
        })
    }

    fn add(&mut self, post_norm: Option<&[f32]>) {
        self.0 += post_norm.map_or(0.0, norm_bound);
    }

    /// What the input of products behind a norm, or of the stream, is divided by.
    fn input_scale(&self, norm: Option<&[f32]>) -> f32 {
        range_scale(norm.map_or(self.0, norm_bound))
    }
}

/// The largest magnitude of a matrix's elements.
fn largest(matrix: &Tensor) -> f32 {
    let rows = (0..matrix.n_rows()).into_par_iter();
    let of_row = |row: &mut Vec<f32>, index: usize| {
        row.resize(matrix.row_len(), 0.0);
        matrix.dequantize_rows(index..index + 1, row);
        row.iter().fold(0f32, |most, x| most.max(x.abs()))
    };
    rows.map_init(Vec::new, of_row).reduce(|| 0.0, f32::max)
}

/// What the elements of a matrix are divided by when it is unpacked to f16.
pub fn matrix_scale(tensor: &Tensor) -> f32 {
    let bits = tensor.bytes();
    range_scale(match tensor.ty() {
        GgmlType::F32 => {
            let words = bits.as_chunks::<4>().0.iter();
            let largest = words.map(|&word| u32::from_le_bytes(word) & 0x7fff_ffff);
            f32::from_bits(largest.max().unwrap_or(0))
        }
        GgmlType::BF16 => {
            let words = bits.as_chunks::<2>().0.iter();
            let largest = words.map(|&word| u16::from_le_bytes(word) & 0x7fff);
            bf16::from_bits(largest.max().unwrap_or(0)).to_f32()
        }
        // As they are in f16, or the blocks' scales are.
        _ => return 1.0,
    })
}

/// A scale for magnitudes up to `largest`; 1 where that is ordinary, zero, or no number.
fn range_scale(largest: f32) -> f32 {
    match largest {
        _ if largest == 0.0 || largest.is_nan() => 1.0,
        SMALL..=F16_MAX => 1.0,
        _ => scale_to_range(largest),
    }
}

/// Rows of f16 that are multiplied with matrices.
#[derive(Clone, Copy)]
pub struct HalfRows<'a> {
    /// The rows, one behind the other.
    pub x: &'a Buffer,
    /// How many.
    pub count: usize,
    /// What all of them were divided by.
    pub scale: f32,
    /// What each of them was divided by besides, f32. A product with a matrix that is unpacked first leaves its
    /// rows divided by that.
    pub scales: Option<&'a Buffer>,
    /// Where products of matrices straight from their blocks put each row's largest magnitude, if that is above
    /// what the products of a pair of them may have as factors.
    pub maxima: Option<&'a Buffer>,
}

impl<'a> HalfRows<'a> {
    /// `count` rows that are as they are.
    pub fn new(x: &'a Buffer, count: usize) -> HalfRows<'a> {
        HalfRows {
            x,
            count,
            scale: 1.0,
            scales: None,
            maxima: None,
        }
    }

    /// `count` rows of a norm's output.
    pub fn normed(workspace: &'a Workspace, count: usize, scale: f32) -> HalfRows<'a> {
        HalfRows {
            scale,
            ..HalfRows::new(&workspace.normed, count)
        }
    }

    /// What the product with `matrix`, once it is unpacked, has to be multiplied by.
    pub fn unpacked_factor(&self, matrix: &GpuMatrix) -> f32 {
        self.scale * matrix.scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_ranges_stay() {
        for largest in [0.0, 1.0, SMALL, F16_MAX, f32::NAN] {
            assert_eq!(range_scale(largest), 1.0, "{largest}");
        }
        for largest in [1e-7, 0.9 * SMALL, 65_505.0, 1e30, f32::INFINITY] {
            assert_ne!(range_scale(largest), 1.0, "{largest}");
        }
    }

    #[test]
    fn a_norm_cannot_leave_the_range() {
        assert_eq!(range_scale(norm_bound(&[1000.0; 4096])), 1.0);
        let weight = [1024.0; 4096];
        let scale = range_scale(norm_bound(&weight));
        // One element that has the row's whole length.
        assert!(scale > 1.0 && 64.0 * 1024.0 / scale <= F16_MAX);
    }
}
