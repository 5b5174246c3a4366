//! A line of the results, in OpenAI's batch form.

use serde::Serialize;
use serde_json::Value;

use crate::openai::{ApiError, Response};

/// What every line begins with, before the rest of its name.
pub(super) const HEAD: &str = r#"{"id":"batch_req_"#;

/// What became of a request.
pub struct ResultLine<'a> {
    /// The name of this result ([`super::Identity::id`]).
    pub id: &'a str,
    /// The name of the request, where it has one that can be read.
    pub custom_id: Option<&'a str>,
    /// The answer.
    pub outcome: Result<Response, ApiError>,
}

#[derive(Serialize)]
struct Fields<'a> {
    id: String,
    custom_id: Option<&'a str>,
    response: HttpResponse<'a>,
    error: Option<LineError<'a>>,
}

#[derive(Serialize)]
struct HttpResponse<'a> {
    status_code: u16,
    request_id: &'a str,
    body: Body<'a>,
}

/// Written as it is: numbers that went through a [`serde_json::Value`] would come out with the digits of an f64.
#[derive(Serialize)]
#[serde(untagged)]
enum Body<'a> {
    Response(&'a Response),
    Error(Value),
}

#[derive(Serialize)]
struct LineError<'a> {
    code: &'a str,
    message: &'a str,
}

impl ResultLine<'_> {
    /// The line, with its newline. An error is in the response's body, and again beside it, so that a look at `error`
    /// is enough.
    pub fn to_bytes(&self) -> serde_json::Result<Vec<u8>> {
        let (status_code, body, error) = match &self.outcome {
            Ok(response) => (200, Body::Response(response), None),
            Err(error) => {
                let code = match error.status {
                    400 => error.code.unwrap_or("invalid_request"),
                    _ => error.code.unwrap_or("server_error"),
                };
                let message = &error.message;
                let line_error = LineError { code, message };
                (error.status, Body::Error(error.body()), Some(line_error))
            }
        };
        let fields = Fields {
            id: format!("batch_req_{}", self.id),
            custom_id: self.custom_id,
            response: HttpResponse {
                status_code,
                request_id: self.id,
                body,
            },
            error,
        };
        let mut line = serde_json::to_vec(&fields)?;
        line.push(b'\n');
        Ok(line)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_begins_with_its_name_and_has_one_newline() {
        let line = ResultLine {
            id: "12",
            custom_id: Some("a\nb"),
            outcome: Err(ApiError::field("n", "n is 2; expected 1")),
        };
        let bytes = line.to_bytes().expect("a line");
        let text = String::from_utf8(bytes).expect("a text");
        assert!(text.starts_with(&format!("{HEAD}12\",")), "{text}");
        assert_eq!(text.find('\n'), Some(text.len() - 1));
        let read: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            read,
            json!({
                "id": "batch_req_12",
                "custom_id": "a\nb",
                "response": {"status_code": 400, "request_id": "12", "body": {"error": {
                    "message": "n is 2; expected 1", "type": "invalid_request_error",
                    "param": "n", "code": null,
                }}},
                "error": {"code": "invalid_request", "message": "n is 2; expected 1"},
            })
        );
    }
}
