//! How far an operation may be off, given the types that it works in.
//!
//! An operation is judged alone: the reference starts from the very values that the backend's
//! operation started from. So a bound has to cover the rounding inside one operation and of its
//! result, not what came before. All are relative errors in the 2-norm over the whole tensor.

use std::collections::{HashMap, HashSet};

use super::experts::{ExpertChoices, RoundedExperts};
use super::gated_noise::gated_error;
use super::noise::{Q8Rounding, RoundedProduct};
use super::products::products;
use crate::backend::{ActivationPrecision, TensorName};
use crate::gpu::{DECODE_SEQUENCES, Q8_SEQUENCES, multiplies_in_q8};
use crate::model::{Architecture, BlockNorms, ExpertCounts, GateFunction, Layer, Model, QkNorm};

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

/// Times the error that 8-bit activations cost the reference's inputs: a backend's own differ in the last
/// bits, so that some are rounded the other way; and rows that stand for all are a sample.
const Q8_SPREAD: f64 = 1.5;

/// Times the error that a gated product takes from each of its factors; at most 1.5 was seen on random
/// models.
const GATED_SPREAD: f64 = 2.0;

/// Queries, keys, values and probabilities in half precision; the softmax turns an absolute error of
/// a score into a relative one of a probability.
const F16_ATTENTION: f64 = 2e-3;

/// The residual stream stays in f32 in every backend: were it rounded to half precision, the error
/// would pile up from block to block.
const F32_SUM: f64 = 1e-4;

/// What the reference computed in a step, as far as bounds depend on it.
#[derive(Debug, Default)]
pub struct Computed {
    /// Whether each sequence had one new token.
    pub is_decode: bool,
    /// Tensors that the backend reported.
    pub reported: HashSet<TensorName>,
    /// Length (2-norm) of each of the reference's tensors.
    pub norms: HashMap<TensorName, f64>,
    /// The inputs of products.
    pub inputs: HashMap<TensorName, Vec<f32>>,
}

/// Bounds for every tensor of one model on one kind of backend.
pub struct Bounds {
    /// `None` for a backend that computes in f32 or better.
    activations: Option<ActivationPrecision>,
    arch: &'static Architecture,
    gate_function: GateFunction,
    /// Factor on what is added to the residual stream.
    residual_scale: f64,
    products: HashMap<TensorName, Rounded>,
    /// Most tokens of a step whose products take activations in 8 bits.
    most_in_q8: usize,
    /// Whether those of a step of one token for each of some sequences do, with a scale for each group.
    batches_in_q8: bool,
    counts: Option<ExpertCounts>,
    /// Products of chosen experts.
    experts: HashMap<TensorName, ExpertProduct>,
}

/// What matters of the products of chosen experts.
struct ExpertProduct {
    input: &'static str,
    /// Where their inputs may be rounded to 8 bits.
    q8: Option<RoundedExperts>,
}

/// What matters of a product.
struct Rounded {
    inputs: &'static [&'static str],
    /// Where its inputs may be rounded to 8 bits.
    q8: Option<RoundedProduct>,
    /// What its result is multiplied by.
    factor: f64,
}

impl Bounds {
    /// Bounds for `model` on a backend that rounds as `activations` say; `None` is f32 throughout.
    pub fn new(model: &Model, activations: Option<ActivationPrecision>) -> Bounds {
        let products = products(model).into_iter().map(|product| {
            // Plain weights are always multiplied in half precision.
            let quantized = product.linear.weight.ty().block_elements() > 1;
            let rounded = quantized && activations == Some(ActivationPrecision::Q8);
            let q8 = rounded.then(|| RoundedProduct::of(product.linear));
            let factor = match product.output.layer {
                Some(_) => 1.0,
                None => f64::from(model.config.logit_factor),
            };
            let inputs = product.inputs;
            (product.output, Rounded { inputs, q8, factor })
        });
        Bounds {
            activations,
            arch: model.config.arch,
            gate_function: model.config.gate_function(),
            residual_scale: model.config.residual_scale.into(),
            products: products.collect(),
            counts: model.config.experts,
            experts: expert_products(model, activations),
            most_in_q8: DECODE_SEQUENCES,
            batches_in_q8: multiplies_in_q8(model),
        }
    }

    /// The same for a backend whose products take activations in 8 bits however many tokens a step has.
    pub fn in_every_step(self) -> Bounds {
        Bounds {
            most_in_q8: usize::MAX,
            batches_in_q8: false,
            ..self
        }
    }

    /// Whether `name` is an input of a product.
    pub fn is_input(&self, name: TensorName) -> bool {
        let mut products = self.products.iter();
        let mut experts = self.experts.iter();
        products.any(|(output, product)| {
            output.layer == name.layer && product.inputs.contains(&name.base)
        }) || experts.any(|(output, product)| {
            output.layer == name.layer && [product.input, CHOSEN].contains(&name.base)
        })
    }

    /// The choices of experts `ids` by the reference's `scores`.
    pub fn choices(&self, scores: &[f32], ids: &[f32]) -> ExpertChoices {
        let counts = self.counts.as_ref();
        counts.map_or_else(ExpertChoices::default, |counts| {
            ExpertChoices::of(scores, counts.count, ids, counts.used, F32)
        })
    }

    /// The bound of `name`, of which `n_rows` tokens were computed. A backend that fuses operations
    /// reports only the last of them, whose bound then covers all.
    pub fn of(&self, name: TensorName, n_rows: usize, step: &Computed) -> Bound {
        let mut bound = self.alone(name, n_rows, step);
        for &base in steps_before(self.arch, name.base) {
            let before = TensorName { base, ..name };
            if step.reported.contains(&before) {
                break;
            }
            let fused = self.alone(before, n_rows, step);
            // Behind a sum, an error counts by the length of what it is an error of.
            let share = match (name.base, step.norms.get(&before), step.norms.get(&name)) {
                ("ffn_inp" | "sa_out" | "l_out", Some(part), Some(sum)) => {
                    self.residual_scale * part / sum
                }
                // The errors of one factor are largest where the other one is, and the activation
                // turns absolute errors near zero into relative ones.
                ("ffn_swiglu" | "ffn_geglu" | "ffn_moe_swiglu", ..) => GATED_SPREAD,
                _ => 1.0,
            };
            bound.relative += fused.relative * share;
            bound.why = format!("{}, fused with {base} ({})", bound.why, fused.why);
        }
        bound
    }

    /// The bound of a gated product, fused with those of gate and up in 8 bits, by what their roundings do to each of its
    /// elements; `None` where it is something else. It takes as long as the products.
    pub fn of_gated(&self, name: TensorName, n_rows: usize, step: &Computed) -> Option<Bound> {
        let layer = |base| TensorName { base, ..name };
        let [gate, up] = match name.base {
            "ffn_swiglu" | "ffn_geglu" => ["ffn_gate", "ffn_up"].map(layer),
            _ => return None,
        };
        if [gate, up].iter().any(|name| step.reported.contains(name)) {
            return None;
        }
        let of = |name: TensorName| self.rounded(self.products.get(&name)?, name, n_rows, step);
        let ((gate, x, rounding), (up, ..)) = (of(gate)?, of(up)?);
        let errors = gate.errors(x, n_rows, rounding);
        let error = gated_error(
            [gate, up],
            self.gate_function,
            gate.last(x, n_rows),
            &errors,
        );
        let error = error / step.norms.get(&name)?;
        // Both products' other roundings are as without this.
        let relative = F16_STORED + 2.0 * GATED_SPREAD * F16_PRODUCT + Q8_SPREAD * error;
        error.is_finite().then(|| Bound {
            relative,
            why: "stored in f16, the 8-bit activations of both factors followed through".to_owned(),
        })
    }

    /// How long (2-norm) the error of these rows of a product may be, because of the very roundings that its inputs
    /// take in 8 bits; 0 where they take none.
    pub fn of_rows(
        &self,
        name: TensorName,
        rows: &[usize],
        n_tokens: usize,
        step: &Computed,
    ) -> f64 {
        let product = self.products.get(&name);
        let error = product.and_then(|this| {
            let (product, input, rounding) = self.rounded(this, name, n_tokens, step)?;
            let error = product.q8_error_of(rows, input, n_tokens, rounding);
            Some(Q8_SPREAD * this.factor * error)
        });
        error.unwrap_or(0.0)
    }

    fn alone(&self, name: TensorName, n_rows: usize, step: &Computed) -> Bound {
        let (relative, why) = match (self.activations, name.base) {
            (_, CHOSEN) => (1.0, "experts whose scores nearly tie"),
            (None, _) => (F32, "f32 sums"),
            (
                Some(_),
                "ffn_moe_logits" | "ffn_moe_weights" | "ffn_moe_weights_norm" | "ffn_shexp_gate",
            ) => (F32, "f32 sums"),
            (Some(_), "embd" | "inp_scaled") => (F32, "decoded to f32"),
            (Some(_), "Qcur" | "Kcur" | "Qcur_normed" | "Kcur_normed") => {
                (F16_PRODUCT, "norm and rotation, stored in f16")
            }
            (Some(_), "kqv_out") => (F16_ATTENTION, "f16 keys, values and probabilities"),
            (Some(_), "ffn_inp" | "sa_out" | "l_out") => (F32_SUM, "a sum in f32"),
            (Some(_), _) => match self.products.get(&name) {
                Some(product) => match self.q8_error(product, name, n_rows, step) {
                    Some(error) => (
                        F16_PRODUCT + Q8_SPREAD * error,
                        "quantized weights times 8-bit activations",
                    ),
                    None => (F16_PRODUCT, "f16 weights times f16 activations"),
                },
                None => match self.experts.get(&name) {
                    Some(product) => match product
                        .q8_error(name, self.counts, step)
                        .filter(|_| n_rows <= self.most_in_q8)
                    {
                        Some(error) => (
                            F16_PRODUCT + Q8_SPREAD * error,
                            "quantized weights of experts times 8-bit activations",
                        ),
                        None => (F16_PRODUCT, "f16 weights of experts times f16 activations"),
                    },
                    None => (F16_STORED, "stored in f16"),
                },
            },
        };
        Bound {
            relative,
            why: why.to_owned(),
        }
    }

    /// The relative error of the result that 8-bit activations cause; `None`
    /// where they are not in use.
    fn q8_error(
        &self,
        rounded: &Rounded,
        output: TensorName,
        n_rows: usize,
        step: &Computed,
    ) -> Option<f64> {
        let (product, input, rounding) = self.rounded(rounded, output, n_rows, step)?;
        let norm = step.norms.get(&output)?;
        let error = rounded.factor * product.q8_error(input, n_rows, rounding) / norm;
        Some(error).filter(|error| error.is_finite())
    }

    /// The product with its input and how that is rounded, where it is to 8 bits in a step of `n_rows` tokens.
    fn rounded<'a>(
        &self,
        rounded: &'a Rounded,
        output: TensorName,
        n_rows: usize,
        step: &'a Computed,
    ) -> Option<(&'a RoundedProduct, &'a [f32], Q8Rounding)> {
        let product = rounded.q8.as_ref()?;
        let is_batch = self.batches_in_q8 && step.is_decode && Q8_SEQUENCES.contains(&n_rows);
        let rounding = match is_batch {
            true => Q8Rounding::Groups,
            false if n_rows <= self.most_in_q8 => Q8Rounding::Halves,
            false => return None,
        };
        let input = rounded.inputs.iter().find_map(|&base| {
            let name = TensorName { base, ..output };
            step.inputs.get(&name)
        })?;
        Some((product, input, rounding))
    }
}

/// The experts that each token takes, the best first.
const CHOSEN: &str = "ffn_moe_topk";

fn expert_products(
    model: &Model,
    activations: Option<ActivationPrecision>,
) -> HashMap<TensorName, ExpertProduct> {
    let layers = model.weights.layers.iter().map(Layer::experts).enumerate();
    let of_layer = layers.filter_map(|(index, experts)| Some((index, experts?)));
    let all = of_layer.flat_map(|(index, experts)| {
        let [gate, up, down] = experts.matrices();
        let products = [
            ("ffn_moe_gate", "ffn_norm", gate),
            ("ffn_moe_up", "ffn_norm", up),
            ("ffn_moe_down", "ffn_moe_swiglu", down),
        ];
        products.map(|(base, input, matrix)| {
            let quantized = matrix.weight.ty().block_elements() > 1;
            let rounded = quantized && activations == Some(ActivationPrecision::Q8);
            let q8 = rounded.then(|| RoundedExperts {
                matrix: matrix.clone(),
                has_own_inputs: base == "ffn_moe_down",
            });
            let layer = Some(index);
            (TensorName { base, layer }, ExpertProduct { input, q8 })
        })
    });
    all.collect()
}

impl ExpertProduct {
    /// The relative error of the results that 8-bit activations cause; `None` where they are not in use.
    fn q8_error(
        &self,
        output: TensorName,
        counts: Option<ExpertCounts>,
        step: &Computed,
    ) -> Option<f64> {
        let product = self.q8.as_ref()?;
        let of = |base| step.inputs.get(&TensorName { base, ..output });
        let (x, ids) = (of(self.input)?, of(CHOSEN)?);
        let norm = step.norms.get(&output)?;
        let error = product.q8_error(x, ids, counts?.used) / norm;
        Some(error).filter(|error| error.is_finite())
    }
}

/// The operations that a backend may run together with the one that writes `base`, last first.
fn steps_before(arch: &Architecture, base: &str) -> &'static [&'static str] {
    match base {
        "Qcur" if arch.qk_norm != QkNorm::None => &["Qcur_normed", "Qcur_raw"],
        "Kcur" if arch.qk_norm != QkNorm::None => &["Kcur_normed", "Kcur_raw"],
        "Qcur" | "Qcur_normed" => &["Qcur_raw"],
        "Kcur" | "Kcur_normed" => &["Kcur_raw"],
        // Decoding attention rotates the queries itself; keys are read back from the cache.
        "kqv_out" => &["Qcur"],
        "ffn_inp" | "attn_post_norm" => &["attn_out"],
        "sa_out" => &["attn_post_norm", "attn_out"],
        "ffn_swiglu" | "ffn_geglu" => &["ffn_gate", "ffn_up"],
        "ffn_moe_swiglu" => &["ffn_moe_gate", "ffn_moe_up"],
        "l_out" if arch.norms != BlockNorms::Before => &["ffn_post_norm", "ffn_out"],
        "l_out" | "ffn_post_norm" => &["ffn_out"],
        _ => &[],
    }
}
