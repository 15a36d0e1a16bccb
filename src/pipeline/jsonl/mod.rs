//! JSON Lines files: reading with line numbers, and writing that survives being killed.

mod read;
mod write;

pub use read::{MAX_LINE, Place, Row, RowError, Span, holds_fields, read_rows};
pub(crate) use read::{parse_span, read_span};
pub(super) use write::make_folder;
pub use write::{Appender, Lock, keep_inputs, keep_others, replace};
