//! Files of labels.

use super::array::{elements, is_array};
use super::{Item, Kind, llmbar, own, wice};
use crate::pipeline::Error;
use crate::pipeline::jsonl::{Place, Row, RowError, Span, read_rows};
use serde_json::Value;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// How rows are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// By the fields of each row.
    #[default]
    Auto,
    /// This program's own; see [`super`].
    Longreward,
    Wice,
    Llmbar,
}

/// The good rows of a file, and what is wrong with the others.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Labels {
    pub items: Vec<Item>,
    pub problems: Vec<RowError>,
}

impl Labels {
    /// Reads a file; at most `limit` good rows of it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn read(path: &Path, format: Format, limit: Option<usize>) -> Result<Self, Error> {
        let mut reader = Reader { format, limit, items: Vec::new(), lines: HashMap::new() };
        let problems = match begins_an_array(path).map_err(Error::io(path))? {
            true => {
                let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
                read_array(path, &text, |row| reader.take(row))
            }
            false => read_rows(path, |row| reader.take(row))?,
        };
        Ok(Self { items: reader.items, problems })
    }
}

struct Reader {
    format: Format,
    limit: Option<usize>,
    items: Vec<Item>,
    /// Where each idx was met.
    lines: HashMap<String, u64>,
}

impl Reader {
    fn take(&mut self, mut row: Row) -> Result<(), RowError> {
        if self.limit.is_some_and(|limit| self.items.len() >= limit) {
            return Ok(());
        }
        let idx = take_idx(&mut row)?;
        let kind = kind(&mut row, self.format)?;
        if let Some(line) = self.lines.insert(idx.clone(), row.place.line) {
            return Err(row.error(Some("idx"), format!("is {idx:?} as on line {line}")));
        }
        self.items.push(Item { idx, kind });
        Ok(())
    }
}

fn kind(row: &mut Row, format: Format) -> Result<Kind, RowError> {
    match format {
        Format::Wice => wice::claim(row).map(Kind::Support),
        Format::Llmbar => llmbar::pair(row).map(Kind::Pairwise),
        Format::Longreward => own::kind(row),
        Format::Auto if wice::matches(row) => wice::claim(row).map(Kind::Support),
        Format::Auto if llmbar::matches(row) => llmbar::pair(row).map(Kind::Pairwise),
        Format::Auto => own::kind(row),
    }
}

fn take_idx(row: &mut Row) -> Result<String, RowError> {
    match row.fields.shift_remove("idx") {
        None => Ok(wice::idx(row).unwrap_or_else(|| row.place.line.to_string())),
        Some(Value::String(idx)) => Ok(idx),
        Some(Value::Number(idx)) if idx.is_u64() => Ok(idx.to_string()),
        Some(other) => Err(row.wrong_type("idx", "a string or an integer of at least 0", &other)),
    }
}

/// By the first characters alone, so that no long file is held for it.
fn begins_an_array(path: &Path) -> std::io::Result<bool> {
    let mut head = Vec::new();
    File::open(path)?.take(64).read_to_end(&mut head)?;
    Ok(is_array(&String::from_utf8_lossy(&head)))
}

/// Passes each element of the array that `text` is to `visit`, as [`read_rows`] does with lines.
pub fn read_array(
    path: &Path,
    text: &str,
    mut visit: impl FnMut(Row) -> Result<(), RowError>,
) -> Vec<RowError> {
    let place = |line| Place { path: path.into(), line };
    let elements = match elements(text) {
        Ok(elements) => elements,
        Err((line, why)) => return vec![place(line).error(None, why)],
    };
    let row = |place: Place, offset: usize, text: &str| {
        let span = Span { offset: offset as u64, len: text.len() };
        match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => Ok(Row { place, span, fields }),
            Ok(_) => Err(place.error(None, "is no JSON object")),
            Err(e) => Err(place.error(None, format!("is no JSON: {e}"))),
        }
    };
    let visited = elements
        .iter()
        .map(|element| row(place(element.line), element.offset, element.text).and_then(&mut visit));
    visited.filter_map(Result::err).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Level, Preference};
    use super::*;

    fn read(text: &str, format: Format, limit: Option<usize>) -> (Vec<Item>, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("labels");
        std::fs::write(&path, text).unwrap();
        let Labels { items, problems } = Labels::read(&path, format, limit).unwrap();
        (items, problems.iter().map(RowError::brief).collect())
    }

    #[test]
    fn own_rows_of_all_kinds() {
        let (items, problems) = read(
            r#"{"claim":"c","evidence":["s0","s1"],"label":"supported","supporting":[1]}
               {"idx":"p","query":"q","response_a":"x","response_b":"y","labels":["a","tie","a"],"author_b":"m"}
               {"idx":7,"query":"q","context":"d","answer":"x","ratings":[3,4.5]}
               {"claim":"c","evidence":"text","label":"not_supported","supporting":[[0,0],[]]}"#,
            Format::Auto,
            None,
        );
        assert_eq!(problems, Vec::<String>::new());
        let ids: Vec<&str> = items.iter().map(|item| item.idx.as_str()).collect();
        assert_eq!(ids, ["1", "p", "7", "4"]);
        let Kind::Support(claim) = &items[0].kind else { panic!() };
        assert_eq!((claim.label, &claim.supporting), (Level::Fully, &vec![vec![1]]));
        let Kind::Pairwise(pair) = &items[1].kind else { panic!() };
        assert_eq!((pair.label, pair.votes.len()), (Preference::A, 3));
        assert_eq!(pair.authors, [None, Some("m".to_owned())]);
        let Kind::Rating(rated) = &items[2].kind else { panic!() };
        assert_eq!((rated.rating, rated.context.as_deref()), (3.75, Some("d")));
        let Kind::Support(claim) = &items[3].kind else { panic!() };
        assert_eq!(claim.supporting, [[0]]);
    }

    #[test]
    fn formats_of_others_are_recognised() {
        let (items, problems) = read(
            r#"{"label":"partially_supported","supporting_sentences":[[0,1],[]],"claim":"c","evidence":["s","t"],"meta":{"id":"dev1"}}"#,
            Format::Auto,
            None,
        );
        assert_eq!(problems, Vec::<String>::new());
        let Kind::Support(claim) = &items[0].kind else { panic!() };
        assert_eq!((items[0].idx.as_str(), claim.label), ("dev1", Level::Partially));
        assert_eq!(claim.supporting, [[0, 1]]);
        let array = "[\n {\"input\": \"i\", \"output_1\": \"x\", \"output_2\": \"y\",\n\"label\": 2},\n
            {\"input\": \"i\", \"output_1\": \"x\", \"output_2\": \"y\", \"label\": 3}, 5, {\"a\"}]";
        let (items, problems) = read(array, Format::Llmbar, None);
        let Kind::Pairwise(pair) = &items[0].kind else { panic!() };
        assert_eq!((items[0].idx.as_str(), pair.label), ("2", Preference::B));
        assert_eq!(
            problems[..2],
            ["5 label: should be 1 or 2, but is 3", "5 -: is no JSON object"]
        );
        assert!(problems[2].starts_with("5 -: is no JSON"), "{problems:?}");
        assert_eq!(read("[{}", Format::Auto, None).1, ["1 -: the array has no end"]);
    }

    #[test]
    fn bad_rows_name_their_field() {
        let rows = [
            (r#"{"claim":" ","evidence":"e","label":"supported"}"#, "claim: is empty"),
            (r#"{"claim":"c","evidence":[],"label":"supported"}"#, "evidence: is empty"),
            (
                r#"{"claim":"c","evidence":["e"],"label":"yes"}"#,
                "label: should be \"not_supported\" or \"partially_supported\" or \"supported\", \
                 but is \"yes\"",
            ),
            (
                r#"{"claim":"c","evidence":["e"],"label":"supported","supporting":[1]}"#,
                "supporting: names sentence 1, but the evidence has 1 (from 0)",
            ),
            (r#"{"query":"q","response_a":"x","label":"a"}"#, "response_b: is missing"),
            (r#"{"query":"q","response_a":"x","response_b":"y","labels":[]}"#, "labels: is empty"),
            (
                r#"{"query":"q","answer":"x","rating":"5"}"#,
                "rating: should be a number, but is a string",
            ),
            (
                r#"{"query":"q"}"#,
                "-: has no field \"claim\" (support), \"response_a\" (pairwise) or \"answer\" (rating)",
            ),
            (
                r#"{"idx":-1,"query":"q","answer":"x","rating":5}"#,
                "idx: should be a string or an integer of at least 0, but is the number -1",
            ),
        ];
        for (row, expected) in rows {
            let (items, problems) = read(row, Format::Longreward, None);
            assert_eq!((items.len(), problems), (0, vec![format!("1 {expected}")]), "{row}");
        }
    }

    #[test]
    fn an_idx_is_unique_and_a_limit_counts_good_rows() {
        let row =
            |idx: u32| format!("{{\"idx\":{idx},\"query\":\"q\",\"answer\":\"\",\"rating\":1}}\n");
        let text = [row(1), row(1), row(2), row(3)].concat();
        let (items, problems) = read(&text, Format::Auto, Some(2));
        assert_eq!((items.len(), problems), (2, vec!["2 idx: is \"1\" as on line 1".to_owned()]));
    }
}
