//! Requests for the next message of a conversation.

use serde_json::{Map, Value};

use super::fields::Fields;
use super::message::read_messages;
use super::settings::{take_max_tokens, take_top_logprobs};
use super::tools::take_tools;
use super::{ApiError, ResponseFormat, Settings};
use crate::chat::Variables;
use crate::chat::tools::{ToolChoice, Tools};

/// A request for the next message of a conversation.
#[derive(Debug, Clone)]
pub struct ChatRequest {
    /// How the answer is made.
    pub settings: Settings,
    /// The conversation, as templates read it.
    pub messages: Vec<Value>,
    /// What the template is told beside that: `tools`, and the fields of `chat_template_kwargs`.
    pub variables: Variables,
    /// What the model may call.
    pub tools: Tools,
    /// What the answer's text must be.
    pub format: ResponseFormat,
}

/// How much a model may be asked to think, in OpenAI's words.
pub(super) const EFFORTS: [&str; 7] = ["none", "minimal", "low", "medium", "high", "xhigh", "max"];

impl ChatRequest {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// Whatever in it is wrong or not supported, by the field's name.
    pub fn from_body(body: Value) -> Result<ChatRequest, ApiError> {
        let mut fields = Fields::new(body, "the body", String::new())?;
        fields.refuse_elsewhere("/v1/chat/completions", "messages")?;
        let mut settings = Settings::take(&mut fields)?;
        let limit = take_max_tokens(&mut fields, &["max_completion_tokens", "max_tokens"])?;
        settings.has_default_limit = limit.is_none();
        settings.limits.max_tokens = limit.and_then(|limit| usize::try_from(limit).ok());
        settings.logprobs = take_logprobs(&mut fields)?;
        let messages = fields.take::<Vec<Value>>("messages")?;
        let messages =
            messages.ok_or_else(|| ApiError::field("messages", "messages is missing"))?;
        let mut variables = take_variables(&mut fields)?;
        let (tools, written) = take_tools(&mut fields)?;
        if tools.choice != ToolChoice::None {
            variables.insert("tools".to_owned(), Value::Array(written));
        }
        let request = ChatRequest {
            settings,
            messages: read_messages(messages)?,
            variables,
            tools,
            format: ResponseFormat::take(&mut fields)?,
        };
        fields.finish()?;
        Ok(request)
    }
}

/// `logprobs` says whether, `top_logprobs` how many beside the chosen token.
fn take_logprobs(fields: &mut Fields) -> Result<Option<usize>, ApiError> {
    let wanted = fields.take("logprobs")?.unwrap_or(false);
    let top = take_top_logprobs(fields, "top_logprobs")?;
    match (wanted, top.unwrap_or(0)) {
        (true, top) => Ok(Some(top)),
        (false, 0) => Ok(None),
        (false, _) => {
            let message = "top_logprobs is for requests with logprobs: true";
            Err(ApiError::field("top_logprobs", message))
        }
    }
}

/// What else the template can see.
fn take_variables(fields: &mut Fields) -> Result<Variables, ApiError> {
    /// What is told in other ways, and must not be told twice.
    const OTHERS: [&str; 5] = [
        "messages",
        "tools",
        "add_generation_prompt",
        "bos_token",
        "eos_token",
    ];
    let mut variables = fields
        .take::<Map<String, Value>>("chat_template_kwargs")?
        .unwrap_or_default();
    if let Some(name) = OTHERS.iter().find(|name| variables.contains_key(**name)) {
        let name = format!("chat_template_kwargs.{name}");
        let message = format!("{name} is not for chat_template_kwargs");
        return Err(ApiError::field(&name, message));
    }
    take_effort(fields, &mut variables)?;
    Ok(variables)
}

/// How much the model thinks, as far as its template can be told.
fn take_effort(fields: &mut Fields, variables: &mut Variables) -> Result<(), ApiError> {
    const NAME: &str = "reasoning_effort";
    let (variable, value) = match fields.take_word(NAME, &EFFORTS)?.as_deref() {
        None => return Ok(()),
        Some("none") => ("enable_thinking", Value::Bool(false)),
        Some(effort) => (NAME, effort.into()),
    };
    match variables.insert(variable.to_owned(), value.clone()) {
        Some(other) if other != value => {
            let other = format!("chat_template_kwargs.{variable}");
            let message = format!("{other} and {NAME} say different things");
            Err(ApiError::field(&other, message))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A conversation with the fields of `more`.
    fn read(more: Value) -> Result<ChatRequest, ApiError> {
        let mut body = json!({"messages": [{"role": "user", "content": "hi"}]});
        for (name, value) in more.as_object().expect("an object") {
            body[name] = value.clone();
        }
        ChatRequest::from_body(body)
    }

    fn param(more: Value) -> Option<String> {
        read(more).expect_err("wrong").param
    }

    #[test]
    fn the_body_is_an_object_with_messages() {
        for body in [
            json!(null),
            json!([]),
            json!("hi"),
            json!({}),
            json!({"messages": "hi"}),
        ] {
            assert!(ChatRequest::from_body(body).is_err());
        }
    }

    #[test]
    fn the_template_is_told_how_much_to_think() {
        let variables = |more| read(more).expect("a request").variables;
        let told = variables(json!({"reasoning_effort": "low"}));
        assert_eq!(Value::Object(told), json!({"reasoning_effort": "low"}));
        let told = variables(json!({"reasoning_effort": "none", "chat_template_kwargs": {"a": 1}}));
        assert_eq!(
            Value::Object(told),
            json!({"a": 1, "enable_thinking": false})
        );
        assert!(variables(json!({"reasoning_effort": null})).is_empty());
        for (more, name) in [
            (json!({"reasoning_effort": "a lot"}), "reasoning_effort"),
            (json!({"reasoning_effort": 1}), "reasoning_effort"),
            (
                json!({"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": true}}),
                "chat_template_kwargs.enable_thinking",
            ),
        ] {
            assert_eq!(param(more).as_deref(), Some(name));
        }
    }

    #[test]
    fn logprobs_are_asked_for_before_their_number() {
        let logprobs = |more| read(more).expect("a request").settings.logprobs;
        assert_eq!(logprobs(json!({})), None);
        assert_eq!(
            logprobs(json!({"logprobs": false, "top_logprobs": 0})),
            None
        );
        assert_eq!(logprobs(json!({"logprobs": true})), Some(0));
        assert_eq!(
            logprobs(json!({"logprobs": true, "top_logprobs": 20})),
            Some(20)
        );
        for wrong in [
            json!({"top_logprobs": 1}),
            json!({"logprobs": true, "top_logprobs": 21}),
        ] {
            assert_eq!(param(wrong).as_deref(), Some("top_logprobs"));
        }
    }

    #[test]
    fn the_limit_has_two_names() {
        let limit = |more| read(more).map(|read| read.settings.limits.max_tokens);
        assert_eq!(limit(json!({})), Ok(None));
        assert_eq!(limit(json!({"max_tokens": 5})), Ok(Some(5)));
        assert_eq!(
            limit(json!({"max_completion_tokens": 6, "max_tokens": 6})),
            Ok(Some(6))
        );
        assert!(limit(json!({"max_completion_tokens": 6, "max_tokens": 7})).is_err());
    }

    #[test]
    fn the_template_sees_tools_and_what_it_is_told() {
        let tools = json!([{"type": "function", "function": {"name": "f"}}]);
        let told = json!({"tools": tools, "chat_template_kwargs": {"enable_thinking": false}});
        let request = read(told).expect("a request");
        assert_eq!(request.variables["tools"], tools);
        assert_eq!(request.variables["enable_thinking"], false);
        let hidden = read(json!({"tools": tools, "tool_choice": "none"})).expect("a request");
        assert!(hidden.variables.is_empty());
        let called = |choice: Value| {
            let request = read(json!({"tools": tools, "tool_choice": choice}));
            request.expect("a request").tools.are_parallel
        };
        // As OpenAI says: one or more calls where some are required, and one of a function that is named.
        let named = json!({"type": "function", "function": {"name": "f"}});
        assert!(called(json!("required")) && !called(named));
        for wrong in [
            json!({"tool_choice": "required"}),
            json!({"tools": tools, "tool_choice": "any"}),
            json!({"tools": tools, "tool_choice": {"type": "function", "function": {"name": "g"}}}),
        ] {
            assert_eq!(param(wrong).as_deref(), Some("tool_choice"));
        }
        assert_eq!(param(json!({"tools": [{}]})).as_deref(), Some("tools[0]"));
        let twice = json!({"chat_template_kwargs": {"messages": []}});
        assert_eq!(
            param(twice).as_deref(),
            Some("chat_template_kwargs.messages")
        );
    }
}
