//! Tools and how they may be used.

use serde_json::{Map, Value, json};

use crate::openai::{ApiError, Fields, Translation};

/// Takes the functions, which this API has without an object of their own; gives what the response repeats of them.
/// Tools of other kinds, which coding agents offer unasked, are left out: no call of them is ever made.
pub fn read_tools(fields: &mut Fields, request: &mut Translation) -> Result<Value, ApiError> {
    let Some(tools) = fields.take::<Vec<Value>>("tools")? else {
        return Ok(json!([]));
    };
    let mut functions = Vec::new();
    let mut echo = Vec::new();
    for (index, tool) in tools.into_iter().enumerate() {
        let what = format!("tools[{index}]");
        let mut tool = Fields::new(tool, &what, format!("{what}."))?;
        if tool.require::<String>("type")? != "function" {
            continue;
        }
        request.rename(&format!("tools[{}].function", functions.len()), &what);
        let function = take_function(tool)?;
        functions.push(json!({"type": "function", "function": function}));
        echo.push(repeated(function));
    }
    request.set("tools", functions, "tools");
    Ok(echo.into())
}

fn take_function(mut tool: Fields) -> Result<Map<String, Value>, ApiError> {
    let mut function = Map::new();
    function.insert("name".to_owned(), tool.require::<String>("name")?.into());
    if let Some(description) = tool.take::<String>("description")? {
        function.insert("description".to_owned(), description.into());
    }
    if let Some(parameters) = tool.take::<Map<String, Value>>("parameters")? {
        function.insert("parameters".to_owned(), parameters.into());
    }
    if let Some(strict) = tool.take::<bool>("strict")? {
        function.insert("strict".to_owned(), strict.into());
    }
    if let Some(callers) = tool.take::<Value>("allowed_callers")?
        && callers != json!(["direct"])
    {
        return Err(tool.wrong("allowed_callers", &callers, "[\"direct\"]"));
    }
    tool.finish()?;
    Ok(function)
}

/// A function as responses have it: every field is there.
fn repeated(mut function: Map<String, Value>) -> Value {
    let mut take = |name: &str| function.remove(name).unwrap_or_default();
    json!({
        "type": "function",
        "name": take("name"),
        "description": take("description"),
        "parameters": take("parameters"),
        "strict": take("strict"),
    })
}

/// Takes how tools may be used; gives what the response repeats of it.
pub fn read_choice(fields: &mut Fields, request: &mut Translation) -> Result<Value, ApiError> {
    const EXPECTED: &str =
        "\"none\", \"auto\", \"required\" or {\"type\": \"function\", \"name\": ...}";
    let Some(choice) = fields.take::<Value>("tool_choice")? else {
        return Ok(json!("auto"));
    };
    let ours = match &choice {
        Value::String(word) if ["none", "auto", "required"].contains(&word.as_str()) => {
            choice.clone()
        }
        Value::Object(of) if of.get("type").is_some_and(|kind| kind == "function") => {
            let mut of = Fields::new(choice.clone(), "tool_choice", "tool_choice.".to_owned())?;
            of.take::<String>("type")?;
            let name = of.require::<String>("name")?;
            of.finish()?;
            json!({"type": "function", "function": {"name": name}})
        }
        other => return Err(fields.wrong("tool_choice", other, EXPECTED)),
    };
    request.set("tool_choice", ours, "tool_choice");
    request.rename("tool_choice.function", "tool_choice");
    Ok(choice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::responses::ResponsesRequest;

    fn read(more: Value) -> Result<ResponsesRequest, ApiError> {
        let mut body = json!({
            "input": "hi",
            "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": false}],
        });
        for (name, value) in more.as_object().expect("an object") {
            body[name] = value.clone();
        }
        ResponsesRequest::from_body(body)
    }

    #[test]
    fn tools_become_functions() {
        let request = read(json!({"tool_choice": "auto"})).expect("a request");
        let function = &request.chat.variables["tools"][0]["function"];
        assert_eq!(function["name"], "f");
        assert_eq!(function["parameters"], json!({"type": "object"}));
        assert_eq!(
            request.echo.0["tools"],
            json!([{
                "type": "function", "name": "f", "description": null, "parameters": {"type": "object"},
                "strict": false,
            }])
        );
        let offered = json!([
            {"type": "web_search", "external_web_access": true},
            {"type": "function", "name": "f"},
            {"type": "namespace", "name": "n", "tools": []},
        ]);
        let request = read(json!({"tools": offered})).expect("a request");
        assert_eq!(request.chat.tools.list.len(), 1);
        assert_eq!(request.echo.0["tools"].as_array().map(Vec::len), Some(1));
        let hidden = read(json!({"tool_choice": "none"})).expect("a request");
        assert!(!hidden.chat.variables.contains_key("tools"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (more, param) in [
            (json!({"tools": {}}), "tools"),
            (json!({"tools": [1]}), "tools[0]"),
            (json!({"tools": [{"type": 1}]}), "tools[0].type"),
            (json!({"tools": [{"name": "f"}]}), "tools[0].type"),
            (
                json!({"tools": [{"type": "web_search"}, {"type": "function", "name": "?"}]}),
                "tools[1].name",
            ),
            (
                json!({"tools": [{"type": "web_search"}], "tool_choice": "required"}),
                "tool_choice",
            ),
            (json!({"tools": [{"type": "function"}]}), "tools[0].name"),
            (
                json!({"tools": [{"type": "function", "function": {"name": "f"}}]}),
                "tools[0].name",
            ),
            (
                json!({"tools": [{"type": "function", "name": "f", "defer_loading": true}]}),
                "tools[0].defer_loading",
            ),
            (json!({"tool_choice": "any"}), "tool_choice"),
            (json!({"tool_choice": {"type": "mcp"}}), "tool_choice"),
            (
                json!({"tool_choice": {"type": "function"}}),
                "tool_choice.name",
            ),
        ] {
            let error = read(more.clone()).expect_err(param);
            assert_eq!(error.param.as_deref(), Some(param), "{more}: {error}");
        }
    }
}
