//! The filters behind `|`, but for those of lists (see [`sequences`](super::sequences)).

use super::arguments::{Bound, bind};
use super::error::{Result, failed};
use super::interpreter::{CallArgs, Interpreter};
use super::print::{repr, to_text};
use super::text::{Source, Text, is_space};
use super::value::Value;
use super::{format, json, methods, sequences};

const NAMES: &[&str] = &[
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "pprint",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "sum",
    "title",
    "tojson",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "wordcount",
];

/// Whether there is a filter of this name.
pub fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

/// `value | name(args)`
pub fn apply(this: &mut Interpreter, name: &str, value: Value, args: CallArgs) -> Result<Value> {
    let budget = this.budget;
    let text = || -> Result<Text> {
        let text = to_text(&value, budget)?;
        budget.bytes(text.len())?;
        Ok(text)
    };
    let none = |args: CallArgs| bind(args, &[]);
    match name {
        "abs" => match (none(args)?, &value) {
            (_, Value::Float(number, source)) => Ok(Value::Float(number.abs(), *source)),
            (_, other) => match other.as_int().and_then(i64::checked_abs) {
                Some(number) => Ok(Value::Int(number, other.source())),
                None => Err(failed(format!(
                    "bad operand for abs(): '{}'",
                    other.type_name()
                ))),
            },
        },
        "attr" => {
            let args = bind(args, &["name"])?;
            let name = args.text(0)?.clone();
            this.attribute(&value, name.as_str())
        }
        "capitalize" => none(args).and_then(|_| Ok(Value::text(methods::capitalize(&text()?)))),
        "center" => {
            let args = bind(args, &["width"])?;
            methods::center(&text()?, args.int(0, 80)?, budget)
        }
        "default" | "d" => {
            let args = bind(args, &["default_value", "boolean"])?;
            let missing = match args.flag(1) {
                true => !value.is_true(),
                false => matches!(value, Value::Undefined(_)),
            };
            match missing {
                true => Ok(args.get(0).cloned().unwrap_or_else(|| Value::str(""))),
                false => Ok(value),
            }
        }
        "e" | "escape" => none(args).and_then(|_| Ok(Value::text(text()?.escaped()))),
        "forceescape" => {
            none(args)?;
            let mut plain = text()?;
            plain.safe = false;
            Ok(Value::text(plain.escaped()))
        }
        "safe" => {
            none(args)?;
            let mut safe = text()?;
            safe.safe = true;
            Ok(Value::text(safe))
        }
        "float" => {
            let args = bind(args, &["default"])?;
            let number = match &value {
                Value::Str(text) => parse_float(text.as_str()),
                other => other.as_f64(),
            };
            Ok(match number {
                Some(number) => Value::Float(number, origin(&value)),
                None => args
                    .get(0)
                    .cloned()
                    .unwrap_or(Value::Float(0.0, Source::Template)),
            })
        }
        "int" => {
            let args = bind(args, &["default", "base"])?;
            let number = match &value {
                Value::Str(text) => parse_int(text.as_str(), args.int(1, 10)?),
                Value::Float(number, _) if number.is_finite() => Some(*number as i64),
                other => other.as_int(),
            };
            Ok(match number {
                Some(number) => Value::Int(number, origin(&value)),
                None => args.get(0).cloned().unwrap_or(Value::int(0)),
            })
        }
        "format" => {
            let text = text()?;
            let args = match args.named.is_empty() {
                true => Value::tuple(args.positional)?,
                false => {
                    let named = args.named.into_iter();
                    Value::dict(
                        named
                            .map(|(name, value)| (Value::str(&name), value))
                            .collect(),
                        budget,
                    )?
                }
            };
            format::percent(&text, &args, budget).map(Value::text)
        }
        "indent" => indent(&text()?, &bind(args, &["width", "first", "blank"])?, this),
        "lower" => none(args).and_then(|_| Ok(Value::text(text()?.map_chars(char::to_lowercase)))),
        "upper" => none(args).and_then(|_| Ok(Value::text(text()?.map_chars(char::to_uppercase)))),
        "title" => none(args).and_then(|_| Ok(Value::text(title(&text()?)))),
        "pprint" => repr(&value, budget).map(Value::text),
        "replace" => {
            let args = bind(args, &["old", "new", "count"])?;
            let old = to_text(args.need(0)?, budget)?;
            let new = to_text(args.need(1)?, budget)?;
            let count = args.some(2).and_then(Value::as_int).unwrap_or(-1);
            methods::replace(&text()?, &old, &new, count, budget)
        }
        "round" => round(&value, &bind(args, &["precision", "method"])?),
        "string" => none(args).and_then(|_| match value {
            Value::Str(_) => Ok(value.clone()),
            _ => Ok(Value::text(text()?)),
        }),
        "tojson" => json::tojson(&value, args, budget),
        "trim" => {
            let args = bind(args, &["chars"])?;
            let text = text()?;
            Ok(Value::text(match args.some(0) {
                Some(chars) => {
                    let chars = to_text(chars, budget)?;
                    text.trim(|c| chars.as_str().contains(c), true, true)
                }
                None => text.trim(is_space, true, true),
            }))
        }
        "truncate" => truncate(
            &text()?,
            &bind(args, &["length", "killwords", "end", "leeway"])?,
        ),
        "urlencode" => {
            let kept = |c: char| c.is_ascii_alphanumeric() || "_.-~/".contains(c);
            let mut encoded = Text::default();
            for (c, source) in text()?.chars() {
                match kept(c) {
                    true => encoded.push(c, source),
                    false => c
                        .encode_utf8(&mut [0; 4])
                        .bytes()
                        .for_each(|byte| encoded.push_str(&format!("%{byte:02X}"), source)),
                }
            }
            Ok(Value::text(encoded))
        }
        "wordcount" => {
            let text = text()?;
            let mut count = 0;
            let mut inside = false;
            for c in text.as_str().chars() {
                let word = c.is_alphanumeric() || c == '_';
                count += usize::from(word && !inside);
                inside = word;
            }
            Ok(Value::int(count))
        }
        _ => sequences::apply(this, name, value, args),
    }
}

/// Who wrote the digits of a number made from `value`.
fn origin(value: &Value) -> Source {
    match value {
        Value::Str(text) => text.whole_source(),
        other => other.source(),
    }
}

fn parse_float(text: &str) -> Option<f64> {
    let text = text.trim().replace('_', "");
    text.parse().ok()
}

fn parse_int(text: &str, base: i64) -> Option<i64> {
    let digits = text.trim().replace('_', "");
    let radix = u32::try_from(base)
        .ok()
        .filter(|radix| (2..=36).contains(radix))?;
    let digits = match radix {
        16 => digits.trim_start_matches("0x"),
        8 => digits.trim_start_matches("0o"),
        2 => digits.trim_start_matches("0b"),
        _ => &digits,
    };
    let number = i64::from_str_radix(digits, radix).ok();
    number.or_else(|| {
        parse_float(text)
            .filter(|n| n.is_finite())
            .map(|n| n as i64)
    })
}

/// Each line but the first begins with `width`.
fn indent(text: &Text, args: &Bound, this: &Interpreter) -> Result<Value> {
    let indentation = match args.get(0) {
        Some(Value::Str(text)) => (**text).clone(),
        _ => {
            let width = usize::try_from(args.int(0, 4)?).unwrap_or(0);
            this.budget.bytes(width)?;
            Text::new(&" ".repeat(width), Source::Template)
        }
    };
    let (first, blank) = (args.flag(1), args.flag(2));
    let lines = methods::lines(&{
        let mut text = text.clone();
        text.push('\n', Source::Template);
        text
    });
    this.budget
        .bytes(lines.len().saturating_mul(indentation.len()))?;
    let mut out = Text::default();
    for (index, line) in lines.iter().enumerate() {
        if index > 0 {
            out.push('\n', text.whole_source());
        }
        let indented = match index {
            0 => first,
            _ => blank || !line.is_empty(),
        };
        if indented {
            out.push_text(&indentation);
        }
        out.push_text(line);
    }
    Ok(Value::text(out))
}

/// jinja2's own idea of a title: a word begins after a space, a dash or an opening bracket.
fn title(text: &Text) -> Text {
    let mut out = Text::default();
    let mut begins = true;
    for (c, source) in text.chars() {
        let cased: String = match begins {
            true => c.to_uppercase().collect(),
            false => c.to_lowercase().collect(),
        };
        out.push_str(&cased, source);
        begins = is_space(c) || "-({[<".contains(c);
    }
    out
}

fn round(value: &Value, args: &Bound) -> Result<Value> {
    let number = value
        .as_f64()
        .ok_or_else(|| failed("round wants a number"))?;
    let factor = 10f64.powi(args.int(0, 0)?.clamp(-300, 300) as i32);
    let method = args.get(1).and_then(Value::as_str).unwrap_or("common");
    let scaled = number * factor;
    let rounded = match method {
        "common" => scaled.round_ties_even(),
        "ceil" => scaled.ceil(),
        "floor" => scaled.floor(),
        _ => return Err(failed("method must be common, ceil or floor")),
    };
    Ok(Value::Float(rounded / factor, value.source()))
}

fn truncate(text: &Text, args: &Bound) -> Result<Value> {
    let length = usize::try_from(args.int(0, 255)?).unwrap_or(0);
    let leeway = usize::try_from(args.int(3, 5)?).unwrap_or(0);
    let end = match args.get(2) {
        Some(_) => (**args.text(2)?).clone(),
        None => Text::new("...", Source::Template),
    };
    if text.count() <= length.saturating_add(leeway) {
        return Ok(Value::text(text.clone()));
    }
    let mut kept = text.slice(0..text.offset(length.saturating_sub(end.count())));
    if !args.flag(1)
        && let Some(space) = kept.as_str().rfind(' ')
    {
        kept = kept.slice(0..space);
    }
    kept.push_text(&end);
    Ok(Value::text(kept))
}
