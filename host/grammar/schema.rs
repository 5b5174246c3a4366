//! What a schema may be before anybody compiles it.

use serde_json::Value;

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

/// Looks whether `schema` can be compiled within bounds.
///
/// # Errors
/// It is no schema, or is too large; where in it, is told as a JSON pointer.
pub fn check(schema: &Value) -> Result<(), GrammarError> {
    if !matches!(schema, Value::Object(_) | Value::Bool(true)) {
        return refused("", "expected an object that is a JSON schema");
    }
    let mut left = Left {
        values: MAX_VALUES,
        bytes: MAX_BYTES,
    };
    walk(schema, "", 0, &mut left)
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
    let is_large = |number: f64| number > MAX_COUNT as f64;
    match value {
        Value::Number(number)
            if counts.contains(&name) && number.as_f64().is_some_and(is_large) =>
        {
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

fn refused(place: &str, message: &str) -> Result<(), GrammarError> {
    let message = match place {
        "" => message.to_owned(),
        place => format!("{message} (at {place})"),
    };
    Err(GrammarError::Refused(message))
}
