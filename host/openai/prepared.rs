//! From a conversation to what the engine needs, and what reads its answers.

use super::tools::unsupported;
use super::{ApiError, ChatRequest, Settings};
use crate::chat::tools::{CallGrammar, ToolFormat, described};
use crate::chat::{AnswerForm, CallForm, ChatTemplate};
use crate::engine::{Constraint, Request};
use crate::grammar::lark::{self, Space};
use crate::grammar::{Body, Grammars, Phases, Tags};
use crate::tokenizer::Prompt;
use serde_json::Value;

/// A request that has only to be run; each of its answers may be one of several.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The tokens up to where the answer begins.
    pub prompt: Vec<u32>,
    /// What the answer must look like.
    pub constraint: Option<Box<dyn Constraint>>,
    /// Control tokens that are part of its text.
    pub shown: Vec<u32>,
    /// How it is read.
    pub form: AnswerForm,
}

impl Prepared {
    /// A text that is continued, by anything.
    pub fn plain(prompt: Vec<u32>) -> Prepared {
        Prepared {
            prompt,
            constraint: None,
            shown: Vec::new(),
            form: AnswerForm::plain(),
        }
    }

    /// The engine's request for one answer; `seed` is for settings that name none.
    pub fn request(&self, settings: &Settings, seed: u64) -> Request {
        self.choice(settings, 0, seed)
    }

    /// The engine's requests for all answers that are wanted.
    pub fn requests(&self, settings: &Settings, seed: u64) -> Vec<Request> {
        let choices = 0..settings.n;
        choices
            .map(|choice| self.choice(settings, choice, seed))
            .collect()
    }

    fn choice(&self, settings: &Settings, choice: usize, seed: u64) -> Request {
        Request {
            constraint: self.constraint.clone(),
            shown: self.shown.clone(),
            ..settings.request(self.prompt.clone(), choice, seed)
        }
    }
}

impl ChatRequest {
    /// Lays the conversation out by `template`, and compiles what the answer must look like.
    ///
    /// # Errors
    /// The template refuses the conversation or has no form for calls that is known, or a schema has no grammar.
    pub fn prepare(
        &self,
        template: &ChatTemplate,
        grammars: &Grammars,
    ) -> Result<Prepared, ApiError> {
        let tokenizer = grammars.tokenizer();
        let format = self.tool_format(template)?;
        let prompt = self.prompt(template, true)?;
        let tokens = tokenizer
            .encode_prompt(&prompt)
            .map_err(|error| ApiError::field("messages", error.to_string()))?;
        let thinking = template.thinking(&prompt);
        let calls = format.map(|format| CallGrammar {
            format,
            tools: self.tools.callable(),
            are_parallel: self.tools.are_parallel,
            tokenizer,
        });
        let form = calls.as_ref().map(|calls| CallForm {
            format: calls.format,
            texts: calls.texts(),
            are_required: self.tools.are_required(),
        });
        let shown = shown(grammars, thinking, format);
        Ok(Prepared {
            prompt: tokens,
            constraint: self.constraint(grammars, &shown, thinking, calls.as_ref())?,
            form: AnswerForm::new(thinking, form, self.format.schema.is_some()),
            shown,
        })
    }

    /// The text of the conversation, with what opens the answer where that `is_answered`.
    ///
    /// # Errors
    /// The template refuses the conversation or has no form for calls that is known.
    pub fn layout(&self, template: &ChatTemplate, is_answered: bool) -> Result<Prompt, ApiError> {
        self.tool_format(template)?;
        self.prompt(template, is_answered)
    }

    /// The form in which tools are called, where they may be.
    fn tool_format(&self, template: &ChatTemplate) -> Result<Option<ToolFormat>, ApiError> {
        if self.tools.callable().is_empty() {
            return Ok(None);
        }
        match template.tool_format() {
            Some(format) => Ok(Some(format)),
            None => {
                let message = "the model's chat template calls tools in a form that is not known";
                Err(ApiError::field("tools", message))
            }
        }
    }

    fn prompt(&self, template: &ChatTemplate, is_answered: bool) -> Result<Prompt, ApiError> {
        if let (false, Some(layout)) = (template.has_tools(), template.tool_format())
            && self.has_tools_or_calls()
        {
            let tools = self.variables.get("tools");
            let tools = tools.and_then(|tools| tools.as_array());
            let messages = described(&self.messages, tools.map_or(&[], Vec::as_slice), layout);
            return Ok(template.prompt(&messages, is_answered, &self.variables)?);
        }
        let messages = template.with_thoughts(template.with_arguments(&self.messages));
        let messages = template.with_call_ids(&messages);
        Ok(template.prompt(&messages, is_answered, &self.variables)?)
    }

    fn has_tools_or_calls(&self) -> bool {
        let is_of_call =
            |message: &Value| message["tool_calls"].is_array() || message["role"] == "tool";
        self.variables.contains_key("tools") || self.messages.iter().any(is_of_call)
    }

    fn constraint(
        &self,
        grammars: &Grammars,
        shown: &[u32],
        thinking: Option<(Tags, bool)>,
        calls: Option<&CallGrammar<'_>>,
    ) -> Result<Option<Box<dyn Constraint>>, ApiError> {
        let marker = calls.map(|calls| calls.format.marker());
        let of_tools = |error| unsupported(&self.tools, error);
        // The field that is at fault where a grammar is not one.
        let mut field = "tools";
        let (lark, body) = match (calls, &marker, &self.format.schema) {
            (None, _, None) => return Ok(None),
            (Some(calls), _, _) if self.tools.are_required() => {
                (calls.required().map_err(of_tools)?, Body::Strict)
            }
            (Some(calls), _, Some(schema)) => {
                field = self.format.field;
                (calls.or_value(schema).map_err(of_tools)?, Body::Strict)
            }
            (None, _, Some(schema)) => {
                field = self.format.field;
                let value = lark::json(schema, Space::Indented);
                let lark = format!(
                    "start: LEADING_SPACE? value\nvalue: {value}\n{}",
                    lark::LEADING_SPACE
                );
                (lark, Body::Strict)
            }
            (Some(calls), Some(marker), None) => {
                (calls.behind_marker().map_err(of_tools)?, Body::From(marker))
            }
            (Some(_), None, None) => return Ok(None),
        };
        let refused = |error: crate::grammar::GrammarError| {
            ApiError::field(field, format!("{field}: {error}"))
        };
        let grammar = grammars.compile(lark).map_err(refused)?;
        let phases = Phases::new(grammars, shown, thinking, body, grammar).map_err(refused)?;
        Ok(Some(Box::new(phases)))
    }
}

/// Control tokens that the texts of thoughts and calls have.
fn shown(
    grammars: &Grammars,
    thinking: Option<(Tags, bool)>,
    format: Option<ToolFormat>,
) -> Vec<u32> {
    let tokenizer = grammars.tokenizer();
    let tags = thinking.map(|(tags, _)| [tags.open, tags.close]);
    let texts = format.map(ToolFormat::texts);
    let texts = tags
        .into_iter()
        .flatten()
        .chain(texts.into_iter().flatten());
    let tokens = texts.flat_map(|text| tokenizer.markup_in(text));
    let mut tokens: Vec<u32> = tokens
        .filter_map(|(_, token)| token)
        .filter(|&token| tokenizer.is_control(token))
        .collect();
    tokens.sort_unstable();
    tokens.dedup();
    tokens
}
