//! Earlier thoughts as templates lay them out: most read them from a field of the message, Mistral's from a part of its
//! content.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::{ChatTemplate, Variables};

/// The field of a message that has its thoughts.
const FIELD: &str = "reasoning_content";

/// Thoughts that a rendering shows where it lays them out.
const NEEDLE: &str = "needle";

impl ChatTemplate {
    /// `messages` with thoughts, which are in a field, where the template looks for them.
    pub fn with_thoughts<'m>(&self, messages: Cow<'m, [Value]>) -> Cow<'m, [Value]> {
        let has_thoughts =
            |message: &Value| message["role"] == "assistant" && message[FIELD].is_string();
        if !messages.iter().any(has_thoughts) || !self.wants_parts() {
            return messages;
        }
        let mut messages = messages.into_owned();
        for message in messages.iter_mut().filter(|message| has_thoughts(message)) {
            let Some(thoughts) = message.as_object_mut().and_then(|m| m.remove(FIELD)) else {
                continue;
            };
            let mut parts = vec![json!({"type": "thinking", "thinking": thoughts})];
            match &message["content"] {
                Value::String(text) if text.is_empty() => {}
                Value::Array(given) => parts.extend(given.iter().cloned()),
                text => parts.push(json!({"type": "text", "text": text})),
            }
            message["content"] = parts.into();
        }
        Cow::Owned(messages)
    }

    /// Whether the template shows thoughts that are a part of a message's content, and no others.
    fn wants_parts(&self) -> bool {
        let in_field = json!({"role": "assistant", "content": "x", FIELD: NEEDLE});
        let parts = [
            json!({"type": "thinking", "thinking": NEEDLE}),
            json!({"type": "text", "text": "x"}),
        ];
        let in_part = json!({"role": "assistant", "content": parts});
        !self.shows_thoughts_of(in_field) && self.shows_thoughts_of(in_part)
    }

    fn shows_thoughts_of(&self, answer: Value) -> bool {
        let Some(tags) = self.thinking else {
            return false;
        };
        let question = json!({"role": "user", "content": "x"});
        let messages = [question.clone(), answer, question];
        let text = self.render(&messages, false, &Variables::new());
        text.is_ok_and(|text| text.contains(&[tags.open, NEEDLE, tags.close].concat()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thoughts_are_where_the_template_reads_them() {
        let part = "{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}\
                    {% if p.type == 'thinking' %}{{ '[THINK]' + p.thinking + '[/THINK]' }}{% else %}{{ p.text }}{% endif %}\
                    {% endfor %}{% endif %}";
        let field = "{% if m.role == 'assistant' and m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}";
        let both = "{% if m.role == 'assistant' and m.reasoning_content %}[THINK]{{ m.reasoning_content }}[/THINK]{% endif %}";
        let messages = [
            json!({"role": "user", "content": "Hi", "reasoning_content": "Who else thinks."}),
            json!({"role": "assistant", "content": "Yes.", "reasoning_content": "Hm."}),
            json!({"role": "assistant", "content": "", "reasoning_content": "Oh."}),
            json!({"role": "assistant", "content": "No."}),
        ];
        for (source, expected) in [
            (part, "Hi[THINK]Hm.[/THINK]Yes.[THINK]Oh.[/THINK]No."),
            (field, "Hi<think>Hm.</think>Yes.<think>Oh.</think>No."),
            (
                &[both, part].concat(),
                "Hi[THINK]Hm.[/THINK]Yes.[THINK]Oh.[/THINK]No.",
            ),
            // Python's text of a list is no layout.
            ("{{ m.content }}{# [/THINK] #}", "HiYes.No."),
        ] {
            let source = format!("{{% for m in messages %}}{source}{{% endfor %}}");
            let template = ChatTemplate::new(Some(&source), "", "").expect("a template");
            let messages = template.with_thoughts(Cow::Borrowed(&messages));
            let text = template.render(&messages, false, &Variables::new());
            assert_eq!(text.expect("a text"), expected, "{source}");
        }
    }
}
