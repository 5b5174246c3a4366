//! Mixtures of experts: counts, shapes and keys that are refused by name, and what is said of the ones that run.

use hyperion::gguf::{GgmlType, Gguf, Value};
use hyperion::model::{ExpertCounts, Model, ModelError};

use crate::support::fixture;
use crate::support::gguf_writer::GgufWriter;
use crate::{copy_of, succeed};

const QWEN3: &str = "families/qwen3moe-mixed.gguf";
const QWEN2: &str = "families/qwen2moe-mixed.gguf";
const MIXTRAL: &str = "families/mixtral-mixed.gguf";

fn open(model: &GgufWriter) -> Result<Model, ModelError> {
    Model::from_gguf(&Gguf::from_bytes(model.to_bytes()).expect("a valid file"))
}

fn changed(fixture: &str, change: impl FnOnce(&mut GgufWriter)) -> Result<Model, ModelError> {
    let mut model = copy_of(fixture);
    change(&mut model);
    open(&model)
}

/// The file is refused, in words that have all of `parts`.
fn refused(found: Result<Model, ModelError>, parts: &[&str]) {
    let error = found.map(|_| ()).expect_err("a refusal").to_string();
    for part in parts {
        assert!(error.contains(part), "{error}, not {part}");
    }
}

#[test]
fn counts_follow_from_keys() {
    let counts = |found: Result<Model, ModelError>| {
        let model = found.unwrap_or_else(|error| panic!("{error}"));
        (
            model.config.ffn_width,
            model.config.experts.expect("experts"),
        )
    };
    let expected = ExpertCounts {
        count: 6,
        used: 4,
        width: 32,
        shared_width: Some(96),
        normalizes: false,
    };
    assert_eq!(counts(changed(QWEN2, |_| ())), (96, expected));
    // All networks that a token takes together.
    let shares = changed(QWEN2, |model| {
        model.remove("qwen2moe.expert_feed_forward_length");
        model.set("qwen2moe.feed_forward_length", Value::U32(4 * 32));
    });
    assert_eq!(counts(shares), (96, expected));
    let (ffn, mixtral) = counts(changed(MIXTRAL, |_| ()));
    assert_eq!((ffn, mixtral.count, mixtral.width), (0, 3, 256));
    assert!(mixtral.normalizes);
}

#[test]
fn impossible_counts_are_refused() {
    let with = |key: &str, value: u32| {
        changed(QWEN3, |model| {
            model.set(&format!("qwen3moe.{key}"), Value::U32(value))
        })
    };
    refused(with("expert_count", 0), &["expert_count", "no experts"]);
    refused(
        with("expert_count", u32::MAX),
        &["expert_count", "is not in 1..="],
    );
    refused(
        with("expert_used_count", 0),
        &["expert_used_count", "0 is not in"],
    );
    refused(
        with("expert_used_count", 6),
        &["expert_used_count", "takes 6 of 5 experts"],
    );
    refused(
        with("expert_feed_forward_length", 0),
        &["expert_feed_forward_length"],
    );
    for key in ["expert_count", "expert_used_count"] {
        let key = format!("qwen3moe.{key}");
        refused(changed(QWEN3, |model| model.remove(&key)), &[&key]);
    }
    let odd = changed(QWEN3, |model| {
        model.remove("qwen3moe.expert_feed_forward_length");
        model.set("qwen3moe.feed_forward_length", Value::U32(33));
    });
    refused(odd, &["feed_forward_length", "33 elements for 2 experts"]);
    let none = changed(MIXTRAL, |model| model.remove("llama.feed_forward_length"));
    refused(none, &["llama.feed_forward_length"]);
}

#[test]
fn shapes_follow_from_counts() {
    // Each key says what the shape of some tensor is.
    for (key, value, tensor) in [
        ("expert_count", 4, "blk.0.ffn_gate_inp.weight"),
        (
            "expert_feed_forward_length",
            64,
            "blk.0.ffn_gate_exps.weight",
        ),
    ] {
        let found = changed(QWEN3, |model| {
            model.set(&format!("qwen3moe.{key}"), Value::U32(value))
        });
        refused(found, &[tensor, "shape", "expected"]);
    }
    for part in [
        "gate_exps",
        "up_exps",
        "down_exps",
        "gate_inp",
        "gate_shexp",
        "gate_inp_shexp",
    ] {
        let name = format!("blk.1.ffn_{part}.weight");
        let without = changed(QWEN2, |model| drop(model.take(&name)));
        refused(without, &[&name]);
        let other = changed(QWEN2, |model| {
            let tensor = model.tensor(&name);
            (tensor.ty, tensor.dims, tensor.data) =
                (GgmlType::F32, vec![32, 2, 7], vec![0; 4 * 32 * 2 * 7]);
        });
        refused(other, &[&name, "shape [32, 2, 7]"]);
    }
}

#[test]
fn what_changes_the_formula_is_refused_by_name() {
    for (fixture, key, value) in [
        (QWEN3, "qwen3moe.expert_weights_scale", Value::F32(2.5)),
        (QWEN3, "qwen3moe.expert_weights_norm", Value::Bool(false)),
        (QWEN2, "qwen2moe.expert_weights_norm", Value::Bool(true)),
        (QWEN3, "qwen3moe.expert_gating_func", Value::U32(2)),
        (QWEN3, "qwen3moe.expert_shared_count", Value::U32(1)),
        (QWEN3, "qwen3moe.expert_group_count", Value::U32(2)),
        (QWEN3, "qwen3moe.leading_dense_block_count", Value::U32(1)),
        (QWEN3, "qwen3moe.interleave_moe_layer_step", Value::U32(2)),
        (
            MIXTRAL,
            "llama.expert_shared_feed_forward_length",
            Value::U32(64),
        ),
    ] {
        refused(changed(fixture, |model| model.set(key, value)), &[key]);
    }
    for (fixture, tensor, n) in [
        (QWEN3, "blk.0.ffn_gate_inp.bias", 5),
        (QWEN3, "blk.1.exp_probs_b.bias", 5),
        (QWEN3, "blk.0.ffn_down_exps.bias", 5 * 96),
        (QWEN3, "blk.0.ffn_down_exps.scale", 5),
        (QWEN3, "blk.0.ffn_gate_shexp.weight", 96),
        (QWEN3, "blk.0.ffn_gate.weight", 96),
    ] {
        let with = changed(fixture, |model| model.add_f32(tensor, &[n], &vec![1.0; n]));
        refused(with, &[tensor]);
    }
    // Those that say what is so anyway.
    for (fixture, key, value) in [
        (QWEN3, "qwen3moe.expert_weights_norm", Value::Bool(true)),
        (QWEN3, "qwen3moe.expert_weights_scale", Value::F32(1.0)),
        (QWEN3, "qwen3moe.expert_gating_func", Value::U32(1)),
        (QWEN2, "qwen2moe.expert_shared_count", Value::U32(1)),
        (QWEN3, "qwen3moe.leading_dense_block_count", Value::U32(0)),
    ] {
        let shown = format!("{key} {value:?}");
        let found = changed(fixture, |model| model.set(key, value));
        found.unwrap_or_else(|error| panic!("{shown}: {error}"));
    }
}

#[test]
fn inspect_tells_of_experts() {
    let text = succeed(&["inspect".as_ref(), fixture(QWEN3).as_os_str()]);
    let line = |start: &str| {
        text.lines()
            .find(|line| line.trim_start().starts_with(start))
    };
    let experts = line("blk.0.ffn_gate_exps.weight ").unwrap_or_else(|| panic!("{text}"));
    assert!(
        experts.contains("96") && experts.contains("32") && experts.contains('5'),
        "{experts}"
    );
    assert!(!text.contains("does not run this file"), "{text}");
}
