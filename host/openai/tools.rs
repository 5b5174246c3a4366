//! The tools of a request.

use serde_json::{Map, Value, json};

use super::ApiError;
use super::fields::{Fields, wrong};
use crate::chat::tools::{Tool, ToolChoice, Tools, UnsupportedSchema};
use crate::grammar::schema;

/// More than any client offers; each is a part of the grammar.
const MAX_TOOLS: usize = 256;

/// Characters of a function's name.
const MAX_NAME: usize = 128;

/// Takes the tools out of `fields`, and gives them also as the client wrote them, for the template.
pub fn take_tools(fields: &mut Fields) -> Result<(Tools, Vec<Value>), ApiError> {
    let written = fields.take::<Vec<Value>>("tools")?.unwrap_or_default();
    let are_parallel = fields.take("parallel_tool_calls")?.unwrap_or(true);
    if written.len() > MAX_TOOLS {
        let message = format!(
            "tools has {} items; expected at most {MAX_TOOLS}",
            written.len()
        );
        return Err(ApiError::field("tools", message));
    }
    let mut list: Vec<Tool> = Vec::with_capacity(written.len());
    for (index, tool) in written.iter().enumerate() {
        let tool = read_tool(index, tool)?;
        if list.iter().any(|other| other.name == tool.name) {
            let name = format!("tools[{index}].function.name");
            let message = format!("{name} is the name of two functions");
            return Err(ApiError::field(&name, message));
        }
        list.push(tool);
    }
    let choice = take_choice(fields, &list)?;
    let tools = Tools {
        // A function that is named is called once, as in OpenAI's API.
        are_parallel: are_parallel && !matches!(choice, ToolChoice::One(_)),
        choice: match list.is_empty() {
            true => ToolChoice::None,
            false => choice,
        },
        list,
    };
    Ok((tools, written))
}

/// The error of the function whose arguments have no grammar.
pub fn unsupported(tools: &Tools, error: UnsupportedSchema) -> ApiError {
    let index = match tools.choice {
        ToolChoice::One(index) => index,
        _ => error.index,
    };
    let name = format!("tools[{index}].function.parameters");
    ApiError::field(&name, format!("{name}: {error}"))
}

fn read_tool(index: usize, tool: &Value) -> Result<Tool, ApiError> {
    let function = &tool["function"];
    let Some(name) = function["name"]
        .as_str()
        .filter(|_| tool["type"] == "function")
    else {
        let name = format!("tools[{index}]");
        let expected = "{\"type\": \"function\", \"function\": {\"name\": ...}}";
        return Err(wrong(&name, tool, expected));
    };
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(is_of_name) {
        let place = format!("tools[{index}].function.name");
        let expected = "1 to 128 letters, digits, underscores, hyphens and dots";
        return Err(wrong(&place, &function["name"], expected));
    }
    let place = format!("tools[{index}].function.parameters");
    let parameters = match &function["parameters"] {
        Value::Null => json!({"type": "object", "properties": {}}),
        Value::Object(fields) => Value::Object(fields.clone()),
        other => return Err(wrong(&place, other, "an object that is a JSON schema")),
    };
    let kind = &parameters["type"];
    if !kind.is_null() && kind != "object" {
        return Err(wrong(&format!("{place}.type"), kind, "\"object\""));
    }
    let parameters = schema::checked(parameters)
        .map_err(|error| ApiError::field(&place, format!("{place}: {error}")))?;
    Ok(Tool {
        name: name.to_owned(),
        parameters,
    })
}

/// `none`, `auto`, `required`, or a function.
fn take_choice(fields: &mut Fields, list: &[Tool]) -> Result<ToolChoice, ApiError> {
    const EXPECTED: &str = "\"none\", \"auto\", \"required\" or {\"type\": \"function\", \"function\": {\"name\": ...}}";
    let field = |message: String| Err(ApiError::field("tool_choice", message));
    match fields.take::<Value>("tool_choice")? {
        None => Ok(ToolChoice::Auto),
        Some(Value::String(choice)) => match choice.as_str() {
            "none" => Ok(ToolChoice::None),
            "auto" => Ok(ToolChoice::Auto),
            "required" if list.is_empty() => {
                field("tool_choice is \"required\", and there are no tools".to_owned())
            }
            "required" => Ok(ToolChoice::Required),
            _ => Err(fields.wrong("tool_choice", &Value::String(choice), EXPECTED)),
        },
        Some(choice) => {
            let name = function_of(&choice);
            let Some(name) = name else {
                return Err(fields.wrong("tool_choice", &choice, EXPECTED));
            };
            match list.iter().position(|tool| tool.name == name) {
                Some(index) => Ok(ToolChoice::One(index)),
                None => field("tool_choice names a function that is none of the tools".to_owned()),
            }
        }
    }
}

fn function_of(choice: &Value) -> Option<&str> {
    let function: &Map<String, Value> = choice["function"].as_object()?;
    let name = function.get("name")?.as_str()?;
    (choice["type"] == "function").then_some(name)
}
