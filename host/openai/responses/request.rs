//! Requests for a response.

use serde_json::{Map, Value, json};

use super::input::read_input;
use super::text::read_text;
use super::tools::{read_choice, read_tools};
use crate::openai::chat::EFFORTS;
use crate::openai::{ApiError, ChatRequest, Conversation, Fields, Names, Translation};

/// What a response can include besides. The reasoning is always told as it is; the others are of tools that run on
/// OpenAI's servers, and here there are none.
const INCLUDED: [&str; 7] = [
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
];

/// What a response repeats of its request, with the API's defaults for what that did not say.
#[derive(Debug, Clone, Default)]
pub struct Echo(pub(super) Map<String, Value>);

/// A request for a response.
#[derive(Debug, Clone)]
pub struct ResponsesRequest {
    /// The same as a conversation's request.
    pub chat: ChatRequest,
    /// What the response repeats of it.
    pub echo: Echo,
    names: Names,
}

impl ResponsesRequest {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// Whatever in it is wrong or not supported, by the field's name.
    pub fn from_body(body: Value) -> Result<ResponsesRequest, ApiError> {
        let mut fields = Fields::new(body, "the body", String::new())?;
        fields.refuse_elsewhere("/v1/responses", "input")?;
        refuse_memory(&mut fields)?;
        let mut request = Translation::new(&mut fields)?;
        let mut echo = echo(&mut fields, &request)?;
        let range = 1..=i128::from(u32::MAX);
        let expected = "a number of tokens, 1 or more";
        let limit = fields.take_within("max_output_tokens", range, expected)?;
        if let Some(limit) = limit {
            request.set("max_completion_tokens", limit as u64, "max_output_tokens");
        }
        echo.insert(
            "max_output_tokens".to_owned(),
            limit.map(|n| n as u64).into(),
        );
        echo.insert(
            "reasoning".to_owned(),
            take_reasoning(&mut fields, &mut request)?,
        );
        echo.insert("text".to_owned(), read_text(&mut fields, &mut request)?);
        echo.insert("tools".to_owned(), read_tools(&mut fields, &mut request)?);
        let choice = read_choice(&mut fields, &mut request)?;
        echo.insert("tool_choice".to_owned(), choice);
        let parallel = fields.take::<bool>("parallel_tool_calls")?;
        if let Some(parallel) = parallel {
            request.set("parallel_tool_calls", parallel, "parallel_tool_calls");
        }
        echo.insert(
            "parallel_tool_calls".to_owned(),
            parallel.unwrap_or(true).into(),
        );
        let mut conversation = Conversation::default();
        let instructions = fields.take::<String>("instructions")?;
        if let Some(text) = &instructions {
            conversation.system("instructions", vec![text.clone()]);
        }
        echo.insert("instructions".to_owned(), instructions.into());
        read_input(&mut fields, &mut conversation)?;
        take_without_effect(&mut fields)?;
        fields.finish()?;
        let (chat, mut names) = request.read(conversation)?;
        names.add("messages", "input");
        let echo = Echo(echo);
        Ok(ResponsesRequest { chat, echo, names })
    }

    /// `error`, which came up in the conversation's request, in the words of this API.
    pub fn error(&self, error: ApiError) -> ApiError {
        self.names.restore(error)
    }
}

/// Nothing is kept from one request to the next.
fn refuse_memory(fields: &mut Fields) -> Result<(), ApiError> {
    let stateless = |name: &str| ApiError {
        code: Some("unsupported_parameter"),
        ..ApiError::field(
            name,
            format!("{name} is not supported: this server is stateless and keeps no responses"),
        )
    };
    for name in ["previous_response_id", "conversation"] {
        if fields.take::<Value>(name)?.is_some_and(|value| value != "") {
            return Err(stateless(name));
        }
    }
    if fields.take::<bool>("background")? == Some(true) {
        return Err(stateless("background"));
    }
    // True is OpenAI's default and what clients send without a thought. The response says false.
    fields.take::<bool>("store")?;
    Ok(())
}

/// What the response repeats as it was given, or with the API's defaults.
fn echo(fields: &mut Fields, request: &Translation) -> Result<Map<String, Value>, ApiError> {
    let mut echo = Map::new();
    for name in ["temperature", "top_p"] {
        let value = request.get(name).cloned().unwrap_or(json!(1.0));
        echo.insert(name.to_owned(), value);
    }
    let metadata = fields
        .take::<Map<String, Value>>("metadata")?
        .unwrap_or_default();
    for (name, value) in &metadata {
        if !value.is_string() {
            let name: String = name.chars().take(60).collect();
            let metadata = Fields::new(json!({}), "metadata", "metadata.".to_owned())?;
            return Err(metadata.wrong(&name, value, "a string"));
        }
    }
    echo.insert("metadata".to_owned(), metadata.into());
    Ok(echo)
}

/// How much the model thinks, as far as its template can be told.
fn take_reasoning(fields: &mut Fields, request: &mut Translation) -> Result<Value, ApiError> {
    let Some(mut reasoning) = fields.take_fields("reasoning")? else {
        return Ok(json!({"effort": null, "summary": null}));
    };
    let effort = reasoning.take_word("effort", &EFFORTS)?;
    match effort.as_deref() {
        None => {}
        Some("none") => request.tell("enable_thinking", false.into(), "reasoning.effort")?,
        Some(effort) => request.tell("reasoning_effort", effort.into(), "reasoning.effort")?,
    }
    // The reasoning itself is told, which is as good a summary as there is.
    let summary = reasoning.take_word("summary", &["auto"])?;
    reasoning.take_word("generate_summary", &["auto"])?;
    reasoning.take_word("context", &["auto"])?;
    reasoning.take_word("mode", &["standard"])?;
    reasoning.finish()?;
    Ok(json!({"effort": effort, "summary": summary}))
}

fn take_without_effect(fields: &mut Fields) -> Result<(), ApiError> {
    let include = fields.take::<Vec<Value>>("include")?.unwrap_or_default();
    for (index, item) in include.iter().enumerate() {
        let is_known = item.as_str().is_some_and(|item| INCLUDED.contains(&item));
        if !is_known {
            let name = format!("include[{index}]");
            return Err(fields.wrong(&name, item, &INCLUDED.join(", ")));
        }
    }
    let expected = "0: log-probabilities are not part of a response here";
    fields.take_within("top_logprobs", 0..=0, expected)?;
    if let Some(mut options) = fields.take_fields("stream_options")? {
        // OpenAI fills events up, so that nobody can tell texts from their lengths; true is its default.
        options.take::<bool>("include_obfuscation")?;
        options.finish()?;
    }
    // A client's own notes.
    fields.take::<Map<String, Value>>("client_metadata")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::openai::samples::any_json;

    fn read(more: Value) -> Result<ResponsesRequest, ApiError> {
        let mut body = json!({"input": "hi"});
        for (name, value) in more.as_object().expect("an object") {
            body[name] = value.clone();
        }
        ResponsesRequest::from_body(body)
    }

    #[test]
    fn settings_are_those_of_a_conversation() {
        let request = read(json!({
            "model": "m", "temperature": 0.5, "top_p": 0.9, "max_output_tokens": 20, "stream": true,
            "instructions": "be kind", "store": true, "metadata": {"a": "b"}, "seed": 7,
            "include": ["reasoning.encrypted_content"], "parallel_tool_calls": true,
            "reasoning": {"effort": "low", "summary": "auto"}, "truncation": "disabled",
            "text": {"format": {"type": "text"}, "verbosity": "medium"}, "user": "u",
            "prompt_cache_key": "k", "service_tier": "auto", "stream_options": {"include_obfuscation": true},
        }));
        let request = request.expect("a request");
        let settings = &request.chat.settings;
        assert_eq!(settings.model.as_deref(), Some("m"));
        assert_eq!(settings.sampling.draw.temperature, 0.5);
        assert_eq!(settings.limits.max_tokens, Some(20));
        assert_eq!((settings.stream, settings.seed), (true, Some(7)));
        assert_eq!(request.chat.variables["reasoning_effort"], "low");
        let messages = json!([
            {"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"},
        ]);
        assert_eq!(Value::from(request.chat.messages), messages);
        for (name, value) in [
            ("temperature", json!(0.5)),
            ("max_output_tokens", json!(20)),
            ("instructions", json!("be kind")),
            ("metadata", json!({"a": "b"})),
            ("parallel_tool_calls", json!(true)),
            ("reasoning", json!({"effort": "low", "summary": "auto"})),
        ] {
            assert_eq!(request.echo.0[name], value);
        }
        let none = read(json!({"reasoning": {"effort": "none"}})).expect("a request");
        assert_eq!(none.chat.variables["enable_thinking"], false);
    }

    #[test]
    fn what_is_wrong_or_not_done_is_named() {
        for (more, param) in [
            (json!({"input": null}), "input"),
            (json!({"input": []}), "input"),
            (
                json!({"input": [{"type": "reasoning", "summary": []}]}),
                "input",
            ),
            (
                json!({"previous_response_id": "resp_1"}),
                "previous_response_id",
            ),
            (json!({"conversation": {"id": "c"}}), "conversation"),
            (json!({"background": true}), "background"),
            (json!({"store": "no"}), "store"),
            (json!({"max_output_tokens": 0}), "max_output_tokens"),
            (json!({"temperature": -1}), "temperature"),
            (json!({"truncation": "auto"}), "truncation"),
            (
                json!({"include": ["message.output_text.logprobs"]}),
                "include[0]",
            ),
            (json!({"top_logprobs": 2}), "top_logprobs"),
            (json!({"reasoning": {"effort": "huge"}}), "reasoning.effort"),
            (
                json!({"reasoning": {"summary": "detailed"}}),
                "reasoning.summary",
            ),
            (json!({"metadata": {"a": 1}}), "metadata.a"),
            (json!({"max_tool_calls": 3}), "max_tool_calls"),
            (json!({"prompt": {"id": "p"}}), "prompt"),
            (
                json!({"stream_options": {"include_usage": true}}),
                "stream_options.include_usage",
            ),
            (
                json!({"messages": [{"role": "user", "content": "x"}]}),
                "messages",
            ),
            (json!({"unheard_of": 1}), "unheard_of"),
        ] {
            let error = read(more.clone()).expect_err(param);
            assert_eq!(error.param.as_deref(), Some(param), "{more}: {error}");
            assert_eq!(error.status, 400);
        }
        let error = read(json!({"previous_response_id": "resp_1"})).expect_err("a memory");
        assert!(error.message.contains("stateless"), "{error}");
        let neutral = json!({
            "previous_response_id": null, "background": false, "conversation": null, "prompt": null,
            "max_tool_calls": null, "include": [], "top_logprobs": 0, "unheard_of": {},
        });
        assert!(read(neutral).is_ok());
    }

    #[test]
    fn later_errors_are_told_in_the_words_of_this_api() {
        let request = read(json!({})).expect("a request");
        let error = request.error(ApiError::field("messages", "the template refuses"));
        assert_eq!(error.param.as_deref(), Some("input"));
    }

    const WORDS: &str =
        "text|user|assistant|message|function_call|function_call_output|reasoning|none|.{0,60}";
    const NAMES: &str = "type|role|content|text|summary|call_id|name|arguments|output|format|schema|\
            parameters|effort|mode|tools|[a-z]{1,3}";

    proptest! {
        /// Whatever a body holds, it is a request or an error that says what is wrong.
        #[test]
        fn odd_bodies_are_read_or_refused(
            fields in prop::collection::vec(
                ("input|instructions|tools|tool_choice|text|reasoning|include|metadata", any_json(WORDS, NAMES)),
                0..6,
            ),
        ) {
            let mut body = json!({"input": "hi"});
            for (name, value) in fields {
                body[name] = value;
            }
            if let Err(error) = ResponsesRequest::from_body(body) {
                prop_assert_eq!(error.status, 400);
                prop_assert!(!error.message.is_empty() && error.message.len() < 1000);
            }
        }
    }
}
