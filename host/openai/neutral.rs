//! Values that ask for nothing. Routers add fields with such values to every request (SMG, vllm-router), and clients
//! send whole sets of parameters with their defaults.

use serde_json::{Value, json};

/// Whether a field that is not supported may have `value`: null, what is empty, false, or the documented default.
/// False is not neutral where the default is true.
pub fn is_neutral(name: &str, value: &Value) -> bool {
    if let Some(kind) = kind_of(name) {
        return value.is_null() || kind.fits(value);
    }
    if is_empty(value) || WITHOUT_EFFECT.contains(&name) {
        return true;
    }
    match default_of(name) {
        // The other name of OpenAI's default.
        Some(_) if name == "service_tier" && value == "default" => true,
        Some(default) => is_same(&default, value),
        None => *value == Value::Bool(false),
    }
}

/// The type of a field that changes nothing of an answer and may have any value of that type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// Any object.
    Object,
}

impl Kind {
    fn fits(self, value: &Value) -> bool {
        match self {
            Kind::Text => value.is_string(),
            Kind::Object => value.is_object(),
        }
    }

    /// What messages call it.
    pub fn expected(self) -> &'static str {
        match self {
            Kind::Text => "a string",
            Kind::Object => "an object",
        }
    }
}

/// The type of OpenAI's names for its bookkeeping and caches, which `/openapi.json` describes.
pub fn kind_of(name: &str) -> Option<Kind> {
    match name {
        "prompt_cache_key" | "safety_identifier" | "user" => Some(Kind::Text),
        "metadata" => Some(Kind::Object),
        _ => None,
    }
}

/// Other fields that change nothing of an answer.
const WITHOUT_EFFECT: &[&str] = &[
    // OpenAI: how long its cache keeps a prompt.
    "prompt_cache_retention",
    // llama.cpp: whether pages are found again, and how the answer is cut; the text is the same.
    "cache_prompt",
    "id_slot",
    // vLLM and SGLang: names of a request.
    "request_id",
    "rid",
];

/// The documented defaults of what is not supported.
fn default_of(name: &str) -> Option<Value> {
    Some(match name {
        // OpenAI.
        "best_of" | "n" => json!(1),
        "function_call" => json!("none"),
        "modalities" => json!(["text"]),
        "parallel_tool_calls" => json!(true),
        "response_format" => json!({"type": "text"}),
        "service_tier" => json!("auto"),
        "truncation" => json!("disabled"),
        "verbosity" => json!("medium"),
        // llama.cpp.
        "dry_allowed_length" => json!(2),
        "dry_base" => json!(1.75),
        "dry_multiplier" | "dynatemp_range" | "xtc_probability" => json!(0.0),
        "dry_penalty_last_n" | "n_predict" | "n_discard" => json!(-1),
        "dry_sequence_breakers" => json!(["\n", ":", "\"", "*"]),
        "dynatemp_exponent" => json!(1.0),
        "min_keep" | "mirostat" | "n_indent" | "n_keep" | "n_probs" | "t_max_predict_ms" => {
            json!(0)
        }
        "mirostat_eta" | "xtc_threshold" => json!(0.1),
        "mirostat_tau" => json!(5.0),
        "parse_tool_calls" => json!(true),
        "reasoning_format" => json!("auto"),
        "top_n_sigma" | "adaptive_target" => json!(-1.0),
        "adaptive_decay" => json!(0.9),
        // vLLM and SGLang.
        "add_generation_prompt"
        | "include_reasoning"
        | "separate_reasoning"
        | "skip_special_tokens"
        | "spaces_between_special_tokens"
        | "stream_reasoning" => json!(true),
        "chat_template_content_format" => json!("auto"),
        "length_penalty" => json!(1.0),
        "min_tokens" | "min_new_tokens" | "priority" => json!(0),
        _ => return None,
    })
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Equality, with numbers compared as `f32`: 0.1 comes as 0.10000000149011612 from programs that keep it so.
fn is_same(one: &Value, two: &Value) -> bool {
    match (one.as_f64(), two.as_f64()) {
        (Some(one), Some(two)) => one as f32 == two as f32,
        _ => one == two,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_neutral_and_other_values_are_not() {
        for (name, neutral, other) in [
            ("top_n_sigma", json!(-1), json!(1.5)),
            ("xtc_threshold", json!(0.10000000149011612), json!(0.2)),
            ("parallel_tool_calls", json!(true), json!(false)),
            (
                "response_format",
                json!({"type": "text"}),
                json!({"type": "json_object"}),
            ),
            ("modalities", json!(["text"]), json!(["text", "audio"])),
            ("no_stop_trim", json!(false), json!(true)),
            ("include_reasoning", json!(true), json!(false)),
            ("separate_reasoning", json!(true), json!(false)),
            ("stream_reasoning", json!(true), json!(false)),
            ("parse_tool_calls", json!(true), json!(false)),
            ("function_call", json!("none"), json!("auto")),
            ("unheard_of", json!(null), json!(1)),
            ("n_predict", json!(-1), json!(5)),
        ] {
            assert!(is_neutral(name, &neutral), "{name}: {neutral}");
            assert!(!is_neutral(name, &other), "{name}: {other}");
        }
        // What has no effect is still of its type.
        for (name, right, wrong) in [
            ("user", json!("somebody"), json!(-1.5e300)),
            ("user", json!(null), json!(false)),
            ("safety_identifier", json!(""), json!([])),
            ("prompt_cache_key", json!("key"), json!({})),
            ("metadata", json!({"a": "b"}), json!("a")),
        ] {
            assert!(is_neutral(name, &right), "{name}: {right}");
            assert!(!is_neutral(name, &wrong), "{name}: {wrong}");
        }
    }

    /// What vllm-router 0.1.17 and SMG 1.13.0 add to requests.
    #[test]
    fn what_routers_add_is_neutral() {
        let added = json!({
            "no_stop_trim": false, "skip_special_tokens": true, "separate_reasoning": true,
            "return_hidden_states": false, "stream_reasoning": true, "continue_final_message": false,
            "lora_path": null, "session_params": null, "ebnf": null, "regex": null, "min_tokens": 0,
            "stop_token_ids": [], "echo": false, "use_beam_search": false, "length_penalty": 1.0,
        });
        for (name, value) in added.as_object().expect("an object") {
            assert!(is_neutral(name, value), "{name}");
        }
    }
}
