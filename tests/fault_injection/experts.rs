//! Engines with a fault in their mixture of experts, and such as round or nearly tie.

use half::f16;
use hyperion::backend::{ActivationPrecision, TensorName};
use hyperion::gguf::Gguf;
use hyperion::model::{Experts, FeedForward, Model};
use hyperion::verify::Report;

use crate::engine::{Change, Engine};
use crate::support::fixture;
use crate::support::gguf_writer::GgufWriter;
use crate::{PAGES, PROMPT, report_of};

const QWEN3: &str = "families/qwen3moe-mixed.gguf";
const QWEN2: &str = "families/qwen2moe-mixed.gguf";

pub fn open(name: &str) -> Model {
    Model::open(&fixture(name)).expect("a model")
}

pub fn report(name: &str, mut engine: Engine) -> Report {
    let model = open(name);
    let vocab = model.vocab();
    let tokens: Vec<u32> = (0..PROMPT).map(|i| ((37 * i + 5) % vocab) as u32).collect();
    report_of(model, &tokens, &mut engine, Some(ActivationPrecision::Q8))
}

/// The first fault is `tensor`.
pub fn assert_named(what: &str, name: &str, engine: Engine, tensor: &str) {
    let report = report(name, engine);
    let fault = report.first_fault();
    let fault = fault.unwrap_or_else(|| panic!("{what}: not found"));
    assert_eq!(fault.tensor, tensor, "{what}: {}", fault.what);
    assert!(fault.depends_on.len() > 20, "{what}: {}", fault.depends_on);
}

pub fn changed(name: &str, change: impl FnOnce(&mut Model)) -> Engine {
    let mut model = open(name);
    change(&mut model);
    Engine::new(model, PAGES)
}

/// What becomes of a tensor of block 1.
fn with_tensor(
    name: &str,
    base: &'static str,
    change: impl Fn(&[f32]) -> Vec<f32> + Send + 'static,
) -> Engine {
    let tensor = TensorName {
        base,
        layer: Some(1),
    };
    let engine = Engine::new(open(name), PAGES);
    engine.with_rule(move |found, data, _| match found == tensor {
        true => Change::Report(change(data)),
        false => Change::Keep,
    })
}

#[test]
fn right_ones_pass() {
    for name in [QWEN3, QWEN2] {
        let report = report(name, Engine::new(open(name), PAGES));
        assert!(report.passed(), "{name}: {:?}", report.first_fault());
        let choices = report.choices();
        assert_eq!(choices.swapped, 0);
        // A prompt and two steps, in two blocks.
        assert_eq!(choices.total, 2 * (PROMPT + 2));
    }
}

#[test]
fn faults_are_named() {
    // Of 300 choices one.
    let wrong = with_tensor(QWEN3, "ffn_moe_topk", |ids| {
        let mut ids = ids.to_vec();
        let free = (0..5).map(|id| id as f32).find(|id| !ids[..2].contains(id));
        ids[1] = free.expect("one that is not taken");
        ids
    });
    assert_named("a wrong expert", QWEN3, wrong, "ffn_moe_topk-1");
    let twice = with_tensor(QWEN3, "ffn_moe_topk", |ids| {
        let mut ids = ids.to_vec();
        ids[1] = ids[0];
        ids
    });
    assert_named("one expert twice", QWEN3, twice, "ffn_moe_topk-1");

    let experts = |model: &mut Model, change: fn(&mut Experts)| {
        let FeedForward::Experts(experts) = &mut model.weights.layers[1].ffn else {
            panic!("a block with experts");
        };
        change(experts);
    };
    let swapped = changed(QWEN3, |model| {
        experts(model, |all| std::mem::swap(&mut all.gate, &mut all.up));
    });
    assert_named("gate and up", QWEN3, swapped, "ffn_moe_gate-1");
    let shared = changed(QWEN2, |model| {
        experts(model, |all| {
            let shared = all.shared.as_mut().expect("a shared expert");
            shared.gate.iter_mut().for_each(|gate| *gate = 0.0);
        });
    });
    assert_named("no gate", QWEN2, shared, "ffn_shexp_gate-1");
    let sums = changed(QWEN2, |model| {
        let counts = model.config.experts.as_mut().expect("experts");
        counts.normalizes = true;
    });
    assert_named("normalized weights", QWEN2, sums, "ffn_moe_out-0");
    let weights = with_tensor(QWEN3, "ffn_moe_weights_norm", |weights| {
        weights.iter().map(|weight| 0.9 * weight).collect()
    });
    assert_named("other weights", QWEN3, weights, "ffn_moe_weights_norm-1");
    // Each token the row of its neighbour.
    let rows = with_tensor(QWEN3, "ffn_moe_down", |parts| {
        let mut parts = parts.to_vec();
        parts.rotate_right(96);
        parts
    });
    assert_named("rows of others", QWEN3, rows, "ffn_moe_down-1");
    let rounded = with_tensor(QWEN3, "ffn_moe_logits", |scores| {
        let round = |&score: &f32| f16::from_f32(score).to_f32();
        scores.iter().map(round).collect()
    });
    assert_named("scores in f16", QWEN3, rounded, "ffn_moe_logits-1");
}

/// An engine that now and then takes two experts whose scores tie in the other order.
fn nearly_tied(every: usize) -> Engine {
    let engine = Engine::new(tied_model(), PAGES);
    let mut ties = 0;
    engine.with_rule(move |found, data, seen| match found.base {
        "ffn_moe_topk" => {
            let scores = TensorName {
                base: "ffn_moe_logits",
                ..found
            };
            let scores = &seen[&scores];
            let mut ids = data.to_vec();
            for (ids, scores) in ids.chunks_mut(2).zip(scores.chunks(5)) {
                if scores[ids[0] as usize] == scores[ids[1] as usize] {
                    if ties % every == 0 {
                        ids.swap(0, 1);
                    }
                    ties += 1;
                }
            }
            Change::Report(ids)
        }
        _ => Change::Keep,
    })
}

/// The model with a router whose first two rows are the same, so that two experts always tie.
fn tied_model() -> Model {
    let mut file = GgufWriter::from_gguf(&Gguf::open(&fixture(QWEN3)).expect("a file"));
    for block in 0..2 {
        let router = file.tensor(&format!("blk.{block}.ffn_gate_inp.weight"));
        let row = router.data.len() / 5;
        router.data.copy_within(..row, row);
    }
    Model::from_gguf(&Gguf::from_bytes(file.to_bytes()).expect("a file")).expect("a model")
}

#[test]
fn the_other_of_two_that_tie_is_counted() {
    let verified = |every: usize| {
        let tokens: Vec<u32> = (0..PROMPT).map(|i| ((37 * i + 5) % 288) as u32).collect();
        let mut engine = nearly_tied(every);
        report_of(tied_model(), &tokens, &mut engine, None)
    };
    let few = verified(40);
    assert!(few.passed(), "{:?}", few.first_fault());
    assert!(few.choices().swapped > 0 && few.choices().beyond == 0);
    let many = verified(2);
    let fault = many.first_fault().expect("too many");
    assert!(
        fault.tensor == "ffn_moe_topk" && fault.what.contains("more than one in a hundred"),
        "{}",
        fault.what
    );
}
