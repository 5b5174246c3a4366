//! Requests for the next message, and for the number of tokens that such a request has.

use serde_json::{Map, Value};

use super::content::{read_messages, read_system};
use super::tools::{read_choice, read_tools};
use crate::openai::{ApiError, ChatRequest, Conversation, Fields, Names, Translation};

/// A request for the next message.
#[derive(Debug, Clone)]
pub struct MessagesRequest {
    /// The same as OpenAI's API has it.
    pub chat: ChatRequest,
    names: Names,
}

impl MessagesRequest {
    /// Reads the body of a request to `/v1/messages`.
    ///
    /// # Errors
    /// Whatever in it is wrong or not supported, by the field's name.
    pub fn from_body(body: Value) -> Result<MessagesRequest, ApiError> {
        let (fields, limit) = take_limit(body)?;
        let limit = limit.ok_or_else(|| ApiError::field("max_tokens", "max_tokens is missing"))?;
        let (request, conversation) = read(fields, Some(limit))?;
        if conversation.ends_with_assistant() {
            let message =
                "the last of messages is the assistant's; to continue it is not supported";
            return Err(ApiError::field("messages", message));
        }
        MessagesRequest::new(request, conversation)
    }

    /// Reads the body of a request to `/v1/messages/count_tokens`, which needs no limit and may end with any message.
    ///
    /// # Errors
    /// As [`from_body`](Self::from_body).
    pub fn to_count(body: Value) -> Result<MessagesRequest, ApiError> {
        let (fields, limit) = take_limit(body)?;
        let (request, conversation) = read(fields, limit)?;
        MessagesRequest::new(request, conversation)
    }

    fn new(
        translation: Translation,
        conversation: Conversation,
    ) -> Result<MessagesRequest, ApiError> {
        let (chat, names) = translation.read(conversation)?;
        Ok(MessagesRequest { chat, names })
    }

    /// `error`, which came up in the conversation's request, in the words of this API.
    pub fn error(&self, error: ApiError) -> ApiError {
        self.names.restore(error)
    }
}

fn take_limit(body: Value) -> Result<(Fields, Option<i128>), ApiError> {
    let mut fields = Fields::new(body, "the body", String::new())?;
    fields.refuse_elsewhere("/v1/messages", "messages")?;
    let range = 0..=i128::from(u32::MAX);
    let limit = fields.take_within("max_tokens", range, "a number of tokens, 0 or more")?;
    Ok((fields, limit))
}

fn read(mut fields: Fields, limit: Option<i128>) -> Result<(Translation, Conversation), ApiError> {
    let mut request = Translation::new(&mut fields)?;
    if let Some(temperature) = request.get("temperature") {
        let number = temperature.as_f64();
        if !number.is_some_and(|number| (0.0..=1.0).contains(&number)) {
            return Err(fields.wrong("temperature", temperature, "a number from 0 to 1"));
        }
    }
    if let Some(limit) = limit {
        request.set("max_tokens", limit as u64, "max_tokens");
    }
    if let Some(stops) = fields.take::<Vec<Value>>("stop_sequences")? {
        request.set("stop", stops, "stop_sequences");
    }
    take_thinking(&mut fields, &mut request)?;
    take_output(&mut fields, &mut request)?;
    read_tools(&mut fields, &mut request)?;
    read_choice(&mut fields, &mut request)?;
    let mut conversation = Conversation::default();
    read_system(&mut fields, &mut conversation)?;
    read_messages(&mut fields, &mut conversation)?;
    take_without_effect(&mut fields)?;
    fields.finish()?;
    Ok((request, conversation))
}

/// Whether the model thinks, as far as its template can be told. A budget is a bound that `max_tokens` keeps as well;
/// it is checked and bounds nothing by itself.
fn take_thinking(fields: &mut Fields, request: &mut Translation) -> Result<(), ApiError> {
    let Some(mut thinking) = fields.take_fields("thinking")? else {
        return Ok(());
    };
    let kind = thinking.take_word("type", &["enabled", "disabled", "adaptive"])?;
    let Some(kind) = kind else {
        return Err(thinking.wrong("type", &Value::Null, "enabled, disabled or adaptive"));
    };
    if kind == "enabled" {
        let range = 1..=i128::from(u32::MAX);
        thinking.take_within("budget_tokens", range, "a number of tokens, 1 or more")?;
    }
    thinking.take_word("display", &["summarized"])?;
    thinking.finish()?;
    match kind.as_str() {
        // The template's own way.
        "adaptive" => Ok(()),
        kind => request.tell("enable_thinking", (kind == "enabled").into(), "thinking"),
    }
}

fn take_output(fields: &mut Fields, request: &mut Translation) -> Result<(), ApiError> {
    const EFFORTS: [&str; 5] = ["low", "medium", "high", "xhigh", "max"];
    let Some(mut output) = fields.take_fields("output_config")? else {
        return Ok(());
    };
    if let Some(effort) = output.take_word("effort", &EFFORTS)? {
        request.tell("reasoning_effort", effort.into(), "output_config.effort")?;
    }
    if let Some(mut format) = output.take_fields("format")? {
        format.take_word("type", &["json_schema"])?;
        let schema = format.require::<Map<String, Value>>("schema")?;
        format.finish()?;
        let schema = serde_json::json!({"name": "output", "schema": schema});
        let format = serde_json::json!({"type": "json_schema", "json_schema": schema});
        request.set("response_format", format, "output_config.format");
        request.rename(
            "response_format.json_schema.schema",
            "output_config.format.schema",
        );
    }
    output.finish()
}

/// What changes nothing of an answer: names for Anthropic's bookkeeping, and marks of what to cache, where all is
/// cached that can be.
fn take_without_effect(fields: &mut Fields) -> Result<(), ApiError> {
    fields.take::<Map<String, Value>>("metadata")?;
    fields.take::<Map<String, Value>>("cache_control")?;
    fields.take_word("service_tier", &["auto", "standard_only"])?;
    fields.take_word("speed", &["standard"])?;
    if let Some(mut management) = fields.take_fields("context_management")? {
        let edits = management.take::<Vec<Value>>("edits")?.unwrap_or_default();
        for (index, edit) in edits.into_iter().enumerate() {
            let name = format!("context_management.edits[{index}]");
            // To keep all thinking is what happens anyway.
            if edit["keep"] != "all" {
                let message = format!("{name} is not supported unless it keeps all");
                return Err(ApiError::field(&name, message));
            }
        }
        management.finish()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::openai::samples::any_json;

    /// A request with the fields of `more`.
    fn body(more: Value) -> Value {
        let mut body = json!({
            "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}],
        });
        for (name, value) in more.as_object().expect("an object") {
            body[name] = value.clone();
        }
        body
    }

    fn read(more: Value) -> Result<MessagesRequest, ApiError> {
        MessagesRequest::from_body(body(more))
    }

    #[test]
    fn settings_are_those_of_a_conversation() {
        let request = read(json!({
            "model": "m", "temperature": 0.5, "top_p": 0.9, "top_k": 3, "stop_sequences": ["a", "b"],
            "stream": true, "seed": 7, "metadata": {"user_id": "u"}, "service_tier": "auto",
            "cache_control": {"type": "ephemeral"}, "thinking": {"type": "disabled"},
        }));
        let request = request.expect("a request").chat;
        assert_eq!(request.settings.model.as_deref(), Some("m"));
        assert_eq!(request.settings.limits.max_tokens, Some(9));
        assert_eq!(request.settings.limits.stop, ["a", "b"]);
        assert_eq!(request.settings.sampling.draw.top_k, 3);
        assert_eq!(request.settings.sampling.draw.temperature, 0.5);
        assert_eq!(request.settings.seed, Some(7));
        assert!(request.settings.stream);
        assert_eq!(request.variables["enable_thinking"], false);
    }

    #[test]
    fn thinking_is_told_to_the_template() {
        let told = |thinking| {
            let request = read(json!({ "thinking": thinking })).expect("a request");
            request.chat.variables.get("enable_thinking").cloned()
        };
        let enabled = json!({"type": "enabled", "budget_tokens": 1024});
        assert_eq!(told(enabled), Some(json!(true)));
        assert_eq!(told(json!({"type": "disabled"})), Some(json!(false)));
        assert_eq!(told(json!({"type": "adaptive"})), None);
        let effort = read(json!({"output_config": {"effort": "low"}})).expect("a request");
        assert_eq!(effort.chat.variables["reasoning_effort"], "low");
    }

    #[test]
    fn what_is_wrong_or_not_done_is_named() {
        for (more, param) in [
            (json!({"max_tokens": null}), "max_tokens"),
            (json!({"max_tokens": -1}), "max_tokens"),
            (json!({"temperature": 1.5}), "temperature"),
            (json!({"temperature": "hot"}), "temperature"),
            (json!({"top_k": -7}), "top_k"),
            (json!({"stop_sequences": "a"}), "stop_sequences"),
            (json!({"stop_sequences": [1]}), "stop_sequences[0]"),
            (json!({"stop_sequences": vec!["a"; 65]}), "stop_sequences"),
            (json!({"stop": ["a"]}), "stop"),
            (json!({"thinking": {}}), "thinking.type"),
            (
                json!({"thinking": {"type": "between_tools"}}),
                "thinking.type",
            ),
            (
                json!({"thinking": {"type": "enabled", "budget_tokens": 0}}),
                "thinking.budget_tokens",
            ),
            (
                json!({"thinking": {"type": "adaptive", "display": "omitted"}}),
                "thinking.display",
            ),
            (
                json!({"output_config": {"format": {"type": "json_schema"}}}),
                "output_config.format.schema",
            ),
            (json!({"container": "c"}), "container"),
            (json!({"mcp_servers": [{}]}), "mcp_servers"),
            (json!({"speed": "fast"}), "speed"),
            (
                json!({"context_management": {"edits": [{"type": "clear_tool_uses"}]}}),
                "context_management.edits[0]",
            ),
            (json!({"unheard_of": 1}), "unheard_of"),
            (
                json!({"messages": [{"role": "assistant", "content": "and"}]}),
                "messages",
            ),
            (json!({"messages": []}), "messages"),
        ] {
            let error = read(more.clone()).expect_err(param);
            assert_eq!(error.param.as_deref(), Some(param), "{more}: {error}");
            assert_eq!(error.status, 400);
            let name = param.split(['.', '[']).next().unwrap_or(param);
            assert!(error.message.contains(name), "{error}");
        }
        for neutral in [
            json!({"container": null, "mcp_servers": [], "unheard_of": false}),
            json!({"context_management": {"edits": [{"type": "clear_thinking", "keep": "all"}]}}),
        ] {
            assert!(read(neutral).is_ok());
        }
    }

    #[test]
    fn counting_needs_no_limit() {
        let body = json!({"messages": [
            {"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"},
        ]});
        let request = MessagesRequest::to_count(body.clone()).expect("a request");
        assert_eq!(request.chat.messages.len(), 2);
        assert!(MessagesRequest::from_body(body).is_err());
    }

    #[test]
    fn later_errors_are_told_in_the_words_of_this_api() {
        let request = read(json!({})).expect("a request");
        let error = request.error(ApiError::field("stop", "stop is long"));
        assert_eq!(error.message, "stop is long");
        let request = read(json!({"stop_sequences": ["a"]})).expect("a request");
        let error = request.error(ApiError::field("stop", "stop is long"));
        assert_eq!(error.message, "stop_sequences is long");
    }

    const WORDS: &str =
        "text|user|assistant|system|tool_use|tool_result|thinking|enabled|auto|any|tool|.{0,60}";
    const NAMES: &str = "type|role|content|text|thinking|signature|id|name|input|tool_use_id|is_error|\
            input_schema|description|budget_tokens|cache_control|[a-z]{1,3}";

    proptest! {
        /// Whatever a body holds, it is a request or an error that says what is wrong.
        #[test]
        fn odd_bodies_are_read_or_refused(
            fields in prop::collection::vec(
                ("messages|system|tools|tool_choice|thinking|max_tokens|output_config", any_json(WORDS, NAMES)),
                0..6,
            ),
        ) {
            let mut body = body(json!({}));
            for (name, value) in fields {
                body[name] = value;
            }
            for read in [MessagesRequest::from_body, MessagesRequest::to_count] {
                if let Err(error) = read(body.clone()) {
                    prop_assert_eq!(error.status, 400);
                    prop_assert!(!error.message.is_empty() && error.message.len() < 1000);
                }
            }
        }
    }
}
