//! Small vocabularies and templates, one for each form of calls.

use hyperion::chat::ChatTemplate;
use hyperion::chat::tools::ToolFormat;
use hyperion::grammar::Grammars;
use hyperion::tokenizer::{Tokenizer, VocabSpec};

const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const BYTE: i32 = 6;

/// Marks that are control tokens in the models that have them.
const CONTROLS: [&str; 15] = [
    "<unk>",
    "<s>",
    "</s>",
    "<|im_start|>",
    "<|im_end|>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "[CALL_ID]",
    "[THINK]",
    "[/THINK]",
    "<|tool_call>",
    "<tool_call|>",
    "<|\"|>",
    "<|channel>",
    "<channel|>",
];

/// Marks that are text there.
const USER_DEFINEDS: [&str; 7] = [
    "<tool_call>",
    "</tool_call>",
    "<think>",
    "</think>",
    "<start_function_call>",
    "<end_function_call>",
    "<escape>",
];

/// Pieces across the borders of grammars and marks.
const PIECES: [&str; 23] = [
    "{\"",
    "\":",
    "\",",
    "\"}",
    "}\n",
    "{\"name",
    "name",
    "arguments",
    "\": {\"",
    "\u{2581}",
    "\u{2581}\"",
    "}}",
    "</",
    "\n</",
    "parameter",
    ">\n",
    "<tool",
    "_call",
    "think>",
    "call>\n{",
    "```tool",
    "`",
    "ab",
];

/// A vocabulary of bytes, some longer pieces, and marks. `has_marks` says whether the marks are tokens.
pub fn tokenizer(has_marks: bool) -> Tokenizer {
    let mut spec = VocabSpec {
        model: "llama".to_owned(),
        bos: Some(1),
        eos: Some(2),
        unk: Some(0),
        add_bos: Some(false),
        add_space_prefix: Some(false),
        ..VocabSpec::default()
    };
    let mut add = |text: &str, kind: i32| {
        spec.tokens.push(text.to_owned());
        spec.token_types.push(kind);
        spec.scores.push(-(spec.tokens.len() as f32));
    };
    let n_controls = if has_marks { CONTROLS.len() } else { 5 };
    CONTROLS[..n_controls]
        .iter()
        .for_each(|text| add(text, CONTROL));
    if has_marks {
        USER_DEFINEDS
            .iter()
            .for_each(|text| add(text, USER_DEFINED));
    }
    (0..=255).for_each(|byte| add(&format!("<0x{byte:02X}>"), BYTE));
    PIECES.iter().for_each(|text| add(text, NORMAL));
    Tokenizer::new(spec).expect("a vocabulary")
}

pub fn grammars(has_marks: bool) -> Grammars {
    Grammars::new(&tokenizer(has_marks))
}

/// A template that writes calls in `format`, and thoughts in `tags` where there are any. Its last line may open them.
pub fn template(format: ToolFormat, tags: Option<[&str; 2]>, opens: bool) -> ChatTemplate {
    let call = match format {
        ToolFormat::Hermes => {
            "<tool_call>\n{\"name\": \"{{ c.name }}\", \"arguments\": {{ c.arguments | tojson }}}\n</tool_call>"
        }
        ToolFormat::QwenXml => {
            "<tool_call>\n<function={{ c.name }}>\n{% for k, v in c.arguments | items %}<parameter={{ k }}>\n\
             {{ v if v is string else v | tojson }}\n</parameter>\n{% endfor %}</function>\n</tool_call>"
        }
        ToolFormat::Llama => {
            "{# <|start_header_id|> #}{\"name\": \"{{ c.name }}\", \"parameters\": {{ c.arguments | tojson }}}"
        }
        ToolFormat::MistralList => {
            "[TOOL_CALLS] [{\"name\": \"{{ c.name }}\", \"arguments\": {{ c.arguments | tojson }}}]"
        }
        ToolFormat::MistralNamed => "[TOOL_CALLS]{{ c.name }}[ARGS]{{ c.arguments | tojson }}",
        ToolFormat::GemmaFence => {
            "```tool_code\n{\"name\": \"{{ c.name }}\", \"parameters\": {{ c.arguments | tojson }}}\n```"
        }
        ToolFormat::FunctionGemma => {
            "<start_function_call>call:{{ c.name }}{ {{- c.arguments }}}<end_function_call>{# <escape> #}"
        }
        ToolFormat::Gemma4 => "{{ '<|tool_call>call:' + c.name }}{ {{- c.arguments }}}<tool_call|>",
    };
    let [open, close] = tags.unwrap_or_default();
    let opened = if opens { open } else { "" };
    let source = format!(
        "{{% if tools %}}{{{{ tools | tojson }}}}\n{{% endif %}}{{# {open} {close} #}}\
         {{% for m in messages %}}<|im_start|>{{{{ m.role }}}}\n{{{{ m.content }}}}\
         {{% for call in m.tool_calls or [] %}}{{% set c = call.function %}}{call}{{% endfor %}}<|im_end|>\n\
         {{% endfor %}}{{% if add_generation_prompt %}}<|im_start|>assistant\n{opened}{{% endif %}}"
    );
    ChatTemplate::new(Some(&source), "<s>", "</s>").expect("a template")
}
