//! The filters of lists and dicts.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::arguments::{Bound, bind};
use super::ast::BinaryOp;
use super::error::{Result, failed};
use super::interpreter::{CallArgs, Interpreter};
use super::print::to_text;
use super::text::{Source, Text};
use super::value::Value;
use super::{filters, predicates};

/// `value | name(args)`
pub fn apply(this: &mut Interpreter, name: &str, value: Value, args: CallArgs) -> Result<Value> {
    let budget = this.budget;
    match name {
        "length" | "count" => bind(args, &[]).and_then(|_| Ok(Value::int(value.length()?))),
        "list" => bind(args, &[]).and_then(|_| Value::list(value.elements(budget)?)),
        "first" => {
            bind(args, &[])?;
            let first = value.elements(budget)?.into_iter().next();
            Ok(first.unwrap_or_else(|| Value::undefined("No first item, sequence was empty.")))
        }
        "last" => {
            bind(args, &[])?;
            if matches!(value, Value::Iter(_)) {
                return Err(failed("'generator' object is not reversible"));
            }
            let last = value.elements(budget)?.pop();
            Ok(last.unwrap_or_else(|| Value::undefined("No last item, sequence was empty.")))
        }
        "reverse" => {
            bind(args, &[])?;
            let mut items = value.elements(budget)?;
            items.reverse();
            match &value {
                Value::Str(_) => {
                    let mut text = Text::default();
                    for item in &items {
                        text.push_text(&to_text(item, budget)?);
                    }
                    Ok(Value::text(text))
                }
                _ => Value::iter(items),
            }
        }
        "items" => {
            bind(args, &[])?;
            match &value {
                Value::Undefined(_) => Value::iter(Vec::new()),
                Value::Dict(dict) => {
                    let pairs = dict.entries.iter();
                    let pairs =
                        pairs.map(|(key, value)| Value::tuple(vec![key.clone(), value.clone()]));
                    Value::iter(pairs.collect::<Result<_>>()?)
                }
                _ => Err(failed("Can only get item pairs from a mapping.")),
            }
        }
        "join" => join(this, &value, &bind(args, &["d", "attribute"])?),
        "sort" => sort(
            this,
            &value,
            &bind(args, &["reverse", "case_sensitive", "attribute"])?,
        ),
        "dictsort" => dictsort(
            this,
            &value,
            &bind(args, &["case_sensitive", "by", "reverse"])?,
        ),
        "unique" => unique(this, &value, &bind(args, &["case_sensitive", "attribute"])?),
        "min" | "max" => {
            let args = bind(args, &["case_sensitive", "attribute"])?;
            let wanted = if name == "min" {
                Ordering::Less
            } else {
                Ordering::Greater
            };
            let mut best: Option<(Value, Value)> = None;
            for item in value.elements(budget)? {
                let key = sort_key(this, &item, args.some(1), args.flag(0))?;
                let better = match &best {
                    Some((other, _)) => key.compare(other, budget)? == Some(wanted),
                    None => true,
                };
                if better {
                    best = Some((key, item));
                }
            }
            let best = best.map(|(_, item)| item);
            Ok(best.unwrap_or_else(|| Value::undefined("No aggregated item, sequence was empty.")))
        }
        "sum" => {
            let args = bind(args, &["attribute", "start"])?;
            let mut sum = args.get(1).cloned().unwrap_or(Value::int(0));
            for item in value.elements(budget)? {
                let item = attribute_of(this, &item, args.some(0))?;
                sum = this.binary(BinaryOp::Add, &sum, &item)?;
            }
            Ok(sum)
        }
        // What is false is no list to these, and no error either.
        "map" | "select" | "reject" | "selectattr" | "rejectattr" if !value.is_true() => {
            Value::iter(Vec::new())
        }
        "map" => map(this, &value, args),
        "select" | "reject" | "selectattr" | "rejectattr" => select(this, name, &value, args),
        "groupby" => groupby(
            this,
            &value,
            &bind(args, &["attribute", "default", "case_sensitive"])?,
        ),
        "batch" => {
            let args = bind(args, &["linecount", "fill_with"])?;
            let size = usize::try_from(args.int(0, 0)?).unwrap_or(0).max(1);
            let mut rows = Vec::new();
            for chunk in value.elements(budget)?.chunks(size) {
                let mut row = chunk.to_vec();
                if let Some(fill) = args.some(1) {
                    budget.spend(size as u64)?;
                    row.resize(size, fill.clone());
                }
                rows.push(Value::list(row)?);
            }
            Value::iter(rows)
        }
        "slice" => {
            let args = bind(args, &["slices", "fill_with"])?;
            let count = usize::try_from(args.int(0, 0)?).unwrap_or(0).max(1);
            budget.spend(count as u64)?;
            let items = value.elements(budget)?;
            let (size, longer) = (items.len() / count, items.len() % count);
            let mut rows = Vec::new();
            let mut at = 0;
            for index in 0..count {
                let end = at + size + usize::from(index < longer);
                let mut row = items[at..end].to_vec();
                if let Some(fill) = args.some(1)
                    && index >= longer
                {
                    row.push(fill.clone());
                }
                rows.push(Value::list(row)?);
                at = end;
            }
            Value::iter(rows)
        }
        other => Err(failed(format!("No filter named '{other}'"))),
    }
}

/// `item.a.b` for the attribute `a.b`; the item itself without one.
fn attribute_of(this: &mut Interpreter, item: &Value, path: Option<&Value>) -> Result<Value> {
    let Some(path) = path else {
        return Ok(item.clone());
    };
    let Some(path) = path.as_str() else {
        return this.item(item, path);
    };
    let mut value = item.clone();
    for part in path.split('.') {
        let key = match part.parse::<i64>() {
            Ok(index) => Value::Int(index, Source::Template),
            Err(_) => Value::str(part),
        };
        value = this.item(&value, &key)?;
    }
    Ok(value)
}

/// What an item is sorted by: letters of both cases are alike unless `case_sensitive`.
fn sort_key(
    this: &mut Interpreter,
    item: &Value,
    attribute: Option<&Value>,
    case_sensitive: bool,
) -> Result<Value> {
    let key = attribute_of(this, item, attribute)?;
    Ok(match key {
        Value::Str(text) if !case_sensitive => Value::text(text.map_chars(char::to_lowercase)),
        key => key,
    })
}

/// Sorts by the first of each pair, and gives the second ones.
fn sorted(this: &Interpreter, mut pairs: Vec<(Value, Value)>, reverse: bool) -> Result<Vec<Value>> {
    let mut error = None;
    pairs.sort_by(|(a, _), (b, _)| {
        let order = a.compare(b, this.budget).unwrap_or_else(|e| {
            error.get_or_insert(e);
            None
        });
        let order = order.unwrap_or(Ordering::Equal);
        if reverse { order.reverse() } else { order }
    });
    match error {
        Some(error) => Err(error),
        None => Ok(pairs.into_iter().map(|(_, item)| item).collect()),
    }
}

fn join(this: &mut Interpreter, value: &Value, args: &Bound) -> Result<Value> {
    let budget = this.budget;
    let between = match args.get(0) {
        Some(between) => to_text(between, budget)?,
        None => Text::default(),
    };
    let mut out = Text::default();
    for (index, item) in value.elements(budget)?.iter().enumerate() {
        let item = attribute_of(this, item, args.some(1))?;
        let text = to_text(&item, budget)?;
        budget.bytes(text.len() + between.len())?;
        if index > 0 {
            out.push_text(&between);
        }
        out.push_text(&text);
    }
    Ok(Value::text(out))
}

fn sort(this: &mut Interpreter, value: &Value, args: &Bound) -> Result<Value> {
    let mut pairs = Vec::new();
    for item in value.elements(this.budget)? {
        // Several attributes, with commas between, sort by the first and then by the others.
        let key = match args.some(2).and_then(Value::as_str) {
            Some(paths) if paths.contains(',') => {
                let keys = paths
                    .split(',')
                    .map(|path| sort_key(this, &item, Some(&Value::str(path)), args.flag(1)));
                Value::list(keys.collect::<Result<_>>()?)?
            }
            _ => sort_key(this, &item, args.some(2), args.flag(1))?,
        };
        pairs.push((key, item));
    }
    Value::list(sorted(this, pairs, args.flag(0))?)
}

fn dictsort(this: &mut Interpreter, value: &Value, args: &Bound) -> Result<Value> {
    let Value::Dict(dict) = value else {
        return Err(failed(format!(
            "'{}' object has no items",
            value.type_name()
        )));
    };
    let by = match args.get(1).map_or(Some("key"), Value::as_str) {
        Some("key") => 0,
        Some("value") => 1,
        _ => return Err(failed("You can only sort by either \"key\" or \"value\"")),
    };
    let mut pairs = Vec::new();
    for (key, value) in &dict.entries {
        let by = if by == 0 { key } else { value };
        let by = sort_key(this, by, None, args.flag(0))?;
        pairs.push((by, Value::tuple(vec![key.clone(), value.clone()])?));
    }
    Value::list(sorted(this, pairs, args.flag(2))?)
}

fn unique(this: &mut Interpreter, value: &Value, args: &Bound) -> Result<Value> {
    let mut seen = HashSet::new();
    let mut items = Vec::new();
    for item in value.elements(this.budget)? {
        if seen.insert(sort_key(this, &item, args.some(1), args.flag(0))?.hash_key()?) {
            items.push(item);
        }
    }
    Value::iter(items)
}

fn map(this: &mut Interpreter, value: &Value, mut args: CallArgs) -> Result<Value> {
    let mut mapped = Vec::new();
    let named = |args: &CallArgs, wanted: &str| {
        let found = args.named.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.clone())
    };
    if args.positional.is_empty() {
        let attribute = named(&args, "attribute");
        let attribute = attribute.ok_or_else(|| failed("map wants a filter or an attribute"))?;
        let default = named(&args, "default");
        for item in value.elements(this.budget)? {
            let found = attribute_of(this, &item, Some(&attribute))?;
            mapped.push(match (&found, &default) {
                (Value::Undefined(_), Some(default)) => default.clone(),
                _ => found,
            });
        }
        return Value::iter(mapped);
    }
    let filter = args.positional.remove(0);
    let filter = filter
        .as_str()
        .ok_or_else(|| failed("map wants a filter's name"))?;
    for item in value.elements(this.budget)? {
        let args = CallArgs {
            positional: args.positional.clone(),
            named: args.named.clone(),
            foreign_names: args.foreign_names,
        };
        this.descend()?;
        let result = filters::apply(this, filter, item, args);
        this.ascend();
        mapped.push(result?);
    }
    Value::iter(mapped)
}

fn select(this: &mut Interpreter, name: &str, value: &Value, mut args: CallArgs) -> Result<Value> {
    let attribute = match name.ends_with("attr") {
        true if args.positional.is_empty() => {
            return Err(failed(format!("{name} wants an attribute")));
        }
        true => Some(args.positional.remove(0)),
        false => None,
    };
    let test = match args.positional.is_empty() {
        true => None,
        false => Some(args.positional.remove(0)),
    };
    let wanted = name.starts_with("select");
    let mut kept = Vec::new();
    for item in value.elements(this.budget)? {
        let tested = attribute_of(this, &item, attribute.as_ref())?;
        let passes = match test.as_ref().map(Value::as_str) {
            Some(Some(test)) => predicates::apply(this, test, &tested, &args.positional)?,
            Some(None) => return Err(failed("a test's name must be a string")),
            None => tested.is_true(),
        };
        if passes == wanted {
            kept.push(item);
        }
    }
    Value::iter(kept)
}

fn groupby(this: &mut Interpreter, value: &Value, args: &Bound) -> Result<Value> {
    let mut pairs = Vec::new();
    for item in value.elements(this.budget)? {
        let found = attribute_of(this, &item, Some(args.need(0)?))?;
        let found = match (&found, args.get(1)) {
            (Value::Undefined(_), Some(default)) => default.clone(),
            _ => found,
        };
        let key = sort_key(this, &found, None, args.flag(2))?;
        pairs.push((key.clone(), Value::tuple(vec![key, found, item])?));
    }
    let mut groups: Vec<(Value, Value, Vec<Value>)> = Vec::new();
    for entry in sorted(this, pairs, false)? {
        let Value::List(entry) = entry else { continue };
        let [key, found, item] = [0, 1, 2].map(|at| entry.items[at].clone());
        match groups.last_mut() {
            Some((last, _, items)) if last.equals(&key, this.budget)? => items.push(item),
            _ => groups.push((key, found, vec![item])),
        }
    }
    let groups = groups.into_iter();
    let groups = groups.map(|(_, found, items)| Value::tuple(vec![found, Value::list(items)?]));
    Value::list(groups.collect::<Result<_>>()?)
}
