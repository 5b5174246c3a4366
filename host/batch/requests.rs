//! The file of requests.

use std::collections::HashMap;
use std::ops::Range;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::openai::{ApiError, Endpoint, Fields};

/// A file that cannot be run at all.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestFileError {
    /// Not a text.
    #[error("line {line} is not UTF-8")]
    Utf8 {
        /// Counted from 1.
        line: usize,
    },
    /// Not JSON.
    #[error("line {line} is not JSON: {error}")]
    Json {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        error: String,
    },
    /// A request without a name.
    #[error("line {line} has no custom_id: {error}")]
    Unnamed {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        error: String,
    },
    /// Two requests of one name.
    #[error("line {line} has the custom_id {custom_id:?} of line {first}")]
    Duplicate {
        /// Counted from 1.
        line: usize,
        /// Where the name came up before.
        first: usize,
        /// The name.
        custom_id: String,
    },
    /// There is nothing to do.
    #[error("there are no requests in it")]
    Empty,
}

/// Requests, each with a name of its own.
#[derive(Debug)]
pub struct RequestFile {
    text: String,
    digest: [u8; 32],
    lines: Vec<Line>,
}

/// A line that is a request; whether it is a good one is found out when it is its turn.
#[derive(Debug)]
pub struct Line {
    /// Counted from 1.
    pub number: usize,
    /// Its name; `None` where it is a text that nothing can hold.
    pub custom_id: Option<String>,
    /// Where it is sent to, if that can be told.
    pub endpoint: Option<Endpoint>,
    range: Range<usize>,
}

/// What a line asks for.
#[derive(Debug, PartialEq)]
pub struct Body {
    /// Where it is sent to.
    pub endpoint: Endpoint,
    /// The request.
    pub body: Value,
}

impl RequestFile {
    /// Reads a file's content. Lines without a character are no requests.
    ///
    /// # Errors
    /// A line that is not JSON or has no name, and a name that two lines have.
    pub fn parse(content: Vec<u8>) -> Result<RequestFile, RequestFileError> {
        let digest = Sha256::digest(&content).into();
        let text = String::from_utf8(content).map_err(|error| {
            let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
            RequestFileError::Utf8 { line }
        })?;
        let mut lines: Vec<Line> = Vec::new();
        let mut first_of: HashMap<String, usize> = HashMap::new();
        let mut start = 0;
        for (index, line) in text.split_inclusive('\n').enumerate() {
            let range = start..start + line.len();
            start = range.end;
            // Some editors begin a file with a mark.
            let line = if index == 0 {
                line.trim_start_matches('\u{feff}')
            } else {
                line
            };
            if line.trim().is_empty() {
                continue;
            }
            let number = index + 1;
            let (custom_id, endpoint) = read_name(number, line.trim_end())?;
            if let Some(custom_id) = &custom_id
                && let Some(first) = first_of.insert(custom_id.clone(), number)
            {
                return Err(RequestFileError::Duplicate {
                    line: number,
                    first,
                    custom_id: custom_id.clone(),
                });
            }
            lines.push(Line {
                number,
                custom_id,
                endpoint,
                range: range.end - line.len()..range.end,
            });
        }
        match lines.is_empty() {
            true => Err(RequestFileError::Empty),
            false => Ok(RequestFile {
                text,
                digest,
                lines,
            }),
        }
    }

    /// SHA-256 of the content.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The requests in their order.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// What `line` asks for.
    ///
    /// # Errors
    /// A line without a body, for another endpoint, or with fields that are not known.
    pub fn body(&self, line: &Line) -> Result<Body, ApiError> {
        let json = serde_json::from_str(self.text[line.range.clone()].trim_end());
        let json: Value = json.map_err(|error| {
            let place = in_line(&error);
            ApiError::invalid(format!("the line cannot be read: {place}"))
        })?;
        let mut fields = Fields::new(json, "the line", String::new())?;
        fields.take::<String>("custom_id")?;
        if let Some(method) = fields.take::<String>("method")?
            && method != "POST"
        {
            return Err(fields.wrong("method", &method.into(), "\"POST\""));
        }
        let url = fields.take::<String>("url")?;
        let body = fields.take::<Value>("body")?;
        let body = body.ok_or_else(|| ApiError::field("body", "body is missing"))?;
        let endpoint = match url {
            Some(url) => endpoint_at(&url).ok_or_else(|| {
                let paths = Endpoint::ALL.map(Endpoint::path).join(" or ");
                fields.wrong("url", &url.into(), &paths)
            })?,
            None => Endpoint::of_body(&body).ok_or_else(|| {
                let message = "without a url, body has either messages, as for /v1/chat/completions, or a prompt, \
                               as for /v1/completions";
                ApiError::field("body", message)
            })?,
        };
        fields.finish()?;
        Ok(Body { endpoint, body })
    }
}

/// The name of a line, and where it is sent to, as far as these can be read.
fn read_name(
    number: usize,
    line: &str,
) -> Result<(Option<String>, Option<Endpoint>), RequestFileError> {
    let json = match serde_json::from_str::<Value>(line) {
        Ok(json) => json,
        Err(error) if serde_json::from_str::<IgnoredAny>(line).is_err() => {
            return Err(RequestFileError::Json {
                line: number,
                error: in_line(&error),
            });
        }
        // It is JSON, with a value in it that nothing can hold, such as 1e400: an error of this request alone.
        Err(_) => match serde_json::from_str::<Name>(line) {
            Ok(Name { custom_id }) => serde_json::json!({"custom_id": custom_id}),
            Err(_) => return Ok((None, None)),
        },
    };
    let error = match &json["custom_id"] {
        Value::String(custom_id) if !custom_id.is_empty() => {
            let endpoint = match &json["url"] {
                Value::String(url) => endpoint_at(url),
                _ => Endpoint::of_body(&json["body"]),
            };
            return Ok((Some(custom_id.clone()), endpoint));
        }
        Value::Null => "a line is an object with custom_id and body".to_owned(),
        other => format!("it is {other}; expected a string that is not empty"),
    };
    Err(RequestFileError::Unnamed {
        line: number,
        error,
    })
}

/// What is read of a line whose other values cannot be.
#[derive(Deserialize)]
struct Name {
    #[serde(default)]
    custom_id: Value,
}

/// What is wrong with a line's JSON, and where in the line; the line's number is told by others.
fn in_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text
        .rsplit_once(" at line ")
        .map_or(text.as_str(), |(what, _)| what);
    format!("{what} at column {}", error.column())
}

fn endpoint_at(url: &str) -> Option<Endpoint> {
    Endpoint::ALL
        .into_iter()
        .find(|endpoint| endpoint.path() == url)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(text: &str) -> Result<RequestFile, RequestFileError> {
        RequestFile::parse(text.as_bytes().to_vec())
    }

    #[test]
    fn lines_have_names_and_bodies() {
        let text = "\u{feff}{\"custom_id\": \"a\", \"body\": {\"prompt\": \"x\"}}\r\n\n  \n\
                    {\"custom_id\": \"b\", \"method\": \"POST\", \"url\": \"/v1/chat/completions\", \"body\": {}}";
        let file = parse(text).expect("two lines");
        let names: Vec<&str> = file
            .lines()
            .iter()
            .map(|line| line.custom_id.as_deref().expect("a name"))
            .collect();
        assert_eq!(names, ["a", "b"]);
        let body = file.body(&file.lines()[0]).expect("a body");
        assert_eq!(body.endpoint, Endpoint::Completions);
        assert_eq!(body.body, json!({"prompt": "x"}));
        let body = file.body(&file.lines()[1]).expect("a body");
        assert_eq!(body.endpoint, Endpoint::ChatCompletions);
    }

    #[test]
    fn what_cannot_be_named_is_refused_with_its_line() {
        for (text, expected) in [
            ("", "no requests"),
            ("\n \n", "no requests"),
            (
                "{\"custom_id\": \"a\"}\n{",
                "line 2 is not JSON: EOF while parsing an object at column 1",
            ),
            (
                "{\"custom_id\": \"a\"}\n{\"custom_id\": 7, \r\n",
                "line 2 is not JSON: EOF while parsing a value at column 16",
            ),
            ("{\"body\": 1e400}", "line 1 has no custom_id"),
            ("{\"body\": {}}", "line 1 has no custom_id"),
            ("\n[]", "line 2 has no custom_id"),
            ("{\"custom_id\": 7}", "line 1 has no custom_id: it is 7"),
            ("{\"custom_id\": \"\"}", "line 1 has no custom_id"),
            (
                "{\"custom_id\": \"a\"}\n\n{\"custom_id\": \"a\"}",
                "line 3 has the custom_id \"a\" of line 1",
            ),
        ] {
            let error = parse(text).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        }
        let error = RequestFile::parse(b"{}\n\xff".to_vec()).expect_err("not a text");
        assert_eq!(error, RequestFileError::Utf8 { line: 2 });
        let deep = format!("{{\"custom_id\": {}1", "[".repeat(100_000));
        assert!(matches!(
            parse(&deep),
            Err(RequestFileError::Json { line: 1, .. })
        ));
    }

    #[test]
    fn values_that_nothing_can_hold_are_an_error_of_their_line() {
        let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
        for (id, value, name, what) in [
            ("\"a\"", "1e400", Some("a"), "number out of range"),
            ("\"a\"", "\"\\ud800\"", Some("a"), "hex escape"),
            ("\"a\"", &*deep, Some("a"), "recursion limit"),
            ("\"\\udfff\"", "1", None, "hex escape"),
        ] {
            let text = format!(
                "{{\"body\": {{\"prompt\": {value}}}, \"custom_id\": {id}}}\n{{\"custom_id\": \"b\"}}"
            );
            let file = parse(&text).expect("two lines");
            let [line, other] = file.lines() else {
                panic!("{} lines", file.lines().len());
            };
            assert_eq!((line.number, line.custom_id.as_deref()), (1, name));
            let error = file.body(line).expect_err(what).message;
            assert!(error.contains(what), "{error}");
            assert!(
                error.contains(" at column ") && !error.contains(" at line "),
                "{error}"
            );
            assert_eq!(other.custom_id.as_deref(), Some("b"));
        }
    }

    #[test]
    fn what_is_wrong_with_a_named_line_is_its_own_error() {
        for (fields, param) in [
            (json!({}), "body"),
            (json!({"body": {}}), "body"),
            (json!({"body": {"prompt": "a", "messages": []}}), "body"),
            (json!({"body": {}, "url": "/v1/embeddings"}), "url"),
            (json!({"body": {"prompt": "a"}, "method": "GET"}), "method"),
            (json!({"body": {"prompt": "a"}, "other": 1}), "other"),
        ] {
            let mut line = fields.clone();
            line["custom_id"] = json!("a");
            let file = parse(&line.to_string()).expect("a line");
            let error = file.body(&file.lines()[0]).expect_err(param);
            assert_eq!(error.param.as_deref(), Some(param), "{fields}");
        }
    }
}
