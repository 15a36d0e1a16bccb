//! being written
/// Where each row's KV goes and what it sees. See `models::batch::Batch` for the diagram.
#[derive(Debug, Clone, Default)]
pub struct VarLen {
    /// Position of each row in its sequence.
    pub positions: Vec<u32>,
    /// Where each row's KV is written: `block * BLOCK + offset`.
    pub slots: Vec<u32>,
    /// First row of each sequence, and the number of rows at the end.
    pub query_starts: Vec<u32>,
    /// Tokens of each sequence whose KV is there after this step.
    pub kv_lens: Vec<u32>,
    /// Block ids of each sequence, in order of position.
    pub block_tables: Vec<Vec<u32>>,
}
