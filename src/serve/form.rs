//! The form that a reply must have, in the ways in which clients say it.

use super::{ApiError, App};
use crate::chat::grammar::Form;
use crate::chat::service::Constraint;
use crate::chat::wire::SamplingFields;
use serde_json::{Value, json};
use std::sync::Arc;

/// Choices, at most, and bytes of a form altogether.
const MAX_CHOICES: usize = 1024;
const MAX_FORM: usize = 256 << 10;

/// What samples must keep to, if anything: what the fields ask for, or `other`, which another field
/// asks for.
///
/// # Errors
/// A form that can't be kept to, with the reason, by the field that asks for it.
pub async fn constraint(
    app: &Arc<App>,
    fields: &SamplingFields,
    other: Option<(&'static str, Form)>,
) -> Result<Option<Constraint>, ApiError> {
    let Some((field, form)) = form(fields, other)? else { return Ok(None) };
    if fields.ignore_eos == Some(true) {
        return Err(ApiError::field("ignore_eos", "a reply of a given form ends with it"));
    }
    let handle = app.handle.clone();
    let compiled = tokio::task::spawn_blocking(move || handle.constraint(form)).await;
    let compiled = compiled.map_err(|e| ApiError::internal(format!("{field}: {e}")))?;
    compiled.map(Some).map_err(|why| ApiError::field(field, why))
}

/// The form that is asked for, and the field that asks.
fn form(
    fields: &SamplingFields,
    other: Option<(&'static str, Form)>,
) -> Result<Option<(&'static str, Form)>, ApiError> {
    let mut forms = Vec::from_iter(other);
    forms.extend(response_format(fields)?.map(|form| ("response_format", form)));
    forms.extend(fields.guided_choice.clone().map(|c| ("guided_choice", Form::Choice(c))));
    forms.extend(fields.guided_regex.clone().map(|r| ("guided_regex", Form::Regex(r))));
    if let Some(schema) = &fields.guided_json {
        forms.push(("guided_json", Form::Json(schema_of("guided_json", schema)?)));
    }
    if let Some(outputs) = &fields.structured_outputs {
        const FIELD: &str = "structured_outputs";
        forms.extend(outputs.choice.clone().map(|choices| (FIELD, Form::Choice(choices))));
        forms.extend(outputs.regex.clone().map(|expression| (FIELD, Form::Regex(expression))));
        if let Some(schema) = &outputs.json {
            forms.push((FIELD, Form::Json(schema_of(FIELD, schema)?)));
        }
    }
    let last = forms.pop();
    match (last, forms.first()) {
        (Some((field, _)), Some((other, _))) => {
            Err(ApiError::field(field, format!("only one form can be asked for; so does {other}")))
        }
        (Some((field, form)), None) => {
            check_size(field, &form)?;
            Ok(Some((field, form)))
        }
        (None, _) => Ok(None),
    }
}

fn response_format(fields: &SamplingFields) -> Result<Option<Form>, ApiError> {
    let Some(format) = &fields.response_format else { return Ok(None) };
    match format.kind.as_str() {
        "text" => Ok(None),
        "json_object" => Ok(Some(Form::Json(json!({"type": "object"})))),
        "json_schema" => {
            let schema = format.json_schema.as_ref().and_then(|named| named.get("schema"));
            let missing = || ApiError::field("response_format.json_schema.schema", "is missing");
            let schema = schema.ok_or_else(missing)?;
            Ok(Some(Form::Json(schema_of("response_format", schema)?)))
        }
        other => {
            let why =
                format!("type {other} is not supported; text, json_object and json_schema are");
            Err(ApiError::unsupported("response_format", why))
        }
    }
}

/// Some clients send a schema as a text.
fn schema_of(field: &str, schema: &Value) -> Result<Value, ApiError> {
    match schema {
        Value::String(text) => serde_json::from_str(text)
            .map_err(|e| ApiError::field(field, format!("the schema is no JSON: {e}"))),
        Value::Object(_) | Value::Bool(_) => Ok(schema.clone()),
        _ => Err(ApiError::field(field, "a schema is an object")),
    }
}

fn check_size(field: &str, form: &Form) -> Result<(), ApiError> {
    let size = match form {
        Form::Json(schema) => schema.to_string().len(),
        Form::Regex(expression) => expression.len(),
        Form::Choice(choices) if choices.len() > MAX_CHOICES => {
            return Err(ApiError::field(field, format!("at most {MAX_CHOICES} choices are taken")));
        }
        Form::Choice(choices) => choices.iter().map(String::len).sum(),
    };
    match size > MAX_FORM {
        true => Err(ApiError::field(field, format!("has more than {MAX_FORM} bytes"))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(fields: Value) -> Result<Option<(&'static str, Form)>, ApiError> {
        form(&serde_json::from_value(fields).unwrap(), None)
    }

    #[test]
    fn each_way_of_asking_is_understood() {
        let choice = || Form::Choice(vec!["a".into(), "b".into()]);
        let schema = json!({"type": "integer"});
        for (fields, form) in [
            (json!({"guided_choice": ["a", "b"]}), choice()),
            (json!({"structured_outputs": {"choice": ["a", "b"]}}), choice()),
            (json!({"guided_regex": "a+"}), Form::Regex("a+".into())),
            (json!({"guided_json": schema}), Form::Json(schema.clone())),
            (json!({"guided_json": schema.to_string()}), Form::Json(schema.clone())),
            (json!({"structured_outputs": {"json": schema}}), Form::Json(schema.clone())),
            (
                json!({"response_format": {"type": "json_schema", "json_schema": {
                    "name": "x", "strict": true, "schema": schema}}}),
                Form::Json(schema.clone()),
            ),
            (
                json!({"response_format": {"type": "json_object"}}),
                Form::Json(json!({"type": "object"})),
            ),
        ] {
            assert_eq!(asked(fields.clone()).unwrap().map(|found| found.1), Some(form), "{fields}");
        }
        assert_eq!(asked(json!({"response_format": {"type": "text"}})).unwrap(), None);
        assert_eq!(asked(json!({})).unwrap(), None);
    }

    #[test]
    fn what_can_not_be_understood_is_told_by_field() {
        let refused = |fields| asked(fields).unwrap_err().body().error.param.unwrap();
        let format = |format| refused(json!({"response_format": format}));
        assert_eq!(format(json!({"type": "xml"})), "response_format");
        let bare = json!({"type": "json_schema", "json_schema": {"name": "x"}});
        assert_eq!(format(bare), "response_format.json_schema.schema");
        assert_eq!(refused(json!({"guided_json": "{"})), "guided_json");
        assert_eq!(refused(json!({"guided_json": 5})), "guided_json");
        let two = json!({"guided_choice": ["a"], "guided_regex": "a"});
        assert_eq!(refused(two), "guided_regex");
        let other = Some(("tools", Form::Json(json!({}))));
        let fields = serde_json::from_value(json!({"guided_regex": "a"})).unwrap();
        assert!(form(&fields, other.clone()).is_err());
        assert_eq!(form(&SamplingFields::default(), other.clone()).unwrap(), other);
        let many = json!({"guided_choice": vec!["a"; 2000]});
        assert_eq!(refused(many), "guided_choice");
    }
}
