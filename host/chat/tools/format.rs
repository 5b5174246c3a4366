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
    /// `[TOOL_CALLS]name[ARGS]` and an object, some with `[CALL_ID]` between the two: later models of Mistral.
    MistralNamed,
    /// JSON in a fence of `tool_code`: Gemma 2 and 3, which are told about tools in a message.
    GemmaFence,
    /// `call:name{...}` in `<start_function_call>`: FunctionGemma.
    FunctionGemma,
    /// `call:name{...}` in `<|tool_call>`: Gemma 4.
    Gemma4,
}

/// How arguments are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arguments {
    /// As a JSON object.
    Json,
    /// One `<parameter=NAME>` after the other, strings as they are and other values as JSON.
    Xml,
    /// As an object with bare names, whose strings are between two of this.
    Bare(&'static str),
}

/// A name that a model may give its call: letters and digits between two texts. Nobody is told it, as calls have names
/// of the server's own.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallId {
    /// Before it.
    pub open: &'static str,
    /// Behind it.
    pub close: &'static str,
    /// Whether it is behind the arguments, and not behind the function's name.
    pub is_last: bool,
}

/// Letters and digits of such a name.
pub(super) const ID_LENGTH: usize = 9;

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
    /// What may be there besides.
    pub id: Option<CallId>,
    /// Behind the arguments.
    pub tail: &'static str,
    /// From a call to the name of the next one; `None` where there is one call at most.
    pub next: Option<&'static str>,
    /// Behind the last call.
    pub end: &'static str,
}

impl ToolFormat {
    /// All forms.
    pub const ALL: [ToolFormat; 8] = [
        ToolFormat::Hermes,
        ToolFormat::QwenXml,
        ToolFormat::Llama,
        ToolFormat::MistralList,
        ToolFormat::MistralNamed,
        ToolFormat::GemmaFence,
        ToolFormat::FunctionGemma,
        ToolFormat::Gemma4,
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
        if has("<start_function_call>") {
            return Some(ToolFormat::FunctionGemma);
        }
        if has("<|tool_call>call:") {
            return Some(ToolFormat::Gemma4);
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
    pub fn texts(self) -> [&'static str; 8] {
        let layout = self.layout();
        [
            layout.marker,
            layout.head,
            layout.middle,
            layout.tail,
            layout.next.unwrap_or_default(),
            layout.end,
            layout.id.map_or("", |id| id.open),
            match layout.arguments {
                Arguments::Bare(quote) => quote,
                Arguments::Json | Arguments::Xml => "",
            },
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
                id: None,
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
                id: None,
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
                id: None,
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
                id: Some(CallId {
                    open: ", \"id\": \"",
                    close: "\"",
                    is_last: true,
                }),
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
                id: Some(CallId {
                    open: "[CALL_ID]",
                    close: "",
                    is_last: false,
                }),
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
                id: None,
                tail: "}\n```",
                next: Some("\n```tool_code\n{\"name\": \""),
                end: "",
            },
            ToolFormat::FunctionGemma => Layout {
                marker: "<start_function_call>",
                is_whole_answer: false,
                head: "call:",
                middle: "",
                arguments: Arguments::Bare("<escape>"),
                id: None,
                tail: "<end_function_call>",
                next: Some("<start_function_call>call:"),
                end: "",
            },
            ToolFormat::Gemma4 => Layout {
                marker: "<|tool_call>",
                is_whole_answer: false,
                head: "call:",
                middle: "",
                arguments: Arguments::Bare("<|\"|>"),
                id: None,
                tail: "<tool_call|>",
                next: Some("<|tool_call>call:"),
                end: "",
            },
        }
    }
}
