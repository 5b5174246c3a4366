//! The matrix products of a forward pass: which tensor each reads, and what it is multiplied with.

use crate::backend::TensorName;
use crate::model::{Linear, Model};

/// One matrix product.
pub struct Product<'a> {
    /// Names of its input in a trace, the first that is recorded counts.
    pub inputs: &'static [&'static str],
    /// Name of its result in a trace.
    pub output: TensorName,
    /// The matrix.
    pub linear: &'a Linear,
}

impl Product<'_> {
    /// The input's name in the product's own block.
    pub fn input(&self, base: &'static str) -> TensorName {
        TensorName {
            base,
            layer: self.output.layer,
        }
    }
}

/// The inputs of Q, K and V, where a norm comes before them and where none does.
const ATTENTION: &[&str] = &["attn_norm", "attn_input"];

/// The same of the gate and the other factor.
const FEED_FORWARD: &[&str] = &["ffn_norm", "ffn_input"];

/// The inputs of `ffn_down`, under the names of both activations.
const GATED: &[&str] = &["ffn_swiglu", "ffn_geglu"];

/// Every product of `model` with a matrix that all tokens take, but for routers, in order of execution.
pub fn products(model: &Model) -> Vec<Product<'_>> {
    let mut found = Vec::new();
    for (index, layer) in model.weights.layers.iter().enumerate() {
        let network = match layer.experts() {
            Some(_) => "ffn_shexp",
            None => "ffn_out",
        };
        let names: [(&'static [&'static str], &'static str); 7] = [
            (ATTENTION, "Qcur_raw"),
            (ATTENTION, "Kcur_raw"),
            (ATTENTION, "Vcur"),
            (&["kqv_out"], "attn_out"),
            (FEED_FORWARD, "ffn_gate"),
            (FEED_FORWARD, "ffn_up"),
            (GATED, network),
        ];
        let matrices = names.into_iter().zip(layer.linears());
        found.extend(matrices.map(|((inputs, base), linear)| Product {
            inputs,
            output: TensorName {
                base,
                layer: Some(index),
            },
            linear,
        }));
    }
    found.push(Product {
        inputs: &["result_norm"],
        output: TensorName {
            base: "result_output",
            layer: None,
        },
        linear: &model.weights.output,
    });
    found
}
