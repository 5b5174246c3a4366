//! What an answer's text must be.

use serde_json::{Map, Value, json};

use super::ApiError;
use super::fields::Fields;
use crate::grammar::schema;

/// The field `response_format`.
#[derive(Debug, Clone, PartialEq)]
pub struct ResponseFormat {
    /// The schema of the JSON that the text must be; `None` for any text.
    pub schema: Option<Value>,
    /// The field that has the schema.
    pub field: &'static str,
}

impl ResponseFormat {
    /// Any text.
    pub const TEXT: ResponseFormat = ResponseFormat {
        schema: None,
        field: "response_format",
    };

    /// Takes it out of `fields`.
    pub(super) fn take(fields: &mut Fields) -> Result<ResponseFormat, ApiError> {
        const NAME: &str = "response_format";
        let Some(value) = fields.take::<Value>(NAME)? else {
            return Ok(ResponseFormat::TEXT);
        };
        let mut format = Fields::new(value, NAME, format!("{NAME}."))?;
        let kind = format.take::<String>("type")?;
        let (schema, field) = match kind.as_deref() {
            Some("text") => (None, NAME),
            Some("json_object") => {
                // llama.cpp's place for a schema.
                let schema = format.take::<Value>("schema")?;
                let schema = schema.unwrap_or_else(|| json!({"type": "object"}));
                (Some(schema), "response_format.schema")
            }
            Some("json_schema") => (
                Some(take_schema(&mut format)?),
                "response_format.json_schema.schema",
            ),
            other => {
                let other = other.map_or(Value::Null, Value::from);
                return Err(format.wrong("type", &other, "text, json_object or json_schema"));
            }
        };
        format.finish()?;
        let schema = schema.map(schema::checked).transpose();
        let schema = schema.map_err(|error| ApiError::field(field, format!("{field}: {error}")))?;
        Ok(ResponseFormat { schema, field })
    }
}

/// `{"name": ..., "schema": ...}`; a schema is kept to in any case, whatever `strict` says.
fn take_schema(format: &mut Fields) -> Result<Value, ApiError> {
    const NAME: &str = "response_format.json_schema";
    let Some(value) = format.take::<Map<String, Value>>("json_schema")? else {
        return Err(ApiError::field(NAME, format!("{NAME} is missing")));
    };
    let mut of = Fields::new(Value::Object(value), NAME, format!("{NAME}."))?;
    of.take::<String>("name")?;
    of.take::<String>("description")?;
    of.take::<bool>("strict")?;
    let schema = of.take::<Value>("schema")?;
    of.finish()?;
    let name = format!("{NAME}.schema");
    schema.ok_or_else(|| ApiError::field(&name, format!("{name} is missing")))
}
