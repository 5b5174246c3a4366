//! Renders chat templates for `tests/tools/compare_templates.py`: reads JSON objects from standard
//! input, one a line, with `template`, `messages`, `variables`, `bos`, `eos` and
//! `add_generation_prompt`, and writes one with `text` or `error` for each.

use std::io::{BufRead, Write};

use hyperion::chat::{ChatError, ChatTemplate};
use serde_json::{Value, json};

fn main() -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line?)?;
        let answer = match render(&request) {
            Ok(text) => json!({ "text": text }),
            Err(error) => json!({ "error": error.to_string() }),
        };
        writeln!(out, "{answer}")?;
    }
    Ok(())
}

fn render(request: &Value) -> Result<String, ChatError> {
    let text = |key: &str| request[key].as_str().unwrap_or_default();
    let template = ChatTemplate::new(Some(text("template")), text("bos"), text("eos"))?;
    let messages = request["messages"].as_array().cloned().unwrap_or_default();
    let variables = request["variables"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    let generate = request["add_generation_prompt"] == true;
    template.render(&messages, generate, &variables)
}
