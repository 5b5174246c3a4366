//! Engines with one fault each: verification must name the operation at fault as the first one, at
//! the bounds of a GPU, and must pass engines that only round.

mod attention;
mod bytes;
mod engine;
mod experts;
mod proofs;
mod rounding;
mod stretched;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;

use attention::{Choices, RIGHT};
use engine::{Change, Engine};
use hyperion::backend::{
    ActivationPrecision, Backend, BackendError, Limits, NoTrace, Row, RowResult, TensorName,
    Ticket, TraceSink,
};
use hyperion::cpu::CpuBackend;
use hyperion::device::{GemmCall, GemmType, Op, gemm_reference};
use hyperion::model::{FeedForward, Linear, Model, RopePairing};
use hyperion::verify::{Bounds, Plan, Report, StepKind, verify};
use support::{Reference, TINY_MODELS};

const LLAMA: &str = "tiny-llama-q4_k_m-1";
const LLAMA_Q4_0: &str = "tiny-llama-q4_0-2";
const QWEN2: &str = "tiny-qwen2-f16-1";
const QWEN3: &str = "tiny-qwen3-q8_0-1";
const GEMMA: &str = "tiny-gemma3-q4_k_m-1";

/// Three pages of prompt, and one page more than it needs for an engine that counts wrongly.
const PROMPT: usize = 150;
const PAGES: usize = 4;

/// The fixture's tokens over and over.
fn prompt(name: &str) -> Vec<u32> {
    let tokens = Reference::open(&format!("tiny/{name}.safetensors"))
        .i32("tokens")
        .1;
    let tokens = tokens.iter().map(|&token| token as u32);
    tokens.cycle().take(PROMPT).collect()
}

fn tiny(name: &str) -> Model {
    bytes::model(bytes::file(name))
}

/// Verifies `engine` against the right reference.
fn report(
    name: &str,
    engine: &mut dyn Backend,
    activations: Option<ActivationPrecision>,
) -> Report {
    report_of(tiny(name), &prompt(name), engine, activations)
}

/// Verifies `engine` against the reference of `model`.
fn report_of(
    model: Model,
    tokens: &[u32],
    engine: &mut dyn Backend,
    activations: Option<ActivationPrecision>,
) -> Report {
    let model = Arc::new(model);
    let bounds = Bounds::new(&model, activations);
    let plan = Plan {
        tokens,
        chunk: 90,
        decode_steps: 2,
        batch: 1,
    };
    let mut reference = CpuBackend::new(model, PAGES);
    verify(engine, &mut reference, &plan, &bounds, &mut |_| {}).expect("a run")
}

/// The first fault is `tensor`, at the widest bounds there are.
fn assert_named(what: &str, name: &str, mut engine: Engine, tensor: &str) {
    let report = report(name, &mut engine, Some(ActivationPrecision::Q8));
    let fault = report.first_fault();
    let fault = fault.unwrap_or_else(|| panic!("{what}: not found"));
    assert_eq!(fault.tensor, tensor, "{what}: {}", fault.what);
    assert!(!fault.depends_on.is_empty() && !report.passed());
}

/// [`assert_named`] for the model `name` after `change`.
fn assert_model(what: &str, name: &str, change: impl FnOnce(&mut Model), tensor: &str) {
    let mut model = tiny(name);
    change(&mut model);
    assert_named(what, name, Engine::new(model, PAGES), tensor);
}

/// A tensor of block 1.
fn in_block_1(base: &'static str) -> TensorName {
    TensorName {
        base,
        layer: Some(1),
    }
}

#[test]
fn right_engines_pass() {
    for name in TINY_MODELS {
        let mut engine = Engine::new(tiny(name), PAGES);
        let report = report(name, &mut engine, None);
        assert!(report.passed(), "{name}: {:?}", report.first_fault());
    }
}

#[test]
fn tensors_read_wrongly() {
    let transposed = bytes::with_tensor(QWEN2, "blk.1.attn_q.weight", |file, data| {
        bytes::transpose(&mut file[data], 256);
    });
    assert_named(
        "transposed",
        QWEN2,
        Engine::new(transposed, PAGES),
        "Qcur_raw-1",
    );

    let swapped = bytes::with_tensor(LLAMA, "blk.0.ffn_gate.weight", |file, data| {
        bytes::swap_scales_and_minima(&mut file[data]);
    });
    assert_named(
        "scales and minima",
        LLAMA,
        Engine::new(swapped, PAGES),
        "ffn_gate-0",
    );

    let nibbles = bytes::with_tensor(LLAMA_Q4_0, "blk.1.attn_output.weight", |file, data| {
        for block in file[data].chunks_exact_mut(18) {
            bytes::swap_nibbles(&mut block[2..]);
        }
    });
    assert_named(
        "nibbles",
        LLAMA_Q4_0,
        Engine::new(nibbles, PAGES),
        "attn_out-1",
    );

    let shifted = bytes::with_tensor(QWEN3, "blk.0.ffn_down.weight", |file, data| {
        file.copy_within(data.start + 32..data.end + 32, data.start);
    });
    assert_named("offset", QWEN3, Engine::new(shifted, PAGES), "ffn_out-0");

    let embedding = bytes::with_tensor(GEMMA, "token_embd.weight", |file, data| {
        file.copy_within(data.start + 32..data.end + 32, data.start);
    });
    assert_named(
        "offset of the embeddings",
        GEMMA,
        Engine::new(embedding, PAGES),
        "embd",
    );
}

#[test]
fn weights_mixed_up_or_missing() {
    let swap = |model: &mut Model| {
        let layer = &mut model.weights.layers[1];
        let FeedForward::Dense(network) = &mut layer.ffn else {
            panic!("a network for all tokens");
        };
        std::mem::swap(&mut network.gate, &mut network.up);
    };
    assert_model("gate and up", LLAMA, swap, "ffn_gate-1");
    let no_bias = |model: &mut Model| model.weights.layers[1].k.bias = None;
    assert_model("key bias", QWEN2, no_bias, "Kcur_raw-1");
    let no_bias = |model: &mut Model| model.weights.layers[0].v.bias = None;
    assert_model("value bias", QWEN2, no_bias, "Vcur-0");
    let ones = |model: &mut Model| {
        let norm = model.weights.layers[1].ffn_norm.as_mut();
        norm.expect("a norm").fill(1.0);
    };
    assert_model("norm weight", LLAMA, ones, "ffn_norm-1");
    let ones = |model: &mut Model| model.weights.output_norm.fill(1.0);
    assert_model("output norm", LLAMA, ones, "result_norm");
    let swap = |model: &mut Model| {
        let layer = &mut model.weights.layers[0];
        std::mem::swap(&mut layer.q_norm, &mut layer.k_norm);
    };
    assert_model("head norms", QWEN3, swap, "Qcur_normed-0");
    let other = |model: &mut Model| {
        model.weights.layers[2].post_attn_norm = model.weights.layers[2].post_ffn_norm.clone();
    };
    assert_model("norm after attention", GEMMA, other, "attn_post_norm-2");
    let tied = |model: &mut Model| model.weights.output.weight = model.weights.token_embd.clone();
    assert_model("output tied", LLAMA, tied, "result_output");
}

#[test]
fn hyperparameters_wrong() {
    let pairing = |model: &mut Model| model.config.ropes[0].pairing = RopePairing::Halves;
    assert_model("RoPE pairing", LLAMA, pairing, "Qcur-0");
    let base = |model: &mut Model| model.config.ropes[1] = model.config.ropes[0].clone();
    assert_model("RoPE base of local layers", GEMMA, base, "Qcur-0");
    let epsilon = |model: &mut Model| model.config.rms_eps *= 10.0;
    assert_model("epsilon", QWEN2, epsilon, "attn_norm-0");
    let scale = |model: &mut Model| model.config.attention_scale = 1.0;
    assert_model("attention scale", QWEN3, scale, "kqv_out-0");
    let window = |model: &mut Model| model.config.layers[3].window = Some(9);
    assert_model("window off by one", GEMMA, window, "kqv_out-3");
    let global = |model: &mut Model| model.config.layers[5].window = Some(8);
    assert_model("window on a global layer", GEMMA, global, "kqv_out-5");
    let scale = |model: &mut Model| model.config.embedding_scale *= 2.0;
    assert_model("embedding scale", GEMMA, scale, "inp_scaled");
}

#[test]
fn positions_and_pages_wrong() {
    let later = Engine::new(tiny(QWEN3), PAGES).with_reroute(|start, _| start + 1);
    assert_named("RoPE position off by one", QWEN3, later, "Qcur-0");

    let pages = |start: usize, pages: &mut Vec<u32>| {
        // Not just swapped: attention does not care in which order it finds keys and values.
        if start >= PROMPT {
            pages[0] = pages[1];
        }
        start
    };
    let mut engine = Engine::new(tiny(LLAMA), PAGES).with_reroute(pages);
    let report = report(LLAMA, &mut engine, Some(ActivationPrecision::Q8));
    let fault = report.first_fault().expect("page index: not found");
    // The prompt was right: two chunks, then the first decode step.
    assert_eq!((fault.tensor.as_str(), fault.step), ("kqv_out-0", 2));
}

#[test]
fn attention_wrong() {
    let with =
        |choices| Engine::new(tiny(QWEN2), PAGES).with_rule(attention::rule(&tiny(QWEN2), choices));
    let mut right = with(RIGHT);
    let passed = report(QWEN2, &mut right, None);
    assert!(passed.passed(), "{:?}", passed.first_fault());

    let group = Choices {
        key_head: |head, _, key_heads| head % key_heads,
        ..RIGHT
    };
    assert_named("GQA group", QWEN2, with(group), "kqv_out-0");
    let ahead = Choices {
        end: |position| position + 2,
        ..RIGHT
    };
    assert_named("mask sees the next token", QWEN2, with(ahead), "kqv_out-0");
    let behind = Choices {
        end: |position| position.max(1),
        ..RIGHT
    };
    assert_named(
        "mask hides the token itself",
        QWEN2,
        with(behind),
        "kqv_out-0",
    );
}

/// The product of `linear` with `x` by the column-major call that `change` makes of the right one.
fn product(linear: &Linear, x: &[f32], change: impl Fn(&mut GemmCall)) -> Vec<f32> {
    let (n_in, n_out) = (linear.n_in(), linear.n_out());
    let tokens = x.len() / n_in;
    let mut call = GemmCall::row_major(tokens as u32, n_in as u32, n_out as u32, GemmType::F32);
    change(&mut call);
    let wide = |values: Vec<f32>| -> Vec<f64> { values.into_iter().map(f64::from).collect() };
    let (w, x) = (wide(linear.weight.to_f32()), wide(x.to_vec()));
    let mut y = vec![0.0; tokens * n_out];
    gemm_reference(&call, &w, &x, &mut y);
    y.into_iter().map(|value| value as f32).collect()
}

#[test]
fn matrix_products_called_wrongly() {
    let with = |change: fn(&mut GemmCall)| {
        let matrix = tiny(LLAMA).weights.layers[1].attn_output.clone();
        Engine::new(tiny(LLAMA), PAGES).with_rule(move |name, _, seen| {
            if name != in_block_1("attn_out") {
                return Change::Keep;
            }
            Change::Report(product(&matrix, &seen[&in_block_1("kqv_out")], change))
        })
    };
    let mut right = with(|_| {});
    let passed = report(LLAMA, &mut right, Some(ActivationPrecision::F16));
    assert!(passed.passed(), "{:?}", passed.first_fault());
    assert_named(
        "OP_N for OP_T",
        LLAMA,
        with(|call| call.op_a = Op::N),
        "attn_out-1",
    );
    assert_named("lda", LLAMA, with(|call| call.lda -= 64), "attn_out-1");
    assert_named("ldb", LLAMA, with(|call| call.ldb -= 1), "attn_out-1");
}

#[test]
fn results_wrong() {
    let with = |name: &str, base: &'static str, change: fn(&mut [f32])| {
        Engine::new(tiny(name), PAGES).with_rule(move |found, data, _| {
            if found != in_block_1(base) {
                return Change::Keep;
            }
            let mut data = data.to_vec();
            change(&mut data);
            Change::Report(data)
        })
    };
    let overflow = |data: &mut [f32]| data[7] = f32::INFINITY;
    assert_named(
        "overflow",
        LLAMA,
        with(LLAMA, "ffn_up", overflow),
        "ffn_up-1",
    );
    let nan = |data: &mut [f32]| data[0] = f32::NAN;
    assert_named("NaN", GEMMA, with(GEMMA, "kqv_out", nan), "kqv_out-1");
    let gated = |data: &mut [f32]| data.iter_mut().for_each(|value| *value *= 1.01);
    assert_named(
        "activation",
        QWEN3,
        with(QWEN3, "ffn_swiglu", gated),
        "ffn_swiglu-1",
    );
    let coarse = |data: &mut [f32]| {
        data.iter_mut()
            .for_each(|v| *v = f32::from_bits(v.to_bits() & 0xffff_0000));
    };
    assert_named(
        "a residual in bf16",
        QWEN2,
        with(QWEN2, "l_out", coarse),
        "l_out-1",
    );
}

#[test]
fn an_engine_that_reports_too_little_fails() {
    struct Silent(CpuBackend);
    impl Backend for Silent {
        fn model(&self) -> &Arc<Model> {
            self.0.model()
        }
        fn limits(&self) -> Limits {
            self.0.limits()
        }
        fn submit(
            &mut self,
            rows: &[Row<'_>],
            _: &mut dyn TraceSink,
        ) -> Result<Ticket, BackendError> {
            self.0.submit(rows, &mut NoTrace)
        }
        fn collect(&mut self, ticket: Ticket) -> Result<Vec<RowResult>, BackendError> {
            self.0.collect(ticket)
        }
        fn description(&self) -> String {
            "silent".to_owned()
        }
    }
    let mut silent = Silent(CpuBackend::new(Arc::new(tiny(LLAMA)), PAGES));
    let report = report(LLAMA, &mut silent, None);
    let fault = report.first_fault().expect("a fault");
    assert!(fault.what.contains("not report"), "{}", fault.what);
}

#[test]
fn sequences_of_a_batch_mixed_up() {
    let name = QWEN3;
    let model = Arc::new(tiny(name));
    let bounds = Bounds::new(&model, Some(ActivationPrecision::Q8));
    let tokens = prompt(name);
    let plan = Plan {
        tokens: &tokens,
        chunk: 90,
        decode_steps: 2,
        batch: 3,
    };
    let run = |engine: &mut dyn Backend| {
        let mut reference = CpuBackend::new(model.clone(), plan.pages());
        verify(engine, &mut reference, &plan, &bounds, &mut |_| {}).expect("a run")
    };
    let right = run(&mut Engine::new(tiny(name), plan.pages()));
    let batches = right
        .steps
        .iter()
        .filter(|step| step.kind == StepKind::Batch);
    assert_eq!(batches.map(|step| step.tokens).collect::<Vec<_>>(), [3, 3]);
    assert!(right.passed(), "{:?}", right.first_fault());

    // The values of the second sequence's attention for the third, in batches alone.
    let width = model.config.q_width();
    let mut mixed = Engine::new(tiny(name), plan.pages()).with_rule(move |found, data, _| {
        if found != in_block_1("kqv_out") || data.len() != 3 * width {
            return Change::Keep;
        }
        let mut data = data.to_vec();
        data.copy_within(width..2 * width, 2 * width);
        Change::Report(data)
    });
    let report = run(&mut mixed);
    let fault = report.first_fault().expect("a fault");
    assert_eq!(
        (fault.tensor.as_str(), report.steps[fault.step].kind),
        ("kqv_out-1", StepKind::Batch)
    );
}
