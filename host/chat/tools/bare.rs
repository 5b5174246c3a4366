//! The grammar of arguments as Gemma's function callers write them: `{name:<escape>text<escape>,days:3}`, with bare
//! names in alphabetical order and strings as they are between two quotes of the form's own.

use std::collections::BTreeMap;

use serde_json::Value;

use super::grammar::resolved;
use crate::grammar::lark::{self, Space};
use crate::tokenizer::Tokenizer;

/// Schemas may refer to themselves; so deep is no call.
const MAX_DEPTH: usize = 16;

/// Builds rules for one function.
pub struct BareArguments<'a> {
    quote: &'static str,
    tokenizer: &'a Tokenizer,
    /// The schema of all arguments, in which others may be referred to.
    root: &'a Value,
    prefix: String,
    rules: Vec<String>,
}

impl<'a> BareArguments<'a> {
    /// The rule `name` for arguments of `schema`, and what it needs; strings are between two of `quote`.
    pub fn rules(
        name: &str,
        schema: &'a Value,
        quote: &'static str,
        tokenizer: &'a Tokenizer,
    ) -> Result<String, String> {
        let mut of = BareArguments {
            quote,
            tokenizer,
            root: schema,
            prefix: name.to_owned(),
            rules: Vec::new(),
        };
        let object = of.object(schema, 0)?;
        of.rules.push(format!("{name}: {object}"));
        Ok(format!("\n{}", of.rules.join("\n")))
    }

    fn value(&mut self, schema: &Value, depth: usize) -> Result<String, String> {
        if depth > MAX_DEPTH {
            return Err("it is nested too deeply".to_owned());
        }
        let schema = &resolved(schema, self.root).clone();
        if let Some(options) = schema["anyOf"].as_array().or(schema["oneOf"].as_array()) {
            return self.any_of(options.iter(), depth);
        }
        if let Some(options) = schema["enum"].as_array() {
            let options = options.iter().map(|value| self.constant(value));
            let options = options.collect::<Result<Vec<_>, _>>()?;
            return Ok(format!("({})", options.join(" | ")));
        }
        if let Some(value) = schema.get("const") {
            return self.constant(value);
        }
        match &schema["type"] {
            Value::Array(kinds) => {
                let of_kind = |kind: &Value| {
                    let mut schema = schema.clone();
                    schema["type"] = kind.clone();
                    schema
                };
                let schemas: Vec<Value> = kinds.iter().map(of_kind).collect();
                self.any_of(schemas.iter(), depth)
            }
            Value::String(kind) => match kind.as_str() {
                "string" => self.string(schema),
                "object" => self.object(schema, depth),
                "array" => self.array(schema, depth),
                "integer" | "number" | "boolean" | "null" => Ok(lark::json(schema, Space::Single)),
                other => Err(format!("{other:?} is no type")),
            },
            _ => Err("a value without a type has no form in which this model writes it".to_owned()),
        }
    }

    fn any_of<'s>(
        &mut self,
        schemas: impl Iterator<Item = &'s Value>,
        depth: usize,
    ) -> Result<String, String> {
        let options = schemas.map(|schema| self.value(schema, depth + 1));
        let options = options.collect::<Result<Vec<_>, _>>()?;
        Ok(format!("({})", options.join(" | ")))
    }

    fn constant(&self, value: &Value) -> Result<String, String> {
        match value {
            Value::String(text) if text.contains(self.quote) => {
                Err("a value spells the end of a string".to_owned())
            }
            Value::String(text) => {
                let quote = lark::literal(self.quote, self.tokenizer);
                Ok(format!("({quote} {} {quote})", lark::quoted(text)))
            }
            Value::Array(_) | Value::Object(_) => {
                Err("a fixed list or object has no form in which this model writes it".to_owned())
            }
            other => Ok(lark::quoted(&other.to_string())),
        }
    }

    fn string(&mut self, schema: &Value) -> Result<String, String> {
        if schema.get("pattern").is_some() {
            return Err(
                "pattern is not supported where strings are written as they are".to_owned(),
            );
        }
        let least = schema["minLength"].as_u64().unwrap_or(0);
        let most = schema["maxLength"].as_u64();
        if most.is_some_and(|most| most < least) {
            return Err("minLength is above maxLength".to_owned());
        }
        let quote = lark::literal(self.quote, self.tokenizer);
        let most_text = most.map_or(String::new(), |most| most.to_string());
        if !matches!(self.tokenizer.markup_in(self.quote)[..], [(_, Some(_))]) {
            let rule = format!("{}_{}", self.prefix, self.rules.len());
            let suffix = Value::from(self.quote);
            self.rules.push(format!(
                "{rule}[suffix={suffix}]: /(?s:.){{{least},{most_text}}}/"
            ));
            return Ok(format!("({quote} {rule})"));
        }
        if most == Some(0) {
            return Ok(format!("({quote} {quote})"));
        }
        let terminal = format!("{}_TEXT_{}", self.prefix.to_uppercase(), self.rules.len());
        let bytes = self
            .quote
            .chars()
            .map(|c| format!("\\x{{{:x}}}", u32::from(c)));
        let spelled: String = bytes.collect();
        self.rules.push(format!(
            "{terminal}: /(?s:.){{{},{most_text}}}/ & ~/(?s:.)*{spelled}(?s:.)*/",
            least.max(1)
        ));
        let optional = if least == 0 { "?" } else { "" };
        Ok(format!("({quote} {terminal}{optional} {quote})"))
    }

    fn array(&mut self, schema: &Value, depth: usize) -> Result<String, String> {
        let item = self.value(&schema["items"], depth + 1)?;
        let least = schema["minItems"].as_u64().unwrap_or(0);
        let most = schema["maxItems"].as_u64();
        let more = |least: u64, most: Option<u64>| match most {
            None => format!("{{{},}}", least.saturating_sub(1)),
            Some(most) => format!("{{{},{}}}", least.saturating_sub(1), most.saturating_sub(1)),
        };
        Ok(match (least, most) {
            (0, Some(0)) => "\"[\" \"]\"".to_owned(),
            (0, most) => format!("\"[\" ({item} (\",\" {item}){})? \"]\"", more(1, most)),
            (least, Some(most)) if most < least => {
                return Err("minItems is above maxItems".to_owned());
            }
            (least, most) => format!("\"[\" {item} (\",\" {item}){} \"]\"", more(least, most)),
        })
    }

    fn object(&mut self, schema: &Value, depth: usize) -> Result<String, String> {
        let known = [
            "type",
            "properties",
            "required",
            "additionalProperties",
            "description",
            "title",
            "$defs",
            "definitions",
            "$schema",
            "default",
            "nullable",
        ];
        let fields = schema.as_object().into_iter().flatten();
        if let Some((name, _)) = fields
            .clone()
            .find(|(name, _)| !known.contains(&name.as_str()))
        {
            return Err(format!(
                "{name} has no form in which this model writes arguments"
            ));
        }
        let properties = schema["properties"].as_object().into_iter().flatten();
        let properties: BTreeMap<&String, &Value> = properties.collect();
        let required: Vec<&str> = schema["required"]
            .as_array()
            .map(|names| names.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        if let Some(name) = required
            .iter()
            .find(|name| !properties.contains_key(&name.to_string()))
        {
            return Err(format!("{name} is required and is no property"));
        }
        let mut members = Vec::new();
        for (name, property) in properties {
            let is_bare = |c: char| c.is_alphanumeric() || "_-.$".contains(c);
            if name.is_empty() || !name.chars().all(is_bare) {
                return Err(format!("{name:?} cannot be written as a name"));
            }
            let value = self.value(property, depth + 1)?;
            let member = format!("{} {value}", lark::quoted(&format!("{name}:")));
            members.push((member, required.contains(&name.as_str())));
        }
        // From the last to the first: what may follow where no member was written yet, and where one was.
        let (mut first, mut more) = (String::new(), String::new());
        for (member, is_required) in members.into_iter().rev() {
            let rule = format!("{}_{}", self.prefix, self.rules.len());
            self.rules.push(format!("{rule}: {member} {more}"));
            first = match (is_required, first.is_empty()) {
                (true, _) => rule.clone(),
                (false, true) => format!("{rule}?"),
                (false, false) => {
                    let either = format!("{}_{}", self.prefix, self.rules.len());
                    self.rules.push(format!("{either}: {rule} | {first}"));
                    either
                }
            };
            let next = format!("{}_{}", self.prefix, self.rules.len());
            let skipped = if more.is_empty() { "\"\"" } else { &more };
            self.rules.push(match is_required {
                true => format!("{next}: \",\" {rule}"),
                false => format!("{next}: \",\" {rule} | {skipped}"),
            });
            more = next;
        }
        Ok(format!("\"{{\" {first} \"}}\""))
    }
}
