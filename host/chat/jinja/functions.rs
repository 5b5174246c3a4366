//! The functions that templates see: jinja2's, and those that `transformers` adds.

use super::arguments::bind;
use super::error::{Error, Kind, Result, failed};
use super::interpreter::{CallArgs, Interpreter};
use super::print::to_text;
use super::text::{Source, Text};
use super::value::Value;

/// As many numbers as jinja2's sandbox lets `range` give.
const MAX_RANGE: i64 = 100_000;

const NAMES: [&str; 5] = [
    "range",
    "dict",
    "namespace",
    "raise_exception",
    "strftime_now",
];

/// The function of this name.
pub fn find(name: &str) -> Option<Value> {
    let name = NAMES.iter().find(|known| **known == name)?;
    Some(Value::Function(name))
}

/// `name(args)`
pub fn call(this: &mut Interpreter, name: &str, args: CallArgs) -> Result<Value> {
    match name {
        "range" => range(this, args),
        "dict" => Value::dict(pairs(this, args)?, this.budget),
        "namespace" => {
            let mut fields = Vec::new();
            for (name, value) in pairs(this, args)? {
                let Some(name) = name.as_str() else {
                    return Err(failed("a namespace's names must be strings"));
                };
                fields.push((name.to_owned(), value));
            }
            this.namespaces.push(fields);
            Ok(Value::Namespace(this.namespaces.len() - 1))
        }
        "raise_exception" => {
            let args = bind(args, &["message"])?;
            Err(Error {
                kind: Kind::Raised,
                message: to_text(args.need(0)?, this.budget)?.as_str().to_owned(),
                line: None,
            })
        }
        "strftime_now" => {
            let args = bind(args, &["format"])?;
            let format = args.text(0)?;
            let now = jiff::ZonedDateTime::now();
            let text = jiff::fmt::strtime::format(format.as_str(), &now);
            let text = text.map_err(|error| failed(format!("strftime_now: {error}")))?;
            Ok(Value::text(Text::new(&text, format.whole_source())))
        }
        other => Err(failed(format!("unknown function '{other}'"))),
    }
}

fn range(this: &Interpreter, args: CallArgs) -> Result<Value> {
    let args = bind(args, &["start", "stop", "step"])?;
    let (start, stop) = match args.get(1) {
        Some(_) => (args.int(0, 0)?, args.int(1, 0)?),
        None => (0, args.need(0).and_then(|_| args.int(0, 0))?),
    };
    let step = args.int(2, 1)?;
    if step == 0 {
        return Err(failed("range() arg 3 must not be zero"));
    }
    let span = if step > 0 {
        i128::from(stop) - i128::from(start)
    } else {
        i128::from(start) - i128::from(stop)
    };
    let step_size = i128::from(step.unsigned_abs());
    let count = ((span + step_size - 1) / step_size).max(0);
    if count > i128::from(MAX_RANGE) {
        return Err(failed("Range too big"));
    }
    this.budget.spend(count as u64 / 8)?;
    let source = args.get(0).map_or(Source::Template, Value::source);
    let numbers = (0..count as i64).map(|index| Value::Int(start + index * step, source));
    Value::list(numbers.collect())
}

/// What `dict(...)` is given: a mapping or pairs, and names.
fn pairs(this: &Interpreter, args: CallArgs) -> Result<Vec<(Value, Value)>> {
    let mut entries = Vec::new();
    for value in &args.positional {
        if let Value::Dict(dict) = value {
            entries.extend(dict.entries.iter().cloned());
            continue;
        }
        for pair in value.elements(this.budget)? {
            let [key, value]: [Value; 2] = pair
                .elements(this.budget)?
                .try_into()
                .map_err(|_| failed("pairs were expected"))?;
            entries.push((key, value));
        }
    }
    let named = args.named.iter();
    entries.extend(named.map(|(name, value)| (args.name_value(name), value.clone())));
    Ok(entries)
}
