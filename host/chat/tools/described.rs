//! Tools for models whose templates have no place for them: told in the system's message, as text.

use serde_json::{Value, json};

use super::ToolFormat;

/// `messages` with the `tools` described in the system's message, where there are any, and with earlier calls and
/// results as texts. Results, and what the user says behind them, are one message: such templates want the user and the
/// assistant in turns.
pub fn described(messages: &[Value], tools: &[Value], format: ToolFormat) -> Vec<Value> {
    let mut texts: Vec<Value> = Vec::with_capacity(messages.len() + 1);
    let mut is_behind_result = false;
    for message in messages {
        let text = as_text(message, format);
        let is_result = message["role"] == "tool";
        match texts.last_mut() {
            Some(last) if is_behind_result && text["role"] == "user" => add(last, "\n", &text),
            _ => texts.push(text),
        }
        is_behind_result = is_result;
    }
    if tools.is_empty() {
        return texts;
    }
    let description = json!({"role": "system", "content": description(tools, format)});
    match texts.first_mut() {
        Some(first) if first["role"] == "system" => add(first, "\n\n", &description),
        _ => texts.insert(0, description),
    }
    texts
}

/// Puts `more` behind what `message` says.
fn add(message: &mut Value, between: &str, more: &Value) {
    let [said, more] =
        [&*message, more].map(|message| message["content"].as_str().unwrap_or_default());
    message["content"] = format!("{said}{between}{more}").into();
}

/// The form in which such a model is asked to call.
pub fn format_of(source: &str) -> ToolFormat {
    match source.contains("<start_of_turn>") {
        true => ToolFormat::GemmaFence,
        false => ToolFormat::Hermes,
    }
}

fn description(tools: &[Value], format: ToolFormat) -> String {
    let list: Vec<String> = tools.iter().map(Value::to_string).collect();
    let example = call(format, "NAME", "{\"ARGUMENT\": VALUE}");
    format!(
        "You may call functions to help with what the user asks. These are the functions, each with the JSON schema of \
         its arguments:\n{}\nTo call one, write this and nothing after it:\n{example}",
        list.join("\n")
    )
}

/// A message without fields that the template does not know.
fn as_text(message: &Value, format: ToolFormat) -> Value {
    let content = message["content"].as_str().unwrap_or_default();
    match (message["role"].as_str(), message["tool_calls"].as_array()) {
        (Some("assistant"), Some(calls)) => {
            let calls = calls.iter().map(|one| {
                let function = &one["function"];
                let name = function["name"].as_str().unwrap_or_default();
                call(format, name, &function["arguments"].to_string())
            });
            let said = (!content.is_empty()).then(|| content.to_owned());
            let parts: Vec<String> = said.into_iter().chain(calls).collect();
            json!({"role": "assistant", "content": parts.join("\n")})
        }
        (Some("tool"), _) => {
            let result = match format {
                ToolFormat::GemmaFence => format!("```tool_output\n{content}\n```"),
                _ => format!("<tool_response>\n{content}\n</tool_response>"),
            };
            json!({"role": "user", "content": result})
        }
        _ => message.clone(),
    }
}

fn call(format: ToolFormat, name: &str, arguments: &str) -> String {
    let layout = format.layout();
    [
        layout.marker,
        layout.head,
        name,
        layout.middle,
        arguments,
        layout.tail,
    ]
    .concat()
}
