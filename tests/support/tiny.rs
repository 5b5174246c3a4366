//! The models of `tests/fixtures/tiny`: noise, and so made instead of kept.

use half::f16;
use hyperion::gguf::{Array, GgmlType, Value};

use super::gguf_writer::{GgufWriter, TensorSource};
use super::numpy::Generator;

const WIDTH: usize = 256;
const FFN: usize = 512;
const HEADS: usize = 4;
const VOCAB: usize = 512;
/// Blocks of a matrix that are drawn; those behind them repeat them.
const DRAWN: usize = 4096;

/// A family's shape.
struct Shape {
    arch: &'static str,
    layers: usize,
    kv_heads: usize,
    head: usize,
    rope_base: f32,
    tied: bool,
}

const LLAMA: Shape = Shape {
    arch: "llama",
    layers: 2,
    kv_heads: 2,
    head: 64,
    rope_base: 1e4,
    tied: false,
};

const SHAPES: [Shape; 4] = [
    LLAMA,
    Shape {
        arch: "qwen2",
        tied: true,
        ..LLAMA
    },
    Shape {
        arch: "qwen3",
        head: 128,
        rope_base: 1e6,
        tied: true,
        ..LLAMA
    },
    Shape {
        arch: "gemma3",
        layers: 7,
        kv_heads: 1,
        head: 128,
        rope_base: 1e6,
        tied: true,
    },
];

/// The file called `tiny-ARCH-TYPE-SEED`, if there is such a family.
pub fn made(name: &str) -> Option<Vec<u8>> {
    let (arch, rest) = name.strip_prefix("tiny-")?.split_once('-')?;
    let (kind, seed) = rest.split_once('-')?;
    let shape = SHAPES.iter().find(|shape| shape.arch == arch)?;
    let mut model = Tiny {
        shape,
        kind,
        random: Generator::new(seed.parse().ok()?),
        file: GgufWriter::default(),
    };
    model.metadata();
    model.tensors();
    Some(model.file.to_bytes())
}

struct Tiny<'a> {
    shape: &'static Shape,
    kind: &'a str,
    random: Generator,
    file: GgufWriter,
}

impl Tiny<'_> {
    fn metadata(&mut self) {
        let arch = self.shape.arch;
        let text = |text: &str| Value::String(text.to_owned());
        let count = |n: usize| Value::U32(n as u32);
        let mut put = |key: &str, value: Value| self.file.metadata.push((key.to_owned(), value));
        put("general.architecture", text(arch));
        put("general.name", text(&format!("tiny-{arch}")));
        let epsilon = if arch == "llama" { 1e-5 } else { 1e-6 };
        for (key, value) in [
            ("block_count", count(self.shape.layers)),
            ("context_length", count(32768)),
            ("embedding_length", count(WIDTH)),
            ("feed_forward_length", count(FFN)),
            ("attention.head_count", count(HEADS)),
            ("attention.head_count_kv", count(self.shape.kv_heads)),
            ("attention.key_length", count(self.shape.head)),
            ("attention.value_length", count(self.shape.head)),
            ("rope.freq_base", Value::F32(self.shape.rope_base)),
            ("rope.dimension_count", count(self.shape.head)),
            ("attention.layer_norm_rms_epsilon", Value::F32(epsilon)),
            ("vocab_size", count(VOCAB)),
        ] {
            put(&format!("{arch}.{key}"), value);
        }
        if arch == "gemma3" {
            put("gemma3.attention.sliding_window", count(8));
        }
        let splits = if arch == "llama" {
            "llama-bpe"
        } else {
            "qwen2"
        };
        let types = (0..VOCAB).map(|id| if id < VOCAB - 2 { 1 } else { 3 });
        let tokens = vocabulary();
        let tokens = tokens.iter().map(String::as_str).collect();
        let merges = ["h e"].into_iter().collect();
        put("tokenizer.ggml.model", text("gpt2"));
        put("tokenizer.ggml.pre", text(splits));
        put("tokenizer.ggml.tokens", Value::Array(Array::String(tokens)));
        put(
            "tokenizer.ggml.token_type",
            Value::Array(Array::I32(types.collect())),
        );
        put("tokenizer.ggml.merges", Value::Array(Array::String(merges)));
        put("tokenizer.ggml.bos_token_id", count(VOCAB - 2));
        put("tokenizer.ggml.eos_token_id", count(VOCAB - 1));
        put("tokenizer.ggml.add_bos_token", Value::Bool(false));
    }

    fn tensors(&mut self) {
        let Shape {
            arch,
            layers,
            kv_heads,
            head,
            tied,
            ..
        } = *self.shape;
        let (q, kv) = (HEADS * head, kv_heads * head);
        self.matrix("token_embd", VOCAB, WIDTH, true);
        self.vector("output_norm.weight", WIDTH, 1.0, 0.05);
        if !tied {
            self.matrix("output", VOCAB, WIDTH, true);
        }
        for layer in 0..layers {
            let block = |part: &str| format!("blk.{layer}.{part}");
            let mut norms = vec![("attn_norm", WIDTH), ("ffn_norm", WIDTH)];
            if arch == "gemma3" {
                norms.extend([("post_attention_norm", WIDTH), ("post_ffw_norm", WIDTH)]);
            }
            if arch == "qwen3" || arch == "gemma3" {
                norms.extend([("attn_q_norm", head), ("attn_k_norm", head)]);
            }
            for (norm, n) in norms {
                self.vector(&block(&format!("{norm}.weight")), n, 1.0, 0.05);
            }
            if arch == "qwen2" {
                for (part, n) in [("attn_q", q), ("attn_k", kv), ("attn_v", kv)] {
                    self.vector(&block(&format!("{part}.bias")), n, 0.0, 0.1);
                }
            }
            // Where K-quants give a matrix more bits, as llama.cpp does.
            let eighth = layers / 8;
            let high = layer < eighth
                || layer >= 7 * layers / 8
                || layer.checked_sub(eighth).is_some_and(|n| n % 3 == 2);
            self.matrix(&block("attn_q"), q, WIDTH, false);
            self.matrix(&block("attn_k"), kv, WIDTH, false);
            self.matrix(&block("attn_v"), kv, WIDTH, true);
            self.matrix(&block("attn_output"), WIDTH, q, false);
            self.matrix(&block("ffn_gate"), FFN, WIDTH, false);
            self.matrix(&block("ffn_up"), FFN, WIDTH, false);
            self.matrix(&block("ffn_down"), WIDTH, FFN, high);
        }
    }

    fn vector(&mut self, name: &str, n: usize, mean: f64, spread: f64) {
        let values = (0..n).map(|_| (mean + spread * self.random.normal()) as f32);
        let values: Vec<f32> = values.collect();
        self.file.add_f32(name, &[n], &values);
    }

    /// A matrix of noise that keeps activations finite; `high` where K-quants have more bits.
    fn matrix(&mut self, name: &str, rows: usize, row: usize, high: bool) {
        let scale = 0.7 / libm::sqrt(row as f64);
        let ty = match (self.kind, high) {
            ("f16", _) => GgmlType::F16,
            ("q8_0", _) => GgmlType::Q8_0,
            ("q4_0", _) => GgmlType::Q4_0,
            (_, true) => GgmlType::Q6K,
            ("q4_k_m", false) => GgmlType::Q4K,
            ("q5_k_m", false) => GgmlType::Q5K,
            (kind, _) => panic!("no tiny model of {kind}"),
        };
        let (elements, size) = (ty.block_elements(), ty.block_bytes());
        let blocks = rows * row / elements;
        let drawn = if elements == 1 {
            blocks
        } else {
            blocks.min(DRAWN)
        };
        let data = match ty {
            GgmlType::Q4K | GgmlType::Q5K | GgmlType::Q6K => {
                let mut data = self.random.bytes(drawn * size);
                data.chunks_mut(size)
                    .for_each(|block| put_scales(ty, block, scale));
                data
            }
            _ => {
                let values = (0..drawn * elements).map(|_| (self.random.normal() * scale) as f32);
                let values: Vec<f32> = values.collect();
                let blocks = values.chunks(elements);
                blocks.flat_map(|block| quantized(ty, block)).collect()
            }
        };
        self.file.tensors.push(TensorSource {
            name: format!("{name}.weight"),
            ty,
            dims: vec![row, rows],
            data: data.into_iter().cycle().take(blocks * size).collect(),
        });
    }
}

/// Gives a block of random bytes scales that are finite.
fn put_scales(ty: GgmlType, block: &mut [u8], scale: f64) {
    let half = |value: f64| f16::from_f64(value).to_le_bytes();
    if ty == GgmlType::Q6K {
        let end = block.len() - 2;
        block[end..].copy_from_slice(&half(scale / 16.0 / 60.0));
        return;
    }
    let largest = if ty == GgmlType::Q4K { 7.0 } else { 14.0 };
    block[..2].copy_from_slice(&half(scale / largest / 20.0));
    block[2..4].copy_from_slice(&half(scale / 20.0 / 2.5));
}

/// A block as gguf-py quantizes it.
fn quantized(ty: GgmlType, values: &[f32]) -> Vec<u8> {
    let inverse = |scale: f32| if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let with_scale =
        |scale: f32, rest: Vec<u8>| [&f16::from_f32(scale).to_le_bytes()[..], &rest].concat();
    match ty {
        GgmlType::F16 => f16::from_f32(values[0]).to_le_bytes().to_vec(),
        GgmlType::Q8_0 => {
            let scale = values.iter().fold(0.0, |most: f32, v| most.max(v.abs())) / 127.0;
            let rounded = values
                .iter()
                .map(|v| (v * inverse(scale)).round() as i8 as u8);
            with_scale(scale, rounded.collect())
        }
        GgmlType::Q4_0 => {
            let largest = values.iter().fold(
                0.0,
                |most: f32, &v| if v.abs() > most.abs() { v } else { most },
            );
            let scale = largest / -8.0;
            let nibble = |v: f32| ((v * inverse(scale) + 8.5) as u8).min(15);
            let (low, high) = values.split_at(16);
            let pairs = low
                .iter()
                .zip(high)
                .map(|(&low, &high)| nibble(low) | nibble(high) << 4);
            with_scale(scale, pairs.collect())
        }
        _ => panic!("no tiny model has blocks of {}", ty.name()),
    }
}

/// The 256 stand-ins that byte-level BPE gives the 256 bytes, numbered tokens, and two control tokens.
fn vocabulary() -> Vec<String> {
    let mut others = (256..).filter_map(char::from_u32);
    let stand_in = |byte: u8| match byte {
        33..=126 | 161..=172 | 174..=255 => char::from(byte),
        _ => others.next().expect("a character"),
    };
    let bytes = (0..=255).map(stand_in).map(String::from);
    let numbered = (0..VOCAB - 258).map(|n| format!("<t{n}>"));
    let control = ["<|endoftext|>", "<|im_end|>"].map(String::from);
    bytes.chain(numbered).chain(control).collect()
}
