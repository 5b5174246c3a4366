//! Engines that are right and round as a GPU does: the bounds must let them pass.

use half::f16;
use hyperion::backend::ActivationPrecision;
use hyperion::model::{Config, Model};

use crate::engine::{Change, Engine};
use crate::support::{TINY_MODELS, greedy_cases, model};
use crate::{PAGES, QWEN2, report, report_of, tiny};

fn to_f16(values: &[f32]) -> Vec<f32> {
    let round = |&value: &f32| f16::from_f32(value).to_f32();
    values.iter().map(round).collect()
}

/// 8-bit integers in blocks of 16 that share a scale, the least bfloat16 that suffices.
fn to_q8(values: &[f32]) -> Vec<f32> {
    let mut out = values.to_vec();
    for block in out.chunks_mut(16) {
        let largest = block.iter().fold(0f32, |max, v| max.max(v.abs()));
        let scale = f32::from_bits(((largest / 127.0).to_bits() + 0xffff) & 0xffff_0000);
        if scale > 0.0 {
            block
                .iter_mut()
                .for_each(|v| *v = (*v / scale).round() * scale);
        }
    }
    out
}

/// Rounds inputs of products as `activations` say, without reporting it, and stores queries, keys
/// and values in half precision.
fn rounding(model: Model, activations: ActivationPrecision, few: usize) -> Engine {
    let width = model.config.width;
    let weights = model.weights.layers[0].q.weight.ty();
    let quantized = weights.block_elements() > 1;
    let rows = move |base: &str, data: &[f32], model: &Config| match base {
        "kqv_out" => data.len() / model.q_width(),
        "ffn_swiglu" | "ffn_geglu" => data.len() / model.ffn_width,
        _ => data.len() / width,
    };
    let config = model.config.clone();
    Engine::new(model, PAGES).with_rule(move |found, data, _| match found.base {
        "attn_norm" | "kqv_out" | "ffn_norm" | "ffn_swiglu" | "ffn_geglu" | "result_norm" => {
            let few = rows(found.base, data, &config) <= few;
            Change::Hide(match activations {
                ActivationPrecision::Q8 if few && quantized => to_q8(data),
                _ => to_f16(data),
            })
        }
        "Qcur" | "Kcur" | "Vcur" => Change::Report(to_f16(data)),
        _ => Change::Keep,
    })
}

#[test]
fn engines_that_round_pass() {
    for name in TINY_MODELS {
        for activations in [ActivationPrecision::F16, ActivationPrecision::Q8] {
            let mut engine = rounding(tiny(name), activations, 8);
            let report = report(name, &mut engine, Some(activations));
            assert!(report.passed(), "{name}: {:?}", report.first_fault());
        }
    }
}

#[test]
fn rounding_beyond_the_stated_types_fails() {
    for name in TINY_MODELS.into_iter().filter(|&name| name != QWEN2) {
        // 8-bit activations in every step, where half precision was promised.
        let mut engine = rounding(tiny(name), ActivationPrecision::Q8, usize::MAX);
        let report = report(name, &mut engine, Some(ActivationPrecision::F16));
        let fault = report
            .first_fault()
            .unwrap_or_else(|| panic!("{name}: passed"));
        assert!(
            fault.what.contains("f16 activations"),
            "{name}: {}",
            fault.what
        );
    }
}

#[test]
fn a_real_model_that_rounds_passes() {
    let open = || Model::open(&model("smollm2")).expect("a model");
    let tokens = &greedy_cases("smollm2-135m-instruct")[0].tokens;
    for activations in [ActivationPrecision::F16, ActivationPrecision::Q8] {
        let mut engine = rounding(open(), activations, 8);
        let report = report_of(open(), tokens, &mut engine, Some(activations));
        let worst = report
            .rows()
            .map(|(_, row)| row.severity())
            .fold(0.0, f64::max);
        assert!(report.passed(), "{:?}", report.first_fault());
        // Bounds that are far from what rounding costs would hide small faults.
        assert!(
            worst > 0.1,
            "the worst operation uses only {worst:.2} of its bound"
        );
    }
}
