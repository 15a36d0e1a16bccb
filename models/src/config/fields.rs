//! Typed access to the keys of a JSON object, with errors that name file and key.

use crate::error::{ModelError, Result};
use serde_json::{Map, Value};
use std::path::Path;

/// No size in a model is larger; keeps products of two sizes far from overflow.
const LARGEST_SIZE: u64 = 1 << 27;

/// A JSON object and where it stands.
pub(crate) struct Fields<'a> {
    file: &'a Path,
    /// Keys that lead to the object, each followed by a dot.
    path: String,
    object: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub fn new(file: &'a Path, value: &'a Value) -> Result<Self> {
        match value {
            Value::Object(object) => Ok(Self { file, path: String::new(), object }),
            _ => Err(ModelError::file(file, "not a JSON object")),
        }
    }

    pub fn bad(&self, key: &str, problem: impl Into<String>) -> ModelError {
        ModelError::key(self.file, format!("{}{key}", self.path), problem)
    }

    /// The value of a key; `null` counts as absent.
    pub fn value(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|v| !v.is_null())
    }

    /// Whether a key is there and says that there is none.
    pub fn is_null(&self, key: &str) -> bool {
        self.object.get(key).is_some_and(Value::is_null)
    }

    pub fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// A count of something: 1 or more.
    pub fn size(&self, key: &str) -> Result<usize> {
        let value = self.value(key).ok_or_else(|| self.bad(key, "missing"))?;
        match value.as_u64() {
            Some(n @ 1..=LARGEST_SIZE) => Ok(n as usize),
            _ => Err(self.bad(key, format!("{value} is not a size (1 to {LARGEST_SIZE})"))),
        }
    }

    pub fn size_or(&self, key: &str, default: usize) -> Result<usize> {
        if self.has(key) { self.size(key) } else { Ok(default) }
    }

    /// The first of several names of a size that is present.
    pub fn size_of(&self, keys: &[&str]) -> Result<usize> {
        let present = keys.iter().find(|key| self.has(key));
        self.size(present.unwrap_or(&keys[0]))
    }

    pub fn float(&self, key: &str) -> Result<f64> {
        let value = self.value(key).ok_or_else(|| self.bad(key, "missing"))?;
        value.as_f64().ok_or_else(|| self.bad(key, format!("{value} is not a number")))
    }

    pub fn float_or(&self, key: &str, default: f64) -> Result<f64> {
        if self.has(key) { self.float(key) } else { Ok(default) }
    }

    pub fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        let Some(value) = self.value(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.bad(key, format!("{value} is not true or false")))
    }

    pub fn text(&self, key: &str) -> Result<Option<&'a str>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let text = value.as_str().ok_or_else(|| self.bad(key, format!("{value} is not a text")))?;
        Ok(Some(text))
    }

    pub fn nested(&self, key: &str) -> Result<Option<Fields<'a>>> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Object(object)) => {
                Ok(Some(Self { file: self.file, path: format!("{}{key}.", self.path), object }))
            }
            Some(value) => Err(self.bad(key, format!("{value} is not an object"))),
        }
    }

    /// Refuses a switch that turns on something the decoder does not do.
    pub fn require(&self, key: &str, wanted: bool) -> Result<()> {
        match self.flag_or(key, wanted)? {
            value if value == wanted => Ok(()),
            value => Err(self.bad(key, format!("{value} is not supported"))),
        }
    }
}
