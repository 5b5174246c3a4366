//! The fields of a JSON object, taken one by one, so that none is left unread.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::ApiError;
use super::neutral::{is_neutral, kind_of};

/// Characters of a wrong value that a message shows.
const MOST_SHOWN: usize = 60;

/// What is still to be read of an object.
pub struct Fields {
    fields: Map<String, Value>,
    /// What messages put before the fields' names, such as `messages[2].`.
    place: String,
}

/// A type that a field can have.
pub trait Field: Sized {
    /// What messages call it.
    const EXPECTED: &'static str;

    /// The value, unless it is of another type.
    fn of(value: Value) -> Result<Self, Value>;
}

impl Field for bool {
    const EXPECTED: &'static str = "true or false";

    fn of(value: Value) -> Result<bool, Value> {
        value.as_bool().ok_or(value)
    }
}

impl Field for f32 {
    const EXPECTED: &'static str = "a number";

    /// What an `f32` does not hold becomes infinite, and is outside of every range.
    fn of(value: Value) -> Result<f32, Value> {
        value.as_f64().map(|number| number as f32).ok_or(value)
    }
}

impl Field for i128 {
    const EXPECTED: &'static str = "a whole number";

    /// Some clients write whole numbers as `1.0`.
    fn of(value: Value) -> Result<i128, Value> {
        const EXACT: f64 = (1_u64 << 53) as f64;
        let whole = |number: &f64| number.fract() == 0.0 && number.abs() <= EXACT;
        let integer = value.as_i64().map(i128::from);
        let integer = integer.or_else(|| value.as_u64().map(i128::from));
        let float = || value.as_f64().filter(whole).map(|number| number as i128);
        integer.or_else(float).ok_or(value)
    }
}

impl Field for String {
    const EXPECTED: &'static str = "a string";

    fn of(value: Value) -> Result<String, Value> {
        match value {
            Value::String(text) => Ok(text),
            other => Err(other),
        }
    }
}

impl Field for Vec<Value> {
    const EXPECTED: &'static str = "a list";

    fn of(value: Value) -> Result<Vec<Value>, Value> {
        match value {
            Value::Array(items) => Ok(items),
            other => Err(other),
        }
    }
}

impl Field for Map<String, Value> {
    const EXPECTED: &'static str = "an object";

    fn of(value: Value) -> Result<Map<String, Value>, Value> {
        match value {
            Value::Object(fields) => Ok(fields),
            other => Err(other),
        }
    }
}

impl Field for Value {
    const EXPECTED: &'static str = "a value";

    fn of(value: Value) -> Result<Value, Value> {
        Ok(value)
    }
}

impl Fields {
    /// The fields of `value`, which messages call `what` and whose fields they call `place` and the name.
    pub fn new(value: Value, what: &str, place: String) -> Result<Fields, ApiError> {
        let fields = Map::of(value).map_err(|value| wrong(what, &value, "an object"))?;
        #[cfg(test)]
        record::begin(&place);
        Ok(Fields { fields, place })
    }

    /// What messages call the field `name`.
    pub fn name(&self, name: &str) -> String {
        format!("{}{name}", self.place)
    }

    /// Takes the field `name`; `None` where it is missing or null.
    pub fn take<T: Field>(&mut self, name: &str) -> Result<Option<T>, ApiError> {
        #[cfg(test)]
        record::add(self.name(name));
        match self.fields.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match T::of(value) {
                Ok(value) => Ok(Some(value)),
                Err(value) => Err(wrong(&self.name(name), &value, T::EXPECTED)),
            },
        }
    }

    /// Takes the field `name`, which must be there.
    pub fn require<T: Field>(&mut self, name: &str) -> Result<T, ApiError> {
        let missing = self.name(name);
        let value = self.take(name)?;
        value.ok_or_else(|| ApiError::field(&missing, format!("{missing} is missing")))
    }

    /// Takes the text `name`, which is one of `words`.
    pub fn take_word(&mut self, name: &str, words: &[&str]) -> Result<Option<String>, ApiError> {
        match self.take::<Value>(name)? {
            None => Ok(None),
            Some(Value::String(word)) if words.contains(&word.as_str()) => Ok(Some(word)),
            Some(other) => {
                let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
                Err(self.wrong(name, &other, &words.join(", ")))
            }
        }
    }

    /// Takes the object `name` as fields.
    pub fn take_fields(&mut self, name: &str) -> Result<Option<Fields>, ApiError> {
        let what = self.name(name);
        let fields = self.take::<Map<String, Value>>(name)?;
        Ok(fields.map(|fields| Fields {
            fields,
            place: format!("{what}."),
        }))
    }

    /// Takes a field that has several names, given under one of them or with the same value under others too.
    pub fn take_any<T: Field + PartialEq>(
        &mut self,
        names: &[&str],
    ) -> Result<Option<T>, ApiError> {
        let mut found: Option<(&str, T)> = None;
        for name in names {
            let Some(value) = self.take::<T>(name)? else {
                continue;
            };
            match &found {
                Some((first, other)) if *other != value => {
                    let message =
                        format!("{first} and {name} are the same and have different values");
                    return Err(ApiError::field(first, message));
                }
                _ => found = Some((name, value)),
            }
        }
        Ok(found.map(|(_, value)| value))
    }

    /// Takes the whole number `name` within `range`.
    pub fn take_within(
        &mut self,
        name: &str,
        range: RangeInclusive<i128>,
        expected: &str,
    ) -> Result<Option<i128>, ApiError> {
        match self.take::<i128>(name)? {
            Some(number) if !range.contains(&number) => {
                Err(wrong(&self.name(name), &number, expected))
            }
            number => Ok(number),
        }
    }

    /// The error of a field `name` whose value is `value` and should be as `expected`.
    pub fn wrong(&self, name: &str, value: &Value, expected: &str) -> ApiError {
        wrong(&self.name(name), value, expected)
    }

    /// Refuses a field by which the requests of other endpoints differ from those to `path`, which have `own` instead:
    /// the whole request was meant for another one.
    pub fn refuse_elsewhere(&self, path: &str, own: &str) -> Result<(), ApiError> {
        const OF_ENDPOINTS: [(&str, &str); 3] = [
            ("messages", "/v1/chat/completions and /v1/messages"),
            ("prompt", "/v1/completions"),
            ("input", "/v1/responses and /v1/embeddings"),
        ];
        let is_given = |name: &str| match self.fields.get(name) {
            Some(Value::String(text)) => !text.is_empty(),
            Some(Value::Array(items)) => !items.is_empty(),
            _ => false,
        };
        let mut others = OF_ENDPOINTS.iter().filter(|(name, _)| *name != own);
        match others.find(|(name, _)| is_given(name)) {
            None => Ok(()),
            Some((name, paths)) => Err(ApiError {
                code: Some("unsupported_parameter"),
                ..ApiError::field(name, format!("{name} is for {paths}; {path} takes {own}"))
            }),
        }
    }

    /// What nobody has taken.
    pub fn rest(self) -> Map<String, Value> {
        self.fields
    }

    /// Refuses what nobody has taken, unless it asks for nothing.
    pub fn finish(self) -> Result<(), ApiError> {
        for (name, value) in &self.fields {
            if !is_neutral(name, value) {
                if let Some(kind) = kind_of(name) {
                    return Err(self.wrong(name, value, kind.expected()));
                }
                let name = format!("{}{}", self.place, shortened(name));
                let value = shown(value);
                let message = format!("{name} is not supported (its value is {value})");
                return Err(ApiError {
                    code: Some("unsupported_parameter"),
                    ..ApiError::field(&name, message)
                });
            }
        }
        Ok(())
    }
}

/// The error of `name`, whose value is `value` and should be as `expected`.
pub fn wrong(name: &str, value: &impl ToString, expected: &str) -> ApiError {
    let value = shown(value);
    ApiError::field(name, format!("{name} is {value}; expected {expected}"))
}

/// A value in a message.
fn shown(value: &impl ToString) -> String {
    shortened(&value.to_string()).into_owned()
}

fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(MOST_SHOWN) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}...", &text[..end])),
    }
}

/// Which names readers look for, so that tests can compare them with what is written about them.
#[cfg(test)]
pub mod record {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    thread_local! {
        /// Of each body, in the order in which they were begun.
        static BODIES: RefCell<Vec<BTreeSet<String>>> = const { RefCell::new(Vec::new()) };
    }

    pub fn begin(place: &str) {
        if place.is_empty() {
            BODIES.with_borrow_mut(|bodies| bodies.push(BTreeSet::new()));
        }
    }

    pub fn add(name: String) {
        BODIES.with_borrow_mut(|bodies| bodies.last_mut().map(|names| names.insert(name)));
    }

    /// What `read` gives, and what it looked for in its body; not what is looked for in one that is made of it.
    pub fn taken<T>(read: impl FnOnce() -> T) -> (T, BTreeSet<String>) {
        BODIES.take();
        let outcome = read();
        (
            outcome,
            BODIES.take().into_iter().next().unwrap_or_default(),
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        Fields::new(value, "the body", String::new()).expect("an object")
    }

    fn message<T: std::fmt::Debug>(result: Result<T, ApiError>) -> String {
        result.expect_err("an error").message
    }

    #[test]
    fn whole_numbers_may_be_written_as_floats() {
        let mut of = fields(json!({"a": 3.0, "b": 3.5, "c": 1e300, "d": u64::MAX, "e": "3"}));
        assert_eq!(of.take::<i128>("a"), Ok(Some(3)));
        assert_eq!(
            message(of.take::<i128>("b")),
            "b is 3.5; expected a whole number"
        );
        assert!(message(of.take::<i128>("c")).contains("whole number"));
        assert_eq!(of.take::<i128>("d"), Ok(Some(i128::from(u64::MAX))));
        assert!(message(of.take::<i128>("e")).contains("e is \"3\""));
    }

    #[test]
    fn words_and_objects_are_named_with_their_place() {
        let mut of = fields(json!({"a": "x", "b": {"c": 1, "d": "y"}}));
        assert_eq!(of.take_word("none", &["x"]), Ok(None));
        assert_eq!(of.take_word("a", &["w", "x"]), Ok(Some("x".to_owned())));
        assert_eq!(message(of.require::<bool>("a")), "a is missing");
        let mut inner = of.take_fields("b").expect("an object").expect("there");
        assert_eq!(
            message(inner.take_word("d", &["w", "x"])),
            "b.d is \"y\"; expected \"w\", \"x\""
        );
        assert_eq!(message(inner.require::<bool>("d")), "b.d is missing");
    }

    #[test]
    fn what_nobody_took_is_refused_by_name_unless_it_asks_for_nothing() {
        fields(json!({"a": null, "b": false, "c": "", "d": [], "e": {}}))
            .finish()
            .expect("neutral");
        for (name, value) in [
            ("f", json!(true)),
            ("g", json!(0)),
            ("h", json!("x")),
            ("i", json!([0])),
            ("skip_special_tokens", json!(false)),
        ] {
            let error = fields(json!({ name: value })).finish().expect_err(name);
            assert_eq!(error.param.as_deref(), Some(name));
            assert!(error.message.contains(name), "{error}");
        }
    }

    #[test]
    fn requests_to_another_endpoint_are_told_where_they_belong() {
        let path = "/v1/chat/completions";
        for (name, value, elsewhere) in [
            ("prompt", json!("x"), "/v1/completions;"),
            ("prompt", json!([1]), "/v1/completions;"),
            ("input", json!("x"), "/v1/responses"),
        ] {
            let body = json!({"messages": [1], name: value});
            let error = fields(body).refuse_elsewhere(path, "messages");
            let error = error.expect_err(name);
            assert_eq!(error.param.as_deref(), Some(name));
            for part in [elsewhere, path, "takes messages"] {
                assert!(error.message.contains(part), "{error}");
            }
        }
        for neutral in [json!(null), json!(""), json!([])] {
            let body = json!({"messages": [1], "prompt": neutral});
            assert_eq!(fields(body).refuse_elsewhere(path, "messages"), Ok(()));
        }
    }

    #[test]
    fn long_values_are_shortened_between_characters() {
        let text = "ü".repeat(100);
        let error = message(fields(json!({"a": text})).take::<bool>("a"));
        assert!(error.len() < 200 && error.contains("...;"), "{error}");
    }

    #[test]
    fn one_field_of_two_names_has_one_value() {
        let mut same = fields(json!({"a": 1, "b": 1.0}));
        assert_eq!(same.take_any::<i128>(&["a", "b"]), Ok(Some(1)));
        let mut different = fields(json!({"a": 1, "b": 2}));
        assert!(message(different.take_any::<i128>(&["a", "b"])).contains("different values"));
        let mut one = fields(json!({"b": 2}));
        assert_eq!(one.take_any::<i128>(&["a", "b"]), Ok(Some(2)));
    }
}
