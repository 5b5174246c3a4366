//! Tokenizers against the token lists of llama.cpp, mistral-common and tiktoken.
// Ranges of a text that a user wrote, of which there may be several.
#![allow(clippy::single_range_in_vec_init)]

#[path = "../support/mod.rs"]
mod support;
mod vocabularies;

use std::path::{Path, PathBuf};

use hyperion::gguf::Gguf;
use hyperion::grammar::Grammars;
use hyperion::openai::{Endpoint, Request};
use hyperion::tokenizer::{EncodeOptions, Prompt, Tokenizer, VocabSpec};
use proptest::prelude::*;
use serde_json::{Value, json};

fn tokenizer(path: &Path) -> Tokenizer {
    Tokenizer::from_gguf(&Gguf::open(path).unwrap()).unwrap()
}

fn vocab(name: &str) -> PathBuf {
    support::fixture(&format!("vocab/{name}.gguf"))
}

/// Compares all texts of `tests/fixtures/tokenizer/{name}.json`.
fn check(name: &str, path: &Path, add_special: bool) {
    let tokenizer = tokenizer(path);
    assert_eq!(tokenizer.warnings(), [""; 0]);
    let cases = support::fixture_bytes(&format!("tokenizer/{name}.json"));
    let cases: Vec<serde_json::Value> = serde_json::from_slice(&cases).unwrap();
    assert!(cases.len() >= 20);
    for case in cases {
        let text = case["text"].as_str().unwrap();
        let expected: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        let options = EncodeOptions {
            add_special,
            parse_special: true,
        };
        assert_eq!(
            tokenizer.encode(text, options).unwrap(),
            expected,
            "{text:?}"
        );
    }
}

#[test]
fn smollm2_equals_llama_cpp() {
    check("smollm2-135m-instruct", &support::model("smollm2"), true);
}

#[test]
fn gemma_equals_llama_cpp() {
    check("gemma-3-270m", &support::model("gemma-3-270m"), true);
}

#[test]
fn qwen2_equals_llama_cpp() {
    check("qwen2", &vocab("qwen2"), true);
}

#[test]
fn llama_spm_equals_llama_cpp() {
    check("llama-spm", &vocab("llama-spm"), false);
}

/// What the models were made with: see `tests/tools/rank_vectors.py`.
#[test]
fn tekken_equals_mistral_common() {
    check("tekken-4k", &vocab("tekken-4k"), false);
}

#[test]
fn o200k_equals_tiktoken() {
    check("o200k-3k", &vocab("o200k-3k"), false);
}

const PLAIN: EncodeOptions = EncodeOptions {
    add_special: false,
    parse_special: false,
};
const SPECIAL: EncodeOptions = EncodeOptions {
    add_special: false,
    parse_special: true,
};

#[test]
fn control_tokens_are_parsed_only_on_request() {
    let qwen = tokenizer(&vocab("qwen2"));
    let text = "<|im_start|>user";
    assert_eq!(qwen.encode(text, SPECIAL).unwrap()[0], 151_644);
    let plain = qwen.encode(text, PLAIN).unwrap();
    assert!(plain.iter().all(|&id| !qwen.is_control(id)), "{plain:?}");
    assert_eq!(qwen.decode(&plain), text);

    let llama = tokenizer(&vocab("llama-spm"));
    assert_eq!(llama.encode("</s>", SPECIAL).unwrap(), [2]);
    assert!(!llama.encode("</s>", PLAIN).unwrap().contains(&2));
}

#[test]
fn a_text_to_be_continued_gets_a_bos_unless_it_should_not() {
    let grammars = Grammars::new(&tokenizer(&vocab("llama-spm")));
    let tokens = |body: Value| {
        let request = Request::from_body(Endpoint::Completions, body).unwrap();
        let prepared = request.prepare(None, &grammars);
        prepared.map(|mut texts| texts.remove(0).prompt)
    };
    let with = tokens(json!({"prompt": "hi"})).unwrap();
    let without = tokens(json!({"prompt": "hi", "add_special_tokens": false})).unwrap();
    assert_eq!((with[0], &with[1..]), (1, &without[..]));
    assert_eq!(tokens(json!({"prompt": ""})).unwrap(), [1]);
    let none = tokens(json!({"prompt": "", "add_special_tokens": false}));
    assert_eq!(none.unwrap_err().param.as_deref(), Some("prompt"));
}

#[test]
fn a_prompt_gets_one_bos() {
    let llama = tokenizer(&vocab("llama-spm"));
    let encode = |text: &str| {
        let prompt = Prompt {
            text: text.to_owned(),
            ..Prompt::default()
        };
        llama.encode_prompt(&prompt).unwrap()
    };
    assert_eq!(encode("hi")[..1], [1]);
    assert_eq!(encode("<s>hi"), encode("hi"));
    assert_eq!(encode(""), [1]);
    let foreign = Prompt {
        text: "<s>hi".to_owned(),
        foreign: vec![0..5],
        ..Prompt::default()
    };
    let ids = llama.encode_prompt(&foreign).unwrap();
    assert_eq!(ids.iter().filter(|&&id| id == 1).count(), 1);
    assert_eq!(llama.decode(&ids[1..]), "<s>hi");
}

#[test]
fn special_ids_and_ends() {
    let qwen = tokenizer(&vocab("qwen2"));
    assert_eq!((qwen.bos(), qwen.eos()), (Some(151_643), Some(151_643)));
    assert!(qwen.is_end_of_generation(151_643) && qwen.is_end_of_generation(151_645));
    assert!(!qwen.is_end_of_generation(151_644) && !qwen.is_end_of_generation(0));
    assert!(qwen.is_control(151_644) && !qwen.is_control(0) && !qwen.is_control(u32::MAX));
    assert_eq!(qwen.vocab_size(), 151_936);
    assert_eq!(qwen.token_text(151_645), "<|im_end|>");
    assert_eq!(qwen.token_text(u32::MAX), "");
    assert_eq!(qwen.decode(&[151_644, 9707, 151_645, u32::MAX]), "Hello");

    let gemma = tokenizer(&support::model("gemma-3-270m"));
    let ends: Vec<String> = gemma
        .end_of_generation()
        .iter()
        .map(|&id| gemma.token_text(id))
        .collect();
    assert!(ends.contains(&"<eos>".to_owned()) && ends.contains(&"<end_of_turn>".to_owned()));
}

#[test]
fn a_stream_gives_whole_characters() {
    for path in [vocab("qwen2"), vocab("llama-spm")] {
        let tokenizer = tokenizer(&path);
        let text = "日本語 🦙 naïve";
        let ids = tokenizer.encode(text, PLAIN).unwrap();
        let mut stream = tokenizer.stream();
        let pieces: Vec<String> = ids.iter().map(|&id| stream.push(id)).collect();
        assert!(
            pieces.iter().any(String::is_empty),
            "some token is part of a character"
        );
        assert!(!pieces.concat().contains('\u{FFFD}'));
        assert_eq!((pieces.concat() + &stream.finish()).trim_start(), text);

        // Cut within the llama, and resumed.
        let half = ids
            .iter()
            .position(|&id| tokenizer.token_text(id).contains('\u{FFFD}'));
        assert_eq!(stream.push(ids[half.unwrap()]).trim(), "");
        assert_eq!(stream.finish(), "\u{FFFD}");
        assert_eq!(stream.finish(), "");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn text_comes_back(texts in prop::collection::vec("\\PC{0,40}|[ \\t\\n]{0,4}", 0..8)) {
        let text = texts.concat().replace('\u{2581}', " ");
        for tokenizer in [&*QWEN2, &*LLAMA] {
            let ids = tokenizer.encode(&text, PLAIN).unwrap();
            prop_assert_eq!(&tokenizer.decode(&ids), &text);
            let mut stream = tokenizer.stream();
            let pieces: String = ids.iter().map(|&id| stream.push(id)).collect();
            prop_assert!(pieces.ends_with(&text));
            prop_assert_eq!(stream.finish(), "");
        }
    }
}

proptest! {
    /// Whatever a file says, there is a tokenizer or an error.
    #[test]
    fn damaged_vocabularies_do_no_harm(
        model in "gpt2|llama",
        tokens in prop::collection::vec("[abĠ\u{2581} <>x0A]{0,4}|<0x[0-9A-G]{2}>|é", 0..12),
        token_types in prop::collection::vec(-1..8i32, 0..14),
        scores in prop::collection::vec(any::<f32>(), 0..14),
        merges in prop::collection::vec("[abĠé]{0,2} {0,2}[abĠ]{0,2}", 0..8),
        ids in prop::array::uniform4(prop::option::of(0..14u32)),
        flags in prop::array::uniform3(prop::option::of(any::<bool>())),
        text in "[ab é<>x0A\u{2581}]{0,20}",
    ) {
        let spec = VocabSpec {
            model,
            pre: Some("gpt-2".into()),
            tokens,
            token_types,
            scores,
            merges,
            bos: ids[0],
            eos: ids[1],
            eot: ids[2],
            unk: ids[3],
            add_bos: flags[0],
            add_eos: flags[1],
            add_space_prefix: flags[2],
            ..VocabSpec::default()
        };
        if let Ok(tokenizer) = Tokenizer::new(spec) {
            for parse_special in [false, true] {
                let options = EncodeOptions { add_special: true, parse_special };
                if let Ok(ids) = tokenizer.encode(&text, options) {
                    prop_assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
                    tokenizer.decode(&ids);
                }
            }
            let half = text.char_indices().nth(5).map_or(text.len(), |(at, _)| at);
            let foreign = vec![half..text.len()];
            let _ = tokenizer.encode_prompt(&Prompt { text, foreign, ..Prompt::default() });
        }
    }
}

static QWEN2: std::sync::LazyLock<Tokenizer> =
    std::sync::LazyLock::new(|| tokenizer(&vocab("qwen2")));
static LLAMA: std::sync::LazyLock<Tokenizer> =
    std::sync::LazyLock::new(|| tokenizer(&vocab("llama-spm")));

#[test]
fn long_words_take_reasonable_time() {
    for tokenizer in [&*QWEN2, &*LLAMA] {
        let ids = tokenizer.encode(&"a".repeat(200_000), PLAIN).unwrap();
        assert_eq!(tokenizer.decode(&ids).len(), 200_000);
    }
}
