//! The metadata of a file, by key.

use std::path::Path;
use std::sync::Arc;

use super::damage::Damage;
use super::index::NameIndex;
use super::{Array, GgufError, Problem, StringArray, Value};

/// Keys and values in the file's order.
#[derive(Debug)]
pub struct Metadata {
    path: Arc<Path>,
    entries: Vec<(String, Value)>,
    by_key: NameIndex,
    /// Places of entries with strings that are not UTF-8, in order.
    damaged: Vec<(usize, Damage)>,
}

impl Metadata {
    pub(super) fn new(
        path: Arc<Path>,
        entries: Vec<(String, Value)>,
        by_key: NameIndex,
        damaged: Vec<(usize, Damage)>,
    ) -> Metadata {
        Metadata {
            path,
            entries,
            by_key,
            damaged,
        }
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entries in the file's order. What is not UTF-8 in their strings is U+FFFD.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries
            .iter()
            .map(|(key, value)| (key.as_str(), value))
    }

    /// The value of `key`. What is not UTF-8 in its strings is U+FFFD.
    pub fn get(&self, key: &str) -> Option<&Value> {
        Some(&self.entries[self.place(key)?].1)
    }

    fn place(&self, key: &str) -> Option<usize> {
        self.by_key.find(key, |i| &self.entries[i].0)
    }

    /// Why the value of `key` cannot be used, where it holds a string that is not UTF-8.
    pub fn damage(&self, key: &str) -> Option<Problem> {
        let place = self.place(key)?;
        let found = self.damaged.binary_search_by_key(&place, |(at, _)| *at);
        Some(self.damaged[found.ok()?].1.problem())
    }

    /// The value of `key` as a `T`, `None` where the file lacks it.
    ///
    /// # Errors
    /// Where it is of another type, or holds a string that is not UTF-8; the error names the key and what
    /// was found.
    pub fn find<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<Option<T>, GgufError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        if let Some(problem) = self.damage(key) {
            return Err(GgufError::new(&self.path, problem));
        }
        let converted = T::from_value(value).ok_or_else(|| Problem::WrongType {
            key: key.to_owned(),
            expected: T::EXPECTED,
            found: describe(value),
        });
        converted
            .map(Some)
            .map_err(|problem| GgufError::new(&self.path, problem))
    }

    /// The value of `key` as a `T`.
    ///
    /// # Errors
    /// Where the file lacks it, or it is of another type.
    pub fn require<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<T, GgufError> {
        self.find(key)?.ok_or_else(|| self.missing(key))
    }

    /// The error that the file lacks `key`.
    pub fn missing(&self, key: &str) -> GgufError {
        GgufError::new(&self.path, Problem::MissingKey(key.to_owned()))
    }

    /// [`Metadata::require`] of a number below 2^64, stored as any integer type.
    pub fn get_u64(&self, key: &str) -> Result<u64, GgufError> {
        self.require(key)
    }

    /// [`Metadata::require`] of a float; a double is rounded.
    pub fn get_f32(&self, key: &str) -> Result<f32, GgufError> {
        self.require(key)
    }

    /// [`Metadata::require`] of a string.
    pub fn get_str(&self, key: &str) -> Result<&str, GgufError> {
        self.require(key)
    }

    /// [`Metadata::require`] of an array of strings.
    pub fn get_strs(&self, key: &str) -> Result<&StringArray, GgufError> {
        self.require(key)
    }
}

/// A type of which there are metadata values.
pub trait FromValue<'a>: Sized {
    /// Its name in error messages.
    const EXPECTED: &'static str;

    /// The value, where it is of this type.
    fn from_value(value: &'a Value) -> Option<Self>;
}

macro_rules! from_value {
    ($($type:ty, $expected:literal: |$value:ident| $convert:expr;)*) => {
        $(impl<'a> FromValue<'a> for $type {
            const EXPECTED: &'static str = $expected;

            fn from_value($value: &'a Value) -> Option<Self> {
                $convert
            }
        })*
    };
}

from_value! {
    u32, "a whole number below 2^32": |v| v.as_integer()?.try_into().ok();
    i32, "a whole number of 32 bits": |v| v.as_integer()?.try_into().ok();
    u64, "a whole number below 2^64": |v| v.as_integer()?.try_into().ok();
    i64, "a whole number of 64 bits": |v| v.as_integer()?.try_into().ok();
    usize, "a whole number": |v| v.as_integer()?.try_into().ok();
    f32, "a float": |v| match *v {
        Value::F32(v) => Some(v),
        Value::F64(v) => Some(v as f32),
        _ => None,
    };
    bool, "a bool": |v| if let Value::Bool(v) = v { Some(*v) } else { None };
    &'a str, "a string": |v| if let Value::String(v) = v { Some(v) } else { None };
    &'a Array, "an array": |v| if let Value::Array(v) = v { Some(v) } else { None };
    &'a StringArray, "an array of strings": |v| match v {
        Value::Array(Array::String(strings)) => Some(strings),
        _ => None,
    };
    &'a [f32], "an array of f32": |v| <&Array>::from_value(v)?.as_slice();
    &'a [i32], "an array of i32": |v| <&Array>::from_value(v)?.as_slice();
    &'a [u32], "an array of u32": |v| <&Array>::from_value(v)?.as_slice();
    &'a [bool], "an array of bool": |v| <&Array>::from_value(v)?.as_slice();
}

/// Type, and for a number the value, for an error message.
fn describe(value: &Value) -> String {
    match value {
        Value::Array(array) => format!("an array of {}", array.element_type()),
        value => match value.as_integer() {
            Some(integer) => format!("the {} {integer}", value.ty()),
            None => format!("a {}", value.ty()),
        },
    }
}
