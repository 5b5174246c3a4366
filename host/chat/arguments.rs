//! Earlier calls as templates lay them out: in which form, and whether from arguments that are an object, as most
//! expect, or the text of one.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::call_ids::SHORT;
use super::tools::{ToolFormat, format_of};
use super::{ChatTemplate, Variables};

/// A name that a rendering shows where it has the arguments as JSON, or as parameters.
const NEEDLE: &str = "needle";

/// The function of such a call.
const FUNCTION: &str = "haystack";

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

    /// The form of calls in which the model of this template, whose text is `source`, answers.
    pub(super) fn find_tool_format(&self, source: &str) -> Option<ToolFormat> {
        if !self.has_tools {
            return Some(format_of(source));
        }
        // A template may name one form and write another.
        let text = self.with_call(SHORT, json!({ NEEDLE: "x" }));
        let text = text.filter(|text| text.contains(FUNCTION));
        let is_written = |format: &ToolFormat| {
            let marker = format.marker();
            text.as_ref()
                .is_none_or(|text| text.contains(marker.text()))
        };
        ToolFormat::of_template(source).filter(is_written)
    }

    /// A conversation with a call that has the name `id` and `arguments`, where the template takes it.
    pub(super) fn with_call(&self, id: &str, arguments: Value) -> Option<String> {
        let messages = [
            json!({"role": "user", "content": "x"}),
            json!({"role": "assistant", "content": "", "tool_calls": [{
                "id": id,
                "type": "function",
                "function": {"name": FUNCTION, "arguments": arguments},
            }]}),
        ];
        self.render(&messages, false, &Variables::new()).ok()
    }

    /// Whether a call with `arguments` is shown with their name in double quotes, or as that of a parameter.
    fn shows(&self, arguments: Value) -> bool {
        let shown = [
            format!("\"{NEEDLE}\""),
            format!("={NEEDLE}>"),
            format!("{NEEDLE}:"),
        ];
        let text = self.with_call(SHORT, arguments);
        text.is_some_and(|text| shown.iter().any(|shown| text.contains(shown)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_that_is_named_and_not_written_is_none() {
        let format = |call: &str| {
            let source = format!(
                "{{# tools in <tool_call></tool_call> #}}{{% for m in messages %}}{{% for c in m.tool_calls or [] %}}\
                 {call}{{% endfor %}}{{% endfor %}}"
            );
            let template = ChatTemplate::new(Some(&source), "", "").expect("a template");
            template.tool_format()
        };
        let name = "{{ c.function.name }}";
        assert_eq!(format(&format!("<tool_calls>[{name}]")), None);
        assert_eq!(
            format(&format!("<tool_call>{name}")),
            Some(ToolFormat::Hermes)
        );
        // Nothing can be seen of it.
        assert_eq!(format(""), Some(ToolFormat::Hermes));
        assert_eq!(
            format("{{ raise_exception('no') }}"),
            Some(ToolFormat::Hermes)
        );
    }

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
