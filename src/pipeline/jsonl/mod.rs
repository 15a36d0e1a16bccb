//! JSON Lines files: reading with line numbers, and writing that survives being killed.

mod read;
mod write;

pub use read::{MAX_LINE, Place, Row, RowError, Span, read_rows};
pub(super) use read::{parse_span, read_span};
pub use write::{Appender, lock, replace};
