//! Tools for models whose templates have no place for them: told in the system's message, as text.

use serde_json::{Value, json};

use super::ToolFormat;

/// `messages` with the `tools` described in the system's message, and with earlier calls and results as texts.
pub fn described(messages: &[Value], tools: &[Value], format: ToolFormat) -> Vec<Value> {
    let description = description(tools, format);
    let mut messages: Vec<Value> = messages
        .iter()
        .map(|message| as_text(message, format))
        .collect();
    match messages.first_mut() {
        Some(first) if first["role"] == "system" => {
            let content = first["content"].as_str().unwrap_or_default();
            first["content"] = format!("{content}\n\n{description}").into();
        }
        _ => messages.insert(0, json!({"role": "system", "content": description})),
    }
    messages
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
