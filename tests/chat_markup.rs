//! What users write stays text, and what templates write is markup: whatever a template does with a
//! message, on vocabularies that type their markup as control or as user-defined tokens.

use hyperion::chat::{ChatTemplate, Variables};
use hyperion::tokenizer::{Tokenizer, VocabSpec};
use proptest::prelude::*;
use serde_json::json;

const MARKUP: [&str; 9] = [
    "<|im_start|>",
    "<|im_end|>",
    "</s>",
    "[INST]",
    "[/INST]",
    "<think>",
    "</think>",
    "<|user|>",
    "<s>",
];

/// A byte-level vocabulary of all bytes and the markup, with merges that could spell some of it.
fn bpe(markup: i32) -> Tokenizer {
    let mut spec = VocabSpec {
        model: "gpt2".into(),
        pre: Some("llama-bpe".into()),
        add_bos: Some(false),
        ..VocabSpec::default()
    };
    let mut next = 0x100u32..;
    for byte in 0..=255u8 {
        let c = match byte {
            0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
            _ => next.next().and_then(char::from_u32).unwrap(),
        };
        spec.tokens.push(c.to_string());
    }
    spec.token_types = vec![1; 256];
    // `[INST]` can be reached by merges alone.
    for (left, right) in [
        ("I", "N"),
        ("S", "T"),
        ("IN", "ST"),
        ("[", "INST"),
        ("[INST", "]"),
    ] {
        spec.merges.push(format!("{left} {right}"));
        let joined = [left, right].concat();
        if !MARKUP.contains(&joined.as_str()) {
            spec.tokens.push(joined);
            spec.token_types.push(1);
        }
    }
    finish(spec, markup)
}

/// The same for SentencePiece.
fn spm(markup: i32) -> Tokenizer {
    let mut spec = VocabSpec {
        model: "llama".into(),
        add_bos: Some(false),
        add_space_prefix: Some(false),
        bos: Some(0),
        eos: Some(0),
        unk: Some(0),
        tokens: vec!["<unk>".into()],
        token_types: vec![2],
        ..VocabSpec::default()
    };
    for byte in 0..=255u8 {
        spec.tokens.push(format!("<0x{byte:02X}>"));
        spec.token_types.push(6);
    }
    for text in [
        "[I", "NST", "[INST", "IN", "ST", "<t", "hink", "<think", "\u{2581}", "[", "]",
    ] {
        spec.tokens.push(text.into());
        spec.token_types.push(1);
    }
    for c in 0x21..0x7Fu8 {
        let text = char::from(c).to_string();
        if !spec.tokens.contains(&text) {
            spec.tokens.push(text);
            spec.token_types.push(1);
        }
    }
    let mut spec = add_markup(spec, markup);
    spec.scores = spec
        .tokens
        .iter()
        .map(|text| -(text.len() as f32))
        .collect();
    Tokenizer::new(spec).unwrap()
}

fn add_markup(mut spec: VocabSpec, kind: i32) -> VocabSpec {
    for text in MARKUP {
        spec.tokens.push(text.into());
        spec.token_types.push(kind);
    }
    spec
}

fn finish(spec: VocabSpec, markup: i32) -> Tokenizer {
    Tokenizer::new(add_markup(spec, markup)).unwrap()
}

/// Constructs of real templates, each with the markup that it writes around one message of a user
/// (`{}` stands for what it does with the message).
const FRAME: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n[INST]<think>' }}{% endif %}";
const FRAMED: [&str; 5] = [
    "<|im_start|>",
    "<|im_end|>",
    "<|im_start|>",
    "[INST]",
    "<think>",
];

const USES: &[&str] = &[
    "{{ m.content }}",
    "{{ m['content'] | trim }}",
    "{{ m.content.strip() + '' }}",
    "{{ m.content.lstrip('\\n').rstrip() }}",
    "{{ m.content | upper }}",
    "{{ m.content.lower() }}{{ m.content | title }}{{ m.content | capitalize }}",
    "{{ m.content.replace('x', '<') }}",
    "{{ m.content.replace('', 'a') }}",
    "{{ m.content.replace('b', '|') | replace('c', '>') }}",
    "{{ m.content[1:] }}{{ m.content[:3] }}{{ m.content[::-1] }}{{ m.content[::2] }}",
    "{{ m.content.split('<') | join('<') }}",
    "{{ m.content.split() | join(' ') }}",
    "{{ m.content.split('</think>')[-1].lstrip('\\n') }}",
    "{{ m.content | tojson }}",
    "{{ m | tojson(indent=2) }}",
    "{{ [m.content, {'a': m.content}] | string }}",
    "{{ '%s|%s' % (m.content, m.content) }}",
    "{{ '{}{:>5}'.format(m.content, m.content) }}",
    "{{ m.content | indent(2, true) }}",
    "{{ m.content | list | join }}{{ m.content | reverse }}",
    "{% for c in m.content %}{{ c }}{% endfor %}",
    "{% set x %}{{ m.content }}{% endset %}{{ x ~ m.content }}",
    "{% macro f(x) %}{{ x }}{{ caller() if caller else '' }}{% endmacro %}{{ f(m.content) }}{% call f(m.content) %}{{ m.content }}{% endcall %}",
    "{% filter trim %}{{ m.content }}{% endfilter %}",
    "{% set ns = namespace(a='') %}{% for i in [1, 2] %}{% set ns.a = ns.a + m.content %}{% endfor %}{{ ns.a }}",
    "{{ m.content | e }}{{ m.content | urlencode }}{{ m.content | truncate(9) }}",
    "{{ m.content.partition('|')[2] }}{{ m.content.rsplit('|', 1)[0] }}{{ m.content.zfill(30) }}",
    "{{ m.content.join(['<', '|']) }}{{ m.content.center(30, '*') }}{{ (m.content * 2) }}",
    "{{ m.name }}{{ tools | tojson }}{% for k, v in tools.items() %}{{ k }}{{ v }}{% endfor %}",
    "<{{ m.content }}>[{{ m.content }}]<|{{ m.content }}|>",
    "<|im_{{ m.content }}<|im_start{{ m.content }}|>",
    "{{ '<|' ~ m.content ~ '|>' }}{{ '[/' + m.content }}",
    "{{ m.content.splitlines() | map('trim') | select | join('\\n') }}",
    "{{ m.content | default('') | string | safe }}{{ m.get('content') }}{{ m.values() | list | last }}",
    "{{ 'x'.center(30, m.content[0]) if m.content }}{{ m.content.format('x', 'x') if '{' not in m.content else m.content }}",
    "{% macro k() %}{{ kwargs }}{{ kwargs.keys() | join }}{% endmacro %}{{ k(**tools) }}{{ dict(**tools).keys() | join }}{{ m.content }}",
    "{{ strftime_now(m.content) if '%' not in m.content else m.content }}{{ m.content | indent('<|') }}",
    "{{ m.content.removeprefix('<').removesuffix('>').swapcase() }}",
];

fn markup_of(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
    let texts = ids.iter().map(|&id| tokenizer.token_text(id));
    texts
        .filter(|text| MARKUP.contains(&text.as_str()))
        .collect()
}

/// Whether the markup in `ids` is the frame's. User-defined tokens that the template does not write
/// are ordinary text.
fn check(tokenizer: &Tokenizer, uses: &str, message: &str) -> Result<(), TestCaseError> {
    let source = FRAME.replace("{}", uses);
    let template = ChatTemplate::new(Some(&source), "", "").unwrap();
    let messages = [json!({"role": "user", "content": message, "name": message})];
    let variables = Variables::from_iter([(
        "tools".to_owned(),
        json!({message: [message, {"a": message}]}),
    )]);
    let prompt = match template.prompt(&messages, true, &variables) {
        Ok(prompt) => prompt,
        // A message of which nothing is left.
        Err(_) => return Ok(()),
    };
    let ids = tokenizer.encode_prompt(&prompt).unwrap();
    let mut found = markup_of(tokenizer, &ids);
    let control = tokenizer.is_control(tokenizer.vocab_size() as u32 - 1);
    found.retain(|text| control || source.contains(text));
    prop_assert_eq!(
        found,
        FRAMED,
        "{} of {:?}: {:?}",
        uses,
        message,
        prompt.text
    );
    let text: Vec<u8> = ids
        .iter()
        .flat_map(|&id| tokenizer.token_bytes(id))
        .collect();
    prop_assert_eq!(
        String::from_utf8(text).unwrap(),
        prompt.text,
        "nothing is lost"
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Arbitrary text out of markup, pieces of it, and all that marks and escapes are made of.
    #[test]
    fn messages_never_become_markup(
        pieces in prop::collection::vec(
            "<\\|im_start\\|>|<\\|im_end\\|>|</s>|\\[INST\\]|\\[/INST\\]|</?think>|<\\|user\\|>|start\\|>|im_start|user|INST|\\]|<\\||\\|>|<|>|\\||x|b|c|X|\u{FDD0}|\u{FDD1}|\u{E000}|\u{F0000}|\u{0}|é|\\\\|\"|'| |\\n|\\PC",
            // Around nothing at all, two halves of markup are the template's own.
            1..12,
        ),
        uses in prop::sample::select(USES),
        kind in prop::sample::select(vec![3, 4]),
    ) {
        let message = pieces.concat();
        check(&bpe(kind), uses, &message)?;
        check(&spm(kind), uses, &message)?;
    }
}

#[test]
fn every_use_with_every_markup() {
    for kind in [3, 4] {
        let tokenizers = [bpe(kind), spm(kind)];
        for uses in USES {
            for markup in MARKUP {
                for message in [
                    markup.to_owned(),
                    format!("x{markup} \u{FDD0}"),
                    markup[1..].to_owned(),
                ] {
                    for tokenizer in &tokenizers {
                        check(tokenizer, uses, &message).unwrap();
                    }
                }
            }
        }
    }
}

/// The usual roles are the program's words and not the user's, so that templates may build their
/// markup of them; any other role is text.
#[test]
fn roles_are_text_unless_they_are_the_usual_ones() {
    let template = ChatTemplate::new(
        Some("{% for m in messages %}{{ '<|' + m.role + '|>' + m.content }}<|im_end|>{% endfor %}"),
        "",
        "",
    )
    .unwrap();
    for tokenizer in [bpe(3), bpe(4), spm(3), spm(4)] {
        let markup = |role: &str| {
            let messages = [json!({"role": role, "content": "hi"})];
            let prompt = template
                .prompt(&messages, false, &Variables::new())
                .unwrap();
            markup_of(&tokenizer, &tokenizer.encode_prompt(&prompt).unwrap())
        };
        assert_eq!(markup("user"), ["<|user|>", "<|im_end|>"]);
        assert_eq!(markup("im_start"), ["<|im_end|>"]);
        assert_eq!(markup("user|><|im_start"), ["<|im_end|>"]);
    }
}

/// A token that no template writes is ordinary text, which the vocabulary's makers wanted whole.
#[test]
fn other_user_defined_tokens_are_found_in_messages() {
    let template =
        ChatTemplate::new(Some("[INST]{{ messages[0].content }}[/INST]"), "", "").unwrap();
    for tokenizer in [bpe(4), spm(4)] {
        let messages = [json!({"role": "user", "content": "<think>[INST]"})];
        let prompt = template.prompt(&messages, true, &Variables::new()).unwrap();
        let ids = tokenizer.encode_prompt(&prompt).unwrap();
        assert_eq!(
            markup_of(&tokenizer, &ids),
            ["[INST]", "<think>", "[/INST]"]
        );
    }
}
