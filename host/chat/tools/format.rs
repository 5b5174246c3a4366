//! The forms of calls, and which of them a template writes.

use crate::grammar::Marker;

/// A form in which models call tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolFormat {
    /// JSON in `<tool_call>`: Hermes, Qwen2.5, Qwen3.
    Hermes,
    /// `<function=` and `<parameter=` in `<tool_call>`: Qwen3-Coder, Qwen3.5.
    QwenXml,
    /// An object with `name` and `parameters` that is the whole answer: Llama 3.1 to 3.3.
    Llama,
    /// A list of objects behind `[TOOL_CALLS]`: Mistral 7B v0.3, Nemo, Small 3.1.
    MistralList,
    /// `[TOOL_CALLS]name[ARGS]` and an object: later models of Mistral.
    MistralNamed,
    /// JSON in a fence of `tool_code`: Gemma 2 and 3, which are told about tools in a message.
    GemmaFence,
}

/// How arguments are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arguments {
    /// As a JSON object.
    Json,
    /// One `<parameter=NAME>` after the other, strings as they are and other values as JSON.
    Xml,
}

/// The fixed texts of a form, in their order. White space at their beginnings may be missing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// What the first call begins with.
    pub marker: &'static str,
    /// Whether nothing may be before that.
    pub is_whole_answer: bool,
    /// From there to the name.
    pub head: &'static str,
    /// From the name to the arguments.
    pub middle: &'static str,
    pub arguments: Arguments,
    /// Behind the arguments.
    pub tail: &'static str,
    /// From a call to the name of the next one; `None` where there is one call at most.
    pub next: Option<&'static str>,
    /// Behind the last call.
    pub end: &'static str,
}

impl ToolFormat {
    /// All forms.
    pub const ALL: [ToolFormat; 6] = [
        ToolFormat::Hermes,
        ToolFormat::QwenXml,
        ToolFormat::Llama,
        ToolFormat::MistralList,
        ToolFormat::MistralNamed,
        ToolFormat::GemmaFence,
    ];

    /// The form that a template with the source `source` writes calls in, where it is one that is known.
    pub fn of_template(source: &str) -> Option<ToolFormat> {
        let has = |text: &str| source.contains(text);
        // GLM's and MiniMax's forms have some of the same words.
        let is_other = has("<arg_key>") || has("<invoke");
        if has("<tool_call>") && !is_other {
            return Some(match has("<function=") && has("<parameter=") {
                true => ToolFormat::QwenXml,
                false => ToolFormat::Hermes,
            });
        }
        if has("[TOOL_CALLS]") {
            return Some(match has("[ARGS]") {
                true => ToolFormat::MistralNamed,
                false => ToolFormat::MistralList,
            });
        }
        if has("<|start_header_id|>") && has("\"parameters\": ") {
            return Some(ToolFormat::Llama);
        }
        has("```tool_code").then_some(ToolFormat::GemmaFence)
    }

    /// What a call begins with; what is before it is the answer's text.
    pub fn marker(self) -> Marker {
        let layout = self.layout();
        match layout.is_whole_answer {
            true => Marker::at_start(layout.marker),
            false => Marker::anywhere(layout.marker),
        }
    }

    /// Its fixed texts, in which tokens of the vocabulary may be.
    pub fn texts(self) -> [&'static str; 6] {
        let layout = self.layout();
        [
            layout.marker,
            layout.head,
            layout.middle,
            layout.tail,
            layout.next.unwrap_or_default(),
            layout.end,
        ]
    }

    /// Whether an answer may have several calls.
    pub fn has_parallel_calls(self) -> bool {
        self.layout().next.is_some()
    }

    pub(super) fn layout(self) -> Layout {
        match self {
            ToolFormat::Hermes => Layout {
                marker: "<tool_call>",
                is_whole_answer: false,
                head: "\n{\"name\": \"",
                middle: "\", \"arguments\": ",
                arguments: Arguments::Json,
                tail: "}\n</tool_call>",
                next: Some("\n<tool_call>\n{\"name\": \""),
                end: "",
            },
            ToolFormat::QwenXml => Layout {
                marker: "<tool_call>",
                is_whole_answer: false,
                head: "\n<function=",
                middle: ">\n",
                arguments: Arguments::Xml,
                tail: "</function>\n</tool_call>",
                next: Some("\n<tool_call>\n<function="),
                end: "",
            },
            ToolFormat::Llama => Layout {
                marker: "{\"name\":",
                is_whole_answer: true,
                head: " \"",
                middle: "\", \"parameters\": ",
                arguments: Arguments::Json,
                tail: "}",
                next: None,
                end: "",
            },
            ToolFormat::MistralList => Layout {
                marker: "[TOOL_CALLS]",
                is_whole_answer: false,
                head: " [{\"name\": \"",
                middle: "\", \"arguments\": ",
                arguments: Arguments::Json,
                tail: "}",
                next: Some(", {\"name\": \""),
                end: "]",
            },
            ToolFormat::MistralNamed => Layout {
                marker: "[TOOL_CALLS]",
                is_whole_answer: false,
                head: "",
                middle: "[ARGS]",
                arguments: Arguments::Json,
                tail: "",
                next: Some("[TOOL_CALLS]"),
                end: "",
            },
            ToolFormat::GemmaFence => Layout {
                marker: "```tool_code",
                is_whole_answer: false,
                head: "\n{\"name\": \"",
                middle: "\", \"parameters\": ",
                arguments: Arguments::Json,
                tail: "}\n```",
                next: Some("\n```tool_code\n{\"name\": \""),
                end: "",
            },
        }
    }
}
