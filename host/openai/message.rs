//! Messages of a conversation, brought into the form that chat templates read.

use serde_json::{Map, Value};

use super::ApiError;
use super::fields::Fields;

/// Reads all messages.
pub fn read_messages(messages: Vec<Value>) -> Result<Vec<Value>, ApiError> {
    if messages.is_empty() {
        return Err(ApiError::field("messages", "messages is empty"));
    }
    let messages = messages.into_iter().enumerate();
    messages
        .map(|(index, message)| read_message(index, message))
        .collect()
}

fn read_message(index: usize, message: Value) -> Result<Value, ApiError> {
    let what = format!("messages[{index}]");
    let mut fields = Fields::new(message, &what, format!("{what}."))?;
    let role = take_role(&mut fields, &what)?;
    let tool_calls = take_tool_calls(&mut fields, &what)?;
    let content = take_content(&mut fields)?;
    let content = match content {
        Some(content) => content,
        // An assistant may have called tools without a word, or have nothing said yet.
        None if role == "assistant" => String::new(),
        None => {
            let name = fields.name("content");
            return Err(ApiError::field(&name, format!("{name} is missing")));
        }
    };
    let mut read = Map::new();
    read.insert("role".to_owned(), role.into());
    read.insert("content".to_owned(), content.into());
    for name in ["name", "tool_call_id"] {
        if let Some(text) = fields.take::<String>(name)? {
            read.insert(name.to_owned(), text.into());
        }
    }
    // Two names for one thing, of which templates read the first.
    if let Some(reasoning) = fields.take_any::<String>(&["reasoning_content", "reasoning"])? {
        read.insert("reasoning_content".to_owned(), reasoning.into());
    }
    if !tool_calls.is_empty() {
        read.insert("tool_calls".to_owned(), tool_calls.into());
    }
    fields.finish()?;
    Ok(Value::Object(read))
}

/// The role under the name that templates know.
fn take_role(fields: &mut Fields, what: &str) -> Result<String, ApiError> {
    let Some(role) = fields.take::<String>("role")? else {
        let name = fields.name("role");
        return Err(ApiError::field(&name, format!("{what} has no role")));
    };
    match role.as_str() {
        "system" | "user" | "assistant" | "tool" => Ok(role),
        "developer" => Ok("system".to_owned()),
        _ => Err(fields.wrong(
            "role",
            &Value::String(role),
            "system, developer, user, assistant or tool",
        )),
    }
}

/// A text, or a list of parts that are texts, which become lines.
fn take_content(fields: &mut Fields) -> Result<Option<String>, ApiError> {
    let parts = match fields.take::<Value>("content")? {
        None => return Ok(None),
        Some(Value::String(text)) => return Ok(Some(text)),
        Some(Value::Array(parts)) => parts,
        Some(other) => {
            return Err(fields.wrong("content", &other, "a string, or a list of text parts"));
        }
    };
    let content = fields.name("content");
    let texts = parts.into_iter().enumerate().map(|(index, part)| {
        let what = format!("{content}[{index}]");
        let mut part = Fields::new(part, &what, format!("{what}."))?;
        match part.take::<String>("type")?.as_deref() {
            Some("text") => {}
            other => {
                let other = other.map_or(Value::Null, Value::from);
                return Err(part.wrong("type", &other, "\"text\", the one kind that is supported"));
            }
        }
        let text = part.take::<String>("text")?;
        let name = part.name("text");
        part.finish()?;
        text.ok_or_else(|| ApiError::field(&name, format!("{name} is missing")))
    });
    let texts: Vec<String> = texts.collect::<Result<_, ApiError>>()?;
    Ok(Some(texts.join("\n")))
}

/// Calls of tools in earlier answers. Templates write the arguments as JSON themselves, so that the string which the
/// API has for them becomes an object.
fn take_tool_calls(fields: &mut Fields, what: &str) -> Result<Vec<Value>, ApiError> {
    let mut calls = fields.take::<Vec<Value>>("tool_calls")?.unwrap_or_default();
    for (index, call) in calls.iter_mut().enumerate() {
        let name = format!("{what}.tool_calls[{index}]");
        let function = call.get_mut("function").and_then(Value::as_object_mut);
        let function =
            function.filter(|function| function.get("name").is_some_and(Value::is_string));
        let Some(function) = function else {
            let message = format!("{name}.function has no name");
            return Err(ApiError::field(&name, message));
        };
        let arguments = function.get("arguments").unwrap_or(&Value::Null);
        let parsed = match arguments {
            Value::Null => Value::Object(Map::new()),
            Value::String(text) if text.trim().is_empty() => Value::Object(Map::new()),
            Value::String(text) => serde_json::from_str(text).unwrap_or(Value::Null),
            other => other.clone(),
        };
        if !parsed.is_object() {
            let name = format!("{name}.function.arguments");
            return Err(super::fields::wrong(
                &name,
                arguments,
                "a JSON object in a string",
            ));
        }
        function.insert("arguments".to_owned(), parsed);
    }
    Ok(calls)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(messages: Value) -> Result<Vec<Value>, ApiError> {
        read_messages(messages.as_array().expect("a list").clone())
    }

    #[test]
    fn parts_become_lines_and_developers_the_system() {
        let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
        let read = read(json!([
            {"role": "developer", "content": "be kind"},
            {"role": "user", "content": parts, "name": "Ann"},
        ]));
        let expected = vec![
            json!({"role": "system", "content": "be kind"}),
            json!({"role": "user", "content": "a\nb", "name": "Ann"}),
        ];
        assert_eq!(read, Ok(expected));
    }

    #[test]
    fn arguments_of_calls_become_objects() {
        let call = |arguments: Value| {
            json!([{"role": "assistant", "content": null, "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
            ]}])
        };
        for (given, expected) in [
            (json!("{\"a\": 1}"), json!({"a": 1})),
            (json!({"a": 1}), json!({"a": 1})),
            (json!(""), json!({})),
        ] {
            let read = read(call(given)).expect("a call");
            assert_eq!(read[0]["content"], "");
            assert_eq!(read[0]["tool_calls"][0]["function"]["arguments"], expected);
        }
        let error = read(call(json!("{"))).expect_err("no JSON");
        assert_eq!(
            error.param.as_deref(),
            Some("messages[0].tool_calls[0].function.arguments")
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (message, param) in [
            (json!("hi"), "messages[0]"),
            (json!({"content": "x"}), "messages[0].role"),
            (
                json!({"role": "wizard", "content": "x"}),
                "messages[0].role",
            ),
            (json!({"role": "user"}), "messages[0].content"),
            (json!({"role": "user", "content": 5}), "messages[0].content"),
            (
                json!({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}),
                "messages[0].content[0].type",
            ),
            (
                json!({"role": "user", "content": [{"type": "text"}]}),
                "messages[0].content[0].text",
            ),
            (
                json!({"role": "user", "content": "x", "audio": {"id": "1"}}),
                "messages[0].audio",
            ),
            (
                json!({"role": "assistant", "tool_calls": [{}]}),
                "messages[0].tool_calls[0]",
            ),
        ] {
            let error = read(json!([message])).expect_err(param);
            assert_eq!(error.param.as_deref(), Some(param), "{error}");
        }
        assert!(read(json!([])).is_err());
    }
}
