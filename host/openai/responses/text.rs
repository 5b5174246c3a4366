//! The form of a response's text.

use serde_json::{Map, Value, json};

use crate::openai::{ApiError, Fields, Translation};

/// Takes the form; gives what the response repeats of it.
pub fn read_text(fields: &mut Fields, request: &mut Translation) -> Result<Value, ApiError> {
    const KINDS: [&str; 3] = ["text", "json_object", "json_schema"];
    let Some(mut text) = fields.take_fields("text")? else {
        return Ok(json!({"format": {"type": "text"}}));
    };
    text.take_word("verbosity", &["medium"])?;
    let mut echo = Map::from_iter([("type".to_owned(), json!("text"))]);
    if let Some(mut format) = text.take_fields("format")? {
        let kind = format.take_word("type", &KINDS)?;
        let Some(kind) = kind else {
            return Err(format.wrong("type", &Value::Null, &KINDS.join(", ")));
        };
        echo.insert("type".to_owned(), kind.clone().into());
        let mut ours = json!({ "type": kind });
        if kind == "json_schema" {
            let schema = take_schema(&mut format)?;
            echo.extend(schema.clone());
            ours["json_schema"] = schema.into();
        }
        format.finish()?;
        request.set("response_format", ours, "text.format");
        request.rename("response_format.json_schema", "text.format");
    }
    text.finish()?;
    Ok(json!({ "format": echo }))
}

/// The schema, its name and what else is said of it, which OpenAI's other API has in an object of their own.
fn take_schema(format: &mut Fields) -> Result<Map<String, Value>, ApiError> {
    let mut schema = Map::new();
    schema.insert("name".to_owned(), format.require::<String>("name")?.into());
    let object = format.require::<Map<String, Value>>("schema")?;
    schema.insert("schema".to_owned(), object.into());
    if let Some(description) = format.take::<String>("description")? {
        schema.insert("description".to_owned(), description.into());
    }
    if let Some(strict) = format.take::<bool>("strict")? {
        schema.insert("strict".to_owned(), strict.into());
    }
    Ok(schema)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::responses::ResponsesRequest;

    #[test]
    fn what_is_wrong_is_named() {
        for (text, param) in [
            (json!("plain"), "text"),
            (json!({"verbosity": "high"}), "text.verbosity"),
            (json!({"format": {}}), "text.format.type"),
            (json!({"format": {"type": "xml"}}), "text.format.type"),
            (
                json!({"format": {"type": "json_schema", "schema": {}}}),
                "text.format.name",
            ),
            (
                json!({"format": {"type": "json_schema", "name": "n"}}),
                "text.format.schema",
            ),
            (
                json!({"format": {"type": "text", "name": "n"}}),
                "text.format.name",
            ),
            (json!({"style": "bold"}), "text.style"),
        ] {
            let body = json!({"input": "hi", "text": text});
            let error = ResponsesRequest::from_body(body).expect_err(param);
            assert_eq!(error.param.as_deref(), Some(param), "{error}");
        }
    }
}
