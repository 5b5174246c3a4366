//! Metadata seen through an architecture's key prefix; remembers what was read.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::arch::Architecture;
use super::error::ModelError;
use crate::gguf::{Array, Metadata, Value};

/// Upper bound on every count read from a file, so that a hostile file cannot ask for absurd sizes.
const MAX_COUNT: usize = 1 << 24;

/// Typed access to `{architecture}.{key}`.
pub(super) struct Keys<'a> {
    metadata: &'a Metadata,
    arch: &'static Architecture,
    /// The keys asked for, without their prefix: what remains has no part in the formula.
    read: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Keys<'a> {
    pub(super) fn new(metadata: &'a Metadata, arch: &'static Architecture) -> Keys<'a> {
        Keys {
            metadata,
            arch,
            read: RefCell::default(),
        }
    }

    /// The architecture whose keys these are.
    pub(super) fn arch(&self) -> &'static Architecture {
        self.arch
    }

    /// The key with its prefix.
    pub(super) fn name(&self, key: &str) -> String {
        format!("{}.{}", self.arch.name, key.escape_debug())
    }

    /// An error about the value of `key`.
    pub(super) fn invalid(&self, key: &str, what: impl Into<String>) -> ModelError {
        ModelError::Metadata {
            key: self.name(key),
            what: what.into(),
        }
    }

    /// The keys of this architecture that nobody has asked for, without their prefix, and their values.
    pub(super) fn unread(&self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let prefix = self.arch.name;
        self.metadata
            .iter()
            .filter_map(move |(key, value)| {
                Some((key.strip_prefix(prefix)?.strip_prefix('.')?, value))
            })
            .filter(|(key, _)| !self.read.borrow().contains(key))
    }

    /// The value of `key`, which counts as read.
    pub(super) fn value(&self, key: &'static str) -> Option<&'a Value> {
        self.read.borrow_mut().insert(key);
        self.metadata.get(&self.name(key))
    }

    fn has(&self, key: &'static str) -> bool {
        self.value(key).is_some()
    }

    /// A number from 1 to [`MAX_COUNT`].
    pub(super) fn count(&self, key: &'static str) -> Result<usize, ModelError> {
        let count = self.whole(key)?;
        if count == 0 {
            return Err(self.invalid(key, format!("0 is not in 1..={MAX_COUNT}")));
        }
        Ok(count)
    }

    /// [`Keys::count`], where the file has it.
    pub(super) fn optional_count(&self, key: &'static str) -> Result<Option<usize>, ModelError> {
        self.has(key).then(|| self.count(key)).transpose()
    }

    /// A number from 0 to [`MAX_COUNT`], where the file has it.
    pub(super) fn optional_whole(&self, key: &'static str) -> Result<Option<usize>, ModelError> {
        self.has(key).then(|| self.whole(key)).transpose()
    }

    /// A count that may be given for each layer, all of them equal.
    pub(super) fn uniform_count(
        &self,
        key: &'static str,
        n_layers: usize,
    ) -> Result<usize, ModelError> {
        let Some(Value::Array(array)) = self.value(key) else {
            return self.count(key);
        };
        let counts: Vec<usize> = integers(array)
            .and_then(|all| all.into_iter().map(|n| usize::try_from(n).ok()).collect())
            .ok_or_else(|| self.invalid(key, "the array does not hold counts"))?;
        if counts.len() != n_layers {
            let what = format!("{} entries for {n_layers} layers", counts.len());
            return Err(self.invalid(key, what));
        }
        match counts.iter().min().zip(counts.iter().max()) {
            Some((0, _)) | None => Err(self.invalid(key, "a layer has none")),
            Some((least, most)) if least != most => {
                let what = format!(
                    "differs from layer to layer ({least} to {most}), which is not supported yet"
                );
                Err(self.invalid(key, what))
            }
            Some((_, &most)) if most > MAX_COUNT => {
                Err(self.invalid(key, format!("{most} is not in 1..={MAX_COUNT}")))
            }
            Some((_, &most)) => Ok(most),
        }
    }

    /// [`Keys::uniform_count`], where the file has it.
    pub(super) fn optional_uniform_count(
        &self,
        key: &'static str,
        n_layers: usize,
    ) -> Result<Option<usize>, ModelError> {
        self.has(key)
            .then(|| self.uniform_count(key, n_layers))
            .transpose()
    }

    /// A finite number above 0.
    pub(super) fn positive(&self, key: &'static str) -> Result<f32, ModelError> {
        let value = self.non_negative(key)?;
        if value == 0.0 {
            return Err(self.invalid(key, "0 is not a finite positive number"));
        }
        Ok(value)
    }

    /// [`Keys::positive`], where the file has it.
    pub(super) fn optional_positive(&self, key: &'static str) -> Result<Option<f32>, ModelError> {
        self.has(key).then(|| self.positive(key)).transpose()
    }

    /// A finite number above 0, where the file has it and it is not the 0 that stands for none.
    pub(super) fn nonzero(&self, key: &'static str) -> Result<Option<f32>, ModelError> {
        let value = self.has(key).then(|| self.non_negative(key)).transpose()?;
        Ok(value.filter(|&value| value > 0.0))
    }

    /// A positive number that writers of files call by several names; the first one found counts.
    ///
    /// # Errors
    /// Where two of them differ.
    pub(super) fn optional_alias(&self, names: &[&'static str]) -> Result<Option<f32>, ModelError> {
        let mut found: Option<(f32, &str)> = None;
        for &name in names {
            let Some(value) = self.optional_positive(name)? else {
                continue;
            };
            match found {
                Some((first, at)) if first != value => {
                    let what = format!("{value}, where {} is {first}", self.name(at));
                    return Err(self.invalid(name, what));
                }
                Some(_) => {}
                None => found = Some((value, name)),
            }
        }
        Ok(found.map(|(value, _)| value))
    }

    /// A string, where the file has it.
    pub(super) fn optional_str(&self, key: &'static str) -> Result<Option<&'a str>, ModelError> {
        self.value(key);
        Ok(self.metadata.find(&self.name(key))?)
    }

    fn whole(&self, key: &'static str) -> Result<usize, ModelError> {
        self.value(key);
        let value = self.metadata.get_u64(&self.name(key))?;
        match usize::try_from(value) {
            Ok(count) if count <= MAX_COUNT => Ok(count),
            _ => Err(self.invalid(key, format!("{value} is not in 1..={MAX_COUNT}"))),
        }
    }

    fn non_negative(&self, key: &'static str) -> Result<f32, ModelError> {
        self.value(key);
        let value = self.metadata.get_f32(&self.name(key))?;
        if !value.is_finite() || value < 0.0 {
            return Err(self.invalid(key, format!("{value} is not a finite positive number")));
        }
        Ok(value)
    }
}

/// The elements of an array of integers or truth values, of whatever width.
pub(super) fn integers(array: &Array) -> Option<Vec<i128>> {
    (0..array.len())
        .map(|index| match array.get(index)? {
            Value::Bool(value) => Some(value.into()),
            value => value.as_integer(),
        })
        .collect()
}
