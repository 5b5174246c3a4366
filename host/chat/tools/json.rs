//! The end of a JSON object in a stream.

/// Follows the bytes of a JSON object to its end.
#[derive(Debug, Clone, Copy, Default)]
pub struct ObjectEnd {
    depth: usize,
    is_in_string: bool,
    is_escaped: bool,
}

impl ObjectEnd {
    /// Takes the next byte: whether the object ends with it.
    pub fn push(&mut self, byte: u8) -> bool {
        if self.is_in_string {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => self.is_in_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.is_in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }
}

/// `text` inside of a JSON string.
pub fn escaped(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    // A string's JSON has a quote at each end.
    quoted[1..quoted.len() - 1].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_ends_where_it_ends() {
        for text in [
            r#"{}"#,
            r#"{"a": "}"}"#,
            r#"{"a\"}": {"b": [1, "]"]}}"#,
            r#"{"a": "\\"}"#,
        ] {
            let mut end = ObjectEnd::default();
            let found = text.bytes().position(|byte| end.push(byte));
            assert_eq!(found, Some(text.len() - 1), "{text}");
        }
    }

    #[test]
    fn escaped_texts_are_json() {
        let text = "a\"\\\n\u{1}é</parameter>";
        let json = format!("\"{}\"", escaped(text));
        assert_eq!(
            serde_json::from_str::<String>(&json).expect("a string"),
            text
        );
    }
}
