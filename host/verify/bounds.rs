//! How far an operation may be off, given the types that it works in.
//!
//! An operation is judged alone: the reference starts from the very values that the backend's
//! operation started from. So a bound has to cover the rounding inside one operation and of its
//! result, not what came before. All are relative errors in the 2-norm over the whole tensor.

use std::collections::{HashMap, HashSet};

use super::products::products;
use crate::backend::{Activations, RecordedTensor, TensorName};
use crate::model::{Architecture, Model};

/// How far a tensor may be off, and why that far.
#[derive(Debug, Clone, PartialEq)]
pub struct Bound {
    /// Largest relative error.
    pub relative: f64,
    /// The types it follows from.
    pub why: String,
}

/// Sums of a few thousand products in f32: each rounding is 6e-8, and they add up like a random
/// walk; cancellation costs another digit.
const F32: f64 = 1e-5;

/// A value in half precision is off by up to 2^-11 = 4.9e-4, 2e-4 in the mean square. Twice the
/// largest, so that an input that is rounded where the recorded value is not passes as well.
const F16_STORED: f64 = 1e-3;

/// Inputs, weights and results in half precision with sums in f32: three independent roundings of
/// 2e-4 in the mean square; sums that cancel lose a factor of a few.
const F16_PRODUCT: f64 = 2e-3;

/// A block of 32 activations shares one scale, its largest value over 127: steps of 0.8 % of that,
/// 0.23 % in the mean square. A block's largest value is two to four times its mean square, and sums
/// that cancel lose a factor of a few.
const Q8_PRODUCT: f64 = 2e-2;

/// Queries, keys, values and probabilities in half precision; the softmax turns an absolute error of
/// a score into a relative one of a probability.
const F16_ATTENTION: f64 = 2e-3;

/// The residual stream stays in f32 in every backend: were it rounded to half precision, the error
/// would pile up from block to block.
const F32_SUM: f64 = 1e-4;

/// Steps of so few tokens may run through the kernels for decoding, which quantize activations.
const FEW_TOKENS: usize = 8;

/// Bounds for every tensor of one model on one kind of backend.
pub struct Bounds {
    /// `None` for a backend that computes in f32 or better.
    activations: Option<Activations>,
    arch: &'static Architecture,
    /// Of each product's result, whether its weights are quantized.
    quantized: HashMap<TensorName, bool>,
}

impl Bounds {
    /// Bounds for `model` on a backend that rounds as `activations` say; `None` is f32 throughout.
    pub fn new(model: &Model, activations: Option<Activations>) -> Bounds {
        let is_quantized = |ty: crate::gguf::GgmlType| ty.block_elements() > 1;
        let quantized = products(model)
            .iter()
            .map(|product| (product.output, is_quantized(product.linear.weight.ty())))
            .collect();
        Bounds {
            activations,
            arch: model.config.arch,
            quantized,
        }
    }

    /// The bound of `name` in a step in which `recorded` were reported. A backend that fuses
    /// operations reports only the last of them, whose bound then covers all.
    pub fn of(&self, name: TensorName, n_rows: usize, recorded: &HashSet<TensorName>) -> Bound {
        let mut bound = self.alone(name, n_rows);
        for &base in steps_before(self.arch, name.base) {
            let before = TensorName { base, ..name };
            if recorded.contains(&before) {
                break;
            }
            let fused = self.alone(before, n_rows);
            bound.relative += fused.relative;
            bound.why = format!("{}, fused with {base} ({})", bound.why, fused.why);
        }
        bound
    }

    fn alone(&self, name: TensorName, n_rows: usize) -> Bound {
        let (relative, why) = match (self.activations, name.base) {
            (None, _) => (F32, "f32 sums"),
            (Some(_), "embd" | "inp_scaled") => (F32, "decoded to f32"),
            (Some(_), "Qcur" | "Kcur" | "Qcur_normed" | "Kcur_normed") => {
                (F16_PRODUCT, "norm and rotation, stored in f16")
            }
            (Some(_), "kqv_out") => (F16_ATTENTION, "f16 keys, values and probabilities"),
            (Some(_), "ffn_inp" | "sa_out" | "l_out") => (F32_SUM, "a sum in f32"),
            (Some(activations), _) => match self.quantized.get(&name) {
                Some(true) if activations == Activations::Q8 && n_rows <= FEW_TOKENS => {
                    (Q8_PRODUCT, "quantized weights times 8-bit activations")
                }
                Some(_) => (F16_PRODUCT, "f16 weights times f16 activations"),
                None => (F16_STORED, "stored in f16"),
            },
        };
        Bound {
            relative,
            why: why.to_owned(),
        }
    }
}

/// The operations that a backend may run together with the one that writes `base`, last first.
fn steps_before(arch: &Architecture, base: &str) -> &'static [&'static str] {
    match base {
        "Qcur" if arch.qk_norm => &["Qcur_normed", "Qcur_raw"],
        "Kcur" if arch.qk_norm => &["Kcur_normed", "Kcur_raw"],
        "Qcur" | "Qcur_normed" => &["Qcur_raw"],
        "Kcur" | "Kcur_normed" => &["Kcur_raw"],
        // Decoding attention rotates the queries itself; keys are read back from the cache.
        "kqv_out" => &["Qcur"],
        "ffn_inp" | "attn_post_norm" => &["attn_out"],
        "sa_out" => &["attn_post_norm", "attn_out"],
        "ffn_swiglu" | "ffn_geglu" => &["ffn_gate", "ffn_up"],
        "l_out" if arch.post_norms => &["ffn_post_norm", "ffn_out"],
        "l_out" | "ffn_post_norm" => &["ffn_out"],
        _ => &[],
    }
}

/// The names of `tensors`.
pub fn names(tensors: &[RecordedTensor]) -> HashSet<TensorName> {
    tensors.iter().map(|tensor| tensor.name).collect()
}
