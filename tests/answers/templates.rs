//! Templates as models have them: which form of calls they are taken for, and that a call of an earlier turn, as the
//! template lays it out, is what the grammar writes and what is read.
//!
//! `HYPERION_TEST_TEMPLATES=FOLDER` takes the templates of a folder in place of ours, and tells instead of failing:
//! those of llama.cpp are in `models/templates`.

use hyperion::chat::tools::ToolFormat;
use hyperion::chat::{AnswerForm, CallForm, ChatTemplate, Piece, Variables};
use hyperion::engine::Constraint;
use hyperion::openai::ChatRequest;
use hyperion::tokenizer::{EncodeOptions, Tokenizer};
use serde_json::{Value, json};

use crate::forms::read;
use crate::vocabulary::grammars;
use crate::walk::pieces;

/// The constructs with which templates write calls, and what they are.
const TEMPLATES: [(&str, Option<ToolFormat>); 16] = [
    // Names and arguments between strings, as Qwen2.5 and Hermes.
    (
        r#"{{- '\n<tool_call>\n{"name": "' }}{{- f.name }}{{- '", "arguments": ' }}{{- f.arguments | tojson }}{{- '}\n</tool_call>' }}"#,
        Some(ToolFormat::Hermes),
    ),
    // Double quotes that are escaped, and arguments that may be a text, as Qwen3.
    (
        r#"{{- "<tool_call>\n{\"name\": \"" ~ f.name ~ "\", \"arguments\": " }}{% if f.arguments is string %}{{ f.arguments }}{% else %}{{ f.arguments | tojson }}{% endif %}{{ "}\n</tool_call>" }}"#,
        Some(ToolFormat::Hermes),
    ),
    // The text of the call as it is, as granite.
    (
        "<tool_call>\n{\"name\": \"{{ f.name }}\", \"arguments\": {{ f.arguments | tojson }}}\n</tool_call>",
        Some(ToolFormat::Hermes),
    ),
    // Parameters, whose values are strings or JSON, as Qwen3-Coder.
    (
        r#"{{- '\n<tool_call>\n<function=' + f.name + '>\n' }}{% for k, v in f.arguments | items %}{{- '<parameter=' + k + '>\n' }}{{ v if v is string else v | tojson }}{{ '\n</parameter>\n' }}{% endfor %}{{- '</function>\n</tool_call>' }}"#,
        Some(ToolFormat::QwenXml),
    ),
    // The whole answer, as Llama 3.
    (
        r#"{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}{{- '{"name": "' + f.name + '", ' }}{{- '"parameters": ' }}{{- f.arguments | tojson }}{{- "}" }}"#,
        Some(ToolFormat::Llama),
    ),
    // The function as JSON, to which an id is added, as Mistral Nemo.
    (
        r#"{{- "[TOOL_CALLS][" }}{% set out = f | tojson %}{{- out[:-1] }}{{- ', "id": "' + c.id + '"}' }}{{- "]" }}"#,
        Some(ToolFormat::MistralList),
    ),
    // The same with a space and no id, as Mistral 7B.
    (
        r#"{{- "[TOOL_CALLS] [" }}{{- f | tojson }}{{- "]" }}"#,
        Some(ToolFormat::MistralList),
    ),
    (
        r#"{{- "[TOOL_CALLS]" + f.name + "[ARGS]" + f.arguments | tojson }}"#,
        Some(ToolFormat::MistralNamed),
    ),
    // Arguments that may be a text, as Ministral 3 and Devstral 2.
    (
        r#"{{- '[TOOL_CALLS]' }}{% set a = f.arguments %}{% if a is not string %}{% set a = a | tojson | safe %}{% elif a == '' %}{% set a = '{}' %}{% endif %}{{- f.name + '[ARGS]' + a }}"#,
        Some(ToolFormat::MistralNamed),
    ),
    // Mistral Small 3.2.
    (
        r#"{{- '[TOOL_CALLS]' + f.name }}{{- '[CALL_ID]' + c.id }}{{- '[ARGS]' + f.arguments | tojson }}"#,
        Some(ToolFormat::MistralNamed),
    ),
    // Sorted names without quotes, as Gemma 4.
    (
        r#"{% macro value(v) %}{% if v is string %}{{ '<|"|>' + v + '<|"|>' }}{% elif v is boolean %}{{ 'true' if v else 'false' }}{% elif v is mapping %}{{ '{' }}{% for k, w in v | dictsort %}{{ k }}:{{ value(w) }}{% if not loop.last %},{% endif %}{% endfor %}{{ '}' }}{% elif v is sequence %}[{% for w in v %}{{ value(w) }}{% if not loop.last %},{% endif %}{% endfor %}]{% else %}{{ v }}{% endif %}{% endmacro %}{{ '<|tool_call>call:' + f.name }}{{ value(f.arguments) }}{{ '<tool_call|>' }}"#,
        Some(ToolFormat::Gemma4),
    ),
    (
        r#"{% macro value(v) %}{% if v is string %}{{ '<escape>' + v + '<escape>' }}{% elif v is boolean %}{{ 'true' if v else 'false' }}{% elif v is mapping %}{{ '{' }}{% for k, w in v | dictsort %}{{ k }}:{{ value(w) }}{% if not loop.last %},{% endif %}{% endfor %}{{ '}' }}{% elif v is sequence %}[{% for w in v %}{{ value(w) }}{% if not loop.last %},{% endif %}{% endfor %}]{% else %}{{ v }}{% endif %}{% endmacro %}{{ '<start_function_call>call:' + f.name }}{{ value(f.arguments) }}{{ '<end_function_call>' }}"#,
        Some(ToolFormat::FunctionGemma),
    ),
    // Forms that have words of others: GLM, MiniMax, Apriel (which is told of the first one), Seed, LFM2.
    (
        r#"{{ '<tool_call>' + f.name }}{% for k, v in f.arguments.items() %}<arg_key>{{ k }}</arg_key><arg_value>{{ v }}</arg_value>{% endfor %}</tool_call>"#,
        None,
    ),
    (
        r#"{{ '<tool_call><invoke name="' + f.name + '">' }}{% for k, v in f.arguments.items() %}{{ k }}{{ v }}{% endfor %}</invoke></tool_call>"#,
        None,
    ),
    (
        r#"{# calls between <tool_call> and </tool_call> #}{{ '<tool_calls>[{"name": "' + f.name + '", "arguments": ' + f.arguments | tojson + '}]</tool_calls>' }}"#,
        None,
    ),
    (
        r#"{% set begin = '<seed:tool_call>' %}{{ begin + '\n<function=' + f.name + '>\n' }}{% for k, v in f.arguments.items() %}{{ '<parameter=' + k + '>' + v | string + '</parameter>' }}{% endfor %}{{ '</function>' }}"#,
        None,
    ),
];

/// A template with `call` where it lays out calls.
fn source(call: &str) -> String {
    format!(
        "{{{{ tools | tojson }}}}{{% for m in messages %}}{{% if m.tool_calls %}}{{% for c in m.tool_calls %}}\
         {{% set f = c.function %}}{call}{{% endfor %}}{{% else %}}{{{{ m.content }}}}{{% endif %}}{{% endfor %}}"
    )
}

fn arguments() -> Value {
    json!({"at": [1.5, -2], "city": "Zü\"rich\n</x>", "days": 2, "exact": true})
}

fn tools() -> Value {
    let number = json!({"type": "number"});
    let parameters = json!({"type": "object", "properties": {
        "at": {"type": "array", "items": number}, "city": {"type": "string"},
        "days": {"type": "integer"}, "exact": {"type": "boolean"},
    }});
    json!([{"type": "function", "function": {"name": "get_weather", "description": "The weather.", "parameters": parameters}}])
}

/// A call of an earlier turn as the template writes it, and whatever it has behind it.
fn laid_out(template: &ChatTemplate, format: ToolFormat) -> Result<String, String> {
    let messages = [
        json!({"role": "user", "content": "How is the weather?"}),
        json!({"role": "assistant", "content": "", "tool_calls": [
            {"id": "call12345", "type": "function", "function": {"name": "get_weather", "arguments": arguments()}}
        ]}),
    ];
    let messages = template.with_arguments(&messages);
    let mut variables = Variables::new();
    variables.insert("tools".to_owned(), tools());
    let text = |n: usize, opens: bool| {
        let text = template.render(&messages[..n], opens, &variables);
        text.map_err(|error| error.to_string())
    };
    let whole = text(2, false)?;
    let (asked, opened) = (text(1, false)?, text(1, true)?);
    let rest = whole
        .strip_prefix(&opened)
        .or_else(|| whole.strip_prefix(&asked));
    let rest = rest.ok_or("the conversation does not go on where it was")?;
    let marker = format.marker();
    let at = rest
        .find(marker.text())
        .ok_or_else(|| format!("no {} in {rest:?}", marker.text()))?;
    Ok(rest[at..].to_owned())
}

/// The names and arguments of the calls that `text` begins with.
fn calls_in(text: &str, format: ToolFormat) -> Vec<(String, String)> {
    let texts = vec![("get_weather".to_owned(), vec!["city".to_owned()])];
    let form = AnswerForm::new(
        None,
        Some(CallForm {
            format,
            texts,
            are_required: false,
        }),
        false,
    );
    let mut calls: Vec<(String, String)> = Vec::new();
    for piece in form.read("answer", text) {
        match piece {
            Piece::ToolCall { name, .. } => calls.push((name, String::new())),
            Piece::Arguments { index, text } => calls[index].1 += &text,
            // What the template ends the message with.
            Piece::Content(_) | Piece::Reasoning(_) => {}
        }
    }
    calls
}

/// As much of `text` as an answer with required calls may have.
fn within_grammar(template: &ChatTemplate, text: &str) -> Result<String, String> {
    let grammars = grammars(true);
    let body = json!({
        "messages": [{"role": "user", "content": "hi"}], "tools": tools(), "tool_choice": "required",
    });
    let request = ChatRequest::from_body(body).map_err(|error| error.to_string())?;
    let prepared = request
        .prepare(template, &grammars)
        .map_err(|error| error.to_string())?;
    let mut constraint = prepared.constraint.ok_or("no constraint")?;
    let tokenizer = grammars.tokenizer();
    let options = EncodeOptions {
        parse_special: true,
        ..EncodeOptions::default()
    };
    // Behind thoughts that the prompt has opened.
    let closed = template.thinking(
        &request
            .layout(template, true)
            .map_err(|error| error.to_string())?,
    );
    let before = closed
        .filter(|(_, is_open)| *is_open)
        .map_or("", |(tags, _)| tags.close);
    for token in tokenizer
        .encode(before, options)
        .map_err(|error| error.to_string())?
    {
        constraint.take(token).map_err(|error| error.to_string())?;
    }
    let mut taken = Vec::new();
    for token in tokenizer
        .encode(text, options)
        .map_err(|error| error.to_string())?
    {
        let mut next = constraint.fork();
        if constraint.is_complete() || next.take(token).is_err() {
            break;
        }
        taken.push(token);
        constraint = next;
    }
    let text = pieces(tokenizer, &prepared.shown, &taken).concat();
    let may_end = constraint.is_complete() || ends(&mut *constraint, tokenizer)?;
    match may_end {
        true => Ok(text),
        false => Err(format!("the grammar does not end behind {text:?}")),
    }
}

fn ends(constraint: &mut dyn Constraint, tokenizer: &Tokenizer) -> Result<bool, String> {
    let mask = constraint.mask().map_err(|error| error.to_string())?;
    let mask = mask.ok_or("everything is allowed")?;
    let is_allowed = |&end: &u32| mask[end as usize / 32] >> (end % 32) & 1 == 1;
    Ok(tokenizer.end_of_generation().iter().any(is_allowed))
}

/// Whether a call that `template` lays out is read as it was, and is one that the grammar writes.
fn round_trip(template: &ChatTemplate, format: ToolFormat) -> Result<(), String> {
    let text = laid_out(template, format)?;
    for (who, text) in [
        ("read", text.clone()),
        ("written", within_grammar(template, &text)?),
    ] {
        let calls = calls_in(&text, format);
        let [(name, called)] = &calls[..] else {
            return Err(format!("{} calls are {who} in {text:?}", calls.len()));
        };
        let called: Value =
            serde_json::from_str(called).map_err(|error| format!("{error} in {text:?}"))?;
        if (name.as_str(), &called) != ("get_weather", &arguments()) {
            return Err(format!("{name} with {called} is {who} in {text:?}"));
        }
    }
    Ok(())
}

#[test]
fn calls_of_earlier_turns_are_what_is_written_and_read() {
    if let Some(folder) = std::env::var_os("HYPERION_TEST_TEMPLATES") {
        return tell(folder.as_ref());
    }
    for (call, expected) in TEMPLATES {
        let template = ChatTemplate::new(Some(&source(call)), "<s>", "</s>").expect("a template");
        assert_eq!(template.tool_format(), expected, "{call}");
        if let Some(format) = expected {
            assert_eq!(round_trip(&template, format), Ok(()), "{call}");
        }
    }
}

fn tell(folder: &std::path::Path) {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    for path in paths
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "jinja"))
    {
        let text = std::fs::read_to_string(path).expect("a template");
        let template = ChatTemplate::new(Some(&text), "<s>", "</s>").expect("a template");
        let outcome = match template.tool_format() {
            None => "no form that is known".to_owned(),
            Some(format) if !template.has_tools() => format!("{format:?}, told in a message"),
            Some(format) => match round_trip(&template, format) {
                Ok(()) => format!("{format:?}, read and written"),
                Err(error) => format!("{format:?}: {error}"),
            },
        };
        println!(
            "{}: {outcome}",
            path.file_stem().unwrap_or_default().to_string_lossy()
        );
    }
}

/// What a template says of thoughts decides how an answer begins.
#[test]
fn thoughts_are_where_the_template_has_them() {
    let think =
        "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}<a>\n";
    // The model thinks by itself, or the template closes its thoughts for it: Qwen3.
    let may = format!(
        "{think}{{% if enable_thinking is false %}}<think>\n\n</think>\n\n{{% endif %}}{{% endif %}}"
    );
    // The template opens them, unless they are not wanted: Qwen3.5.
    let opens = format!(
        "{think}{{% if enable_thinking is false %}}<think>\n\n</think>\n\n{{% else %}}<think>\n{{% endif %}}{{% endif %}}"
    );
    // Only if they are wanted: Gemma 4.
    let asked = format!(
        "{think}{{% if not enable_thinking %}}<|channel>thought\n<channel|>{{% endif %}}{{% endif %}}"
    );
    // It describes them to the model, which has to begin: Ministral 3.
    let described =
        "[SYSTEM_PROMPT]First [THINK]your thoughts[/THINK], then the answer.[/SYSTEM_PROMPT]\
                     {% for m in messages %}[INST]{{ m.content }}[/INST]{% endfor %}"
            .to_owned();
    let (on, off, unsaid) = (
        json!({"enable_thinking": true}),
        json!({"enable_thinking": false}),
        json!({}),
    );
    for (source, kwargs, text, reasoning, content) in [
        (&may, &on, "<think>\nHm.\n</think>\n\nYes.", "Hm.", "Yes."),
        (&may, &unsaid, "Yes.", "", "Yes."),
        (&may, &off, "Yes.<think>", "", "Yes.<think>"),
        (&opens, &unsaid, "Hm.\n</think>\n\nYes.", "Hm.", "Yes."),
        (&opens, &on, "Hm.", "Hm.", ""),
        (&opens, &off, "Yes.</think>", "", "Yes.</think>"),
        (
            &asked,
            &on,
            "<|channel>thought\nHm.\n<channel|>Yes.",
            "Hm.",
            "Yes.",
        ),
        (&asked, &on, "Yes.", "", "Yes."),
        (&described, &unsaid, "[THINK]Hm.[/THINK]Yes.", "Hm.", "Yes."),
        (&described, &unsaid, "Yes.[THINK]", "", "Yes.[THINK]"),
        (&asked, &unsaid, "thought\nYes.", "", "thought\nYes."),
    ] {
        let template = ChatTemplate::new(Some(source), "<s>", "</s>").expect("a template");
        let body = json!({"messages": [{"role": "user", "content": "hi"}], "chat_template_kwargs": kwargs});
        let request = ChatRequest::from_body(body).expect("a request");
        let prepared = request
            .prepare(&template, &grammars(true))
            .expect("prepared");
        let whole = read(&prepared.form, text.split_inclusive(|_| true));
        assert_eq!(
            (whole.reasoning.as_str(), whole.content.as_str()),
            (reasoning, content),
            "{text:?} {kwargs}"
        );
    }
}

/// A template of Gemma 2's shape, which refuses the system's messages and wants the user and the model in turns.
#[test]
fn templates_without_a_place_for_tools_show_all_that_is_called() {
    let source = "{% for m in messages %}{% if m.role == 'system' or (m.role == 'user') != (loop.index0 % 2 == 0) %}\
                  {{ raise_exception('no') }}{% endif %}<start_of_turn>{{ m.role }}\n{{ m.content }}{% endfor %}";
    let template = ChatTemplate::new(Some(source), "", "").expect("a template");
    let call = |id: &str| json!({"id": id, "type": "function", "function": {"name": "get_weather", "arguments": "{\"days\": 1}"}});
    let messages = json!([
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": [call("a"), call("b")]},
        {"role": "tool", "tool_call_id": "a", "content": "Rain."},
        {"role": "tool", "tool_call_id": "b", "content": "Snow."},
        {"role": "user", "content": "So?"},
    ]);
    let laid_out = |more: Value| {
        let mut body = json!({"messages": messages});
        for (name, value) in more.as_object().expect("an object") {
            body[name] = value.clone();
        }
        let request = ChatRequest::from_body(body).expect("a request");
        request.layout(&template, true).expect("a layout").text
    };
    let called = "```tool_code\n{\"name\": \"get_weather\", \"parameters\": {\"days\":1}}\n```";
    let rest = format!(
        "\n\nWeather?<start_of_turn>assistant\n{called}\n{called}<start_of_turn>user\n```tool_output\nRain.\n```\n\
         ```tool_output\nSnow.\n```\nSo?"
    );
    let begin = "<start_of_turn>user\nBe kind.";
    let told = laid_out(json!({"tools": tools()}));
    assert!(told.starts_with(begin), "{told}");
    assert!(told.ends_with(&rest), "{told}");
    assert!(told.contains("\"description\":\"The weather.\""), "{told}");
    // What may not be called is not told of, and what was called is still there.
    for more in [json!({}), json!({"tools": tools(), "tool_choice": "none"})] {
        assert_eq!(laid_out(more), format!("{begin}{rest}"));
    }
}
