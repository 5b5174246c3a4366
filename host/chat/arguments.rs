//! Arguments of earlier calls: most templates write the object that they are given as JSON, some expect its text.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::{ChatTemplate, Variables};

/// A name that a rendering shows where it has the arguments as JSON, or as parameters.
const NEEDLE: &str = "needle";

impl ChatTemplate {
    /// `messages`, whose calls have objects as arguments, with these in the form that the template writes.
    pub fn with_arguments<'m>(&self, messages: &'m [Value]) -> Cow<'m, [Value]> {
        let has_calls = |message: &Value| message["tool_calls"].is_array();
        if !messages.iter().any(has_calls) || !self.wants_text() {
            return Cow::Borrowed(messages);
        }
        let mut messages = messages.to_vec();
        for message in &mut messages {
            let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
            for call in calls.into_iter().flatten() {
                let arguments = call.pointer_mut("/function/arguments");
                if let Some(arguments) = arguments.filter(|arguments| arguments.is_object()) {
                    *arguments = arguments.to_string().into();
                }
            }
        }
        Cow::Owned(messages)
    }

    /// Whether the template shows arguments as they are meant where they are a text, and otherwise does not.
    fn wants_text(&self) -> bool {
        let object = json!({ NEEDLE: "x" });
        !self.shows(object.clone()) && self.shows(object.to_string().into())
    }

    /// Whether a call with `arguments` is shown with their name in double quotes, or as that of a parameter.
    fn shows(&self, arguments: Value) -> bool {
        let messages = [
            json!({"role": "user", "content": "x"}),
            json!({"role": "assistant", "content": "", "tool_calls": [{
                "id": "call00000",
                "type": "function",
                "function": {"name": "f", "arguments": arguments},
            }]}),
        ];
        let shown = [
            format!("\"{NEEDLE}\""),
            format!("={NEEDLE}>"),
            format!("{NEEDLE}:"),
        ];
        let text = self.render(&messages, false, &Variables::new());
        text.is_ok_and(|text| shown.iter().any(|shown| text.contains(shown)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_have_the_form_that_the_template_writes() {
        let template = |arguments: &str| {
            let source = format!(
                "{{% for m in messages %}}{{% for c in m.tool_calls or [] %}}{arguments}{{% endfor %}}{{% endfor %}}"
            );
            ChatTemplate::new(Some(&source), "", "").expect("a template")
        };
        let messages = [json!({"role": "assistant", "content": "", "tool_calls": [
            {"function": {"name": "f", "arguments": {"a": [1]}}}
        ]})];
        for (source, expected) in [
            ("{{ c.function.arguments | tojson }}", "{\"a\": [1]}"),
            ("{{ c.function.arguments }}", "{\"a\":[1]}"),
            ("{{ '<' + c.function.arguments + '>' }}", "<{\"a\":[1]}>"),
            (
                "{% for k, v in c.function.arguments.items() %}<p={{ k }}>{{ v }}{% endfor %}",
                "<p=a>[1]",
            ),
        ] {
            let template = template(source);
            let messages = template.with_arguments(&messages);
            let text = template.render(&messages, false, &Variables::new());
            assert_eq!(text.expect("a text"), expected, "{source}");
        }
    }
}
