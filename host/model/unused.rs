//! What of a file the model does not use: the list of what may be left out, and the refusal of all else.
//!
//! A key or a tensor that a model's formula needs and that is left out gives wrong text without any error.
//! So each must be read, be in one of these tables with a value that changes nothing, or is refused by name.

use std::collections::HashSet;

use super::arch::{Architecture, GateFunction};
use super::config::Config;
use super::error::ModelError;
use super::keys::{Keys, integers};
use crate::gguf::{Gguf, Value};

/// A key or a tensor of the file that has no part in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unused {
    /// Its name in the file.
    pub name: String,
    /// Why the text does not depend on it.
    pub why: &'static str,
}

/// A key below the architecture's prefix; a trailing `*` stands for any end.
struct KeyRule {
    key: &'static str,
    /// Whether a value changes nothing.
    neutral: fn(&Value, &Config) -> bool,
    /// Why a neutral value changes nothing, or what another one would need.
    what: &'static str,
}

const fn key(
    key: &'static str,
    neutral: fn(&Value, &Config) -> bool,
    what: &'static str,
) -> KeyRule {
    KeyRule { key, neutral, what }
}

/// The keys that llama.cpp and Ollama know for any architecture; those that a row's formula uses never come here.
#[rustfmt::skip]
const KEYS: &[KeyRule] = &[
    key("vocab_size", any, "the embeddings tell the size of the vocabulary"),
    key("tensor_data_layout", any, "a note on the converter's input"),
    key("attention.layer_norm_epsilon", any, "of norms that this architecture does not have"),
    key("attention.group_norm_*", any, "of norms that this architecture does not have"),
    key("rope.scaling.finetuned", any, "a note on the training"),
    key("rope.scaling.original_context_length", any, "only YaRN depends on it"),
    key("rope.scaling.yarn_beta_*", any, "only YaRN depends on them"),
    key("rope.freq_base_swa", any, "no layer has a window"),
    key("rope.local.freq_base", any, "no layer has a window"),
    key("attention.sliding_window_pattern", any, "no layer has a window"),
    key("attention.sliding_window", beyond_context, "a sliding attention window"),
    key("pooling_type", any, "of embeddings, not of text"),
    key("classifier.*", any, "of a classifier, not of text"),
    key("dense_*", any, "of embeddings, not of text"),
    key("vision.*", any, "of images, not of text"),
    key("audio.*", any, "of sound, not of text"),
    key("mm.*", any, "of images, not of text"),
    key("mm_*", any, "of images, not of text"),
    key("attention.causal", is_true, "attention to later tokens"),
    key("attention.scale", own_attention_scale, "another scale of attention scores"),
    key("attention.output_scale", zero_or_one, "a scale of attention"),
    key("attention.value_scale", zero_or_one, "a scale of values"),
    key("attention.temperature_length", own_temperature_length, "a temperature by position with other steps"),
    key("attention.temperature_*", zero, "a temperature by position"),
    key("attention.key_length_swa", own_head_size, "another head size of local layers"),
    key("attention.value_length_swa", own_head_size, "another head size of local layers"),
    key("attention.*", zero, "an attention that is not supported"),
    key("rope.dimension_count_swa", own_rotation, "another rotation of local layers"),
    key("rope.scaling.alpha", zero_or_one, "NTK scaling by alpha"),
    key("rope.scaling.yarn_attn_factor", zero_or_one, "a YaRN that is not supported"),
    key("rope.scaling.yarn_ext_factor", own_extrapolation, "a YaRN that is not supported"),
    key("rope.*", zero, "a rotation that is not supported"),
    key("attn_logit_softcapping", zero, "capped attention scores"),
    key("final_logit_softcapping", zero, "capped logits"),
    key("router_logit_softcapping", zero, "experts"),
    key("logit_scale", zero_or_one, "scaled logits"),
    key("residual_scale", zero_or_one, "scaled residuals"),
    key("embedding_scale", own_embedding_scale, "scaled embeddings"),
    key("embedding_length_out", own_width, "another width of the output"),
    key("hidden_activation", own_activation, "another activation"),
    key("use_parallel_residual", zero, "parallel residuals"),
    key("leading_dense_block_count", no_dense_blocks, "blocks without experts"),
    key("interleave_moe_layer_step", no_steps, "blocks without experts"),
    key("moe_*", zero, "experts of another kind"),
    key("expert_weights_norm", own_normalization, "another rule for the weights of experts"),
    key("expert_weights_scale", zero_or_one, "scaled weights of experts"),
    key("expert_gating_func", softmax, "another function of a router's scores"),
    key("expert_group_count", zero_or_one, "groups of experts"),
    key("expert_group_used_count", zero_or_one, "groups of experts"),
    key("expert_shared_count", own_shared_count, "shared experts"),
    key("expert*", zero, "experts of another kind"),
];

fn any(_: &Value, _: &Config) -> bool {
    true
}

/// 0, false, nothing, or an array of these.
fn zero(value: &Value, _: &Config) -> bool {
    match value {
        Value::Bool(value) => !value,
        Value::String(value) => value.is_empty(),
        Value::Array(array) => {
            array.is_empty() || integers(array).is_some_and(|all| all.iter().all(|&n| n == 0))
        }
        value => number(value) == Some(0.0),
    }
}

fn is_true(value: &Value, _: &Config) -> bool {
    *value == Value::Bool(true)
}

/// 0 stands for "not set" in such keys.
fn zero_or_one(value: &Value, _: &Config) -> bool {
    matches!(number(value), Some(0.0 | 1.0))
}

fn beyond_context(value: &Value, config: &Config) -> bool {
    number(value).is_some_and(|window| window == 0.0 || window >= config.context_length as f64)
}

fn own_attention_scale(value: &Value, config: &Config) -> bool {
    is_zero_or_near(value, config.attention_scale.into())
}

/// Steps are as long as the context of the original training.
fn own_temperature_length(value: &Value, config: &Config) -> bool {
    let own = config.query_temperature.map_or(0, |rule| rule.length);
    is_zero_or_near(value, own as f64)
}

fn own_embedding_scale(value: &Value, config: &Config) -> bool {
    is_zero_or_near(value, config.embedding_scale.into())
}

fn own_head_size(value: &Value, config: &Config) -> bool {
    number(value) == Some(config.head_dim as f64)
}

fn own_width(value: &Value, config: &Config) -> bool {
    is_zero_or_near(value, config.width as f64)
}

fn own_rotation(value: &Value, config: &Config) -> bool {
    number(value) == Some(config.ropes[0].rotated() as f64)
}

/// What llama.cpp takes where the file is silent: 1 with YaRN, else 0; -1 means "not set".
fn own_extrapolation(value: &Value, config: &Config) -> bool {
    let own = if config.yarn { 1.0 } else { 0.0 };
    number(value).is_some_and(|factor| factor < 0.0 || factor == own)
}

fn own_activation(value: &Value, config: &Config) -> bool {
    let names: &[&str] = match config.arch.activation {
        GateFunction::Silu => &["silu", "swish", "swiglu"],
        GateFunction::GeluTanh => &["gelu_pytorch_tanh", "gelu_tanh", "gelu_new"],
    };
    matches!(value, Value::String(name) if names.contains(&name.as_str()))
}

fn no_dense_blocks(value: &Value, config: &Config) -> bool {
    config.experts.is_none() || zero(value, config)
}

/// Each block, or each first of one, has experts.
fn no_steps(value: &Value, config: &Config) -> bool {
    config.experts.is_none() || zero_or_one(value, config)
}

fn own_normalization(value: &Value, config: &Config) -> bool {
    let own = config.arch.experts.is_some_and(|rule| rule.normalizes);
    *value == Value::Bool(own)
}

/// ggml's number of the softmax over all scores; 0 is "not set".
fn softmax(value: &Value, config: &Config) -> bool {
    config.experts.is_none() || zero_or_one(value, config)
}

fn own_shared_count(value: &Value, config: &Config) -> bool {
    let shared = config.experts.and_then(|experts| experts.shared_width);
    number(value) == Some(if shared.is_some() { 1.0 } else { 0.0 })
}

fn number(value: &Value) -> Option<f64> {
    match *value {
        Value::F32(value) => Some(value.into()),
        Value::F64(value) => Some(value),
        ref value => value.as_integer().map(|integer| integer as f64),
    }
}

fn is_zero_or_near(value: &Value, own: f64) -> bool {
    number(value).is_some_and(|value| value == 0.0 || (value / own - 1.0).abs() < 1e-5)
}

/// The keys that `config` was not made of.
///
/// # Errors
/// The first that is not in the list, or has a value there that is not neutral.
pub(super) fn check_keys(keys: &Keys<'_>, config: &Config) -> Result<Vec<Unused>, ModelError> {
    let mut unused = Vec::new();
    for (name, value) in keys.unread() {
        let rule = KEYS.iter().find(|rule| matches(rule.key, name));
        let rule = rule.ok_or_else(|| {
            keys.invalid(
                name,
                "a key that hyperion does not know; the text may depend on it",
            )
        })?;
        if !(rule.neutral)(value, config) {
            let what = format!(
                "{} asks for {}, which hyperion does not have for {}",
                shown(value),
                rule.what,
                keys.arch().name
            );
            return Err(keys.invalid(name, what));
        }
        unused.push(Unused {
            name: keys.name(name),
            why: rule.what,
        });
    }
    Ok(unused)
}

/// Whether `name` is `pattern`, whose `*` at one end stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    match (pattern.strip_suffix('*'), pattern.strip_prefix('*')) {
        (Some(start), _) => name.starts_with(start),
        (None, Some(end)) => name.ends_with(end),
        (None, None) => name == pattern,
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Bool(value) => value.to_string(),
        Value::String(value) => format!("{value:?}"),
        Value::Array(array) => format!("an array of {}", array.element_type()),
        value => number(value).map_or_else(|| value.ty().to_string(), |number| number.to_string()),
    }
}

/// Tensors that may be left out, by name with a `*` at one end, and why.
const TENSORS: &[(&str, &str)] = &[
    ("*.input_scale", "calibration data"),
    ("*.in_sum2", "calibration data"),
    ("*.counts", "calibration data"),
    ("v.*", "of images, not of text"),
    ("mm.*", "of images, not of text"),
    ("a.*", "of sound, not of text"),
    ("cls.*", "of a classifier, not of text"),
    ("dense_2.*", "of embeddings, not of text"),
    ("dense_3.*", "of embeddings, not of text"),
];

/// Why the tensors of blocks behind the last one that is run are left out.
const PREDICTING: &str = "a block for multi-token prediction";

/// The tensors of `gguf` that are not among `taken`.
///
/// # Errors
/// The first that is not in the list.
pub(super) fn check_tensors(
    gguf: &Gguf,
    config: &Config,
    taken: &HashSet<String>,
) -> Result<Vec<Unused>, ModelError> {
    let mut unused = Vec::new();
    let names = gguf.tensors().iter().map(|tensor| tensor.name());
    let unread = gguf
        .unread_tensors()
        .iter()
        .map(|tensor| tensor.name.as_str());
    for name in names.chain(unread).filter(|name| !taken.contains(*name)) {
        let Some(why) = why_tensor(name, config) else {
            // One of a type that is not read may have been looked for in vain.
            gguf.require(name)?;
            return Err(ModelError::UnusedTensor {
                name: name.to_owned(),
                what: refusal(name, config.arch),
            });
        };
        unused.push(Unused {
            name: name.to_owned(),
            why,
        });
    }
    Ok(unused)
}

fn why_tensor(name: &str, config: &Config) -> Option<&'static str> {
    let predicting = config.n_layers..config.n_layers + config.n_predicting;
    if block_of(name).is_some_and(|block| predicting.contains(&block)) {
        return Some(PREDICTING);
    }
    let rule = TENSORS.iter().find(|(pattern, _)| matches(pattern, name));
    rule.map(|(_, why)| *why)
}

fn block_of(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}

/// What a tensor would need that there is not.
fn refusal(name: &str, arch: &Architecture) -> String {
    let experts = ["_exps.", "_shexp.", "ffn_gate_inp.", "exp_probs_b"];
    let is_expert = experts.iter().any(|part| name.contains(part));
    let what = if is_expert && arch.experts.is_none() {
        return format!(
            "of a mixture of experts, which hyperion does not have for {}",
            arch.name
        );
    } else if name.ends_with(".scale") {
        "scales of whole tensors are not supported"
    } else if name.starts_with("rope_factors_") {
        return format!(
            "factors of longrope, which hyperion does not have for {}",
            arch.name
        );
    } else {
        return format!(
            "it has no part in {}'s formula, so that the text would not be this model's",
            arch.name
        );
    };
    what.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_at_one_end() {
        assert!(matches("rope.*", "rope.scaling.alpha") && !matches("rope.*", "a.rope.b"));
        assert!(matches("*.counts", "x.counts") && !matches("*.counts", "counts"));
        assert!(matches("vocab_size", "vocab_size") && !matches("vocab_size", "vocab_size_2"));
        assert_eq!(block_of("blk.12.attn_q.weight"), Some(12));
        assert_eq!(block_of("blk.x.attn_q.weight"), None);
    }
}
