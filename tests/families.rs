//! The CPU backend on families whose references are llama.cpp's, which computes in float32: see
//! `tests/tools/family_references.py`.

mod support;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use hyperion::backend::{Ask, Recorder};
use hyperion::cpu::CpuBackend;
use hyperion::engine::{Engine, Sequence};
use hyperion::model::Model;
use support::families::Family;
use support::greedy::{RunnersUp, compare_texts};
use support::{FAMILIES, fixture, relative_error};

static RUN: AtomicBool = AtomicBool::new(false);
/// llama.cpp's own rounding.
const BOUND: f64 = 2e-5;

fn engine(family: &Family, chunk: usize) -> Engine {
    let backend = CpuBackend::new(family.model.clone(), Engine::pages_for(family.context, 1));
    Engine::new(Box::new(backend), family.context, chunk)
}

#[test]
fn layer_by_layer() {
    for (name, context) in FAMILIES {
        let family = Family::open(name, context);
        let mut trace = Recorder::new(|_| true);
        let output = engine(&family, context)
            .prefill_traced(
                &mut Sequence::new(),
                &family.tokens,
                Ask::ALL_LOGITS,
                &RUN,
                &mut trace,
            )
            .expect("a prefill");
        for (tensor, found, expected) in family.layers(&trace.tensors) {
            let error = relative_error(&found, &expected);
            assert!(
                error < BOUND,
                "{}: {tensor} is off by {error:.2e}",
                family.name
            );
        }
        let vocab = family.model.vocab();
        for (position, expected) in family.rows("logits") {
            let error = relative_error(&output.logits[position * vocab..][..vocab], &expected);
            assert!(
                error < BOUND,
                "{}: logits {position} are off by {error:.2e}",
                family.name
            );
        }
    }
}

#[test]
fn greedy_tokens_behind_a_prompt_in_chunks() {
    for (name, context) in FAMILIES {
        let family = Family::open(name, context);
        let text = family.greedy_text();
        let mut runners_up = RunnersUp::new(family.model.clone());
        let mut engine = engine(&family, 70);
        let compared = compare_texts(&mut engine, &[text], 1e-3, &mut runners_up);
        assert_eq!(compared, text.greedy.len(), "{name}");
    }
}

/// Both kinds of factors are in the file; the context alone decides.
#[test]
fn factors_follow_the_context() {
    let open = || Arc::new(Model::open(&fixture("families/phi3-mixed.gguf")).expect("a model"));
    let rope = |context: usize| open().for_context(context).config.ropes[0].clone();
    assert_eq!(rope(400), rope(1));
    assert_eq!(rope(401), rope(4096));
    assert_ne!(rope(400), rope(401));
    // Until it is told, that of the file's own context.
    assert_eq!(open().config.ropes[0], rope(4096));
    assert_eq!(
        open().for_context(100).for_context(500).config.ropes[0],
        rope(4096)
    );
}
