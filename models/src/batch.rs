//! One step's work as flat arrays: sequences of any lengths side by side, never padded.
//!
//! ```text
//! sequence            0          1 2     3
//! tokens        [ a b c d e ][ f ][ g ][ h i ]      T = 9 rows
//! query_starts  0            5    6    7      9     S + 1 entries
//! kv_lens        5            40   17   130         cached tokens + this step's, per sequence
//! block_tables   [b0]         [b3 b7 b9] …          ceil(kv_len / block_size) ids each
//! ```
//! Sequence `s` owns rows `query_starts[s] .. query_starts[s + 1]`. Its row `r` (counted from the
//! start of its rows) stands at position `kv_lens[s] - rows + r` and sees positions `0 ..=` its own.

/// Filled by the engine's batch builder, read by the decoder.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Token id of each row.
    pub tokens: Vec<u32>,
    /// Which rows belong to which sequence, where their KV lies.
    pub layout: kernels::kv::VarLen,
    /// Rows whose logits are wanted, ascending.
    pub logit_rows: Vec<u32>,
}
