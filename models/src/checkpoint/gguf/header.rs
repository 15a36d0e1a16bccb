//! What candle's reader of headers does not tell, found by walking them as it does: the value of `general.alignment` and
//! how many tensors are listed.

/// Deeper arrays that reader refuses.
const MOST_DEPTH: usize = 64;

/// The alignment that a header names, if it is whole so far and names one; of several the last.
pub fn alignment(file: &[u8]) -> Option<u64> {
    let mut header = Walk::begin(file)?;
    header.length()?;
    let mut found = None;
    for _ in 0..header.length()? {
        let Some((key, value)) = header.entry() else { break };
        if key == b"general.alignment" {
            found = value;
        }
    }
    found
}

/// How many tensors a header lists, be they of one name.
pub fn tensors(file: &[u8]) -> Option<u64> {
    Walk::begin(file)?.length()
}

struct Walk<'a> {
    rest: &'a [u8],
    /// Lengths have 8 bytes; 4 in the first version of the format.
    wide: bool,
}

impl<'a> Walk<'a> {
    /// Up to the number of tensors.
    fn begin(file: &'a [u8]) -> Option<Self> {
        let mut header = Walk { rest: file, wide: true };
        header.take(4)?;
        header.wide = header.number(4)? > 1;
        Some(header)
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    /// A whole number of up to 8 bytes.
    fn number(&mut self, bytes: usize) -> Option<u64> {
        let bytes = self.take(bytes)?.iter().rev();
        Some(bytes.fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn length(&mut self) -> Option<u64> {
        self.number(if self.wide { 8 } else { 4 })
    }

    /// Without the zeros that some writers end a text with.
    fn text(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.length()?).ok()?;
        let text = self.take(length)?;
        let end = text.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        Some(&text[..end])
    }

    /// A key, and its value if that is a whole number of up to 4 bytes.
    fn entry(&mut self) -> Option<(&'a [u8], Option<u64>)> {
        let key = self.text()?;
        let kind = self.number(4)?;
        Some((key, self.value(kind, 0)?))
    }

    fn value(&mut self, kind: u64, depth: usize) -> Option<Option<u64>> {
        let width = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            8 => return self.text().map(|_| None),
            9 if depth < MOST_DEPTH => {
                let kind = self.number(4)?;
                for _ in 0..self.length()? {
                    self.value(kind, depth + 1)?;
                }
                return Some(None);
            }
            _ => return None,
        };
        let number = self.number(width)?;
        Some(matches!(kind, 0..=5).then_some(number))
    }
}
