//! The grammar of calls.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::bare::BareArguments;
use super::format::{Arguments, CallId, ID_LENGTH};
use super::{Tool, ToolFormat};
use crate::grammar::lark::{self, Space};
use crate::tokenizer::Tokenizer;

/// Why the arguments of a function have no grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct UnsupportedSchema {
    /// Which of the functions it is.
    pub index: usize,
    /// What is wrong with its schema.
    pub message: String,
}

/// Calls of some functions in one form, as rules of a grammar.
pub struct CallGrammar<'a> {
    /// The form.
    pub format: ToolFormat,
    /// The functions.
    pub tools: &'a [Tool],
    /// Whether several may be called.
    pub are_parallel: bool,
    /// The vocabulary, in which some of the form's texts are tokens.
    pub tokenizer: &'a Tokenizer,
}

impl CallGrammar<'_> {
    /// The grammar of answers that are calls.
    pub fn required(&self) -> Result<String, UnsupportedSchema> {
        Ok(format!(
            "start: LEADING_SPACE? {} calls\n{}\n{}",
            self.literal(self.format.layout().marker),
            lark::LEADING_SPACE,
            self.rules()?
        ))
    }

    /// The grammar of what follows the marker of the first call.
    pub fn behind_marker(&self) -> Result<String, UnsupportedSchema> {
        Ok(format!("start: calls\n{}", self.rules()?))
    }

    /// The grammar of answers that are calls or a value of `schema`.
    pub fn or_value(&self, schema: &Value) -> Result<String, UnsupportedSchema> {
        Ok(format!(
            "start: LEADING_SPACE? (value | {} calls)\nvalue: {}\n{}\n{}",
            self.literal(self.format.layout().marker),
            lark::json(schema, Space::Indented),
            lark::LEADING_SPACE,
            self.rules()?
        ))
    }

    /// For each function the arguments that are written as plain text.
    pub fn texts(&self) -> Vec<(String, Vec<String>)> {
        if self.format.layout().arguments != Arguments::Xml {
            return Vec::new();
        }
        let texts = self.tools.iter().map(|tool| {
            let properties = tool.parameters["properties"].as_object();
            let texts = properties.into_iter().flatten();
            let texts = texts.filter(|(_, schema)| is_text(schema, &tool.parameters));
            (
                tool.name.clone(),
                texts.map(|(name, _)| name.clone()).collect(),
            )
        });
        texts.collect()
    }

    /// The rule `calls`: from behind the first marker to the end.
    fn rules(&self) -> Result<String, UnsupportedSchema> {
        let layout = self.format.layout();
        let head = match layout.head.strip_prefix(' ') {
            // A tokenizer may have put the space into the token before.
            Some(head) => format!("\" \"? {}", self.literal(head)),
            None => self.literal(layout.head),
        };
        let mut rules = format!("calls: {head} call");
        if let Some(next) = layout.next.filter(|_| self.are_parallel) {
            // Writing to a string does not fail.
            let _ = write!(rules, " ({} call)*", self.literal(next));
        }
        let _ = write!(rules, " {}\ncall: ", self.literal(layout.end));
        let (middle, tail) = (self.literal(layout.middle), self.literal(layout.tail));
        let id = layout.id.filter(|id| self.can_have(id));
        let [id_behind_name, id_behind_arguments] = [false, true].map(|is_last| match id {
            Some(id) if id.is_last == is_last => "id?",
            _ => "",
        });
        let calls = self.tools.iter().enumerate().map(|(index, tool)| {
            let name = self.literal(&tool.name);
            format!(
                "{name} {id_behind_name} {middle} arguments_{index} {id_behind_arguments} {tail}"
            )
        });
        rules.push_str(&calls.collect::<Vec<_>>().join(" | "));
        if let Some(id) = id {
            let (open, close) = (self.literal(id.open), self.literal(id.close));
            let _ = write!(rules, "\nid: {open} /[a-zA-Z0-9]{{{ID_LENGTH}}}/ {close}");
        }
        for (index, tool) in self.tools.iter().enumerate() {
            let rule = match layout.arguments {
                Arguments::Json => {
                    let schema = closed(&tool.parameters);
                    format!(
                        "\narguments_{index}: {}",
                        lark::json(&schema, Space::Single)
                    )
                }
                Arguments::Bare(quote) => {
                    let name = format!("arguments_{index}");
                    BareArguments::rules(&name, &tool.parameters, quote, self.tokenizer)
                        .map_err(|message| UnsupportedSchema { index, message })?
                }
                Arguments::Xml => parameters(index, &tool.parameters)
                    .map_err(|message| UnsupportedSchema { index, message })?,
            };
            rules.push_str(&rule);
        }
        Ok(rules)
    }

    /// Whether models with this vocabulary write such names.
    fn can_have(&self, id: &CallId) -> bool {
        let is_token = || matches!(self.tokenizer.markup_in(id.open)[..], [(_, Some(_))]);
        id.is_last || is_token()
    }

    fn literal(&self, text: &str) -> String {
        match text {
            "" => String::new(),
            text => lark::literal(text, self.tokenizer),
        }
    }
}

/// Keywords with which `additionalProperties` does not simply mean "no other ones".
const COMBINING: [&str; 12] = [
    "additionalProperties",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "then",
    "else",
    "$ref",
    "patternProperties",
    "dependentSchemas",
    "unevaluatedProperties",
];

/// The schema of arguments, which are an object; a function has no others than those it names.
fn closed(parameters: &Value) -> Value {
    let mut fields = parameters.as_object().cloned().unwrap_or_default();
    let is_combined = COMBINING.iter().any(|name| fields.contains_key(*name));
    if !is_combined {
        fields.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
    if !fields.contains_key("type") && !fields.contains_key("$ref") {
        fields.insert("type".to_owned(), "object".into());
    }
    Value::Object(fields)
}

/// The rules of arguments as parameters, in the order of the schema's properties.
fn parameters(tool: usize, schema: &Value) -> Result<String, String> {
    let fields = schema.as_object().cloned().unwrap_or_default();
    let has_form = |name: &str| {
        let plain = ["type", "properties", "required", "additionalProperties"];
        let notes = [
            "description",
            "title",
            "$defs",
            "definitions",
            "$schema",
            "strict",
        ];
        plain.contains(&name) || notes.contains(&name)
    };
    if let Some(name) = fields.keys().find(|name| !has_form(name)) {
        return Err(format!(
            "{name} has no form in which this model writes arguments"
        ));
    }
    let none = Map::new();
    let properties = fields.get("properties").and_then(Value::as_object);
    let properties = properties.unwrap_or(&none);
    let required: Vec<&str> = fields
        .get("required")
        .and_then(Value::as_array)
        .map(|names| names.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    if let Some(name) = required
        .iter()
        .find(|name| !properties.contains_key(**name))
    {
        return Err(format!("{name} is required and is no property"));
    }
    let mut parts = Vec::new();
    let mut rules = String::new();
    for (index, (name, property)) in properties.iter().enumerate() {
        if name.is_empty() || name.contains(['>', '\n']) {
            return Err(format!("{name:?} cannot be written as a parameter"));
        }
        let rule = format!("p_{tool}_{index}");
        let open = lark::quoted(&format!("<parameter={name}>\n"));
        let value = match is_text(property, schema) {
            true => text_value(&rule, resolved(property, schema))?,
            false => {
                let value = lark::json(&with_definitions(property, &fields), Space::Single);
                format!("{rule}_v: {value} {}", lark::quoted(CLOSE))
            }
        };
        // Writing to a string does not fail.
        let _ = write!(rules, "\n{rule}: {open} {rule}_v \"\\n\"\n{value}");
        parts.push(match required.contains(&name.as_str()) {
            true => rule,
            false => format!("{rule}?"),
        });
    }
    let parts = match parts.is_empty() {
        true => "\"\"".to_owned(),
        false => parts.join(" "),
    };
    Ok(format!("\narguments_{tool}: {parts}{rules}"))
}

/// What ends a parameter.
const CLOSE: &str = "\n</parameter>";

/// A string as it is, up to what ends it.
fn text_value(rule: &str, schema: &Value) -> Result<String, String> {
    let options = match (&schema["const"], schema["enum"].as_array()) {
        (Value::String(text), _) => Some(vec![text.as_str()]),
        (_, Some(options)) => Some(options.iter().filter_map(Value::as_str).collect()),
        _ => None,
    };
    if let Some(options) = options {
        if options.iter().any(|text| text.contains(CLOSE)) {
            return Err("a value spells the end of a parameter".to_owned());
        }
        let options = options
            .iter()
            .map(|text| lark::quoted(&format!("{text}{CLOSE}")));
        return Ok(format!(
            "{rule}_v: {}",
            options.collect::<Vec<_>>().join(" | ")
        ));
    }
    if schema.get("pattern").is_some() {
        return Err("pattern is not supported where strings are written as they are".to_owned());
    }
    let least = schema["minLength"].as_u64().unwrap_or(0);
    let count = match (least, schema["maxLength"].as_u64()) {
        (0, None) => "*".to_owned(),
        (least, None) => format!("{{{least},}}"),
        (least, Some(most)) if least <= most => format!("{{{least},{most}}}"),
        (least, Some(most)) => return Err(format!("minLength {least} is above maxLength {most}")),
    };
    Ok(format!(
        "{rule}_v[suffix={}]: /(?s:.){count}/",
        json!(CLOSE)
    ))
}

/// Whether values of `schema` are strings alone.
fn is_text(schema: &Value, root: &Value) -> bool {
    let schema = resolved(schema, root);
    let is_string = |value: &Value| value.is_string();
    schema["type"] == "string"
        || (schema.get("type").is_none()
            && (schema["const"].is_string()
                || schema["enum"]
                    .as_array()
                    .is_some_and(|options| options.iter().all(is_string))))
}

/// What `schema` refers to within `root`.
pub(super) fn resolved<'s>(schema: &'s Value, root: &'s Value) -> &'s Value {
    let target = schema["$ref"]
        .as_str()
        .and_then(|target| target.strip_prefix('#'));
    target
        .and_then(|target| root.pointer(target))
        .unwrap_or(schema)
}

/// The schema of one property, with what it may refer to.
fn with_definitions(schema: &Value, root: &Map<String, Value>) -> Value {
    let mut schema = schema.clone();
    if let Value::Object(fields) = &mut schema {
        for name in ["$defs", "definitions"] {
            if let Some(definitions) = root.get(name) {
                fields.entry(name).or_insert_with(|| definitions.clone());
            }
        }
    }
    schema
}
