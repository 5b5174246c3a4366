//! Requests of other APIs, written as the request for a conversation's next message that asks for the same. So all of
//! them obey the same rules, and each one's errors speak of its own fields.

use serde_json::{Map, Value};

use crate::backend::Draw;

use super::conversation::Conversation;
use super::{ApiError, ChatRequest, Fields};

/// [`same_fields`] but for shares.
const SAME: [&str; 12] = [
    "model",
    "stream",
    "temperature",
    "top_k",
    "repeat_penalty",
    "repetition_penalty",
    "repeat_last_n",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "seed",
    "ignore_eos",
];

/// Fields that mean the same in every API: OpenAI's, and those of llama.cpp and vLLM besides.
fn same_fields() -> impl Iterator<Item = &'static str> {
    let shares = Draw::default().shares().map(|(names, _)| names).concat();
    SAME.into_iter().chain(shares)
}

/// The conversation's request, as far as it is written.
pub struct Translation {
    body: Map<String, Value>,
    /// What the template is told.
    variables: Map<String, Value>,
    names: Names,
}

impl Translation {
    /// Takes from `fields` what means the same here and there.
    pub fn new(fields: &mut Fields) -> Result<Translation, ApiError> {
        let mut body = Map::new();
        for name in same_fields() {
            if let Some(value) = fields.take::<Value>(name)? {
                body.insert(name.to_owned(), value);
            }
        }
        Ok(Translation {
            body,
            variables: fields.take("chat_template_kwargs")?.unwrap_or_default(),
            names: Names::default(),
        })
    }

    /// What was taken under `name`.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.body.get(name)
    }

    /// Writes the field `ours`, which says what `theirs` does.
    pub fn set(&mut self, ours: &str, value: impl Into<Value>, theirs: &str) {
        self.body.insert(ours.to_owned(), value.into());
        self.names.add(ours, theirs);
    }

    /// Says that `ours`, a part of a field that is written, has the name `theirs`.
    pub fn rename(&mut self, ours: &str, theirs: &str) {
        self.names.add(ours, theirs);
    }

    /// Tells the template what the field `theirs` says.
    pub fn tell(&mut self, variable: &str, value: Value, theirs: &str) -> Result<(), ApiError> {
        match self.variables.get(variable) {
            Some(other) if *other != value => {
                let name = format!("chat_template_kwargs.{variable}");
                let message = format!("{name} and {theirs} say different things");
                Err(ApiError::field(&name, message))
            }
            _ => {
                self.variables.insert(variable.to_owned(), value);
                Ok(())
            }
        }
    }

    /// Reads the request that is written.
    pub fn read(mut self, conversation: Conversation) -> Result<(ChatRequest, Names), ApiError> {
        let messages = conversation.finish(&mut self.names);
        self.body.insert("messages".to_owned(), messages.into());
        if !self.variables.is_empty() {
            let variables = Value::Object(self.variables);
            self.body
                .insert("chat_template_kwargs".to_owned(), variables);
        }
        match ChatRequest::from_body(Value::Object(self.body)) {
            Ok(request) => Ok((request, self.names)),
            Err(error) => Err(self.names.restore(error)),
        }
    }
}

/// What fields of the conversation's request are called in the API that was spoken.
#[derive(Debug, Clone, Default)]
pub struct Names(Vec<(String, String)>);

impl Names {
    /// `ours` and what is in it is called `theirs` there.
    pub(super) fn add(&mut self, ours: impl Into<String>, theirs: impl Into<String>) {
        self.0.push((ours.into(), theirs.into()));
    }

    /// `error` in the words of the API that was spoken.
    pub fn restore(&self, error: ApiError) -> ApiError {
        let Some(param) = &error.param else {
            return error;
        };
        let rest = |(ours, theirs): &(String, String)| {
            let rest = param.strip_prefix(ours.as_str())?;
            let is_within = rest.is_empty() || rest.starts_with(['.', '[']);
            is_within.then(|| (ours.len(), format!("{theirs}{rest}")))
        };
        let longest = self.0.iter().filter_map(rest).max_by_key(|(len, _)| *len);
        let Some((_, renamed)) = longest else {
            return error;
        };
        let message = match error.message.strip_prefix(param.as_str()) {
            Some(rest) => format!("{renamed}{rest}"),
            None => error.message.clone(),
        };
        ApiError {
            param: Some(renamed),
            message,
            ..error
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::openai::Settings;
    use crate::openai::fields::record::taken;

    /// An option that is added to conversations and forgotten in the list would be refused by the other APIs.
    #[test]
    fn every_setting_of_a_conversation_is_the_same_in_every_api_or_has_a_name_of_its_own() {
        const OF_ITS_OWN: [&str; 3] = ["n", "stop", "stream_options"];
        let (settings, names) = taken(|| {
            let mut fields = Fields::new(json!({}), "the body", String::new())?;
            Settings::take(&mut fields)
        });
        settings.expect("defaults");
        let listed: BTreeSet<String> = same_fields().chain(OF_ITS_OWN).map(str::to_owned).collect();
        assert_eq!(listed, names);
    }

    #[test]
    fn errors_speak_of_the_fields_that_were_sent() {
        let mut names = Names::default();
        names.add("messages[1]", "messages[0]");
        names.add("messages[1].tool_calls[0].function.arguments", "input");
        names.add("stop", "stop_sequences");
        let restored = |param: &str| {
            let error = ApiError::field(param, format!("{param} is 5; expected 6"));
            let error = names.restore(error);
            (error.param.unwrap_or_default(), error.message)
        };
        for (ours, theirs) in [
            ("stop", "stop_sequences"),
            ("stop[3]", "stop_sequences[3]"),
            ("stopped", "stopped"),
            ("messages[1].content", "messages[0].content"),
            ("messages[10]", "messages[10]"),
            ("messages[1].tool_calls[0].function.arguments", "input"),
        ] {
            let message = format!("{theirs} is 5; expected 6");
            assert_eq!(restored(ours), (theirs.to_owned(), message));
        }
        let other = ApiError::field("stop", "a stop is missing");
        assert_eq!(names.restore(other).message, "a stop is missing");
        let none = ApiError::invalid("no field");
        assert_eq!(names.restore(none.clone()), none);
    }

    #[test]
    fn the_template_is_told_one_thing() {
        let body = json!({"chat_template_kwargs": {"enable_thinking": true}, "seed": 1});
        let mut fields = Fields::new(body, "the body", String::new()).expect("fields");
        let mut translation = Translation::new(&mut fields).expect("a translation");
        assert_eq!(translation.get("seed"), Some(&json!(1)));
        assert_eq!(
            translation.tell("enable_thinking", json!(true), "thinking"),
            Ok(())
        );
        let error = translation.tell("enable_thinking", json!(false), "thinking");
        let error = error.expect_err("two things");
        assert!(error.message.contains("thinking say different"), "{error}");
    }
}
