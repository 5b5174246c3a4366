//! Steps that a backend refuses, because they would read or write what is not theirs, or are too large.

use hyperion::backend::{ActivationPrecision, Ask, Backend, BackendError, NewTokens, NoTrace, Row};
use hyperion::cpu::CpuBackend;
use hyperion::gpu::{GpuBackend, Limits};

use crate::setup::*;
use crate::support::families::Family;

fn step(start: usize, pages: &[u32]) -> Row<'_> {
    Row {
        tokens: NewTokens::Known(&[1]),
        start,
        pages,
        ask: Ask::GREEDY,
    }
}

#[test]
fn steps_beyond_the_context_and_onto_shared_pages() {
    let _lock = device_lock();
    let model = model("tiny-llama-q4_0-2");
    let backends: [Box<dyn Backend>; 2] = [
        Box::new(CpuBackend::new(model.clone(), PAGES)),
        Box::new(gpu(&model, ActivationPrecision::F16)),
    ];
    for mut backend in backends {
        let kind = backend.description();
        let context = backend.limits().max_context;
        let mut refused = |steps: &[Row<'_>]| match backend.step(steps, &mut NoTrace) {
            Err(error) => error,
            Ok(outputs) => panic!("{kind}: {outputs:?}"),
        };
        // More pages than the context needs: one is used twice where there are no more.
        let pages: Vec<u32> = (0..=context as u32 / 64)
            .map(|page| page % PAGES as u32)
            .collect();
        for start in [context, context + 1] {
            match refused(&[step(start, &pages)]) {
                BackendError::Context {
                    end, context: of, ..
                } => {
                    assert_eq!((end, of), (start + 1, context), "{kind}");
                }
                other => panic!("{kind}: {other}"),
            }
        }
        match refused(&[step(0, &[3]), step(5, &[3])]) {
            BackendError::SharedPage {
                page: 3,
                writer: 0,
                other: 1,
            } => {}
            other => panic!("{kind}: {other}"),
        }
        let last: Vec<u32> = (0..context as u32 / 64).collect();
        backend
            .step(&[step(0, &last[..1])], &mut NoTrace)
            .expect("the first position");
    }
}

/// The pairs of tokens and experts are blocks of a grid, of which there are only so many.
#[test]
fn steps_of_too_many_pairs_are_refused_before_anything_is_allocated() {
    let model = Family::open("qwen2moe-all", 512).model;
    let plan = |max_tokens| {
        let limits = Limits {
            context: 32_768,
            n_pages: 512,
            max_tokens,
            max_sequences: 1,
        };
        GpuBackend::plan(&model, limits)
    };
    assert!(plan(21_845).is_ok());
    let error = plan(21_846).expect_err("too many").to_string();
    assert!(
        error.contains("3 experts") && error.contains("at most 21845 tokens"),
        "{error}"
    );
}
