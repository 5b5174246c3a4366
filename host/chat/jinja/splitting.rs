//! The methods that cut strings: `split`, `rsplit`, `splitlines`, `partition`, `rpartition`.

use super::arguments::bind;
use super::error::{Budget, Result, failed};
use super::interpreter::CallArgs;
use super::text::{Text, is_space};
use super::value::Value;

/// `text.name(args)`
pub fn call(text: &Text, name: &str, args: CallArgs, budget: &Budget) -> Result<Value> {
    let pieces = match name {
        "split" | "rsplit" => {
            let args = bind(args, &["sep", "maxsplit"])?;
            let limit = usize::try_from(args.int(1, -1)?).unwrap_or(usize::MAX);
            match args.some(0) {
                Some(_) if args.text(0)?.is_empty() => return Err(failed("empty separator")),
                Some(_) => at_separator(text, args.text(0)?.as_str(), limit, name == "rsplit"),
                None => at_spaces(text, limit, name == "rsplit"),
            }
        }
        "splitlines" => {
            let args = bind(args, &["keepends"])?;
            lines(text, args.flag(0))
        }
        "partition" | "rpartition" => {
            let args = bind(args, &["sep"])?;
            let separator = args.text(0)?.as_str();
            if separator.is_empty() {
                return Err(failed("empty separator"));
            }
            let found = match name {
                "partition" => text.as_str().find(separator),
                _ => text.as_str().rfind(separator),
            };
            let (start, end) = match (found, name) {
                (Some(at), _) => (at, at + separator.len()),
                (None, "partition") => (text.len(), text.len()),
                (None, _) => (0, 0),
            };
            let parts = [0..start, start..end, end..text.len()];
            return Value::tuple(parts.map(|part| Value::text(text.slice(part))).into());
        }
        other => return Err(failed(format!("'str' object has no method '{other}'"))),
    };
    budget.spend(pieces.len() as u64)?;
    Value::list(pieces.into_iter().map(Value::text).collect())
}

fn at_separator(text: &Text, separator: &str, limit: usize, from_end: bool) -> Vec<Text> {
    let mut places: Vec<usize> = match from_end {
        false => text
            .as_str()
            .match_indices(separator)
            .map(|(at, _)| at)
            .take(limit)
            .collect(),
        true => text
            .as_str()
            .rmatch_indices(separator)
            .map(|(at, _)| at)
            .take(limit)
            .collect(),
    };
    if from_end {
        places.reverse();
    }
    let mut pieces = Vec::with_capacity(places.len() + 1);
    let mut start = 0;
    for at in places {
        pieces.push(text.slice(start..at));
        start = at + separator.len();
    }
    pieces.push(text.slice(start..text.len()));
    pieces
}

fn at_spaces(text: &Text, limit: usize, from_end: bool) -> Vec<Text> {
    let s = text.as_str();
    let mut words = Vec::new();
    let mut start = None;
    for (at, c) in s.char_indices() {
        match (is_space(c), start) {
            (false, None) => start = Some(at),
            (true, Some(from)) => {
                words.push(from..at);
                start = None;
            }
            _ => {}
        }
    }
    words.extend(start.map(|from| from..s.len()));
    // What remains after `limit` cuts is one piece, with the spaces inside of it.
    if words.len() > limit {
        if from_end {
            let rest = words.len() - limit;
            let end = words[rest - 1].end;
            words.splice(..rest, std::iter::once(0..end));
        } else {
            let start = words[limit].start;
            words.truncate(limit);
            words.push(start..s.len());
        }
    }
    words.into_iter().map(|word| text.slice(word)).collect()
}

/// The lines of a text, with their ends where `keep_ends`.
pub fn lines(text: &Text, keep_ends: bool) -> Vec<Text> {
    let is_end = |c: char| {
        matches!(
            c,
            '\n' | '\r' | '\x0B' | '\x0C' | '\x1C'..='\x1E' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    let s = text.as_str();
    let mut lines = Vec::new();
    let mut start = 0;
    let mut chars = s.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if !is_end(c) {
            continue;
        }
        let mut end = at + c.len_utf8();
        if c == '\r' && chars.next_if(|(_, next)| *next == '\n').is_some() {
            end += 1;
        }
        lines.push(text.slice(start..if keep_ends { end } else { at }));
        start = end;
    }
    if start < s.len() {
        lines.push(text.slice(start..s.len()));
    }
    lines
}
