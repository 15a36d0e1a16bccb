//! Functions that a reply is made to call. Which one is the client's choice, never the model's: the
//! reply is held to the schema of the arguments, so that it is a call whatever the model is.

use super::ApiError;
use crate::chat::wire::{Called, ChatMessage, ChatRequest, Function, ToolCall, ToolChoice};
use serde_json::{Value, json};

/// The function that the reply must call, if any.
///
/// # Errors
/// The model would have to choose, or there is no such function.
pub fn forced(request: &ChatRequest) -> Result<Option<Function>, ApiError> {
    let tools = request.tools.as_deref().unwrap_or_default();
    if let Some(other) = tools.iter().find(|tool| tool.kind != "function") {
        let why = format!("type {} is not supported, but only function", other.kind);
        return Err(ApiError::unsupported("tools", why));
    }
    match (&request.tool_choice, tools) {
        (Some(ToolChoice::Named { function }), _) => {
            let found = tools.iter().find(|tool| tool.function.name == function.name);
            let missing =
                || ApiError::field("tool_choice", format!("no tool is {}", function.name));
            Ok(Some(found.ok_or_else(missing)?.function.clone()))
        }
        (_, []) => Ok(None),
        (Some(ToolChoice::Mode(mode)), _) if mode == "none" => Ok(None),
        (Some(ToolChoice::Mode(mode)), [only]) if mode == "required" => {
            Ok(Some(only.function.clone()))
        }
        _ => Err(ApiError::unsupported(
            "tools",
            "the model is not asked to choose: name the function in tool_choice, or give one and \
             \"required\", or \"none\"",
        )),
    }
}

/// Whether some call is required, not one by name.
pub fn is_required(request: &ChatRequest) -> bool {
    matches!(&request.tool_choice, Some(ToolChoice::Mode(mode)) if mode == "required")
}

/// The schema that the reply is held to.
pub fn schema(function: &Function) -> Value {
    function.parameters.clone().unwrap_or_else(|| json!({"type": "object"}))
}

/// Tells the model what is wanted, as the system does.
pub fn tell(messages: &mut Vec<ChatMessage>, function: &Function) {
    let purpose = match &function.description {
        Some(description) => format!(" ({description})"),
        None => String::new(),
    };
    let told = format!(
        "Reply with nothing but a JSON object: the arguments for a call of the function \
         {}{purpose}. Its schema: {}",
        function.name,
        schema(function)
    );
    match messages.first_mut() {
        Some(first) if matches!(first.role.as_str(), "system" | "developer") => first.append(&told),
        _ => messages.insert(0, ChatMessage::new("system", told)),
    }
}

/// A whole call.
pub fn call(id: String, name: &str, arguments: String) -> ToolCall {
    ToolCall {
        index: None,
        id: Some(id),
        kind: Some("function".into()),
        function: Called { name: Some(name.to_owned()), arguments },
    }
}

/// More of a call that was begun.
pub fn more(arguments: String) -> ToolCall {
    ToolCall { index: Some(0), id: None, kind: None, function: Called { name: None, arguments } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: Value) -> ChatRequest {
        let mut request = json!({"messages": [{"role": "user", "content": "x"}]});
        request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        serde_json::from_value(request).unwrap()
    }

    fn tool(name: &str) -> Value {
        json!({"type": "function", "function": {"name": name, "description": "d"}})
    }

    #[test]
    fn the_client_chooses_the_function() {
        let named = json!({"type": "function", "function": {"name": "b"}});
        let name = |fields| forced(&request(fields)).unwrap().map(|function| function.name);
        assert_eq!(
            name(json!({"tools": [tool("a"), tool("b")], "tool_choice": named})).unwrap(),
            "b"
        );
        assert_eq!(name(json!({"tools": [tool("a")], "tool_choice": "required"})).unwrap(), "a");
        assert_eq!(name(json!({"tools": [tool("a")], "tool_choice": "none"})), None);
        assert_eq!(name(json!({"tools": [], "tool_choice": "auto"})), None);
        assert_eq!(name(json!({})), None);
        let refused = |fields| forced(&request(fields)).unwrap_err().body().error.param.unwrap();
        assert_eq!(refused(json!({"tools": [tool("a")]})), "tools");
        assert_eq!(refused(json!({"tools": [tool("a")], "tool_choice": "auto"})), "tools");
        let two = json!({"tools": [tool("a"), tool("b")], "tool_choice": "required"});
        assert_eq!(refused(two), "tools");
        assert_eq!(refused(json!({"tools": [tool("a")], "tool_choice": named})), "tool_choice");
    }

    #[test]
    fn the_system_tells_of_the_function() {
        let function = Function { name: "f".into(), description: None, parameters: None };
        let told = |messages: Value| {
            let mut messages: Vec<ChatMessage> = serde_json::from_value(messages).unwrap();
            tell(&mut messages, &function);
            messages.into_iter().map(|message| message.role).collect::<Vec<_>>()
        };
        assert_eq!(told(json!([{"role": "user", "content": "x"}])), ["system", "user"]);
        let both = json!([{"role": "system", "content": "y"}, {"role": "user", "content": "x"}]);
        assert_eq!(told(both), ["system", "user"]);
    }
}
