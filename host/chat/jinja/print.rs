//! Python's `str` and `repr`.
//!
//! The brackets and words of a printed container or truth value count as foreign: they follow the
//! shape of data whose origin is not known.

use super::error::{Budget, Result};
use super::text::{Source, Text};
use super::value::{ListKind, Value};

/// `str(value)`.
pub fn to_text(value: &Value, budget: &Budget) -> Result<Text> {
    if let Value::Str(text) = value {
        return Ok((**text).clone());
    }
    let mut out = Text::default();
    if !matches!(value, Value::Undefined(_)) {
        write_repr(value, &mut out, budget)?;
    }
    Ok(out)
}

/// `repr(value)`.
pub fn repr(value: &Value, budget: &Budget) -> Result<Text> {
    let mut out = Text::default();
    write_repr(value, &mut out, budget)?;
    Ok(out)
}

/// A number as Python writes it.
pub fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let text = format!("{number:?}");
    // Rust writes 1e16 and 1e-5 where Python writes 1e+16 and 1e-05.
    match text
        .split_once('e')
        .map(|(digits, power)| (digits, power.parse::<i32>()))
    {
        Some((digits, Ok(power))) => format!("{digits}e{power:+03}"),
        _ => text,
    }
}

fn write_repr(value: &Value, out: &mut Text, budget: &Budget) -> Result<()> {
    let before = out.len();
    let foreign = Source::Foreign;
    match value {
        Value::Undefined(_) => out.push_str("Undefined", foreign),
        Value::None => out.push_str("None", foreign),
        Value::Bool(true) => out.push_str("True", foreign),
        Value::Bool(false) => out.push_str("False", foreign),
        Value::Int(number, source) => out.push_str(&number.to_string(), *source),
        Value::Float(number, source) => out.push_str(&float(*number), *source),
        Value::Str(text) => write_quoted(text, out),
        Value::List(list) => {
            let (open, close) = match list.kind {
                ListKind::List => ("[", "]"),
                ListKind::Tuple if list.items.len() == 1 => ("(", ",)"),
                ListKind::Tuple => ("(", ")"),
                ListKind::View => ("dict_view([", "])"),
            };
            out.push_str(open, foreign);
            for (index, item) in list.items.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ", foreign);
                }
                write_repr(item, out, budget)?;
            }
            out.push_str(close, foreign);
        }
        Value::Dict(dict) => {
            out.push_str("{", foreign);
            for (index, (key, value)) in dict.entries.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ", foreign);
                }
                write_repr(key, out, budget)?;
                out.push_str(": ", foreign);
                write_repr(value, out, budget)?;
            }
            out.push_str("}", foreign);
        }
        other => out.push_str(&format!("<{}>", other.type_name()), foreign),
    }
    budget.bytes(out.len() - before)
}

/// In the quotes that need fewer escapes.
fn write_quoted(text: &Text, out: &mut Text) {
    let single = !text.as_str().contains('\'') || text.as_str().contains('"');
    let quote = if single { "'" } else { "\"" };
    out.push_str(quote, Source::Foreign);
    for (c, source) in text.chars() {
        match c {
            '\\' => out.push_str("\\\\", source),
            '\n' => out.push_str("\\n", source),
            '\r' => out.push_str("\\r", source),
            '\t' => out.push_str("\\t", source),
            '\'' if single => out.push_str("\\'", source),
            c if (c.is_control() || (c.is_whitespace() && c != ' ')) && (c as u32) < 0x100 => {
                out.push_str(&format!("\\x{:02x}", c as u32), source);
            }
            c if c.is_whitespace() && c != ' ' => {
                out.push_str(&format!("\\u{:04x}", c as u32), source);
            }
            c => out.push(c, source),
        }
    }
    out.push_str(quote, Source::Foreign);
}
