//! The seam to the judge's agreement with people: a JSON object, shown as it is.
//!
//! Whoever writes that file decides what is in it. Objects become tables of name and value, arrays
//! of objects become tables with a column for each name, and numbers are shown with four digits.
//! The template walks the value; charts for known names can be put before it there.

use super::Error;
use serde_json::{Map, Value};
use std::path::Path;

/// Reads the object.
///
/// # Errors
/// A file that can't be read or holds something else.
pub fn read(path: &Path) -> Result<Value, Error> {
    let text = std::fs::read_to_string(path).map_err(super::error::io(path))?;
    let object: Result<Map<String, Value>, _> = serde_json::from_str(&text);
    let object = object.map_err(|why| Error::Agree { path: path.into(), why: why.to_string() })?;
    Ok(Value::Object(object.into_iter().map(|(name, value)| (name, readable(value))).collect()))
}

/// Numbers as a person reads them.
fn readable(value: Value) -> Value {
    match value {
        Value::Number(number) if !(number.is_u64() || number.is_i64()) => {
            let number = number.as_f64().unwrap_or(f64::NAN);
            Value::String(format!("{number:.4}"))
        }
        Value::Array(items) => Value::Array(items.into_iter().map(readable).collect()),
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| (name, readable(value)));
            Value::Object(fields.collect())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::Lab;
    use serde_json::json;

    #[test]
    fn numbers_are_made_readable() {
        let lab = Lab::new();
        let path = lab.write("a.json", r#"{"n": 7, "kappa": {"value": 0.123456, "ci": [0.1, 1]}}"#);
        let want = json!({"n": 7, "kappa": {"value": "0.1235", "ci": ["0.1000", 1]}});
        assert_eq!(read(&path).unwrap(), want);
        let path = lab.write("b.json", "[1]");
        assert!(read(&path).unwrap_err().to_string().contains("b.json: is no JSON object"));
    }
}
