//! The messages of a conversation, written from the items or blocks that other APIs have for them.

use serde_json::{Map, Value, json};

use super::translation::Names;

/// Messages in their order.
#[derive(Default)]
pub struct Conversation {
    messages: Vec<Message>,
}

struct Message {
    role: &'static str,
    /// What it is called in the request.
    place: String,
    texts: Vec<String>,
    reasoning: Vec<String>,
    calls: Vec<Value>,
    /// What each of them is called in the request.
    call_places: Vec<String>,
    /// The call whose result it is.
    call_id: Option<String>,
}

impl Conversation {
    /// Whether there are none yet.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Whether the last one is the assistant's.
    pub fn ends_with_assistant(&self) -> bool {
        self.is_last("assistant")
    }

    /// A message of the system.
    pub fn system(&mut self, place: &str, texts: Vec<String>) {
        self.add("system", place).texts = texts;
    }

    /// A message of the user.
    pub fn user(&mut self, place: &str, texts: Vec<String>) {
        self.add("user", place).texts = texts;
    }

    /// More of the user's message, or a new one where the last one is of somebody else.
    pub fn continue_user(&mut self, place: &str, texts: Vec<String>) {
        self.open("user", place).texts.extend(texts);
    }

    /// More text of the assistant's message.
    pub fn say(&mut self, place: &str, text: String) {
        self.open("assistant", place).texts.push(text);
    }

    /// More of what the assistant thought.
    pub fn think(&mut self, place: &str, text: String) {
        self.open("assistant", place).reasoning.push(text);
    }

    /// A call in the assistant's message; `arguments` are a JSON object.
    pub fn call(&mut self, place: &str, id: &str, name: &str, arguments: &str) {
        let function = json!({"name": name, "arguments": arguments});
        let call = json!({"id": id, "type": "function", "function": function});
        let message = self.open("assistant", place);
        message.calls.push(call);
        message.call_places.push(place.to_owned());
    }

    /// The result of a call.
    pub fn result(&mut self, place: &str, id: String, texts: Vec<String>) {
        let message = self.add("tool", place);
        message.texts = texts;
        message.call_id = Some(id);
    }

    /// The messages, and in `names` what each is called in the request.
    pub(super) fn finish(self, names: &mut Names) -> Vec<Value> {
        let messages = self.messages.into_iter().enumerate();
        let messages = messages.map(|(index, message)| {
            let ours = format!("messages[{index}]");
            for (index, place) in message.call_places.iter().enumerate() {
                names.add(
                    format!("{ours}.tool_calls[{index}].function"),
                    place.clone(),
                );
            }
            names.add(ours, message.place.clone());
            message.into_json()
        });
        messages.collect()
    }

    fn is_last(&self, role: &str) -> bool {
        self.messages.last().is_some_and(|last| last.role == role)
    }

    /// The last message, where it is of `role`, or else a new one.
    fn open(&mut self, role: &'static str, place: &str) -> &mut Message {
        if !self.is_last(role) {
            return self.add(role, place);
        }
        let last = self.messages.len() - 1;
        &mut self.messages[last]
    }

    fn add(&mut self, role: &'static str, place: &str) -> &mut Message {
        self.messages.push(Message {
            role,
            place: place.to_owned(),
            texts: Vec::new(),
            reasoning: Vec::new(),
            calls: Vec::new(),
            call_places: Vec::new(),
            call_id: None,
        });
        let last = self.messages.len() - 1;
        &mut self.messages[last]
    }
}

impl Message {
    fn into_json(self) -> Value {
        let mut json = Map::new();
        json.insert("role".to_owned(), self.role.into());
        json.insert("content".to_owned(), self.texts.join("\n").into());
        if !self.reasoning.is_empty() {
            let reasoning = self.reasoning.join("\n");
            json.insert("reasoning_content".to_owned(), reasoning.into());
        }
        if !self.calls.is_empty() {
            json.insert("tool_calls".to_owned(), self.calls.into());
        }
        if let Some(id) = self.call_id {
            json.insert("tool_call_id".to_owned(), id.into());
        }
        Value::Object(json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_assistant_says_thinks_and_calls_is_one_message() {
        let mut conversation = Conversation::default();
        conversation.user("a", vec!["1".to_owned()]);
        conversation.user("b", vec!["2".to_owned()]);
        conversation.continue_user("c", vec!["3".to_owned()]);
        conversation.think("d", "hm".to_owned());
        conversation.say("e", "well".to_owned());
        conversation.call("f", "id", "name", "{}");
        assert!(conversation.ends_with_assistant());
        conversation.result("g", "id".to_owned(), vec!["r".to_owned()]);
        let mut names = Names::default();
        let call = json!({"id": "id", "type": "function", "function": {"name": "name", "arguments": "{}"}});
        assert_eq!(
            conversation.finish(&mut names),
            [
                json!({"role": "user", "content": "1"}),
                json!({"role": "user", "content": "2\n3"}),
                json!({
                    "role": "assistant", "content": "well", "reasoning_content": "hm", "tool_calls": [call],
                }),
                json!({"role": "tool", "content": "r", "tool_call_id": "id"}),
            ]
        );
    }
}
