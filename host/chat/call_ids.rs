//! Names of earlier calls as templates want them: those of Mistral refuse others than their own.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::ChatTemplate;

/// A name such as other APIs give to calls, and one such as Mistral's.
const LONG: &str = "call_0";
pub(super) const SHORT: &str = "call00000";

impl ChatTemplate {
    /// `messages` with the names of calls that the template takes. Other ones than nine letters and digits are replaced
    /// where it takes none but these; which result belongs to which call stays as it is.
    pub fn with_call_ids<'m>(&self, messages: &'m [Value]) -> Cow<'m, [Value]> {
        let has_calls = |message: &Value| message["tool_calls"].is_array();
        let refuses = |id| {
            self.with_call(id, Value::Object(serde_json::Map::new()))
                .is_none()
        };
        if !messages.iter().any(has_calls) || !refuses(LONG) || refuses(SHORT) {
            return Cow::Borrowed(messages);
        }
        let mut messages = messages.to_vec();
        let mut ids = Ids::of(&mut messages);
        for id in ids_in(&mut messages) {
            if let Some(other) = id.as_str().and_then(|id| ids.replaced(id)) {
                *id = other.into();
            }
        }
        Cow::Owned(messages)
    }
}

/// Names in place of others.
struct Ids {
    /// Those that may stay.
    taken: HashSet<String>,
    given: HashMap<String, String>,
    n: usize,
}

impl Ids {
    fn of(messages: &mut [Value]) -> Ids {
        let ids = ids_in(messages);
        let ids = ids.filter_map(|id| id.as_str()).filter(|id| is_short(id));
        Ids {
            taken: ids.map(str::to_owned).collect(),
            given: HashMap::new(),
            n: 0,
        }
    }

    /// The name in place of `id`, where it may not stay.
    fn replaced(&mut self, id: &str) -> Option<String> {
        if is_short(id) {
            return None;
        }
        if let Some(given) = self.given.get(id) {
            return Some(given.clone());
        }
        let new = loop {
            let new = format!("call{:05}", self.n);
            self.n += 1;
            if !self.taken.contains(&new) {
                break new;
            }
        };
        self.given.insert(id.to_owned(), new.clone());
        Some(new)
    }
}

fn is_short(id: &str) -> bool {
    id.len() == SHORT.len() && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The names of all calls, and those that results refer to.
fn ids_in(messages: &mut [Value]) -> impl Iterator<Item = &mut Value> {
    messages
        .iter_mut()
        .filter_map(Value::as_object_mut)
        .flat_map(|message| {
            message
                .iter_mut()
                .flat_map(|(name, value)| -> Vec<&mut Value> {
                    match (name.as_str(), value) {
                        ("tool_call_id", id) => vec![id],
                        ("tool_calls", Value::Array(calls)) => calls
                            .iter_mut()
                            .filter_map(|call| call.get_mut("id"))
                            .collect(),
                        _ => Vec::new(),
                    }
                })
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Variables;
    use serde_json::json;

    const MISTRAL: &str = "{% for m in messages %}{% for c in m.tool_calls or [] %}{% if c.id | length != 9 %}\
        {{ raise_exception('IDs have 9 letters') }}{% endif %}<{{ c.id }}>{% endfor %}\
        {% if m.tool_call_id is defined %}({{ m.tool_call_id }}){% endif %}{% endfor %}";

    fn laid_out(source: &str, ids: &[&str]) -> String {
        let template = ChatTemplate::new(Some(source), "", "").expect("a template");
        let calls = ids
            .iter()
            .map(|id| json!({"id": id, "function": {"name": "f", "arguments": {}}}));
        let calls = calls.collect::<Vec<_>>();
        let mut messages = vec![json!({"role": "assistant", "content": "", "tool_calls": calls})];
        messages.extend(
            ids.iter()
                .rev()
                .map(|id| json!({"role": "tool", "content": "", "tool_call_id": id})),
        );
        let messages = template.with_call_ids(&messages);
        template
            .render(&messages, false, &Variables::new())
            .expect("a text")
    }

    #[test]
    fn names_that_a_template_refuses_are_replaced() {
        let text = laid_out(MISTRAL, &["call_1", "call00000", "toolu_abc", "abcdefghi"]);
        assert_eq!(
            text,
            "<call00001><call00000><call00002><abcdefghi>(abcdefghi)(call00002)(call00000)(call00001)"
        );
        // Others show them as they are.
        let any = MISTRAL.replace("!= 9", "== 0");
        assert_eq!(laid_out(&any, &["call_1", "é"]), "<call_1><é>(é)(call_1)");
    }
}
