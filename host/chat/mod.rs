//! Chat templates: the Jinja programs in model files that lay out a conversation as the model was
//! trained to read it.
//!
//! Templates are written for Python's `jinja2` as `transformers` sets it up; this module gives
//! `minijinja` the same settings, helpers and string methods. A template comes with an untrusted
//! file, so its work and memory are bounded. One hole remains in `minijinja`'s accounting: a list
//! that holds another many times over, nested often enough, costs nothing to build and is charged
//! for only after it was printed or compared.

mod json;

use std::collections::BTreeMap;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, Error, ErrorKind};
use minijinja_contrib::pycompat;

use crate::gguf::{Gguf, GgufError};
use crate::tokenizer::{Tokenizer, TokenizerError};

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
}

/// Variables for the template besides the messages, such as `enable_thinking` or `tools`.
pub type Variables = serde_json::Map<String, serde_json::Value>;

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

/// The name under which the template is compiled, seen in its error messages.
const NAME: &str = "chat_template";

/// The layout that most instruction-tuned models of unknown origin understand.
const CHATML: &str = "\
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif -%}";

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
    from_file: bool,
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
        let mut environment = Environment::new();
        // As `transformers` sets up jinja2: a line that holds only a block leaves nothing behind.
        environment.set_syntax(
            SyntaxConfig::builder()
                .trim_blocks(true)
                .lstrip_blocks(true)
                .build()
                .map_err(|error| ChatError::Template(describe(&error)))?,
        );
        environment.set_unknown_method_callback(pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", json::tojson);
        environment
            .add_template_owned(NAME, text.to_owned())
            .map_err(|error| ChatError::Template(describe(&error)))?;
        Ok(ChatTemplate {
            environment,
            bos: bos.to_owned(),
            eos: eos.to_owned(),
            from_file: source.is_some(),
        })
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

    /// The text of a conversation. `add_generation_prompt` appends what opens the assistant's next
    /// message; `variables` are visible to the template under their names.
    ///
    /// # Errors
    /// The template refuses the conversation, fails, or exceeds its bounds.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        variables: &Variables,
    ) -> Result<String, ChatError> {
        let pairs = messages
            .iter()
            .map(|m| (m.role.as_str(), m.content.as_str()));
        self.render_pairs(pairs, add_generation_prompt, variables)
    }

    /// The tokens of a conversation, with the BOS token where the file asks for one. Control
    /// tokens come from the template alone: whatever the messages spell stays text.
    ///
    /// Nothing is remembered between calls. A session renders the whole conversation each turn and
    /// keeps what it computed for the tokens that both renderings begin with.
    ///
    /// # Errors
    /// As [`render`](Self::render) and [`Tokenizer::encode_prompt`].
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        add_generation_prompt: bool,
        variables: &Variables,
    ) -> Result<Vec<u32>, ChatError> {
        let shielded: Vec<_> = messages
            .iter()
            .map(|m| (m.role.as_str(), tokenizer.shield(&m.content)))
            .collect();
        let pairs = shielded
            .iter()
            .map(|(role, content)| (*role, content.as_ref()));
        let text = self.render_pairs(pairs, add_generation_prompt, variables)?;
        Ok(tokenizer.encode_prompt(&text)?)
    }

    fn render_pairs<'m>(
        &self,
        messages: impl Iterator<Item = (&'m str, &'m str)>,
        add_generation_prompt: bool,
        variables: &Variables,
    ) -> Result<String, ChatError> {
        let mut bytes = 0;
        let messages: Value = messages
            .map(|(role, content)| {
                bytes += content.len() as u64;
                Value::from_pairs([
                    ("role", Value::from(role)),
                    ("content", Value::from(content)),
                ])
            })
            .collect();
        // `transformers` always defines these, so templates compare them with none.
        let mut context = BTreeMap::from([
            ("tools", Value::from(())),
            ("documents", Value::from(())),
            ("bos_token", Value::from(self.bos.as_str())),
            ("eos_token", Value::from(self.eos.as_str())),
        ]);
        for (name, value) in variables {
            context.insert(name, Value::from(Serde(value)));
        }
        context.insert("messages", messages);
        context.insert("add_generation_prompt", Value::from(add_generation_prompt));

        let mut environment = self.environment.clone();
        environment.set_fuel(Some(BASE_FUEL + bytes.saturating_mul(FUEL_PER_BYTE)));
        let template = environment
            .get_template(NAME)
            .map_err(|e| render_error(&e))?;
        template
            .render(Value::from_pairs(context))
            .map_err(|error| render_error(&error))
    }
}

/// What `raise_exception` was called with.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn raise_exception(message: &str) -> Result<Value, Error> {
    let raised = Raised(message.to_owned());
    Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(raised))
}

/// The local date and time in the format of `strftime`.
fn strftime_now(format: &str) -> Result<String, Error> {
    jiff::fmt::strtime::format(format, &jiff::ZonedDateTime::now()).map_err(|error| {
        Error::new(
            ErrorKind::InvalidOperation,
            format!("strftime_now: {error}"),
        )
    })
}

fn render_error(error: &Error) -> ChatError {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(Raised(message)) = cause.downcast_ref() {
            return ChatError::Refused(message.clone());
        }
        source = cause.source();
    }
    match error.kind() {
        ErrorKind::OutOfFuel => ChatError::Render(
            "it takes more work or memory than a conversation of this size should".to_owned(),
        ),
        _ => ChatError::Render(describe(error)),
    }
}

/// Message and line.
fn describe(error: &Error) -> String {
    let mut text = error.kind().to_string();
    if let Some(detail) = error.detail() {
        text = format!("{text}: {detail}");
    }
    match error.line() {
        Some(line) => format!("{text} (line {line})"),
        None => text,
    }
}
