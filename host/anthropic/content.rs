//! The system's text and the messages, whose content is a text or a list of blocks.

use serde_json::{Map, Value};

use crate::openai::{ApiError, Conversation, Fields};

/// What a coding agent writes at the head of its system text, with a number that differs in each request. It is meant
/// for Anthropic's bookkeeping; in a prompt it would keep all that follows from being found in the cache.
const BILLING: &str = "x-anthropic-billing-header:";

/// Takes the system's text.
pub fn read_system(fields: &mut Fields, conversation: &mut Conversation) -> Result<(), ApiError> {
    let Some(mut texts) = take_texts(fields, "system")? else {
        return Ok(());
    };
    if let Some(first) = texts.first_mut()
        && first.starts_with(BILLING)
    {
        let line = first.find('\n').map_or(first.len(), |end| end + 1);
        first.drain(..line);
        if first.is_empty() {
            texts.remove(0);
        }
    }
    if !texts.is_empty() {
        conversation.system("system", texts);
    }
    Ok(())
}

/// Takes the messages. Neighbours of one role are one message, as Anthropic documents it.
pub fn read_messages(fields: &mut Fields, conversation: &mut Conversation) -> Result<(), ApiError> {
    let messages = fields.require::<Vec<Value>>("messages")?;
    if messages.is_empty() {
        return Err(ApiError::field("messages", "messages is empty"));
    }
    for (index, message) in messages.into_iter().enumerate() {
        let what = format!("messages[{index}]");
        let mut message = Fields::new(message, &what, format!("{what}."))?;
        let role = message.take_word("role", &["user", "assistant", "system"])?;
        let reader = match role.as_deref() {
            Some("user") => user_block,
            Some("assistant") => assistant_block,
            Some(_) => {
                let texts = take_texts(&mut message, "content")?;
                conversation.system(&what, texts.ok_or_else(|| missing(&message, "content"))?);
                message.finish()?;
                continue;
            }
            None => return Err(missing(&message, "role")),
        };
        match message.require::<Value>("content")? {
            Value::String(text) => match role.as_deref() {
                Some("user") => conversation.continue_user(&what, vec![text]),
                _ => conversation.say(&what, text),
            },
            Value::Array(blocks) => {
                for (index, block) in blocks.into_iter().enumerate() {
                    let what = format!("{what}.content[{index}]");
                    let block = Fields::new(block, &what, format!("{what}."))?;
                    reader(block, &what, conversation)?;
                }
            }
            other => return Err(message.wrong("content", &other, "a string, or a list of blocks")),
        }
        message.finish()?;
    }
    if conversation.is_empty() {
        return Err(ApiError::field("messages", "messages have no content"));
    }
    Ok(())
}

fn missing(fields: &Fields, name: &str) -> ApiError {
    let name = fields.name(name);
    ApiError::field(&name, format!("{name} is missing"))
}

fn user_block(
    mut block: Fields,
    what: &str,
    conversation: &mut Conversation,
) -> Result<(), ApiError> {
    match take_type(&mut block, &["text", "tool_result"])?.as_str() {
        "text" => {
            let text = finish_text(block)?;
            conversation.continue_user(what, vec![text]);
        }
        _ => {
            let id = block.require::<String>("tool_use_id")?;
            let mut texts = take_texts(&mut block, "content")?.unwrap_or_default();
            if block.take::<bool>("is_error")? == Some(true) {
                // Templates know of no errors.
                let error = format!("Error: {}", texts.join("\n"));
                texts = vec![error];
            }
            finish_block(block)?;
            conversation.result(what, id, texts);
        }
    }
    Ok(())
}

fn assistant_block(
    mut block: Fields,
    what: &str,
    conversation: &mut Conversation,
) -> Result<(), ApiError> {
    match take_type(&mut block, &["text", "thinking", "tool_use"])?.as_str() {
        "text" => {
            let text = finish_text(block)?;
            conversation.say(what, text);
        }
        "thinking" => {
            let text = block.require::<String>("thinking")?;
            // It proves nothing here: a client may say what it likes.
            block.take::<String>("signature")?;
            finish_block(block)?;
            conversation.think(what, text);
        }
        _ => {
            let id = block.require::<String>("id")?;
            let name = block.require::<String>("name")?;
            let input = block.require::<Map<String, Value>>("input")?;
            if let Some(mut caller) = block.take_fields("caller")? {
                caller.take_word("type", &["direct"])?;
                caller.finish()?;
            }
            finish_block(block)?;
            conversation.call(what, &id, &name, &Value::Object(input).to_string());
        }
    }
    Ok(())
}

/// A text, or blocks that are texts.
fn take_texts(fields: &mut Fields, name: &str) -> Result<Option<Vec<String>>, ApiError> {
    let place = fields.name(name);
    match fields.take::<Value>(name)? {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(vec![text])),
        Some(Value::Array(blocks)) => {
            let texts = blocks.into_iter().enumerate().map(|(index, block)| {
                let what = format!("{place}[{index}]");
                let mut block = Fields::new(block, &what, format!("{what}."))?;
                take_type(&mut block, &["text"])?;
                finish_text(block)
            });
            texts.collect::<Result<_, ApiError>>().map(Some)
        }
        Some(other) => Err(fields.wrong(name, &other, "a string, or a list of text blocks")),
    }
}

fn take_type(block: &mut Fields, kinds: &[&str]) -> Result<String, ApiError> {
    let kind = block.take_word("type", kinds)?;
    kind.ok_or_else(|| missing(block, "type"))
}

fn finish_text(mut block: Fields) -> Result<String, ApiError> {
    let text = block.require::<String>("text")?;
    finish_block(block)?;
    Ok(text)
}

/// Any block may carry a mark of what to cache; all is cached that can be.
fn finish_block(mut block: Fields) -> Result<(), ApiError> {
    block.take::<Map<String, Value>>("cache_control")?;
    block.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::anthropic::MessagesRequest;

    fn messages(body: Value) -> Result<Vec<Value>, ApiError> {
        MessagesRequest::to_count(body).map(|request| request.chat.messages)
    }

    #[test]
    fn blocks_become_messages_of_the_conversation() {
        let read = messages(json!({
            "system": [
                {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
                {"type": "text", "text": "b"},
            ],
            "messages": [
                {"role": "user", "content": "weather?"},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "text", "text": "I look."},
                    {"type": "tool_use", "id": "t1", "name": "get", "input": {"at": "sea"}},
                ]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "wet"}]},
                    {"type": "tool_result", "tool_use_id": "t2", "content": "no", "is_error": true},
                    {"type": "text", "text": "and?"},
                ]},
                {"role": "user", "content": "well?"},
            ],
        }));
        let function = json!({"name": "get", "arguments": {"at": "sea"}});
        let call = json!({"id": "t1", "type": "function", "function": function});
        let expected = [
            json!({"role": "system", "content": "a\nb"}),
            json!({"role": "user", "content": "weather?"}),
            json!({
                "role": "assistant", "content": "I look.", "reasoning_content": "hm", "tool_calls": [call],
            }),
            json!({"role": "tool", "content": "wet", "tool_call_id": "t1"}),
            json!({"role": "tool", "content": "Error: no", "tool_call_id": "t2"}),
            json!({"role": "user", "content": "and?\nwell?"}),
        ];
        let read = read.expect("messages");
        assert_eq!(read.len(), expected.len());
        for (read, expected) in read.iter().zip(&expected) {
            // The order of fields is the reader's.
            for (name, value) in expected.as_object().expect("an object") {
                assert_eq!(read[name], *value);
            }
        }
    }

    #[test]
    fn a_billing_line_at_the_head_is_left_out() {
        let line = "x-anthropic-billing-header: cc_version=1; cch=4f1a2;";
        let system = |system: Value| {
            let body = json!({"system": system, "messages": [{"role": "user", "content": "hi"}]});
            let first = messages(body).expect("messages").remove(0);
            (first["role"] == "system").then(|| first["content"].clone())
        };
        let kind = json!("be kind");
        assert_eq!(
            system(json!(format!("{line}\nbe kind"))),
            Some(kind.clone())
        );
        assert_eq!(system(json!(line)), None);
        let blocks = json!([{"type": "text", "text": line}, {"type": "text", "text": "be kind"}]);
        assert_eq!(system(blocks), Some(kind));
        // Elsewhere it is somebody's text.
        let later = format!("be kind\n{line}");
        assert_eq!(system(json!(later)), Some(json!(later)));
        let said = messages(json!({"messages": [{"role": "user", "content": line}]}));
        assert_eq!(said.expect("messages")[0]["content"], line);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let image = json!({"type": "image", "source": {}});
        for (message, param) in [
            (json!("hi"), "messages[0]"),
            (json!({"content": "x"}), "messages[0].role"),
            (json!({"role": "tool", "content": "x"}), "messages[0].role"),
            (json!({"role": "user"}), "messages[0].content"),
            (json!({"role": "user", "content": 5}), "messages[0].content"),
            (
                json!({"role": "user", "content": [5]}),
                "messages[0].content[0]",
            ),
            (json!({"role": "user", "content": []}), "messages"),
            (
                json!({"role": "user", "content": [image]}),
                "messages[0].content[0].type",
            ),
            (
                json!({"role": "user", "content": [{"type": "tool_use"}]}),
                "messages[0].content[0].type",
            ),
            (
                json!({"role": "user", "content": [{"type": "text"}]}),
                "messages[0].content[0].text",
            ),
            (
                json!({"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "t", "content": [image]},
                ]}),
                "messages[0].content[0].content[0].type",
            ),
            (
                json!({"role": "assistant", "content": [
                    {"type": "tool_use", "id": "t", "name": "f", "input": "{}"},
                ]}),
                "messages[0].content[0].input",
            ),
            (
                json!({"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}]}),
                "messages[0].content[0].type",
            ),
            (
                json!({"role": "user", "content": "x", "name": "Ann"}),
                "messages[0].name",
            ),
        ] {
            let error = messages(json!({"messages": [message]})).expect_err(param);
            assert_eq!(error.param.as_deref(), Some(param), "{error}");
        }
        let system = json!({"system": [image], "messages": []});
        let error = messages(system).expect_err("an image");
        assert_eq!(error.param.as_deref(), Some("system[0].type"));
    }
}
