//! Files that are one JSON array instead of a row per line: cut into elements, so that a bad one
//! is reported by its line and the rest goes on.

/// An element: the line that it begins on (from 1), where it lies, and its text.
#[derive(Debug, PartialEq, Eq)]
pub struct Element<'a> {
    pub line: u64,
    pub offset: usize,
    pub text: &'a str,
}

/// Whether a file begins as an array does.
pub fn is_array(text: &str) -> bool {
    text.trim_start_matches('\u{feff}').trim_start().starts_with('[')
}

/// The elements of the array that `text` is. Brackets and strings are followed; what stands between
/// commas is left to the caller.
///
/// # Errors
/// The line where the array should have ended but does not, or where something follows it.
pub fn elements(text: &str) -> Result<Vec<Element<'_>>, (u64, &'static str)> {
    let mut found = Vec::new();
    let (mut depth, mut in_string, mut escaped, mut start) = (0usize, false, false, 0);
    let mut over = false;
    for (at, c) in text.char_indices() {
        if in_string {
            in_string = escaped || c != '"';
            escaped = c == '\\' && !escaped;
            continue;
        }
        if over {
            if !c.is_whitespace() {
                return Err((line_of(text, at), "something follows the end of the array"));
            }
            continue;
        }
        match c {
            '"' => in_string = true,
            '[' | '{' => {
                depth += 1;
                if depth == 1 {
                    start = at + 1;
                }
            }
            ']' | '}' => {
                depth = depth.saturating_sub(1);
                over = depth == 0;
            }
            _ => {}
        }
        if over || (c == ',' && depth == 1) {
            found.extend(element(text, start, at));
            start = at + 1;
        }
    }
    match over {
        true => Ok(with_lines(text, found)),
        false => Err((line_of(text, text.len()), "the array has no end")),
    }
}

fn element(text: &str, start: usize, end: usize) -> Option<(usize, &str)> {
    let inside = &text[start..end];
    let trimmed = inside.trim_start();
    let offset = start + inside.len() - trimmed.len();
    Some((offset, trimmed.trim_end())).filter(|(_, text)| !text.is_empty())
}

/// Counts lines once over the whole text.
fn with_lines<'a>(text: &'a str, found: Vec<(usize, &'a str)>) -> Vec<Element<'a>> {
    let (mut line, mut counted) = (1, 0);
    let place = |(offset, element): (usize, &'a str)| {
        line += text[counted..offset].matches('\n').count() as u64;
        counted = offset;
        Element { line, offset, text: element }
    };
    found.into_iter().map(place).collect()
}

fn line_of(text: &str, at: usize) -> u64 {
    text[..at].matches('\n').count() as u64 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> Vec<(u64, &str)> {
        elements(text).unwrap().iter().map(|element| (element.line, element.text)).collect()
    }

    #[test]
    fn elements_know_their_lines() {
        let text = "\n[ {\"a\": [1, 2],\n\"b\": \"],\\\"[{\"} ,\n\n 7, {}\n]\n";
        let expected = [(2, "{\"a\": [1, 2],\n\"b\": \"],\\\"[{\"}"), (5, "7"), (5, "{}")];
        assert_eq!(cut(text), expected);
        assert_eq!(cut("[]"), []);
        assert_eq!(cut("[{}, ]"), [(1, "{}")]);
        assert_eq!(&text[elements(text).unwrap()[1].offset..][..1], "7");
        assert!(is_array(text) && is_array("\u{feff}[") && !is_array("{}"));
    }

    #[test]
    fn an_array_ends_where_the_file_ends() {
        assert_eq!(elements("[{},\n{}").unwrap_err(), (2, "the array has no end"));
        assert_eq!(elements("[\"]\n").unwrap_err().1, "the array has no end");
        let (line, why) = elements("[{}]\n\n[]").unwrap_err();
        assert_eq!((line, why), (3, "something follows the end of the array"));
    }
}
