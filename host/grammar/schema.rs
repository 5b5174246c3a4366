//! What a schema may be before anybody compiles it.

use serde_json::{Value, json};

use super::GrammarError;

/// Nesting of a schema: each level is some recursion of the compiler.
const MAX_DEPTH: usize = 64;

/// Values in a schema.
const MAX_VALUES: usize = 20_000;

/// Bytes of its strings.
const MAX_BYTES: usize = 512 << 10;

/// Bytes of a pattern, whose automaton may be much larger.
const MAX_PATTERN: usize = 2_000;

/// Counts above this one are not told apart from it, and cost as much as they say.
const MAX_COUNT: u64 = 10_000;

/// What a grammar needs of `schema`: an upper bound above 10,000 is not kept, and that the names of properties are
/// strings is no condition. Coding agents write both.
///
/// # Errors
/// It is no schema, or is too large to be compiled; where in it, is told as a JSON pointer.
pub fn checked(mut schema: Value) -> Result<Value, GrammarError> {
    if !matches!(schema, Value::Object(_) | Value::Bool(true)) {
        return refused("", "expected an object that is a JSON schema");
    }
    simplify(&mut schema);
    let mut left = Left {
        values: MAX_VALUES,
        bytes: MAX_BYTES,
    };
    walk(&schema, "", 0, &mut left)?;
    Ok(schema)
}

/// Takes out what says nothing, wherever a weaker schema admits more; so not below `not` and its like.
fn simplify(schema: &mut Value) {
    let Value::Object(fields) = schema else {
        return;
    };
    fields.retain(|name, value| match name.as_str() {
        "maxLength" | "maxItems" | "maxProperties" => !is_large(value),
        "propertyNames" => *value != json!({"type": "string"}) && *value != json!({}),
        _ => true,
    });
    for (name, value) in fields {
        match (name.as_str(), value) {
            ("properties" | "patternProperties" | "$defs" | "definitions", Value::Object(of)) => {
                of.values_mut().for_each(simplify);
            }
            ("allOf" | "anyOf" | "oneOf" | "prefixItems" | "items", Value::Array(of)) => {
                of.iter_mut().for_each(simplify);
            }
            ("items" | "additionalProperties", schema) => simplify(schema),
            _ => {}
        }
    }
}

fn is_large(count: &Value) -> bool {
    count.as_f64().is_some_and(|count| count > MAX_COUNT as f64)
}

struct Left {
    values: usize,
    bytes: usize,
}

impl Left {
    fn take(&mut self, bytes: usize) -> bool {
        let is_enough = self.values > 0 && self.bytes >= bytes;
        self.values = self.values.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        is_enough
    }
}

fn walk(value: &Value, place: &str, depth: usize, left: &mut Left) -> Result<(), GrammarError> {
    let bytes = match value {
        Value::String(text) => text.len(),
        Value::Object(fields) => fields.keys().map(String::len).sum(),
        _ => 0,
    };
    if !left.take(bytes) {
        return refused(place, "the schema is too large");
    }
    if depth > MAX_DEPTH {
        return refused(place, "the schema is nested too deeply");
    }
    match value {
        Value::Array(items) => items
            .iter()
            .try_for_each(|item| walk(item, place, depth + 1, left)),
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| {
            let inner = format!("{place}/{}", name.chars().take(40).collect::<String>());
            check_keyword(name, value, &inner)?;
            walk(value, &inner, depth + 1, left)
        }),
        _ => Ok(()),
    }
}

/// Keywords whose cost does not show in their size. A property of such a name has an object as its value.
fn check_keyword(name: &str, value: &Value, place: &str) -> Result<(), GrammarError> {
    let counts = [
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "minProperties",
        "maxProperties",
    ];
    match value {
        Value::Number(_) if counts.contains(&name) && is_large(value) => {
            refused(place, &format!("expected at most {MAX_COUNT}"))
        }
        Value::String(pattern) if name == "pattern" && pattern.len() > MAX_PATTERN => {
            refused(place, "the pattern is too long")
        }
        // An option of the library.
        _ if name == "x-guidance" => refused(place, "not supported"),
        _ => Ok(()),
    }
}

fn refused<T>(place: &str, message: &str) -> Result<T, GrammarError> {
    let message = match place {
        "" => message.to_owned(),
        place => format!("{message} (at {place})"),
    };
    Err(GrammarError::Refused(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_nothing_is_taken_out() {
        let text = json!({"type": "string", "maxLength": 524_288});
        let plain = json!({"type": "string"});
        let names = json!({"type": "string"});
        for (given, kept) in [
            (text.clone(), plain.clone()),
            (
                json!({"properties": {"maxLength": {"items": [text]}, "propertyNames": names}}),
                json!({"properties": {"maxLength": {"items": [plain]}, "propertyNames": names}}),
            ),
            (
                json!({"anyOf": [{"additionalProperties": {"propertyNames": names}}]}),
                json!({"anyOf": [{"additionalProperties": {}}]}),
            ),
            (json!({"maxItems": 10_000}), json!({"maxItems": 10_000})),
            (
                json!({"propertyNames": {"pattern": "a"}}),
                json!({"propertyNames": {"pattern": "a"}}),
            ),
        ] {
            assert_eq!(checked(given.clone()).expect("a schema"), kept, "{given}");
        }
    }

    #[test]
    fn large_counts_that_say_something_are_refused() {
        for schema in [
            json!({"minLength": 10_001}),
            json!({"not": {"maxLength": 10_001}}),
        ] {
            assert!(checked(schema.clone()).is_err(), "{schema}");
        }
    }
}
