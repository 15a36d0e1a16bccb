//! The judge's agreement with people: the JSON object that `agree` writes, made readable.
//!
//! The seam is narrow on purpose: whoever writes that file decides what is in it, and new measures
//! show up without a change here. Objects become tables of name and value, and arrays of objects
//! tables with a column for each name. Four shapes are known and written shorter:
//!
//! | shape | becomes |
//! |---|---|
//! | `{value, low, high}` | `0.350 (0.150 to 0.550)` |
//! | an object with `metrics` among other fields | one row, a column for each measure |
//! | `confusion`, counts by label and verdict, beside `classes` | a table with the names of the classes |
//! | a number that is not whole | three digits |

use super::Error;
use super::agreement::{Agreement, agreement};
use serde_json::{Map, Value};
use std::path::Path;

type Object = Map<String, Value>;

/// The file as it is shown.
#[derive(Debug)]
pub struct Agree {
    /// What can be drawn, if anything.
    pub charts: Option<Agreement>,
    /// The whole object; all its values are texts, whole numbers or truth values, or made of them.
    pub tables: Value,
}

/// Reads the object.
///
/// # Errors
/// A file that can't be read or holds something else.
pub fn read(path: &Path) -> Result<Agree, Error> {
    let text = std::fs::read_to_string(path).map_err(super::error::io(path))?;
    let object: Result<Object, _> = serde_json::from_str(&text);
    let object = object.map_err(|why| Error::Agree { path: path.into(), why: why.to_string() })?;
    let object = Value::Object(object);
    Ok(Agree { charts: agreement(&object), tables: readable(object) })
}

fn readable(value: Value) -> Value {
    match value {
        Value::Number(number) if !(number.is_u64() || number.is_i64()) => {
            Value::String(digits(number.as_f64()))
        }
        Value::Array(items) => Value::Array(items.into_iter().map(readable).collect()),
        Value::Object(fields) => object_readable(fields),
        Value::Null => Value::String(digits(None)),
        other => other,
    }
}

fn digits(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:.3}").replace('-', "−"))
}

fn object_readable(mut fields: Object) -> Value {
    if let Some(text) = estimate(&fields) {
        return Value::String(text);
    }
    if let Some(rows) = confusion(&fields) {
        fields.insert("confusion".to_owned(), rows);
    }
    let mut shown = Object::new();
    for (name, value) in fields {
        match value {
            Value::Object(metrics) if name == "metrics" => {
                let metrics = metrics.into_iter();
                shown.extend(metrics.map(|(name, value)| (title(&name), readable(value))));
            }
            value => {
                shown.insert(title(&name), readable(value));
            }
        }
    }
    Value::Object(shown)
}

/// Names of fields have no spaces; people's do.
fn title(name: &str) -> String {
    name.replace('_', " ")
}

/// A measure with its interval.
fn estimate(fields: &Object) -> Option<String> {
    let number = |name: &str| fields.get(name).map(Value::as_f64);
    let (value, low, high) = (number("value")?, number("low")?, number("high")?);
    if fields.len() != 3 {
        return None;
    }
    Some(match value {
        None => digits(None),
        Some(_) => format!("{} ({} to {})", digits(value), digits(low), digits(high)),
    })
}

/// The rows of a confusion matrix, by class; `None` where there is none of that shape.
fn confusion(fields: &Object) -> Option<Value> {
    let classes = fields.get("classes")?.as_array()?;
    let names: Vec<String> =
        classes.iter().map(|c| c.as_str().map(title)).collect::<Option<_>>()?;
    let rows = fields.get("confusion")?.as_array()?;
    let row = |(name, counts): (&String, &Value)| {
        let label = ("label".to_owned(), Value::String(name.clone()));
        let judged = |name: &String| format!("judged {name}");
        let counts = names.iter().map(judged).zip(counts.as_array()?.iter().cloned());
        Some(Value::Object(std::iter::once(label).chain(counts).collect()))
    };
    names.iter().zip(rows).map(row).collect::<Option<Vec<_>>>().map(Value::Array)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::Lab;
    use serde_json::json;

    fn shown(value: Value) -> Value {
        let lab = Lab::new();
        read(&lab.write("a.json", &value.to_string())).unwrap().tables
    }

    #[test]
    fn measures_stand_in_one_row_with_their_intervals() {
        let estimate = json!({"value": 0.35, "low": -0.15, "high": 0.55});
        let nothing = json!({"value": null, "low": null, "high": null});
        let metrics = json!({"macro_f1": estimate, "kappa": nothing});
        let file =
            json!({"n": 7, "rating": null, "predictors": [{"name": "j", "metrics": metrics}]});
        let row = json!({"name": "j", "macro f1": "0.350 (−0.150 to 0.550)", "kappa": "–"});
        assert_eq!(shown(file), json!({"n": 7, "rating": "–", "predictors": [row]}));
    }

    #[test]
    fn a_confusion_matrix_names_its_classes() {
        let file = json!({"classes": ["a_b", "c"], "confusion": [[1, 2], [3, 4]]});
        let rows = json!([
            {"label": "a b", "judged a b": 1, "judged c": 2},
            {"label": "c", "judged a b": 3, "judged c": 4},
        ]);
        assert_eq!(shown(file)["confusion"], rows);
        let other = json!({"classes": 2, "confusion": [[0.5]]});
        assert_eq!(shown(other)["confusion"], json!([["0.500"]]));
    }

    #[test]
    fn other_files_are_refused_by_name() {
        let lab = Lab::new();
        let error = read(&lab.write("b.json", "[1]")).unwrap_err();
        assert!(error.to_string().contains("b.json: is no JSON object"), "{error}");
    }
}
