//! Values, as Python sees them: what is true, equal, printed, looked up.

use std::cell::Cell;
use std::cmp::Ordering;
use std::rc::Rc;

use super::error::{Budget, Result, failed};
use super::text::{Source, Text};

/// Values nested more deeply are refused, so that no recursion over one exhausts the stack.
const MAX_DEPTH: u16 = 200;

/// A value of the template language. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Value {
    /// With what is undefined, for messages.
    Undefined(Rc<str>),
    None,
    Bool(bool),
    /// With who wrote its digits.
    Int(i64, Source),
    Float(f64, Source),
    Str(Rc<Text>),
    List(Rc<List>),
    Dict(Rc<Dict>),
    /// A generator: it can be read once.
    Iter(Rc<(List, Cell<bool>)>),
    /// A namespace, a macro, a loop, by their places in the interpreter.
    Namespace(usize),
    Macro(usize),
    Loop(Rc<Loop>),
    /// A method bound to its object.
    Method(Rc<(Value, String)>),
    /// A function that every template sees.
    Function(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListKind {
    List,
    Tuple,
    /// What `dict.items()` gives: it has a length and no elements by index.
    View,
}

#[derive(Debug)]
pub struct List {
    pub items: Vec<Value>,
    pub kind: ListKind,
    depth: u16,
}

#[derive(Debug)]
pub struct Dict {
    pub entries: Vec<(Value, Value)>,
    depth: u16,
}

/// The state of a running loop.
#[derive(Debug)]
pub struct Loop {
    pub items: Vec<Value>,
    pub index: Cell<usize>,
    pub depth: usize,
    pub changed: std::cell::RefCell<Option<Vec<Value>>>,
    /// The place of its body in the interpreter, where it may call itself.
    pub recursive: Option<usize>,
}

impl Value {
    /// A string.
    pub fn text(text: Text) -> Value {
        Value::Str(Rc::new(text))
    }

    /// A text of the template's.
    pub fn str(text: &str) -> Value {
        Value::text(Text::new(text, Source::Template))
    }

    /// A count.
    pub fn int(number: usize) -> Value {
        Value::Int(number as i64, Source::Template)
    }

    /// What is not there; `what` says what.
    pub fn undefined(what: impl AsRef<str>) -> Value {
        Value::Undefined(Rc::from(what.as_ref()))
    }

    fn new_list(items: Vec<Value>, kind: ListKind) -> Result<List> {
        let depth = deeper(items.iter())?;
        Ok(List { items, kind, depth })
    }

    /// Python's `list`.
    pub fn list(items: Vec<Value>) -> Result<Value> {
        Ok(Value::List(Rc::new(Value::new_list(
            items,
            ListKind::List,
        )?)))
    }

    /// Python's `tuple`.
    pub fn tuple(items: Vec<Value>) -> Result<Value> {
        Ok(Value::List(Rc::new(Value::new_list(
            items,
            ListKind::Tuple,
        )?)))
    }

    /// What `dict.items()` and its kin give.
    pub fn view(items: Vec<Value>) -> Result<Value> {
        Ok(Value::List(Rc::new(Value::new_list(
            items,
            ListKind::View,
        )?)))
    }

    /// A generator.
    pub fn iter(items: Vec<Value>) -> Result<Value> {
        let list = Value::new_list(items, ListKind::List)?;
        Ok(Value::Iter(Rc::new((list, Cell::new(false)))))
    }

    /// A dict; the last of equal keys counts.
    pub fn dict(entries: Vec<(Value, Value)>, budget: &Budget) -> Result<Value> {
        let depth = deeper(entries.iter().map(|(_, value)| value))?;
        let mut unique: Vec<(Value, Value)> = Vec::with_capacity(entries.len());
        let mut seen = std::collections::HashMap::new();
        for (key, value) in entries {
            budget.spend(1)?;
            match seen.get(&key.hash_key()?) {
                Some(&at) => {
                    let entry: &mut (Value, Value) = &mut unique[at];
                    entry.1 = value;
                }
                None => {
                    seen.insert(key.hash_key()?, unique.len());
                    unique.push((key, value));
                }
            }
        }
        Ok(Value::Dict(Rc::new(Dict {
            entries: unique,
            depth,
        })))
    }

    /// What equal keys have in common.
    pub fn hash_key(&self) -> Result<String> {
        Ok(match self {
            Value::Str(text) => format!("s{}", text.as_str()),
            Value::None => "n".to_owned(),
            Value::Bool(_) | Value::Int(..) | Value::Float(..) => {
                format!("f{:?}", self.as_f64().unwrap_or(f64::NAN))
            }
            Value::List(list) if list.kind == ListKind::Tuple => {
                let keys: Result<Vec<String>> = list.items.iter().map(Value::hash_key).collect();
                format!("t{:?}", keys?)
            }
            other => return Err(failed(format!("unhashable type: '{}'", other.type_name()))),
        })
    }

    /// The name of its type in Python.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Undefined(_) => "Undefined",
            Value::None => "NoneType",
            Value::Bool(_) => "bool",
            Value::Int(..) => "int",
            Value::Float(..) => "float",
            Value::Str(_) => "str",
            Value::List(list) => match list.kind {
                ListKind::List => "list",
                ListKind::Tuple => "tuple",
                ListKind::View => "dict view",
            },
            Value::Dict(_) => "dict",
            Value::Iter(_) => "generator",
            Value::Namespace(_) => "Namespace",
            Value::Macro(_) => "Macro",
            Value::Loop(_) => "LoopContext",
            Value::Method(_) => "method",
            Value::Function(_) => "function",
        }
    }

    /// Python's truth.
    pub fn is_true(&self) -> bool {
        match self {
            Value::Undefined(_) | Value::None => false,
            Value::Bool(value) => *value,
            Value::Int(number, _) => *number != 0,
            Value::Float(number, _) => *number != 0.0,
            Value::Str(text) => !text.is_empty(),
            Value::List(list) => !list.items.is_empty(),
            Value::Dict(dict) => !dict.entries.is_empty(),
            _ => true,
        }
    }

    /// A number, as a float.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Bool(value) => Some(f64::from(u8::from(*value))),
            Value::Int(number, _) => Some(*number as f64),
            Value::Float(number, _) => Some(*number),
            _ => None,
        }
    }

    /// An integer.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Value::Bool(value) => Some(i64::from(*value)),
            Value::Int(number, _) => Some(*number),
            _ => None,
        }
    }

    /// The characters of a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(text) => Some(text.as_str()),
            _ => None,
        }
    }

    /// Who wrote a number.
    pub fn source(&self) -> Source {
        match self {
            Value::Int(_, source) | Value::Float(_, source) => *source,
            _ => Source::Template,
        }
    }

    /// What a loop over it visits.
    pub fn elements(&self, budget: &Budget) -> Result<Vec<Value>> {
        let items = match self {
            Value::Undefined(_) => Vec::new(),
            Value::Str(text) => {
                budget.bytes(text.len().saturating_mul(64))?;
                let chars = text.chars();
                chars
                    .map(|(c, source)| Value::text(Text::new(c.encode_utf8(&mut [0; 4]), source)))
                    .collect()
            }
            Value::List(list) => list.items.clone(),
            Value::Dict(dict) => dict.entries.iter().map(|(key, _)| key.clone()).collect(),
            Value::Iter(iter) => match iter.1.replace(true) {
                true => Vec::new(),
                false => iter.0.items.clone(),
            },
            other => {
                let name = other.type_name();
                return Err(failed(format!("'{name}' object is not iterable")));
            }
        };
        budget.spend(items.len() as u64 / 8)?;
        Ok(items)
    }

    /// Python's `len`.
    pub fn length(&self) -> Result<usize> {
        match self {
            Value::Undefined(_) => Ok(0),
            Value::Str(text) => Ok(text.count()),
            Value::List(list) => Ok(list.items.len()),
            Value::Dict(dict) => Ok(dict.entries.len()),
            Value::Loop(state) => Ok(state.items.len()),
            other => Err(failed(format!(
                "object of type '{}' has no len()",
                other.type_name()
            ))),
        }
    }

    /// Python's `==`.
    pub fn equals(&self, other: &Value, budget: &Budget) -> Result<bool> {
        budget.spend(1)?;
        if let (Some(a), Some(b)) = (self.as_int(), other.as_int()) {
            return Ok(a == b);
        }
        if let (Some(a), Some(b)) = (self.as_f64(), other.as_f64()) {
            return Ok(a == b);
        }
        Ok(match (self, other) {
            (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
            (Value::Str(a), Value::Str(b)) => a.as_str() == b.as_str(),
            (Value::List(a), Value::List(b)) => {
                if a.kind != b.kind || a.items.len() != b.items.len() {
                    return Ok(false);
                }
                for (a, b) in a.items.iter().zip(&b.items) {
                    if !a.equals(b, budget)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Value::Dict(a), Value::Dict(b)) => {
                if a.entries.len() != b.entries.len() {
                    return Ok(false);
                }
                for (key, value) in &a.entries {
                    match b.get(key, budget)? {
                        Some(other) if value.equals(other, budget)? => {}
                        _ => return Ok(false),
                    }
                }
                true
            }
            (Value::Namespace(a), Value::Namespace(b)) | (Value::Macro(a), Value::Macro(b)) => {
                a == b
            }
            (Value::Function(a), Value::Function(b)) => a == b,
            _ => false,
        })
    }

    /// Python's `<` and its kin.
    pub fn compare(&self, other: &Value, budget: &Budget) -> Result<Option<Ordering>> {
        budget.spend(1)?;
        if let (Some(a), Some(b)) = (self.as_int(), other.as_int()) {
            return Ok(Some(a.cmp(&b)));
        }
        if let (Some(a), Some(b)) = (self.as_f64(), other.as_f64()) {
            return Ok(a.partial_cmp(&b));
        }
        match (self, other) {
            (Value::Str(a), Value::Str(b)) => Ok(Some(a.as_str().cmp(b.as_str()))),
            (Value::List(a), Value::List(b)) if a.kind == b.kind => {
                for (a, b) in a.items.iter().zip(&b.items) {
                    if !a.equals(b, budget)? {
                        return a.compare(b, budget);
                    }
                }
                Ok(Some(a.items.len().cmp(&b.items.len())))
            }
            _ => Err(failed(format!(
                "'{}' and '{}' have no order",
                self.type_name(),
                other.type_name()
            ))),
        }
    }

    /// Python's `in`.
    pub fn contains(&self, item: &Value, budget: &Budget) -> Result<bool> {
        match self {
            Value::Str(text) => match item.as_str() {
                Some(part) => {
                    budget.bytes(text.len())?;
                    Ok(text.as_str().contains(part))
                }
                None => Err(failed(format!(
                    "'in <string>' requires string as left operand, not {}",
                    item.type_name()
                ))),
            },
            Value::Dict(dict) => Ok(dict.get(item, budget)?.is_some()),
            other => {
                for element in other.elements(budget)? {
                    if element.equals(item, budget)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }

    /// `self[index]`, or nothing.
    pub fn item(&self, index: &Value, budget: &Budget) -> Result<Option<Value>> {
        Ok(match (self, index) {
            (Value::Dict(dict), key) => dict.get(key, budget)?.cloned(),
            (Value::List(list), index) if list.kind != ListKind::View => {
                let index = index.as_int().and_then(|i| wrap(i, list.items.len()));
                index.map(|index| list.items[index].clone())
            }
            (Value::Str(text), index) => {
                budget.bytes(text.len())?;
                let index = index.as_int().and_then(|i| wrap(i, text.count()));
                index.map(|index| {
                    Value::text(text.slice(text.offset(index)..text.offset(index + 1)))
                })
            }
            _ => None,
        })
    }
}

/// Python's index, which counts from the end where it is negative.
fn wrap(index: i64, len: usize) -> Option<usize> {
    let index = if index < 0 { index + len as i64 } else { index };
    usize::try_from(index).ok().filter(|&index| index < len)
}

fn deeper<'v>(values: impl Iterator<Item = &'v Value>) -> Result<u16> {
    let depths = values.map(|value| match value {
        Value::List(list) => list.depth,
        Value::Dict(dict) => dict.depth,
        Value::Iter(iter) => iter.0.depth,
        Value::Method(method) => deeper(std::iter::once(&method.0)).unwrap_or(MAX_DEPTH),
        _ => 0,
    });
    match depths.max().unwrap_or(0) + 1 {
        depth if depth > MAX_DEPTH => Err(failed("a value is nested too deeply")),
        depth => Ok(depth),
    }
}

impl Dict {
    /// The value of a key.
    pub fn get(&self, key: &Value, budget: &Budget) -> Result<Option<&Value>> {
        budget.spend(1 + self.entries.len() as u64 / 64)?;
        if let Some(name) = key.as_str() {
            return Ok(self.named(name));
        }
        for (found, value) in &self.entries {
            if found.equals(key, budget)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// The value of a key that is a string.
    pub fn named(&self, name: &str) -> Option<&Value> {
        let entry = self
            .entries
            .iter()
            .find(|(key, _)| key.as_str() == Some(name));
        entry.map(|(_, value)| value)
    }
}
