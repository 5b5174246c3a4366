//! What a response is asked for: a text, or the items of a conversation.

use serde_json::Value;

use crate::openai::{ApiError, Conversation, Fields};

/// Takes the input.
pub fn read_input(fields: &mut Fields, conversation: &mut Conversation) -> Result<(), ApiError> {
    let items = match fields.require::<Value>("input")? {
        Value::String(text) => {
            conversation.user("input", vec![text]);
            return Ok(());
        }
        Value::Array(items) if items.is_empty() => {
            return Err(ApiError::field("input", "input is empty"));
        }
        Value::Array(items) => items,
        other => return Err(fields.wrong("input", &other, "a string, or a list of items")),
    };
    for (index, item) in items.into_iter().enumerate() {
        let what = format!("input[{index}]");
        let item = Fields::new(item, &what, format!("{what}."))?;
        read_item(item, &what, conversation)?;
    }
    // Thoughts without a text are none.
    match conversation.is_empty() {
        true => Err(ApiError::field("input", "input has no message")),
        false => Ok(()),
    }
}

fn read_item(
    mut item: Fields,
    what: &str,
    conversation: &mut Conversation,
) -> Result<(), ApiError> {
    const KINDS: [&str; 4] = [
        "message",
        "function_call",
        "function_call_output",
        "reasoning",
    ];
    // Where an item was one of a response, it has a name and says how far it got.
    item.take::<String>("id")?;
    item.take_word("status", &["completed", "incomplete", "in_progress"])?;
    // Messages need not say that they are.
    let kind = item.take_word("type", &KINDS)?;
    match kind.as_deref() {
        None | Some("message") => read_message(&mut item, what, conversation)?,
        Some("function_call") => {
            let id = item.require::<String>("call_id")?;
            let name = item.require::<String>("name")?;
            let arguments = item.require::<String>("arguments")?;
            conversation.call(what, &id, &name, &arguments);
        }
        Some("function_call_output") => {
            let id = item.require::<String>("call_id")?;
            let texts = take_texts(&mut item, "output", &["input_text"])?;
            conversation.result(what, id, texts);
        }
        Some(_) => {
            let summary = take_parts(&mut item, "summary", &["summary_text"])?.unwrap_or_default();
            let content = take_parts(&mut item, "content", &["reasoning_text"])?;
            // Nobody here can have encrypted it.
            item.take::<Value>("encrypted_content")?;
            let texts = content.filter(|texts| !texts.is_empty()).unwrap_or(summary);
            for text in texts {
                conversation.think(what, text);
            }
        }
    }
    item.finish()
}

fn read_message(
    item: &mut Fields,
    what: &str,
    conversation: &mut Conversation,
) -> Result<(), ApiError> {
    let role = item.take_word("role", &["user", "assistant", "system", "developer"])?;
    // Which part of an answer it was.
    item.take_word("phase", &["commentary", "final_answer"])?;
    match role.as_deref() {
        Some("user") => {
            let texts = take_texts(item, "content", &["input_text"])?;
            conversation.user(what, texts);
        }
        Some("assistant") => {
            for text in take_texts(item, "content", &["output_text", "input_text"])? {
                conversation.say(what, text);
            }
        }
        Some(_) => {
            let texts = take_texts(item, "content", &["input_text"])?;
            conversation.system(what, texts);
        }
        None => {
            let name = item.name("role");
            return Err(ApiError::field(&name, format!("{name} is missing")));
        }
    }
    Ok(())
}

/// A text, or parts that are texts.
fn take_texts(item: &mut Fields, name: &str, kinds: &[&str]) -> Result<Vec<String>, ApiError> {
    match item.require::<Value>(name)? {
        Value::String(text) => Ok(vec![text]),
        Value::Array(parts) => read_parts(parts, &item.name(name), kinds),
        other => Err(item.wrong(name, &other, "a string, or a list of text parts")),
    }
}

/// Parts that are texts.
fn take_parts(
    item: &mut Fields,
    name: &str,
    kinds: &[&str],
) -> Result<Option<Vec<String>>, ApiError> {
    let parts = item.take::<Vec<Value>>(name)?;
    let place = item.name(name);
    parts
        .map(|parts| read_parts(parts, &place, kinds))
        .transpose()
}

fn read_parts(parts: Vec<Value>, place: &str, kinds: &[&str]) -> Result<Vec<String>, ApiError> {
    let parts = parts.into_iter().enumerate();
    let texts = parts.map(|(index, part)| {
        let what = format!("{place}[{index}]");
        let mut part = Fields::new(part, &what, format!("{what}."))?;
        if part.take_word("type", kinds)?.is_none() {
            let name = part.name("type");
            return Err(ApiError::field(&name, format!("{name} is missing")));
        }
        let text = part.require::<String>("text")?;
        // What responses have beside their texts, and tells nothing new.
        part.take::<Vec<Value>>("annotations")?;
        part.take::<Vec<Value>>("logprobs")?;
        part.finish()?;
        Ok(text)
    });
    texts.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::openai::responses::ResponsesRequest;

    fn messages(input: Value) -> Result<Vec<Value>, ApiError> {
        let request = ResponsesRequest::from_body(json!({ "input": input }))?;
        Ok(request.chat.messages)
    }

    #[test]
    fn items_become_messages_of_the_conversation() {
        let read = messages(json!([
            {"role": "developer", "content": "be kind"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "weather?"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": null,
             "content": [{"type": "reasoning_text", "text": "hm"}]},
            {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [
                {"type": "output_text", "text": "I look.", "annotations": [], "logprobs": []}]},
            {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "get",
             "arguments": "{\"at\": \"sea\"}", "status": "completed"},
            {"type": "function_call_output", "call_id": "c1", "output": "wet"},
            {"role": "user", "content": "and?"},
            {"role": "user", "content": "well?"},
        ]));
        let read = read.expect("messages");
        let expected = [
            json!({"role": "system", "content": "be kind"}),
            json!({"role": "user", "content": "weather?"}),
            json!({"role": "assistant", "content": "I look.", "reasoning_content": "hm"}),
            json!({"role": "tool", "content": "wet", "tool_call_id": "c1"}),
            json!({"role": "user", "content": "and?"}),
            json!({"role": "user", "content": "well?"}),
        ];
        assert_eq!(read.len(), expected.len());
        for (read, expected) in read.iter().zip(&expected) {
            for (name, value) in expected.as_object().expect("an object") {
                assert_eq!(read[name], *value);
            }
        }
        let call = &read[2]["tool_calls"][0];
        assert_eq!(call["id"], "c1");
        assert_eq!(call["function"]["arguments"], json!({"at": "sea"}));
    }

    #[test]
    fn a_summary_stands_for_the_reasoning() {
        let read = messages(json!([
            {"role": "user", "content": "hi"},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
        ]));
        assert_eq!(read.expect("messages")[1]["reasoning_content"], "hm");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let image = json!({"type": "input_image", "image_url": "x"});
        for (item, param) in [
            (json!("hi"), "input[0]"),
            (json!({"content": "x"}), "input[0].role"),
            (json!({"role": "tool", "content": "x"}), "input[0].role"),
            (json!({"role": "user"}), "input[0].content"),
            (json!({"role": "user", "content": 5}), "input[0].content"),
            (
                json!({"role": "user", "content": [image]}),
                "input[0].content[0].type",
            ),
            (
                json!({"role": "user", "content": [{"type": "input_text"}]}),
                "input[0].content[0].text",
            ),
            (
                json!({"role": "user", "content": "x", "name": "Ann"}),
                "input[0].name",
            ),
            (
                json!({"type": "item_reference", "id": "msg_1"}),
                "input[0].type",
            ),
            (
                json!({"type": "function_call", "call_id": "c", "name": "f"}),
                "input[0].arguments",
            ),
            (
                json!({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{"}),
                "input[0].arguments",
            ),
            (
                json!({"type": "function_call_output", "output": "x"}),
                "input[0].call_id",
            ),
        ] {
            let error = messages(json!([item])).expect_err(param);
            assert_eq!(error.param.as_deref(), Some(param), "{error}");
        }
    }
}
