//! Chat templates: the Jinja programs in model files that lay out a conversation as the model was
//! trained to read it.
//!
//! What users write must stay text: a message that spells `<|im_start|>` must not open a turn. So
//! the interpreter remembers for each character of a rendering whether the template wrote it or
//! where else it came from ([`jinja`]), and a [`Prompt`] tells the tokenizer, which looks for markup
//! in the template's own words alone.
//!
//! One exception: a role that is exactly one of the usual words counts as the template's, because
//! templates such as Phi's spell their markup with it (`'<|' + message.role + '|>'`).

mod answer;
mod arguments;
mod call_ids;
mod jinja;
mod piece;
mod prompt;
mod reasoning;
mod thoughts;
pub mod tools;

use serde_json::{Value as Json, json};

use crate::gguf::{Gguf, GgufError};
use crate::grammar::Tags;
use crate::tokenizer::{Prompt, Tokenizer, TokenizerError};
use tools::ToolFormat;

pub use answer::{AnswerForm, AnswerReader, CallForm};
use jinja::{Budget, Kind, Program, Source, Text, Value};
pub use piece::Piece;

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant`; templates may know more.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Message {
    /// A message of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message {
            role: role.into(),
            content: content.into(),
        }
    }

    /// As templates see it.
    pub fn to_json(&self) -> Json {
        json!({"role": self.role, "content": self.content})
    }
}

/// Variables for the template besides the messages, such as `enable_thinking` or `tools`.
pub type Variables = serde_json::Map<String, Json>;

/// Why a conversation has no text.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The template is not valid Jinja, or is too large.
    #[error("the file's chat template is not usable: {0}")]
    Template(String),
    /// The template itself refused the conversation, by `raise_exception`.
    #[error("the chat template refuses this conversation: {0}")]
    Refused(String),
    /// The template failed, or took more than its share of work.
    #[error("the chat template failed: {0}")]
    Render(String),
    /// The rendering does not show what the user wrote.
    #[error(
        "the chat template leaves out the user's message, given as a text or as a list of parts"
    )]
    MessageLost,
    /// The file holds something else than a text where the template should be.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The rendered text could not be tokenized.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// The longest template source that is compiled; the longest known ones have 20 KB.
const MAX_SOURCE: usize = 1 << 20;

/// What a template may spend on the layout itself, in units of one instruction or 64 bytes of
/// data. Templates of today's models spend some thousands.
const BASE_FUEL: u64 = 1_000_000;

/// What it may spend on each byte of the conversation, for copying, trimming and splitting it.
const FUEL_PER_BYTE: u64 = 16;

/// Roles whose letters may be part of a template's markup.
const USUAL_ROLES: [&str; 6] = [
    "system",
    "user",
    "assistant",
    "tool",
    "developer",
    "function",
];

/// The layout that most instruction-tuned models of unknown origin understand.
const CHATML: &str = "\
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif -%}";

/// How the texts of messages are given to the template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    AsGiven,
    /// `[{"type": "text", "text": ...}]`, as templates of models that see images want it.
    Parts,
}

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    program: Program,
    bos: String,
    eos: String,
    from_file: bool,
    /// Whether it lays out tools.
    has_tools: bool,
    /// Whether it lays out messages of the system.
    has_system: bool,
    tool_format: Option<ToolFormat>,
    thinking: Option<Tags>,
}

impl ChatTemplate {
    /// Compiles `source`, or ChatML where a file has none. `bos` and `eos` are the texts of these
    /// tokens, which templates write as `bos_token` and `eos_token`.
    ///
    /// # Errors
    /// The source is not valid Jinja.
    pub fn new(source: Option<&str>, bos: &str, eos: &str) -> Result<ChatTemplate, ChatError> {
        let text = source.unwrap_or(CHATML);
        if text.len() > MAX_SOURCE {
            return Err(ChatError::Template(format!(
                "it has {} bytes, more than {MAX_SOURCE}",
                text.len()
            )));
        }
        let program =
            Program::parse(text).map_err(|error| ChatError::Template(error.to_string()))?;
        let mut template = ChatTemplate {
            program,
            bos: bos.to_owned(),
            eos: eos.to_owned(),
            from_file: source.is_some(),
            has_tools: text.contains("tools"),
            has_system: true,
            tool_format: None,
            thinking: reasoning::of_template(text),
        };
        template.has_system = template.shows_system();
        template.tool_format = template.find_tool_format(text);
        Ok(template)
    }

    /// Compiles the template of a model file (`tokenizer.chat_template`), or ChatML.
    ///
    /// # Errors
    /// As [`new`](Self::new), and metadata of another type.
    pub fn from_gguf(gguf: &Gguf, tokenizer: &Tokenizer) -> Result<ChatTemplate, ChatError> {
        let source = gguf.metadata().find("tokenizer.chat_template")?;
        let text = |id: Option<u32>| id.map(|id| tokenizer.token_text(id)).unwrap_or_default();
        ChatTemplate::new(source, &text(tokenizer.bos()), &text(tokenizer.eos()))
    }

    /// Whether the template is the file's own and not the fallback.
    pub fn is_from_file(&self) -> bool {
        self.from_file
    }

    /// Whether the template shows tools to the model.
    pub fn has_tools(&self) -> bool {
        self.has_tools
    }

    /// The form in which the model calls tools, where it is one that is known.
    pub fn tool_format(&self) -> Option<ToolFormat> {
        self.tool_format
    }

    /// What stands around thoughts in an answer to `prompt`, and whether the prompt has opened them; `None` where the
    /// answer has none.
    pub fn thinking(&self, prompt: &Prompt) -> Option<(Tags, bool)> {
        let tags = self.thinking?;
        Some((tags, reasoning::at_end_of(prompt, tags)?))
    }

    /// The text of a conversation, whose `messages` are objects with `role`, `content` and what
    /// else the template knows. `add_generation_prompt` appends what opens the assistant's next
    /// message; `variables` are visible to the template under their names.
    ///
    /// # Errors
    /// The template refuses the conversation, fails, or exceeds its bounds.
    pub fn render(
        &self,
        messages: &[Json],
        add_generation_prompt: bool,
        variables: &Variables,
    ) -> Result<String, ChatError> {
        let text = self.run(messages, add_generation_prompt, variables, Content::AsGiven)?;
        Ok(text.as_str().to_owned())
    }

    /// The tokens of a conversation, with the BOS token where the file asks for one. Markup comes
    /// from the template alone: whatever the messages spell stays text.
    ///
    /// Nothing is remembered between calls. A session renders the whole conversation each turn and
    /// keeps what it computed for the tokens that both renderings begin with.
    ///
    /// # Errors
    /// As [`prompt`](Self::prompt) and [`Tokenizer::encode_prompt`].
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        add_generation_prompt: bool,
        variables: &Variables,
    ) -> Result<Vec<u32>, ChatError> {
        let messages: Vec<Json> = messages.iter().map(Message::to_json).collect();
        let prompt = self.prompt(&messages, add_generation_prompt, variables)?;
        Ok(tokenizer.encode_prompt(&prompt)?)
    }

    fn run(
        &self,
        messages: &[Json],
        add_generation_prompt: bool,
        variables: &Variables,
        content: Content,
    ) -> Result<Text, ChatError> {
        let bytes = messages
            .iter()
            .chain(variables.values())
            .map(size)
            .sum::<u64>();
        let globals = |budget: &Budget| {
            // `transformers` always defines these, so templates compare them with none.
            let mut globals = vec![
                ("tools".to_owned(), Value::None),
                ("documents".to_owned(), Value::None),
                ("bos_token".to_owned(), Value::str(&self.bos)),
                ("eos_token".to_owned(), Value::str(&self.eos)),
            ];
            for (name, value) in variables {
                globals.push((name.clone(), convert(value, Source::Foreign, budget)?));
            }
            let messages = messages.iter().enumerate();
            let messages = messages.map(|(index, json)| message(json, index, content, budget));
            let messages = Value::list(messages.collect::<jinja::Result<_>>()?)?;
            globals.push(("messages".to_owned(), messages));
            let generate = Value::Bool(add_generation_prompt);
            globals.push(("add_generation_prompt".to_owned(), generate));
            Ok(globals)
        };
        let fuel = BASE_FUEL + bytes.saturating_mul(FUEL_PER_BYTE);
        self.program
            .render(globals, fuel)
            .map_err(|error| match error.kind {
                Kind::Raised => ChatError::Refused(error.message),
                _ => ChatError::Render(error.to_string()),
            })
    }
}

/// A message as the template sees it.
fn message(json: &Json, index: usize, content: Content, budget: &Budget) -> jinja::Result<Value> {
    let Json::Object(fields) = json else {
        return convert(json, Source::Foreign, budget);
    };
    let own = u32::try_from(index).map_or(Source::Foreign, Source::Content);
    let mut entries = Vec::with_capacity(fields.len());
    for (name, value) in fields {
        let value = match (name.as_str(), value) {
            ("role", Json::String(role)) if USUAL_ROLES.contains(&role.as_str()) => {
                Value::str(role)
            }
            ("content", Json::String(text)) if content == Content::Parts => {
                let part = [
                    ("type", Value::str("text")),
                    ("text", Value::text(Text::new(text, own))),
                ];
                let part = part.map(|(name, value)| (Value::str(name), value));
                Value::list(vec![Value::dict(part.into(), budget)?])?
            }
            ("content", value) => convert(value, own, budget)?,
            (_, value) => convert(value, Source::Foreign, budget)?,
        };
        entries.push((Value::text(Text::new(name, Source::Foreign)), value));
    }
    Value::dict(entries, budget)
}

fn convert(json: &Json, source: Source, budget: &Budget) -> jinja::Result<Value> {
    Ok(match json {
        Json::Null => Value::None,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => Value::Int(number, source),
            (None, number) => Value::Float(number.unwrap_or(f64::NAN), source),
        },
        Json::String(text) => Value::text(Text::new(text, source)),
        Json::Array(items) => {
            let items = items.iter().map(|item| convert(item, source, budget));
            Value::list(items.collect::<jinja::Result<_>>()?)?
        }
        Json::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| {
                let name = Value::text(Text::new(name, Source::Foreign));
                Ok((name, convert(value, source, budget)?))
            });
            Value::dict(fields.collect::<jinja::Result<_>>()?, budget)?
        }
    })
}

/// The bytes of all strings in `json`, and some for each of its other parts.
fn size(json: &Json) -> u64 {
    const PART: u64 = 8;
    match json {
        Json::String(text) => PART + text.len() as u64,
        Json::Array(items) => items.iter().map(size).sum::<u64>() + PART,
        Json::Object(fields) => {
            let fields = fields.iter();
            fields
                .map(|(name, value)| PART + name.len() as u64 + size(value))
                .sum()
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => PART,
    }
}
