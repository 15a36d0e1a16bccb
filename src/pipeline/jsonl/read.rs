//! Reading rows. A bad row is reported with file, line and field, and the rest goes on.

use crate::pipeline::Error;
use serde::de::IgnoredAny;
use serde_json::{Deserializer, Map, Value};
use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

/// The longest line that is read, in bytes; a longer one is reported and skipped without being
/// held in memory. Documents of a million tokens take about 5 MiB.
pub const MAX_LINE: usize = 32 << 20;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// Where a row's text lies in its file, without the line break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub offset: u64,
    pub len: usize,
}

/// What is wrong with a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowError {
    pub path: Arc<Path>,
    /// From 1.
    pub line: u64,
    pub field: Option<String>,
    pub message: String,
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}:{}: ", self.path.display(), self.line)?;
        match &self.field {
            Some(field) => write!(f, "field {field:?} {}", self.message),
            None => write!(f, "{}", self.message),
        }
    }
}

impl std::error::Error for RowError {}

#[cfg(test)]
impl RowError {
    /// Without the file.
    pub fn brief(&self) -> String {
        format!("{} {}: {}", self.line, self.field.as_deref().unwrap_or("-"), self.message)
    }
}

/// The line that a row stands on.
#[derive(Debug, Clone)]
pub struct Place {
    pub path: Arc<Path>,
    /// From 1.
    pub line: u64,
}

impl Place {
    /// An error about the row here, or a field of it.
    pub fn error(&self, field: Option<&str>, message: impl Into<String>) -> RowError {
        RowError {
            path: Arc::clone(&self.path),
            line: self.line,
            field: field.map(str::to_owned),
            message: message.into(),
        }
    }
}

/// One row: a JSON object and where it came from. Fields are taken out of it one by one; what is
/// left are the extra ones.
#[derive(Debug, Clone)]
pub struct Row {
    pub place: Place,
    pub span: Span,
    pub fields: Map<String, Value>,
}

impl Row {
    /// An error about this row.
    pub fn error(&self, field: Option<&str>, message: impl Into<String>) -> RowError {
        self.place.error(field, message)
    }

    /// Takes a field that must be there.
    pub fn take(&mut self, field: &str) -> Result<Value, RowError> {
        // `remove` would put the last field in the place of this one.
        self.fields.shift_remove(field).ok_or_else(|| self.error(Some(field), "is missing"))
    }

    /// Takes a field that must be a string.
    pub fn take_string(&mut self, field: &str) -> Result<String, RowError> {
        match self.take(field)? {
            Value::String(text) => Ok(text),
            other => Err(self.wrong_type(field, "a string", &other)),
        }
    }

    /// Takes a field that must be an integer of at least 0.
    pub fn take_index(&mut self, field: &str) -> Result<u64, RowError> {
        let value = self.take(field)?;
        let wanted = "an integer of at least 0";
        value.as_u64().ok_or_else(|| self.wrong_type(field, wanted, &value))
    }

    /// Takes a field that must be an object.
    pub fn take_object(&mut self, field: &str) -> Result<Map<String, Value>, RowError> {
        match self.take(field)? {
            Value::Object(object) => Ok(object),
            other => Err(self.wrong_type(field, "an object", &other)),
        }
    }

    /// Takes a string field that may be missing.
    pub fn take_optional_string(&mut self, field: &str) -> Result<Option<String>, RowError> {
        match self.fields.contains_key(field) {
            true => self.take_string(field).map(Some),
            false => Ok(None),
        }
    }

    /// The error for a field of another type than wanted.
    pub fn wrong_type(&self, field: &str, wanted: &str, got: &Value) -> RowError {
        self.error(Some(field), format!("should be {wanted}, but is {}", describe(got)))
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => format!("the truth value {value}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// Passes each row of a file to `visit`, which says what is wrong with it, if anything. Returns
/// all that was wrong. Blank lines, CRLF and a byte order mark are no errors.
///
/// # Errors
/// [`Error::Io`] if the file can't be read.
pub fn read_rows(
    path: &Path,
    mut visit: impl FnMut(Row) -> Result<(), RowError>,
) -> Result<Vec<RowError>, Error> {
    let file = File::open(path).map_err(Error::io(path))?;
    let mut lines = Lines { input: BufReader::new(file), offset: 0 };
    let mut place = Place { path: path.into(), line: 0 };
    let mut problems = Vec::new();
    while let Some(line) = lines.next().map_err(Error::io(path))? {
        place.line += 1;
        match line.parse(&place) {
            Ok(None) => {}
            Ok(Some(row)) => problems.extend(visit(row).err()),
            Err(problem) => problems.push(problem),
        }
    }
    Ok(problems)
}

/// Whether a file begins with a JSON object, on one line or on many, that has all fields of one of these sets.
///
/// # Errors
/// [`Error::Io`] if the file can't be opened.
pub fn holds_fields(path: &Path, sets: &[&[&str]]) -> Result<bool, Error> {
    let file = File::open(path).map_err(Error::io(path))?;
    let values = Deserializer::from_reader(BufReader::new(file));
    let first = values.into_iter::<HashMap<String, IgnoredAny>>().next();
    let Some(Ok(fields)) = first else { return Ok(false) };
    Ok(sets.iter().any(|set| set.iter().all(|name| fields.contains_key(*name))))
}

/// Reads the text of a row again.
pub(crate) fn read_span(file: &mut File, span: Span) -> std::io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(span.offset))?;
    let mut bytes = vec![0; span.len];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Parses bytes that [`read_span`] read.
pub(crate) fn parse_span(
    place: &Place,
    span: Span,
    bytes: Vec<u8>,
) -> Result<Option<Row>, RowError> {
    Line { bytes, len: span.len, offset: span.offset }.parse(place)
}

/// The lines of a file, as bytes.
struct Lines<R> {
    input: R,
    offset: u64,
}

struct Line {
    /// Without the line break; cut off at [`MAX_LINE`].
    bytes: Vec<u8>,
    /// Bytes in the file, without the line break.
    len: usize,
    offset: u64,
}

impl<R: BufRead> Lines<R> {
    /// The next line; `None` at the end of the file.
    fn next(&mut self) -> std::io::Result<Option<Line>> {
        let mut line = Line { bytes: Vec::new(), len: 0, offset: self.offset };
        loop {
            let piece = self.input.fill_buf()?;
            if piece.is_empty() {
                return Ok((line.len > 0).then_some(line));
            }
            let end = piece.iter().position(|&byte| byte == b'\n');
            let text = &piece[..end.unwrap_or(piece.len())];
            let room = MAX_LINE - line.bytes.len();
            line.bytes.extend_from_slice(&text[..text.len().min(room)]);
            line.len += text.len();
            let used = text.len() + usize::from(end.is_some());
            self.input.consume(used);
            self.offset += used as u64;
            if end.is_some() {
                return Ok(Some(line));
            }
        }
    }
}

impl Line {
    /// `None` for a blank line.
    fn parse(self, place: &Place) -> Result<Option<Row>, RowError> {
        let error = |message: String| place.error(None, message);
        if self.len > MAX_LINE {
            let len = self.len;
            return Err(error(format!("has {len} bytes, but at most {MAX_LINE} are read")));
        }
        let bytes = match self.offset {
            0 => self.bytes.strip_prefix(BOM).unwrap_or(&self.bytes),
            _ => &self.bytes,
        };
        let text = str::from_utf8(bytes)
            .map_err(|e| error(format!("is not UTF-8 from byte {} on", e.valid_up_to() + 1)))?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        let span = Span { offset: self.offset, len: self.len };
        match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => Ok(Some(Row { place: place.clone(), span, fields })),
            Ok(other) => {
                Err(error(format!("should be a JSON object, but is {}", describe(&other))))
            }
            Err(e) => Err(error(format!("is not JSON: {}", without_line(&e)))),
        }
    }
}

/// The parser counts lines within the row, which would mislead.
fn without_line(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let end = message.rfind(" at line ").unwrap_or(message.len());
    format!("{} (column {})", &message[..end], error.column())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read(bytes: &[u8]) -> (Vec<(u64, u64)>, Vec<String>) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let mut rows = Vec::new();
        let problems = read_rows(file.path(), |mut row| {
            let index = row.take_index("idx")?;
            rows.push((row.place.line, index));
            Ok(())
        })
        .unwrap();
        let name = file.path().display().to_string();
        (rows, problems.iter().map(|p| p.to_string().replace(&name, "F")).collect())
    }

    #[test]
    fn bad_rows_are_named_and_the_rest_is_read() {
        let text = b"{\"idx\":1}\n{\"idx\":\n{\"idy\":1}\n{\"idx\":\"1\"}\n[1]\n{\"idx\":-1}\n\
            {\"idx\":\"\xff\"}\n{\"idx\":2}";
        let (rows, problems) = read(text);
        assert_eq!(rows, [(1, 1), (8, 2)]);
        assert_eq!(
            problems,
            [
                "F:2: is not JSON: EOF while parsing a value (column 7)",
                "F:3: field \"idx\" is missing",
                "F:4: field \"idx\" should be an integer of at least 0, but is a string",
                "F:5: should be a JSON object, but is an array",
                "F:6: field \"idx\" should be an integer of at least 0, but is the number -1",
                "F:7: is not UTF-8 from byte 9 on",
            ]
        );
    }

    #[test]
    fn blank_lines_crlf_and_byte_order_mark_are_accepted() {
        let (rows, problems) = read(b"\xef\xbb\xbf{\"idx\":1}\r\n\r\n  \n{\"idx\":2}\r\n");
        assert_eq!(rows, [(1, 1), (4, 2)]);
        assert_eq!(problems, Vec::<String>::new());
    }

    #[test]
    fn a_line_beyond_the_limit_is_skipped() {
        let mut text = b"{\"idx\":1,\"x\":\"".to_vec();
        text.resize(MAX_LINE + 1, b'a');
        text.extend_from_slice(b"\"}\n{\"idx\":2}\n");
        let (rows, problems) = read(&text);
        assert_eq!(rows, [(2, 2)]);
        assert_eq!(problems, ["F:1: has 33554435 bytes, but at most 33554432 are read"]);
    }

    #[test]
    fn a_row_can_be_read_again_by_its_span() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all("\u{feff}{\"a\":\"é\"}\r\n\n{\"b\":2}\n".as_bytes()).unwrap();
        let mut spans = Vec::new();
        read_rows(file.path(), |row| {
            spans.push((row.span, row.place, row.fields));
            Ok(())
        })
        .unwrap();
        assert_eq!(spans.len(), 2);
        for (span, place, fields) in spans {
            let bytes = read_span(file.as_file_mut(), span).unwrap();
            let row = parse_span(&place, span, bytes).unwrap().unwrap();
            assert_eq!(row.fields, fields);
        }
    }

    #[test]
    fn taking_a_field_keeps_the_order_of_the_others() {
        let fields = serde_json::from_str(r#"{"a":1,"b":"x","c":3,"d":4}"#).unwrap();
        let span = Span { offset: 0, len: 0 };
        let place = Place { path: Path::new("F").into(), line: 1 };
        let mut row = Row { place, span, fields };
        assert_eq!(row.take_string("b").unwrap(), "x");
        assert_eq!(row.take_optional_string("b").unwrap(), None);
        assert_eq!(row.fields.keys().collect::<Vec<_>>(), ["a", "c", "d"]);
    }
}
