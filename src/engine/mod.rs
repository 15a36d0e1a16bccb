//! Continuous ragged batching over a paged KV cache. The engine knows token ids, never text.

pub mod request;
