//! The tests behind `is`.

use super::error::{Result, failed};
use super::filters;
use super::interpreter::Interpreter;
use super::value::{ListKind, Value};

const NAMES: &[&str] = &[
    "boolean",
    "callable",
    "defined",
    "divisibleby",
    "eq",
    "equalto",
    "==",
    "escaped",
    "even",
    "false",
    "filter",
    "float",
    "ge",
    ">=",
    "greaterthan",
    "gt",
    ">",
    "in",
    "integer",
    "iterable",
    "le",
    "<=",
    "lessthan",
    "lower",
    "lt",
    "<",
    "mapping",
    "ne",
    "!=",
    "none",
    "number",
    "odd",
    "sameas",
    "sequence",
    "string",
    "test",
    "true",
    "undefined",
    "upper",
];

/// `value is name(args)`
pub fn apply(this: &Interpreter, name: &str, value: &Value, args: &[Value]) -> Result<bool> {
    let budget = this.budget;
    let argument = || {
        args.first()
            .ok_or_else(|| failed(format!("'is {name}' wants a value")))
    };
    let order = |wanted: fn(std::cmp::Ordering) -> bool| -> Result<bool> {
        Ok(value.compare(argument()?, budget)?.is_some_and(wanted))
    };
    let remainder = |by: i64| match value.as_int() {
        Some(number) if by != 0 => Ok(number.rem_euclid(by)),
        _ => Err(failed(format!("'is {name}' wants integers"))),
    };
    Ok(match name {
        "boolean" => matches!(value, Value::Bool(_)),
        "callable" => matches!(
            value,
            Value::Macro(_)
                | Value::Function(_)
                | Value::Method(_)
                | Value::Loop(_)
                | Value::Undefined(_)
        ),
        "defined" => !matches!(value, Value::Undefined(_)),
        "undefined" => matches!(value, Value::Undefined(_)),
        "divisibleby" => remainder(argument()?.as_int().unwrap_or(0))? == 0,
        "even" => remainder(2)? == 0,
        "odd" => remainder(2)? == 1,
        "eq" | "equalto" | "==" => value.equals(argument()?, budget)?,
        "ne" | "!=" => !value.equals(argument()?, budget)?,
        "ge" | ">=" => order(std::cmp::Ordering::is_ge)?,
        "gt" | "greaterthan" | ">" => order(std::cmp::Ordering::is_gt)?,
        "le" | "<=" => order(std::cmp::Ordering::is_le)?,
        "lt" | "lessthan" | "<" => order(std::cmp::Ordering::is_lt)?,
        "escaped" => matches!(value, Value::Str(text) if text.safe),
        "true" => matches!(value, Value::Bool(true)),
        "false" => matches!(value, Value::Bool(false)),
        "none" => matches!(value, Value::None),
        "filter" => value.as_str().is_some_and(filters::exists),
        "test" => value.as_str().is_some_and(|name| NAMES.contains(&name)),
        "float" => matches!(value, Value::Float(..)),
        "integer" => matches!(value, Value::Int(..)),
        "number" => value.as_f64().is_some(),
        "in" => argument()?.contains(value, budget)?,
        "iterable" => matches!(
            value,
            Value::Undefined(_)
                | Value::Str(_)
                | Value::List(_)
                | Value::Dict(_)
                | Value::Iter(_)
                | Value::Loop(_)
        ),
        "sequence" => match value {
            Value::Undefined(_) | Value::Str(_) | Value::Dict(_) => true,
            Value::List(list) => list.kind != ListKind::View,
            _ => false,
        },
        "mapping" => matches!(value, Value::Dict(_)),
        "string" => matches!(value, Value::Str(_)),
        "lower" | "upper" => {
            let text = super::print::to_text(value, budget)?;
            let wanted = |c: char| {
                if name == "lower" {
                    c.is_lowercase()
                } else {
                    c.is_uppercase()
                }
            };
            let cased = |c: &char| c.is_lowercase() || c.is_uppercase();
            let mut letters = text.as_str().chars().filter(cased).peekable();
            letters.peek().is_some() && letters.all(wanted)
        }
        "sameas" => {
            let other = argument()?;
            value.type_name() == other.type_name() && value.equals(other, budget)?
        }
        other => return Err(failed(format!("No test named '{other}'"))),
    })
}
