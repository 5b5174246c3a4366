//! Small vocabularies, and those that are wrong.

use hyperion::gguf::Gguf;
use hyperion::tokenizer::{EncodeOptions, Tokenizer, TokenizerError, VocabSpec};

use crate::{PLAIN, support};

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| text.to_string()).collect()
}

/// A byte-level vocabulary of a few tokens.
fn small_bpe() -> VocabSpec {
    VocabSpec {
        model: "gpt2".into(),
        pre: Some("gpt-2".into()),
        tokens: strings(&["a", "b", "ab", "abb", "Ġ", "Ġa", "<s>", "<unk>"]),
        token_types: vec![1, 1, 1, 1, 1, 1, 3, 2],
        merges: strings(&["a b", "ab b", "Ġ a"]),
        ..VocabSpec::default()
    }
}

fn small_spm() -> VocabSpec {
    VocabSpec {
        model: "llama".into(),
        tokens: strings(&[
            "<unk>", "<s>", "</s>", "a", "b", "ab", "ba", "\u{2581}", "aba",
        ]),
        token_types: vec![2, 3, 3, 1, 1, 1, 1, 1, 1],
        scores: vec![0.0, 0.0, 0.0, -5.0, -5.0, -1.0, -1.0, -3.0, -9.0],
        ..VocabSpec::default()
    }
}

#[test]
fn merges_go_by_rank_and_by_score() {
    let bpe = Tokenizer::new(small_bpe()).unwrap();
    assert_eq!(bpe.encode("abb aab", PLAIN).unwrap(), [3, 5, 2]);
    // Equal scores: the leftmost pair first, so `abab` is ab-ab and not a-ba-b.
    let spm = Tokenizer::new(VocabSpec {
        add_space_prefix: Some(false),
        ..small_spm()
    })
    .unwrap();
    assert_eq!(spm.encode("abab", PLAIN).unwrap(), [5, 5]);
    assert_eq!(spm.encode("bab", PLAIN).unwrap(), [6, 4]);
    assert_eq!(spm.encode("aba", PLAIN).unwrap(), [8]);
    // No byte tokens: the unknown token stands in.
    assert_eq!(spm.encode("aé", PLAIN).unwrap(), [3, 0, 0]);
}

#[test]
fn defaults_are_those_of_llama_cpp() {
    let spm = Tokenizer::new(small_spm()).unwrap();
    let options = EncodeOptions {
        add_special: true,
        parse_special: true,
    };
    // BOS, and a space before the text, also after a control token.
    assert_eq!(spm.encode("ab</s>b", options).unwrap(), [1, 7, 5, 2, 7, 4]);
    assert_eq!(spm.decode(&[1, 7, 5]), "ab");
    let bpe = Tokenizer::new(small_bpe()).unwrap();
    assert_eq!(bpe.encode("ab", options).unwrap(), [2]);
    assert_eq!(bpe.bos(), None, "the default 11 is out of range");
    let both = VocabSpec {
        bos: Some(6),
        eos: Some(0),
        add_bos: Some(true),
        add_eos: Some(true),
        ..small_bpe()
    };
    assert_eq!(
        Tokenizer::new(both).unwrap().encode("b", options).unwrap(),
        [6, 1, 0]
    );
}

#[test]
fn end_markers_of_type_control_end_a_text() {
    let spec = |kind| VocabSpec {
        tokens: strings(&["a", "</s>", "<turn|>", "<|end_of_turn|>", "b"]),
        token_types: vec![1, kind, kind, kind, 1],
        merges: strings(&["a b"]),
        ..small_bpe()
    };
    assert_eq!(
        Tokenizer::new(spec(3)).unwrap().end_of_generation(),
        [1, 2, 3]
    );
    for plain in [1, 4] {
        assert_eq!(
            Tokenizer::new(spec(plain)).unwrap().end_of_generation(),
            [0; 0]
        );
    }
}

#[test]
fn odd_prompts_are_warned_of() {
    let tokenizer = Tokenizer::new(small_spm()).unwrap();
    assert_eq!(tokenizer.prompt_warnings(&[1, 3, 4]), [""; 0]);
    assert!(tokenizer.prompt_warnings(&[1, 1, 3])[0].contains("two \"<s>\""));
    assert!(tokenizer.prompt_warnings(&[1, 3, 2])[0].contains("ends with \"</s>\""));
}

#[test]
fn a_missing_pre_tokenizer_is_a_warning() {
    let tokenizer = Tokenizer::new(VocabSpec {
        pre: None,
        ..small_bpe()
    })
    .unwrap();
    assert!(tokenizer.warnings()[0].contains("tokenizer.ggml.pre"));
}

#[test]
fn unusable_vocabularies_are_errors() {
    let cases: Vec<(VocabSpec, &str)> = vec![
        (
            VocabSpec {
                model: "t5".into(),
                ..small_bpe()
            },
            "'t5'",
        ),
        (
            VocabSpec {
                pre: Some("nonsense".into()),
                ..small_bpe()
            },
            "'nonsense'",
        ),
        (
            VocabSpec {
                tokens: vec![],
                ..small_bpe()
            },
            "empty",
        ),
        (
            VocabSpec {
                token_types: vec![1],
                ..small_bpe()
            },
            "token_type has 1 entries for 8",
        ),
        (
            VocabSpec {
                scores: vec![1.0],
                ..small_spm()
            },
            "scores has 1 entries for 9",
        ),
        (
            VocabSpec {
                bos: Some(99),
                add_bos: Some(true),
                ..small_bpe()
            },
            "bos_token_id is 99",
        ),
        (
            VocabSpec {
                merges: vec![],
                ..small_bpe()
            },
            "no tokenizer.ggml.merges",
        ),
        (
            VocabSpec {
                scores: vec![],
                ..small_spm()
            },
            "no tokenizer.ggml.scores",
        ),
        (
            VocabSpec {
                merges: strings(&["ab"]),
                ..small_bpe()
            },
            "merges[0]",
        ),
        (
            VocabSpec {
                merges: strings(&["a b", "a "]),
                ..small_bpe()
            },
            "merges[1]",
        ),
        (
            VocabSpec {
                tokens: strings(&["a", "a"]),
                ..small_bpe()
            },
            "ids 0 and 1",
        ),
        (
            VocabSpec {
                add_bos: Some(true),
                ..small_bpe()
            },
            "bos_token_id is not set",
        ),
        (
            VocabSpec {
                add_eos: Some(true),
                ..small_bpe()
            },
            "eos_token_id is not set",
        ),
    ];
    for (spec, message) in cases {
        let error = Tokenizer::new(spec).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(message), "{error:?} lacks {message:?}");
    }
    let bytes = VocabSpec {
        tokens: strings(&["a"]),
        token_types: vec![],
        scores: vec![0.0],
        add_bos: Some(false),
        add_space_prefix: Some(false),
        ..small_spm()
    };
    let no_fallback = Tokenizer::new(VocabSpec { unk: None, ..bytes }).unwrap();
    // The default unknown id 0 exists here, as it would in llama.cpp.
    assert_eq!(no_fallback.encode("é", PLAIN).unwrap(), [0, 0]);
}

#[test]
fn ids_that_nothing_needs_may_be_out_of_range() {
    let spec = VocabSpec {
        bos: Some(99),
        eot: Some(u32::MAX),
        pad: Some(u32::MAX),
        unk: Some(u32::MAX),
        ..small_bpe()
    };
    let tokenizer = Tokenizer::new(spec).unwrap();
    assert_eq!(tokenizer.bos(), None);
    // 4294967295 is how files say "none"; another one is worth a warning.
    let [warning] = tokenizer.warnings() else {
        panic!("{:?}", tokenizer.warnings());
    };
    assert!(warning.contains("bos_token_id is 99"), "{warning}");
}

#[test]
fn merges_outside_of_the_vocabulary_are_left_out() {
    let spec = VocabSpec {
        merges: strings(&["a x", "a b", "b a"]),
        ..small_bpe()
    };
    let tokenizer = Tokenizer::new(spec).unwrap();
    assert!(tokenizer.warnings()[0].contains("2 of 3"));
    assert_eq!(tokenizer.encode("ab", PLAIN).unwrap(), [2]);
}

#[test]
fn a_file_without_a_vocabulary_is_an_error() {
    let gguf = Gguf::open(&support::fixture("tiny/tiny-llama-q4_0-2.gguf")).unwrap();
    match Tokenizer::from_gguf(&gguf) {
        Err(TokenizerError::Gguf(error)) => assert!(error.to_string().contains("tokenizer.ggml")),
        Err(other) => panic!("{other}"),
        Ok(tokenizer) => assert!(tokenizer.vocab_size() > 0),
    }
}
