//! The paged KV of all layers. Which block belongs to whom is the engine's business.

use crate::config::ModelConfig;
use crate::error::Result;
use candle_core::Device;
use kernels::Arena;
use kernels::kv::{BLOCK, KvDtype, KvLayer, KvShape};

/// One [`KvLayer`] per layer of the model, all with the same blocks: block `b` holds the same
/// tokens in every layer.
pub struct KvPool {
    layers: Vec<KvLayer>,
    blocks: usize,
}

impl KvPool {
    /// Room for `blocks` blocks of [`BLOCK`] tokens.
    ///
    /// # Errors
    /// The device has not enough memory.
    pub fn new(
        config: &ModelConfig,
        blocks: usize,
        dtype: KvDtype,
        device: &Device,
    ) -> Result<Self> {
        let ModelConfig { kv_heads, head_dim, .. } = *config;
        let shape = KvShape { blocks, kv_heads, head_dim, dtype };
        let mut arena = Arena::huge_pages()?;
        let layer = |_| KvLayer::new(shape, device, &mut arena);
        let layers = (0..config.layers).map(layer).collect::<candle_core::Result<_>>()?;
        Ok(Self { layers, blocks })
    }

    /// Bytes that one token takes in all layers together.
    pub fn bytes_per_token(config: &ModelConfig, dtype: KvDtype) -> usize {
        config.layers * KvLayer::bytes_per_token(config.kv_heads, config.head_dim, dtype)
    }

    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Number of tokens that fit.
    pub fn tokens(&self) -> usize {
        self.blocks * BLOCK
    }

    /// Copies a block's KV in all layers.
    ///
    /// # Errors
    /// A block beyond the pool.
    pub fn copy_block(&mut self, from: u32, to: u32) -> Result<()> {
        Ok(self.layers.iter_mut().try_for_each(|layer| layer.copy_block(from, to))?)
    }

    pub(crate) fn layer(&mut self, layer: usize) -> &mut KvLayer {
        &mut self.layers[layer]
    }

    pub(crate) fn layers(&self) -> usize {
        self.layers.len()
    }
}
