//! Keys and tensors: used, needless, or refused by name.

use hyperion::gguf::{Array, Gguf, Value};
use hyperion::model::{Architecture, Model, ModelError};

use crate::copy_of;
use crate::support::gguf_writer::GgufWriter;

const LLAMA: &str = "cases/head-count-kv-array.gguf";
const GEMMA: &str = "cases/gemma3-pattern-3.gguf";

fn open(model: &GgufWriter) -> Result<Model, ModelError> {
    Model::from_gguf(&Gguf::from_bytes(model.to_bytes()).expect("a valid file"))
}

fn with(fixture: &str, key: &str, value: Value) -> Result<Model, ModelError> {
    let mut model = copy_of(fixture);
    model.set(key, value);
    open(&model)
}

fn error(result: Result<Model, ModelError>) -> String {
    result.map(|_| ()).expect_err("a refusal").to_string()
}

#[test]
fn keys_that_need_another_formula_are_refused_by_name() {
    let text = |text: &str| Value::String(text.to_owned());
    let cases = [
        (GEMMA, "gemma3.expert_count", Value::U32(8)),
        (LLAMA, "llama.expert_used_count", Value::U32(2)),
        (LLAMA, "llama.expert_weights_scale", Value::F32(2.5)),
        (LLAMA, "llama.attention.scale", Value::F32(0.1)),
        (LLAMA, "llama.attn_logit_softcapping", Value::F32(50.0)),
        (LLAMA, "llama.final_logit_softcapping", Value::F32(30.0)),
        (LLAMA, "llama.attention.sliding_window", Value::U32(4096)),
        (LLAMA, "llama.attention.causal", Value::Bool(false)),
        (LLAMA, "llama.attention.clamp_kqv", Value::F32(8.0)),
        (LLAMA, "llama.attention.max_alibi_bias", Value::F32(8.0)),
        (LLAMA, "llama.attention.temperature_scale", Value::F32(0.1)),
        (LLAMA, "llama.attention.something_new", Value::F32(0.1)),
        (
            LLAMA,
            "llama.rope.dimension_sections",
            Value::Array(Array::I32(vec![8, 8, 0])),
        ),
        (
            LLAMA,
            "llama.rope.scaling.yarn_log_multiplier",
            Value::F32(0.1),
        ),
        (LLAMA, "llama.rope.scaling.alpha", Value::F32(1000.0)),
        (LLAMA, "llama.rope.scaling.type", text("longrope")),
        (LLAMA, "llama.logit_scale", Value::F32(0.0625)),
        (LLAMA, "llama.residual_scale", Value::F32(0.22)),
        (LLAMA, "llama.embedding_scale", Value::F32(12.0)),
        (LLAMA, "llama.use_parallel_residual", Value::Bool(true)),
        (LLAMA, "llama.hidden_activation", text("gelu")),
        (LLAMA, "llama.ssm.conv_kernel", Value::U32(4)),
        (LLAMA, "llama.a_key_of_tomorrow", Value::U32(1)),
        (
            LLAMA,
            "llama.feed_forward_length",
            Value::Array(Array::I32(vec![96, 64])),
        ),
        (
            LLAMA,
            "llama.attention.head_count",
            Value::Array(Array::I32(vec![4])),
        ),
        (
            LLAMA,
            "llama.attention.head_count_kv",
            Value::Array(Array::I32(vec![2, 0])),
        ),
        (GEMMA, "gemma3.attention.key_length_swa", Value::U32(16)),
        (GEMMA, "gemma3.attention.shared_kv_layers", Value::U32(2)),
        (GEMMA, "gemma3.rope.dimension_count_swa", Value::U32(16)),
        (
            GEMMA,
            "gemma3.attention.sliding_window_pattern",
            Value::Array(Array::Bool(vec![true])),
        ),
        (GEMMA, "gemma3.rope.global.freq_base", Value::F32(5e5)),
    ];
    for (fixture, key, value) in cases {
        let error = error(with(fixture, key, value));
        assert!(error.contains(key), "{error}, not about {key}");
    }
}

#[test]
fn values_that_change_nothing_are_accepted() {
    let cases = [
        (LLAMA, "llama.expert_count", Value::U32(0)),
        (LLAMA, "llama.expert_used_count", Value::U32(0)),
        (LLAMA, "llama.attention.scale", Value::F32(0.25)),
        (LLAMA, "llama.attn_logit_softcapping", Value::F32(0.0)),
        (LLAMA, "llama.attention.sliding_window", Value::U32(0)),
        (LLAMA, "llama.attention.sliding_window", Value::U32(131_072)),
        (LLAMA, "llama.attention.causal", Value::Bool(true)),
        (LLAMA, "llama.rope.freq_base_swa", Value::F32(1e4)),
        (LLAMA, "llama.rope.scaling.finetuned", Value::Bool(true)),
        (
            LLAMA,
            "llama.rope.scaling.original_context_length",
            Value::U32(8192),
        ),
        (
            LLAMA,
            "llama.rope.dimension_sections",
            Value::Array(Array::I32(vec![0; 4])),
        ),
        (LLAMA, "llama.logit_scale", Value::F32(1.0)),
        (LLAMA, "llama.pooling_type", Value::U32(3)),
        (
            LLAMA,
            "llama.attention.layer_norm_epsilon",
            Value::F32(1e-5),
        ),
        (
            LLAMA,
            "llama.feed_forward_length",
            Value::Array(Array::U32(vec![96, 96])),
        ),
        (GEMMA, "gemma3.embedding_scale", Value::F32(8.0)),
        (GEMMA, "gemma3.final_logit_softcapping", Value::F32(30.0)),
        (GEMMA, "gemma3.attention.key_length_swa", Value::U32(32)),
        (GEMMA, "gemma3.vision.block_count", Value::U32(27)),
        (GEMMA, "gemma3.mm.tokens_per_image", Value::U32(256)),
        (GEMMA, "gemma3.rope.global.freq_base", Value::F32(1e6)),
    ];
    for (fixture, key, value) in cases {
        let shown = format!("{key} {value:?}");
        with(fixture, key, value).unwrap_or_else(|error| panic!("{shown}: {error}"));
    }
}

#[test]
fn bases_and_epsilons_are_positive() {
    for key in ["rope.freq_base", "attention.layer_norm_rms_epsilon"] {
        for value in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            let error = error(with(LLAMA, &format!("llama.{key}"), Value::F32(value)));
            assert!(error.contains(key), "{error}");
        }
    }
    for (fixture, key) in [
        (GEMMA, "gemma3.rope.freq_base_swa"),
        (GEMMA, "gemma3.rope.local.freq_base"),
        (LLAMA, "llama.rope.scaling.attn_factor"),
    ] {
        let error = error(with(fixture, key, Value::F32(0.0)));
        assert!(error.contains(key), "{error}");
    }
}

#[test]
fn tensors_without_a_place_are_refused_by_name() {
    let cases = [
        ("blk.0.attn_q_norm.weight", "no part in llama's formula"),
        ("blk.1.attn_norm.bias", "no part in llama's formula"),
        ("output_norm.bias", "no part in llama's formula"),
        ("blk.2.attn_norm.weight", "no part in llama's formula"),
        ("blk.0.attn_q.scale", "scales of whole tensors"),
        ("blk.0.ffn_gate_inp.weight", "no part in llama's formula"),
        ("blk.0.ffn_up_exps.weight", "no part in llama's formula"),
        ("rope_factors_long.weight", "longrope"),
        ("blk.0.nextn.eh_proj.weight", "no part in llama's formula"),
    ];
    for (name, reason) in cases {
        let mut model = copy_of(LLAMA);
        model.add_f32(name, &[8], &[1.0; 8]);
        let error = error(open(&model));
        assert!(error.contains(name) && error.contains(reason), "{error}");
    }
    // Gemma 3 has no such factors, Llama has.
    for (fixture, fits) in [(LLAMA, true), (GEMMA, false)] {
        let mut model = copy_of(fixture);
        model.add_f32("rope_freqs.weight", &[8], &[1.0; 8]);
        assert_eq!(open(&model).is_ok(), fits, "{fixture}");
    }
}

#[test]
fn needless_tensors_are_listed() {
    let mut model = copy_of(LLAMA);
    let names = [
        "blk.0.attn_q.input_scale",
        "blk.0.attn_q.weight.in_sum2",
        "blk.0.attn_q.weight.counts",
        "v.patch_embd.weight",
        "mm.input_projection.weight",
        "cls.output.weight",
    ];
    for name in names {
        model.add_f32(name, &[1], &[1.0]);
    }
    let model = open(&model).unwrap_or_else(|error| panic!("{error}"));
    for name in names {
        assert!(
            model.unused.iter().any(|unused| unused.name == name),
            "{name}"
        );
    }
}

#[test]
fn blocks_for_multi_token_prediction_are_left_out() {
    let mut model = copy_of(LLAMA);
    model.set("llama.nextn_predict_layers", Value::U32(1));
    model.add_f32("blk.1.nextn.eh_proj.weight", &[8], &[1.0; 8]);
    let model = open(&model).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((model.config.n_layers, model.weights.layers.len()), (1, 1));
    let left_out = model
        .unused
        .iter()
        .filter(|unused| unused.name.starts_with("blk.1."));
    assert_eq!(left_out.count(), 10);
}

#[test]
fn a_bias_of_tied_embeddings_is_used() {
    let mut model = copy_of(LLAMA);
    model.take("output.weight");
    model.add_f32("output.bias", &[300], &[0.5; 300]);
    let model = open(&model).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(model.weights.output.bias.map(|bias| bias.len()), Some(300));
}

#[test]
fn what_a_family_needs_or_lacks_is_named() {
    let changed = |fixture: &str, change: &dyn Fn(&mut GgufWriter)| {
        let mut model = copy_of(&format!("families/{fixture}.gguf"));
        change(&mut model);
        error(open(&model))
    };
    let missing = changed("granite-mixed", &|model| {
        model.remove("granite.logit_scale")
    });
    assert!(missing.contains("granite.logit_scale"), "{missing}");
    let biased = changed("granite-mixed", &|model| {
        model.add_f32("output.bias", &[288], &[1.0; 288]);
    });
    assert!(biased.contains("output.bias"), "{biased}");
    let short_alone = changed("phi3-mixed", &|model| {
        model.take("rope_factors_long.weight");
    });
    assert!(short_alone.contains("rope_factors_long"), "{short_alone}");
    let stepped = changed("mistral3-mixed", &|model| {
        model.set("mistral3.attention.temperature_length", Value::U32(8192));
    });
    assert!(stepped.contains("temperature_length"), "{stepped}");
    let normed = changed("olmo2-gqa", &|model| {
        model.add_f32("blk.0.attn_norm.weight", &[128], &[1.0; 128]);
    });
    assert!(normed.contains("blk.0.attn_norm.weight"), "{normed}");
}

#[test]
fn windows_and_rotations_of_layers() {
    let of = |model: Model| -> Vec<(Option<usize>, Option<usize>)> {
        let layers = model.config.layers.into_iter();
        layers.map(|layer| (layer.window, layer.rope)).collect()
    };
    let fixture = |name: &str| open(&copy_of(&format!("families/{name}.gguf"))).expect("a model");
    let local = (Some(48), Some(1));
    let global = (None, Some(0));
    let olmo = of(fixture("olmo2-windows"));
    assert_eq!(olmo, [local, local, local, global, local]);
    let smollm = of(fixture("smollm3-mixed"));
    assert_eq!(smollm, [global, global, global, (None, None), global]);
    assert_eq!(of(fixture("granite-no-rope")), [(None, None); 2]);
    // All layers have the window that Phi 3 was trained with, and one rotation.
    let key = "phi3.attention.sliding_window";
    let windows = with("families/phi3-mixed.gguf", key, Value::U32(48)).expect("a model");
    assert_eq!(of(windows), [(Some(48), Some(0)); 3]);
}

#[test]
fn keys_of_stretched_contexts_are_used_or_refused() {
    const MISTRAL: &str = "families/mistral3-mixed.gguf";
    const QWEN: &str = "families/qwen3-yarn.gguf";
    let rope = |fixture: &str, key: &str, value: Value| {
        let model = with(fixture, key, value).unwrap_or_else(|error| panic!("{key}: {error}"));
        (
            model.config.ropes[0].clone(),
            model.config.query_temperature,
        )
    };
    for (fixture, arch) in [(MISTRAL, "mistral3"), (QWEN, "qwen3")] {
        let of = |key: &str, value: Value| rope(fixture, &format!("{arch}.{key}"), value);
        let own = open(&copy_of(fixture)).expect("a model").config;
        let own = (own.ropes[0].clone(), own.query_temperature);
        for (key, other) in [
            ("rope.scaling.factor", Value::F32(3.0)),
            ("rope.scaling.original_context_length", Value::U32(200)),
            ("rope.scaling.attn_factor", Value::F32(0.5)),
            ("rope.scaling.yarn_beta_fast", Value::F32(2.0)),
            ("rope.scaling.yarn_beta_slow", Value::F32(2.0)),
        ] {
            assert_ne!(of(key, other), own, "{arch}: {key}");
        }
        for (key, neutral) in [
            ("rope.scaling.yarn_ext_factor", Value::F32(1.0)),
            ("rope.scaling.yarn_ext_factor", Value::F32(-1.0)),
            ("rope.scaling.yarn_attn_factor", Value::F32(1.0)),
        ] {
            assert_eq!(of(key, neutral), own, "{arch}: {key}");
        }
        for (key, refused) in [
            ("rope.scaling.yarn_ext_factor", 0.5),
            ("rope.scaling.yarn_attn_factor", 1.2),
        ] {
            let key = format!("{arch}.{key}");
            let error = error(with(fixture, &key, Value::F32(refused)));
            assert!(error.contains(&key), "{error}");
        }
    }
    // What is Mistral's alone.
    for (key, length) in [
        ("attention.temperature_scale", None),
        ("rope.scaling.yarn_log_multiplier", None),
        ("attention.temperature_length", Some(64)),
    ] {
        let value = || length.map_or(Value::F32(0.25), Value::U32);
        let qwen = format!("qwen3.{key}");
        assert!(error(with(QWEN, &qwen, value())).contains(&qwen));
        let (changed, temperature) = rope(MISTRAL, &format!("mistral3.{key}"), value());
        let own = open(&copy_of(MISTRAL)).expect("a model").config;
        let is_own = (changed, temperature) == (own.ropes[0].clone(), own.query_temperature);
        assert_eq!(is_own, length.is_some(), "{key}");
    }
}

/// `inspect` and the error for other architectures take the names from the table itself.
#[test]
fn the_readme_names_every_architecture() {
    let names: Vec<String> = Architecture::names()
        .map(|name| format!("`{name}`"))
        .collect();
    let (last, others) = names.split_last().expect("a row");
    let list = format!(
        "of the architectures {} and {last}, with",
        others.join(", ")
    );
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));
    assert!(readme.expect("a README").contains(&list), "{list}");
}
