//! Every form of calls: whatever is written under its grammar is read as calls that fit the schemas, however the text
//! is cut.

use hyperion::chat::tools::ToolFormat;
use hyperion::chat::{AnswerForm, Piece};
use hyperion::openai::{ChatRequest, Prepared};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::vocabulary::{grammars, template};
use crate::walk::{Random, parsed, pieces, walk};

const THINK: [&str; 2] = ["<think>", "</think>"];

pub fn tools() -> Value {
    let tool = |name: &str, parameters: Value| json!({"type": "function", "function": {"name": name, "parameters": parameters}});
    json!([
        tool("get_weather", json!({
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "unit": {"enum": ["C", "F"]},
                "days": {"type": "integer", "minimum": 0, "maximum": 9},
            },
            "required": ["city"],
        })),
        tool("get", json!({"type": "object", "properties": {
            "flags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
            "point": {"$ref": "#/$defs/point"},
            "año": {"type": "boolean"},
        }, "required": ["point"], "$defs": {"point": {
            "type": "object", "properties": {"x": {"type": "number", "minimum": -90, "maximum": 1e3}}, "required": ["x"], "additionalProperties": false,
        }}})),
        {"type": "function", "function": {"name": "no.arguments"}},
    ])
}

/// The parts of an answer, with all pieces of a kind together.
#[derive(Debug, Default, PartialEq)]
pub struct Whole {
    pub reasoning: String,
    pub content: String,
    pub calls: Vec<(String, String, String)>,
    pub has_calls: bool,
}

/// Reads `chunks` and looks at each piece on the way.
pub fn read<'a>(form: &AnswerForm, chunks: impl IntoIterator<Item = &'a str>) -> Whole {
    let mut reader = form.reader("answer");
    let mut whole = Whole::default();
    let mut take = |pieces: Vec<Piece>| {
        for piece in pieces {
            match piece {
                Piece::Reasoning(text) => {
                    assert!(whole.content.is_empty() && whole.calls.is_empty());
                    whole.reasoning += &text;
                }
                Piece::Content(text) => {
                    assert!(whole.calls.is_empty(), "text behind a call: {text:?}");
                    whole.content += &text;
                }
                Piece::ToolCall { index, id, name } => {
                    assert_eq!(index, whole.calls.len());
                    whole.calls.push((id, name, String::new()));
                }
                Piece::Arguments { index, text } => {
                    assert_eq!(index + 1, whole.calls.len(), "arguments of an earlier call");
                    whole.calls[index].2 += &text;
                }
            }
        }
    };
    for chunk in chunks {
        take(reader.push(chunk));
    }
    take(reader.finish());
    whole.has_calls = reader.has_calls();
    whole
}

/// `text` in pieces that end at `cuts`.
fn cut<'t>(text: &'t str, random: &mut Random) -> Vec<&'t str> {
    let mut chunks = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let mut at = 1 + random.below(6);
        while !rest.is_char_boundary(at.min(rest.len())) {
            at += 1;
        }
        let (chunk, behind) = rest.split_at(at.min(rest.len()));
        chunks.push(chunk);
        rest = behind;
    }
    chunks
}

pub fn prepare(
    format: ToolFormat,
    has_marks: bool,
    thinking: usize,
    more: Value,
) -> (Prepared, hyperion::grammar::Grammars) {
    let tags = match format {
        ToolFormat::MistralNamed => ["[THINK]", "[/THINK]"],
        ToolFormat::Gemma4 => ["<|channel>", "<channel|>"],
        _ => THINK,
    };
    let template = match thinking {
        0 => template(format, None, false),
        1 => template(format, Some(tags), false),
        _ => template(format, Some(tags), true),
    };
    assert_eq!(template.tool_format(), Some(format));
    let grammars = grammars(has_marks);
    let mut body = json!({"messages": [{"role": "user", "content": "hi"}]});
    for (name, value) in more.as_object().expect("an object") {
        body[name] = value.clone();
    }
    let request = ChatRequest::from_body(body).expect("a request");
    let prepared = request.prepare(&template, &grammars).expect("prepared");
    (prepared, grammars)
}

/// Each call names a function and has arguments that its schema takes.
pub fn check_calls(whole: &Whole) {
    let tools = tools();
    let tools = tools.as_array().expect("a list");
    for (_, name, arguments) in &whole.calls {
        let tool = tools
            .iter()
            .find(|tool| tool["function"]["name"] == name.as_str());
        let parameters = &tool.expect("a function")["function"]["parameters"];
        let Some(arguments) = parsed(arguments) else {
            continue;
        };
        assert!(arguments.is_object());
        let schema = match parameters {
            Value::Null => json!({"maxProperties": 0}),
            schema => schema.clone(),
        };
        let is_valid = jsonschema::validator_for(&schema)
            .expect("a schema")
            .is_valid(&arguments);
        assert!(is_valid, "{name}: {arguments}");
    }
    let mut ids: Vec<&String> = whole.calls.iter().map(|(id, ..)| id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), whole.calls.len());
}

/// Whether a character may be of a mark, or stands for half of another one.
fn is_of_marks(c: char) -> bool {
    c.is_ascii_alphabetic() || "<>/[]_\n\r\t \u{fffd}".contains(c)
}

fn choices() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!("auto"),
        json!("required"),
        json!({"type": "function", "function": {"name": "get_weather"}}),
        json!({"type": "function", "function": {"name": "no.arguments"}}),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(
        format in prop::sample::select(&ToolFormat::ALL[..]),
        has_marks in any::<bool>(),
        thinking in 0_usize..3,
        choice in choices(),
        are_parallel in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let more = json!({"tools": tools(), "tool_choice": choice, "parallel_tool_calls": are_parallel});
        let (prepared, grammars) = prepare(format, has_marks, thinking, more);
        let tokenizer = grammars.tokenizer();
        let mut random = Random(seed);
        let marker = format.marker();
        let marks: Vec<u32> = (0..tokenizer.vocab_size() as u32)
            .filter(|&id| {
                let text = tokenizer.token_text(id);
                text == marker.text() || ["</think>", "[/THINK]", "<channel|>"].contains(&text.as_str())
            })
            .collect();
        let mut constraint = prepared.constraint.clone().expect("a constraint");
        let walk = walk(&mut *constraint, tokenizer, &marks, &mut random, 3000);
        let chunks = pieces(tokenizer, &prepared.shown, &walk.tokens);
        let text = chunks.concat();

        let whole = read(&prepared.form, chunks.iter().map(String::as_str));
        prop_assert_eq!(&read(&prepared.form, [text.as_str()]), &whole, "{:?}", text);
        prop_assert_eq!(&read(&prepared.form, cut(&text, &mut random)), &whole, "{:?}", text);
        prop_assert_eq!(whole.has_calls, !whole.calls.is_empty());
        // What begins a call is no content, unless the call is all that there may be.
        if format != ToolFormat::Llama {
            prop_assert!(!whole.content.contains(marker.text()), "{:?}", text);
        }
        if choice != "auto" {
            prop_assert_eq!(&whole.content, "", "{:?}", text);
        }
        if !are_parallel || !format.has_parallel_calls() {
            prop_assert!(whole.calls.len() <= 1);
        }
        if walk.is_whole {
            check_calls(&whole);
            prop_assert!(choice == "auto" || !whole.calls.is_empty(), "no call in {:?}", text);
            if let Some(name) = choice["function"]["name"].as_str() {
                prop_assert!(whole.calls.iter().all(|(_, called, _)| called == name));
            }
        }
        // Whatever a stream has told at some place is the beginning of what it tells in the end.
        let n = random.below(chunks.len());
        let beginning = read(&prepared.form, chunks[..n].iter().map(String::as_str));
        // A beginning that ends here gives out what it had held back.
        let is_beginning = whole.reasoning.starts_with(beginning.reasoning.trim_end_matches(is_of_marks));
        prop_assert!(is_beginning, "{:?} {:?}", whole.reasoning, beginning.reasoning);
        for (told, called) in beginning.calls.iter().zip(&whole.calls) {
            prop_assert_eq!((&told.0, &told.1), (&called.0, &called.1));
            let is_beginning = called.2.starts_with(told.2.trim_end_matches(is_of_marks));
            prop_assert!(is_beginning, "{:?} {:?}", told, called);
        }
    }
}

/// A form's own text is read back, written as the template writes it.
#[test]
fn calls_as_templates_write_them_are_read() {
    let texts = [
        (
            ToolFormat::Hermes,
            "Let me see.\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"</tool_call>\"}}\n\
             </tool_call>\n<tool_call>\n{\"name\": \"no.arguments\", \"arguments\": {}}\n</tool_call>",
        ),
        (
            ToolFormat::QwenXml,
            "Let me see.\n\n<tool_call>\n<function=get_weather>\n<parameter=city>\n</tool_call>\n</parameter>\n\
             </function>\n</tool_call>\n<tool_call>\n<function=no.arguments>\n</function>\n</tool_call>",
        ),
        (
            ToolFormat::MistralList,
            "Let me see. [TOOL_CALLS] [{\"name\": \"get_weather\", \"arguments\": {\"city\": \"</tool_call>\"}}, \
             {\"name\": \"no.arguments\", \"arguments\": {}}]",
        ),
        (
            ToolFormat::MistralNamed,
            "Let me see.[TOOL_CALLS]get_weather[ARGS]{\"city\": \"</tool_call>\"}[TOOL_CALLS]no.arguments[ARGS]{}",
        ),
        (
            ToolFormat::MistralList,
            "Let me see.[TOOL_CALLS][{\"name\": \"get_weather\", \"arguments\": {\"city\": \"</tool_call>\"}, \
             \"id\": \"0123456ab\"}, {\"name\": \"no.arguments\", \"arguments\": {}, \"id\": \"012345678\"}]",
        ),
        (
            ToolFormat::MistralNamed,
            "Let me see.[TOOL_CALLS]get_weather[CALL_ID]0123456ab[ARGS]{\"city\": \"</tool_call>\"}\
             [TOOL_CALLS]no.arguments[CALL_ID]012345678[ARGS]{}",
        ),
        (
            ToolFormat::GemmaFence,
            "Let me see.\n```tool_code\n{\"name\": \"get_weather\", \"parameters\": {\"city\": \"</tool_call>\"}}\n```\n\
             ```tool_code\n{\"name\": \"no.arguments\", \"parameters\": {}}\n```",
        ),
        (
            ToolFormat::FunctionGemma,
            "Let me see.<start_function_call>call:get_weather{city:<escape></tool_call><escape>}<end_function_call>\
             <start_function_call>call:no.arguments{}<end_function_call>",
        ),
        (
            ToolFormat::Gemma4,
            "Let me see.<|tool_call>call:get_weather{city:<|\"|></tool_call><|\"|>}<tool_call|>\
             <|tool_call>call:no.arguments{}<tool_call|>",
        ),
    ];
    for (format, text) in texts {
        let (prepared, _) = prepare(format, true, 0, json!({"tools": tools()}));
        let whole = read(&prepared.form, text.split_inclusive(|_| true));
        assert_eq!(whole.content, "Let me see.", "{format:?}");
        let calls: Vec<(&str, Value)> = whole
            .calls
            .iter()
            .map(|(_, name, arguments)| (&name[..], serde_json::from_str(arguments).expect("JSON")))
            .collect();
        let expected = [
            ("get_weather", json!({"city": "</tool_call>"})),
            ("no.arguments", json!({})),
        ];
        assert_eq!(calls, expected, "{format:?}");
    }
    let (prepared, _) = prepare(ToolFormat::Llama, true, 0, json!({"tools": tools()}));
    let text = "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"x\"}}";
    let whole = read(&prepared.form, [text]);
    assert_eq!((whole.content.as_str(), whole.calls.len()), ("", 1));
    // JSON that is no call.
    let text = "{\"title\": 1}";
    assert_eq!(read(&prepared.form, [text]).content, text);
}

/// Gemma 4 writes a word before its thoughts that is none of them.
#[test]
fn a_label_is_no_thought() {
    for (thinking, text, reasoning, content) in [
        (1, "<|channel>thought\nHm.\n<channel|>Yes.", "Hm.", "Yes."),
        (1, "<|channel>thought\n<channel|>Yes.", "", "Yes."),
        (
            1,
            "<|channel>\nthoughtful.<channel|>Yes.",
            "thoughtful.",
            "Yes.",
        ),
        (1, "<|channel>thought", "", ""),
        (1, "<|channel>thou", "thou", ""),
        (1, "thought\nYes.", "", "thought\nYes."),
        (2, "thought\nHm. <chan", "Hm. <chan", ""),
    ] {
        let (prepared, _) = prepare(ToolFormat::Gemma4, true, thinking, json!({}));
        for chunks in [vec![text], text.split_inclusive(|_| true).collect()] {
            let whole = read(&prepared.form, chunks);
            assert_eq!(
                (whole.reasoning.as_str(), whole.content.as_str()),
                (reasoning, content),
                "{text:?}"
            );
        }
    }
}

/// Thoughts that never end are all that there is.
#[test]
fn thoughts_are_no_content() {
    for (thinking, text) in [(1, "<think>\nhm </thi"), (2, "\nhm </thi")] {
        let (prepared, _) = prepare(ToolFormat::Hermes, true, thinking, json!({}));
        let whole = read(&prepared.form, text.split_inclusive(|_| true));
        assert_eq!(
            (whole.reasoning.as_str(), whole.content.as_str()),
            ("hm </thi", "")
        );
        let text = format!("{text}</think>\n\n <think>x</think>");
        let whole = read(&prepared.form, text.split_inclusive(|_| true));
        assert_eq!(whole.reasoning, "hm </thi");
        assert_eq!(whole.content, "<think>x</think>");
    }
}
