//! Tools and how they may be used.

use serde_json::{Map, Value, json};

use crate::openai::{ApiError, Fields, Translation};

/// Takes the tools, which become functions.
pub fn read_tools(fields: &mut Fields, request: &mut Translation) -> Result<(), ApiError> {
    let Some(tools) = fields.take::<Vec<Value>>("tools")? else {
        return Ok(());
    };
    let tools = tools.into_iter().enumerate().map(|(index, tool)| {
        let what = format!("tools[{index}]");
        let ours = format!("{what}.function");
        request.rename(
            &format!("{ours}.parameters"),
            &format!("{what}.input_schema"),
        );
        request.rename(&ours, &what);
        let tool = Fields::new(tool, &what, format!("{what}."))?;
        Ok(json!({"type": "function", "function": read_function(tool)?}))
    });
    let tools = tools.collect::<Result<Vec<Value>, ApiError>>()?;
    request.set("tools", tools, "tools");
    Ok(())
}

fn read_function(mut tool: Fields) -> Result<Value, ApiError> {
    if let Some(kind) = tool.take::<Value>("type")?
        && kind != "custom"
    {
        let expected = "\"custom\": tools that the server runs are not supported";
        return Err(tool.wrong("type", &kind, expected));
    }
    let mut function = Map::new();
    function.insert("name".to_owned(), tool.require::<String>("name")?.into());
    if let Some(description) = tool.take::<String>("description")? {
        function.insert("description".to_owned(), description.into());
    }
    let schema = tool.require::<Map<String, Value>>("input_schema")?;
    function.insert("parameters".to_owned(), schema.into());
    if let Some(strict) = tool.take::<bool>("strict")? {
        function.insert("strict".to_owned(), strict.into());
    }
    // All is cached that can be, and arguments are always sent as they are written.
    tool.take::<Map<String, Value>>("cache_control")?;
    tool.take::<bool>("eager_input_streaming")?;
    if let Some(callers) = tool.take::<Value>("allowed_callers")?
        && callers != json!(["direct"])
    {
        return Err(tool.wrong("allowed_callers", &callers, "[\"direct\"]"));
    }
    tool.finish()?;
    Ok(function.into())
}

/// Takes how tools may be used.
pub fn read_choice(fields: &mut Fields, request: &mut Translation) -> Result<(), ApiError> {
    let Some(mut choice) = fields.take_fields("tool_choice")? else {
        return Ok(());
    };
    let kind = choice.take_word("type", &["auto", "any", "tool", "none"])?;
    let ours = match kind.as_deref() {
        Some("auto") => json!("auto"),
        Some("any") => json!("required"),
        Some("tool") => {
            let name = choice.require::<String>("name")?;
            json!({"type": "function", "function": {"name": name}})
        }
        Some(_) => json!("none"),
        None => return Err(choice.wrong("type", &Value::Null, "auto, any, tool or none")),
    };
    request.set("tool_choice", ours, "tool_choice");
    request.rename("tool_choice.function", "tool_choice");
    if choice.take::<bool>("disable_parallel_tool_use")? == Some(true) {
        let name = "tool_choice.disable_parallel_tool_use";
        request.set("parallel_tool_calls", false, name);
    }
    choice.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::anthropic::MessagesRequest;

    fn read(more: Value) -> Result<MessagesRequest, ApiError> {
        let mut body = json!({
            "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}],
            "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}}],
        });
        for (name, value) in more.as_object().expect("an object") {
            body[name] = value.clone();
        }
        MessagesRequest::from_body(body)
    }

    #[test]
    fn tools_become_functions() {
        let function = json!({"name": "f", "description": "d", "parameters": {"type": "object"}});
        let expected = json!([{"type": "function", "function": function}]);
        let request = read(json!({"tool_choice": {"type": "auto"}})).expect("a request");
        assert_eq!(request.chat.variables["tools"], expected);
        let hidden = read(json!({"tool_choice": {"type": "none"}})).expect("a request");
        assert!(!hidden.chat.variables.contains_key("tools"));
    }

    #[test]
    fn what_agents_add_to_tools_changes_nothing() {
        let added = json!({
            "name": "f", "input_schema": {}, "type": "custom", "cache_control": {"type": "ephemeral"},
            "eager_input_streaming": true, "defer_loading": false, "input_examples": [],
            "allowed_callers": ["direct"],
        });
        let request = read(json!({ "tools": [added] })).expect("a request");
        let function = &request.chat.variables["tools"][0]["function"];
        assert_eq!(*function, json!({"name": "f", "parameters": {}}));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (more, param) in [
            (json!({"tools": {}}), "tools"),
            (json!({"tools": [1]}), "tools[0]"),
            (json!({"tools": [{"input_schema": {}}]}), "tools[0].name"),
            (json!({"tools": [{"name": "f"}]}), "tools[0].input_schema"),
            (
                json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
                "tools[0].type",
            ),
            (
                json!({"tools": [{"name": "f", "input_schema": {}, "defer_loading": true}]}),
                "tools[0].defer_loading",
            ),
            (
                json!({"tools": [{"name": "f", "input_schema": {}, "allowed_callers": ["code"]}]}),
                "tools[0].allowed_callers",
            ),
            (json!({"tool_choice": "auto"}), "tool_choice"),
            (json!({"tool_choice": {}}), "tool_choice.type"),
            (json!({"tool_choice": {"type": "tool"}}), "tool_choice.name"),
        ] {
            let error = read(more.clone()).expect_err(param);
            assert_eq!(error.param.as_deref(), Some(param), "{more}: {error}");
        }
    }
}
