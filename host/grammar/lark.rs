//! Parts of grammars, in llguidance's dialect of Lark. What a client wrote gets into one through these functions alone.

use std::fmt::Write;

use serde_json::Value;

use crate::tokenizer::Tokenizer;

/// The fixed text `text`: markup that is a token of the vocabulary as that token, and the rest as text.
pub fn literal(text: &str, tokenizer: &Tokenizer) -> String {
    let parts = tokenizer.markup_in(text);
    let parts = parts.iter().map(|(text, token)| match token {
        Some(token) => format!("<[{token}]>"),
        None => quoted(text),
    });
    parts.collect::<Vec<_>>().join(" ")
}

/// The text `text` as it is, whatever it holds.
pub fn quoted(text: &str) -> String {
    // Regular expressions, because the dialect's strings have no escape for every character.
    let mut pattern = String::from("/");
    for c in text.chars() {
        match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' => pattern.push(c),
            // Writing to a string does not fail.
            _ => drop(write!(pattern, "\\x{{{:x}}}", u32::from(c))),
        }
    }
    pattern.push('/');
    match text {
        "" => "\"\"".to_owned(),
        _ => pattern,
    }
}

/// A value of `schema`, in which the white space is as `space` says.
pub fn json(schema: &Value, space: Space) -> String {
    let mut schema = schema.clone();
    if schema == Value::Bool(true) {
        schema = Value::Object(serde_json::Map::new());
    }
    if let Value::Object(fields) = &mut schema {
        let options = serde_json::json!({
            "whitespace_pattern": match space {
                Space::Single => " ",
                Space::Indented => r" |\n[ \t]{0,40}",
            },
        });
        fields.insert("x-guidance".to_owned(), options);
    }
    format!("%json {schema}")
}

/// White space inside of JSON. It is bounded, so that no answer is white space without end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// At most a space between two parts.
    Single,
    /// Also new lines, indented.
    Indented,
}

/// The terminal that may stand before an answer: what models write behind their thoughts, and the space that some
/// tokenizers have before a first word.
pub const LEADING_SPACE: &str = r"LEADING_SPACE: / |\n{1,2}/";
