//! Python's methods of strings, dicts and lists, and the attributes of loops.

use super::arguments::{Bound, bind};
use super::error::{Budget, Result, failed};
use super::interpreter::{CallArgs, Interpreter};
use super::text::{Source, Text, is_space};
use super::value::{ListKind, Loop, Value};
use super::{format, splitting};

const STRING: &[&str] = &[
    "capitalize",
    "casefold",
    "center",
    "count",
    "endswith",
    "find",
    "format",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "islower",
    "isnumeric",
    "isspace",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
    "zfill",
];
const DICT: &[&str] = &["copy", "get", "items", "keys", "values"];
const LIST: &[&str] = &["copy", "count", "index"];
/// Methods that the sandbox of `transformers` forbids.
const CHANGING: &[&str] = &[
    "append",
    "clear",
    "extend",
    "insert",
    "pop",
    "popitem",
    "remove",
    "reverse",
    "setdefault",
    "sort",
    "update",
];

/// Whether `object` has a method of this name.
pub fn has(object: &Value, name: &str) -> bool {
    match object {
        Value::Str(_) => STRING.contains(&name),
        Value::Dict(_) => {
            DICT.contains(&name)
                || matches!(name, "clear" | "pop" | "popitem" | "setdefault" | "update")
        }
        Value::List(list) => match list.kind {
            ListKind::List => {
                LIST.contains(&name)
                    || matches!(
                        name,
                        "append"
                            | "clear"
                            | "extend"
                            | "insert"
                            | "pop"
                            | "remove"
                            | "reverse"
                            | "sort"
                    )
            }
            ListKind::Tuple => matches!(name, "count" | "index"),
            ListKind::View => false,
        },
        Value::Loop(_) => matches!(name, "cycle" | "changed"),
        Value::Float(..) => name == "is_integer",
        _ => false,
    }
}

/// `loop.name`
pub fn loop_attribute(state: &Loop, name: &str) -> Option<Value> {
    let (index, len) = (state.index.get(), state.items.len());
    Some(match name {
        "index" => Value::int(index + 1),
        "index0" => Value::int(index),
        "revindex" => Value::int(len - index),
        "revindex0" => Value::int(len - index - 1),
        "first" => Value::Bool(index == 0),
        "last" => Value::Bool(index + 1 == len),
        "length" => Value::int(len),
        "depth" => Value::int(state.depth),
        "depth0" => Value::int(state.depth - 1),
        "previtem" => match index.checked_sub(1) {
            Some(before) => state.items[before].clone(),
            None => Value::undefined("there is no previous item"),
        },
        "nextitem" => match state.items.get(index + 1) {
            Some(next) => next.clone(),
            None => Value::undefined("there is no next item"),
        },
        _ => return None,
    })
}

/// `object.name(args)`
pub fn call(this: &mut Interpreter, object: &Value, name: &str, args: CallArgs) -> Result<Value> {
    if CHANGING.contains(&name) {
        return Err(failed(format!(
            "'{name}' would change its object, which templates must not"
        )));
    }
    let budget = this.budget;
    match object {
        Value::Str(text) => {
            budget.bytes(text.len())?;
            string(this, text, name, args)
        }
        Value::Dict(dict) => {
            budget.spend(dict.entries.len() as u64 / 8)?;
            let entries = dict.entries.iter();
            match name {
                "get" => {
                    let args = bind(args, &["key", "default"])?;
                    let found = dict.get(args.need(0)?, budget)?.cloned();
                    Ok(found
                        .or_else(|| args.get(1).cloned())
                        .unwrap_or(Value::None))
                }
                "items" => {
                    let pairs =
                        entries.map(|(key, value)| Value::tuple(vec![key.clone(), value.clone()]));
                    Value::view(pairs.collect::<Result<_>>()?)
                }
                "keys" => Value::view(entries.map(|(key, _)| key.clone()).collect()),
                "values" => Value::view(entries.map(|(_, value)| value.clone()).collect()),
                _ => Ok(object.clone()),
            }
        }
        Value::List(list) => match name {
            "copy" => Ok(object.clone()),
            _ => {
                let args = bind(args, &["value"])?;
                let mut places = Vec::new();
                for (at, item) in list.items.iter().enumerate() {
                    if item.equals(args.need(0)?, budget)? {
                        places.push(at);
                    }
                }
                match (name, places.first()) {
                    ("count", _) => Ok(Value::int(places.len())),
                    (_, Some(&first)) => Ok(Value::int(first)),
                    _ => Err(failed("the value is not in the list")),
                }
            }
        },
        Value::Loop(state) => match name {
            "cycle" if args.positional.is_empty() => Err(failed("no items for cycling given")),
            "cycle" => Ok(args.positional[state.index.get() % args.positional.len()].clone()),
            _ => {
                let now = Some(args.positional);
                let same = match (&*state.changed.borrow(), &now) {
                    (Some(a), Some(b)) => {
                        Value::list(a.clone())?.equals(&Value::list(b.clone())?, budget)?
                    }
                    _ => false,
                };
                *state.changed.borrow_mut() = now;
                Ok(Value::Bool(!same))
            }
        },
        Value::Float(number, _) => Ok(Value::Bool(number.fract() == 0.0)),
        other => Err(failed(format!(
            "'{}' object has no method '{name}'",
            other.type_name()
        ))),
    }
}

fn string(this: &mut Interpreter, text: &Text, name: &str, args: CallArgs) -> Result<Value> {
    let budget = this.budget;
    let s = text.as_str();
    let all = |test: fn(char) -> bool| Ok(Value::Bool(!s.is_empty() && s.chars().all(test)));
    match name {
        "format" => return format::braces(this, text, &args).map(Value::text),
        "isalnum" => return all(char::is_alphanumeric),
        "isalpha" => return all(char::is_alphabetic),
        "isascii" => return Ok(Value::Bool(s.is_ascii())),
        "isdecimal" | "isdigit" | "isnumeric" => return all(char::is_numeric),
        "isspace" => return all(is_space),
        "islower" => return cased(s, char::is_lowercase),
        "isupper" => return cased(s, char::is_uppercase),
        _ => {}
    }
    let changed = match name {
        "lower" | "casefold" => text.map_chars(char::to_lowercase),
        "upper" => text.map_chars(char::to_uppercase),
        "capitalize" => capitalize(text),
        "title" => title(text),
        "swapcase" => text.map_chars(|c| -> Vec<char> {
            match c.is_uppercase() {
                true => c.to_lowercase().collect(),
                false => c.to_uppercase().collect(),
            }
        }),
        "strip" | "lstrip" | "rstrip" => {
            let args = bind(args, &["chars"])?;
            let (start, end) = (name != "rstrip", name != "lstrip");
            match args.some(0) {
                Some(_) => {
                    let chars = args.text(0)?;
                    text.trim(|c| chars.as_str().contains(c), start, end)
                }
                None => text.trim(is_space, start, end),
            }
        }
        "removeprefix" => {
            let args = bind(args, &["prefix"])?;
            let prefix = args.text(0)?.as_str();
            let cut = if s.starts_with(prefix) {
                prefix.len()
            } else {
                0
            };
            text.slice(cut..s.len())
        }
        "removesuffix" => {
            let args = bind(args, &["suffix"])?;
            let suffix = args.text(0)?.as_str();
            let cut = if s.ends_with(suffix) { suffix.len() } else { 0 };
            text.slice(0..s.len() - cut)
        }
        "replace" => {
            let args = bind(args, &["old", "new", "count"])?;
            let count = args.int(2, -1)?;
            return replace(text, args.text(0)?, args.text(1)?, count, budget);
        }
        "join" => {
            let args = bind(args, &["iterable"])?;
            let mut out = Text::default();
            for (index, item) in args.need(0)?.elements(budget)?.iter().enumerate() {
                let Value::Str(item) = item else {
                    return Err(failed(format!(
                        "sequence item {index}: expected str instance, {} found",
                        item.type_name()
                    )));
                };
                budget.bytes(item.len() + text.len())?;
                if index > 0 {
                    out.push_text(text);
                }
                out.push_text(item);
            }
            out
        }
        "center" | "ljust" | "rjust" | "zfill" => {
            let args = bind(args, &["width", "fillchar"])?;
            let fill = match args.get(1) {
                Some(_) => (**args.text(1)?).clone(),
                None => Text::new(" ", Source::Template),
            };
            return justify(text, name, args.int(0, 0)?, &fill, budget);
        }
        "startswith" | "endswith" => {
            let args = bind(args, &["prefix", "start"])?;
            let from = usize::try_from(args.int(1, 0)?).unwrap_or(0);
            let s = &s[text.offset(from)..];
            let fits = |part: &Value| match part.as_str() {
                Some(part) if name == "startswith" => Ok(s.starts_with(part)),
                Some(part) => Ok(s.ends_with(part)),
                None => Err(failed(format!(
                    "{name} first arg must be str or a tuple of str"
                ))),
            };
            let fits = match args.need(0)? {
                Value::List(list) if list.kind == ListKind::Tuple => {
                    let fits: Result<Vec<bool>> = list.items.iter().map(fits).collect();
                    fits?.contains(&true)
                }
                part => fits(part)?,
            };
            return Ok(Value::Bool(fits));
        }
        "count" | "find" | "index" | "rfind" | "rindex" => {
            return find(text, name, &bind(args, &["sub", "start", "end"])?);
        }
        _ => return splitting::call(text, name, args, budget),
    };
    Ok(Value::text(changed))
}

fn cased(text: &str, wanted: fn(char) -> bool) -> Result<Value> {
    let mut letters = text
        .chars()
        .filter(|c| c.is_lowercase() || c.is_uppercase())
        .peekable();
    Ok(Value::Bool(letters.peek().is_some() && letters.all(wanted)))
}

/// The first letter large, all others small.
pub fn capitalize(text: &Text) -> Text {
    let first = text.offset(1);
    let mut out = text.slice(0..first).map_chars(char::to_uppercase);
    out.push_text(&text.slice(first..text.len()).map_chars(char::to_lowercase));
    out
}

/// Python's: every letter after something that is none is large.
fn title(text: &Text) -> Text {
    let mut out = Text::default();
    let mut inside = false;
    for (c, source) in text.chars() {
        let cased: String = match inside {
            false => c.to_uppercase().collect(),
            true => c.to_lowercase().collect(),
        };
        out.push_str(&cased, source);
        inside = c.is_alphabetic();
    }
    out
}

/// The first `count` occurrences of `old` replaced; all where it is negative.
pub fn replace(text: &Text, old: &Text, new: &Text, count: i64, budget: &Budget) -> Result<Value> {
    let limit = usize::try_from(count).unwrap_or(usize::MAX);
    let places: Vec<usize> = match old.is_empty() {
        true => text
            .as_str()
            .char_indices()
            .map(|(at, _)| at)
            .chain([text.len()])
            .take(limit)
            .collect(),
        false => text
            .as_str()
            .match_indices(old.as_str())
            .map(|(at, _)| at)
            .take(limit)
            .collect(),
    };
    budget.bytes(
        text.len()
            .saturating_add(places.len().saturating_mul(new.len())),
    )?;
    let mut out = text.like();
    let mut copied = 0;
    for at in places {
        out.push_slice(text, copied..at);
        out.push_text(new);
        copied = at + old.len();
    }
    out.push_slice(text, copied..text.len());
    Ok(Value::text(out))
}

/// `text` in the middle of `width` characters.
pub fn center(text: &Text, width: i64, budget: &Budget) -> Result<Value> {
    justify(
        text,
        "center",
        width,
        &Text::new(" ", Source::Template),
        budget,
    )
}

fn justify(text: &Text, how: &str, width: i64, fill: &Text, budget: &Budget) -> Result<Value> {
    if fill.count() != 1 {
        return Err(failed(
            "The fill character must be exactly one character long",
        ));
    }
    let missing = usize::try_from(width)
        .unwrap_or(0)
        .saturating_sub(text.count());
    budget.bytes(missing.saturating_mul(fill.len()))?;
    let source = match fill.whole_source() {
        Source::Template => text.whole_source(),
        foreign => foreign,
    };
    let fill = fill.as_str();
    let width = usize::try_from(width).unwrap_or(0);
    let (before, after) = match how {
        "ljust" => (0, missing),
        "rjust" | "zfill" => (missing, 0),
        // CPython's rounding.
        _ => {
            let before = missing / 2 + (missing & width & 1);
            (before, missing - before)
        }
    };
    let mut out = Text::default();
    if how == "zfill" {
        let signed = usize::from(text.as_str().starts_with(['+', '-']));
        out.push_slice(text, 0..signed);
        out.push_str(&"0".repeat(before), source);
        out.push_slice(text, signed..text.len());
        return Ok(Value::text(out));
    }
    out.push_str(&fill.repeat(before), source);
    out.push_text(text);
    out.push_str(&fill.repeat(after), source);
    Ok(Value::text(out))
}

fn find(text: &Text, name: &str, args: &Bound) -> Result<Value> {
    let part = args.text(0)?.as_str();
    let count = text.count() as i64;
    let place = |at: usize, default: i64| -> Result<usize> {
        let index = match args.some(at) {
            Some(_) => args.int(at, 0)?,
            None => default,
        };
        let index = if index < 0 {
            index.saturating_add(count).max(0)
        } else {
            index.min(count)
        };
        Ok(text.offset(index as usize))
    };
    let (start, end) = (place(1, 0)?, place(2, count)?);
    let s = text.as_str().get(start..end).unwrap_or("");
    let found = match name {
        "count" => {
            let count = match part.is_empty() {
                true => s.chars().count() + 1,
                false => s.matches(part).count(),
            };
            return Ok(Value::int(count));
        }
        "find" | "index" => s.find(part),
        _ => s.rfind(part),
    };
    match found {
        Some(at) => Ok(Value::int(text.as_str()[..start + at].chars().count())),
        None if name.ends_with("index") => Err(failed("substring not found")),
        None => Ok(Value::Int(-1, Source::Template)),
    }
}

/// `str.splitlines()`
pub fn lines(text: &Text) -> Vec<Text> {
    splitting::lines(text, false)
}
