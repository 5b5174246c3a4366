//! The description of all paths and bodies, in the form of OpenAPI 3.1.

/// The document.
pub const OPENAPI: &str = include_str!("openapi.json");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;
    use crate::anthropic::MessagesRequest;
    use crate::openai::fields::record::taken;
    use crate::openai::responses::ResponsesRequest;
    use crate::openai::{
        ChatRequest, CompletionRequest, DetokenizeRequest, EmbeddingRequest, TemplateRequest,
        TokenizeRequest,
    };

    fn document() -> Value {
        serde_json::from_str(OPENAPI).expect("JSON")
    }

    /// Where a value in `document` is, by a reference in it.
    fn target<'a>(document: &'a Value, reference: &str) -> Option<&'a Value> {
        document.pointer(reference.strip_prefix('#')?)
    }

    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                    found.push(reference.to_owned());
                }
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn references_lead_somewhere_and_no_schema_is_left_over() {
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        for reference in &found {
            assert!(target(&document, reference).is_some(), "{reference}");
        }
        let schemas = document["components"]["schemas"].as_object();
        for name in schemas.expect("schemas").keys() {
            let reference = format!("#/components/schemas/{name}");
            assert!(found.contains(&reference), "{name} is not used");
        }
    }

    /// Reads `body`, and compares the names that were looked for with those of the schema `name`.
    fn assert_names<T, E>(name: &str, body: Value, read: impl Fn(Value) -> Result<T, E>) {
        let (outcome, names) = taken(|| read(body));
        assert!(outcome.is_ok(), "{name}");
        let document = document();
        let properties = document["components"]["schemas"][name]["properties"].as_object();
        let described: BTreeSet<&String> = properties.expect("properties").keys().collect();
        // Parts of fields have a place before their names.
        let names = names.iter().filter(|name| !name.contains(['.', '[']));
        let missing: Vec<&String> = names.filter(|name| !described.contains(name)).collect();
        assert!(missing.is_empty(), "{name} does not describe {missing:?}");
    }

    #[test]
    fn every_field_that_is_read_is_described() {
        let messages = json!([{"role": "user", "content": "hi"}]);
        let chat = json!({"messages": messages, "logprobs": true});
        assert_names("ChatRequest", chat, ChatRequest::from_body);
        assert_names(
            "CompletionRequest",
            json!({"prompt": "hi"}),
            CompletionRequest::from_body,
        );
        assert_names(
            "EmbeddingRequest",
            json!({"input": "hi"}),
            EmbeddingRequest::from_body,
        );
        assert_names(
            "ResponsesRequest",
            json!({"input": "hi"}),
            ResponsesRequest::from_body,
        );
        let asked = json!({"messages": messages, "max_tokens": 1});
        assert_names("MessagesRequest", asked.clone(), MessagesRequest::from_body);
        assert_names("CountTokensRequest", asked, MessagesRequest::to_count);
        let asked = json!({"messages": messages});
        assert_names("TemplateRequest", asked.clone(), TemplateRequest::from_body);
        assert_names("TokenizeConversation", asked, TokenizeRequest::from_body);
        let asked = json!({"content": "hi"});
        assert_names("TokenizeText", asked, TokenizeRequest::from_body);
        let asked = json!({"tokens": [1]});
        assert_names("DetokenizeRequest", asked, DetokenizeRequest::from_body);
    }

    /// A request that only lays a conversation out may be one that would have it answered.
    #[test]
    fn what_a_conversation_may_say_is_described_alike_everywhere() {
        let document = document();
        let properties = |name: &str| {
            let properties = document["components"]["schemas"][name]["properties"].as_object();
            properties.expect("properties").clone()
        };
        for name in ["TemplateRequest", "TokenizeConversation"] {
            let described = properties(name);
            for (field, schema) in properties("ChatRequest") {
                assert_eq!(described.get(&field), Some(&schema), "{name}: {field}");
            }
        }
    }

    #[test]
    fn the_names_are_those_of_the_body_itself() {
        let body = json!({"input": "hi", "max_output_tokens": 5});
        let (outcome, names) = taken(|| ResponsesRequest::from_body(body));
        assert!(outcome.is_ok());
        assert!(names.contains("max_output_tokens") && names.contains("previous_response_id"));
        // What it is read as has these.
        assert!(!names.contains("max_completion_tokens") && !names.contains("messages"));
    }
}
