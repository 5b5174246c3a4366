//! Binding the arguments of built-in filters, methods and functions.

use super::error::{Result, failed};
use super::interpreter::CallArgs;
use super::value::Value;

/// The arguments of a call by the places of their `names`.
pub struct Bound(Vec<Option<Value>>);

/// Binds `args` to parameters as Python does.
pub fn bind(args: CallArgs, names: &[&str]) -> Result<Bound> {
    if args.positional.len() > names.len() {
        return Err(failed(format!(
            "{} arguments where at most {} are taken",
            args.positional.len(),
            names.len()
        )));
    }
    let mut bound: Vec<Option<Value>> = args.positional.into_iter().map(Some).collect();
    bound.resize_with(names.len(), || None);
    for (name, value) in args.named {
        match names.iter().position(|known| *known == name) {
            Some(at) if bound[at].is_none() => bound[at] = Some(value),
            Some(_) => return Err(failed(format!("the argument '{name}' is given twice"))),
            None => return Err(failed(format!("there is no argument '{name}'"))),
        }
    }
    Ok(Bound(bound))
}

impl Bound {
    /// The argument in the place `at`, if it was given.
    pub fn get(&self, at: usize) -> Option<&Value> {
        self.0[at].as_ref()
    }

    /// An argument where none and `none` mean the same.
    pub fn some(&self, at: usize) -> Option<&Value> {
        self.get(at).filter(|value| !matches!(value, Value::None))
    }

    /// An argument that must be given.
    pub fn need(&self, at: usize) -> Result<&Value> {
        self.get(at).ok_or_else(|| failed("an argument is missing"))
    }

    /// Whether an argument was given and is true.
    pub fn flag(&self, at: usize) -> bool {
        self.get(at).is_some_and(Value::is_true)
    }

    /// An integer, or `default`.
    pub fn int(&self, at: usize, default: i64) -> Result<i64> {
        match self.get(at) {
            None => Ok(default),
            Some(value) => value.as_int().ok_or_else(|| {
                failed(format!(
                    "an integer was expected, not '{}'",
                    value.type_name()
                ))
            }),
        }
    }

    /// A string that must be given.
    pub fn text(&self, at: usize) -> Result<&std::rc::Rc<super::text::Text>> {
        match self.need(at)? {
            Value::Str(text) => Ok(text),
            other => Err(failed(format!(
                "a string was expected, not '{}'",
                other.type_name()
            ))),
        }
    }
}
