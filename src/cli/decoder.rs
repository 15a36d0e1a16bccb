//! A decoder wherever it runs.

use super::args::Common;
#[cfg(feature = "gpu")]
use super::args::{Dtype, KvType};
use super::model;
use crate::bench::{Limit, Operation};
use crate::device;
use crate::engine::{AnyRunner, DecoderRunner, Limits};
use anyhow::{Context, Result, bail};
use kernels::peak;
use models::source::Source;
use models::{Decoder, KvPool, ModelConfig, dummy};

#[cfg(feature = "gpu")]
use crate::engine::GpuRunner;
#[cfg(feature = "gpu")]
use kernels::gpu::Gpu;
#[cfg(feature = "gpu")]
use models::gpu::{GpuDecoder, GpuOptions, WeightType};

/// Takes the times of operations, if it was asked to.
#[derive(Default)]
pub struct Profiler(#[cfg(feature = "gpu")] Option<models::gpu::Profile>);

impl Profiler {
    /// What operations took since the last call, the longest first.
    ///
    /// # Errors
    /// The GPU's.
    pub fn take(&self) -> Result<Vec<Operation>> {
        #[cfg(feature = "gpu")]
        if let Self(Some(profile)) = self {
            let of = |models::gpu::Spent { name, calls, milliseconds }| Operation {
                name,
                calls,
                milliseconds,
            };
            return Ok(profile.take()?.into_iter().map(of).collect());
        }
        Ok(Vec::new())
    }
}

/// A decoder on tensors, or on an NVIDIA GPU.
pub enum AnyDecoder {
    Tensors(Box<Decoder>),
    #[cfg(feature = "gpu")]
    Gpu(Box<GpuDecoder>),
}

impl AnyDecoder {
    /// Loads the weights of a model.
    ///
    /// # Errors
    /// What is wrong with the checkpoint or the device.
    pub fn load(
        source: &Source,
        common: &Common,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        #[cfg(feature = "gpu")]
        if let Some(gpu) = device::gpu::open(common.device)? {
            let decoder = models::gpu::load(source, &gpu, gpu_options(common)?, progress)?;
            return Ok(Self::Gpu(Box::new(decoder)));
        }
        let decoder = models::load(source, &model::load_options(common)?, progress)?;
        Ok(Self::Tensors(Box::new(decoder)))
    }

    /// Makes random weights.
    ///
    /// # Errors
    /// Not enough memory on the device.
    pub fn dummy(config: ModelConfig, seed: u64, common: &Common) -> Result<Self> {
        #[cfg(feature = "gpu")]
        if let Some(gpu) = device::gpu::open(common.device)? {
            let options = gpu_options(common)?;
            let decoder = models::gpu::dummy(config, seed, &gpu, options, &mut |_, _| {})?;
            return Ok(Self::Gpu(Box::new(decoder)));
        }
        let options = model::load_options(common)?;
        let decoder = dummy::decoder(config, seed, &options, &mut |_, _| {})?;
        Ok(Self::Tensors(Box::new(decoder)))
    }

    pub fn config(&self) -> &ModelConfig {
        match self {
            Self::Tensors(decoder) => decoder.config(),
            #[cfg(feature = "gpu")]
            Self::Gpu(decoder) => decoder.config(),
        }
    }

    /// Memory of all weights.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Tensors(decoder) => decoder.bytes(),
            #[cfg(feature = "gpu")]
            Self::Gpu(decoder) => decoder.bytes(),
        }
    }

    /// Memory of a token's keys and values.
    pub fn bytes_per_token(&self, common: &Common) -> usize {
        match self {
            Self::Tensors(decoder) => {
                KvPool::bytes_per_token(decoder.config(), model::kv_dtype(common))
            }
            #[cfg(feature = "gpu")]
            Self::Gpu(decoder) => decoder.bytes_per_block() / kernels::kv::BLOCK,
        }
    }

    /// What it runs on, for reports.
    ///
    /// # Errors
    /// The driver's.
    pub fn place(&self) -> Result<String> {
        match self {
            Self::Tensors(decoder) => Ok(device::describe(decoder.device())),
            #[cfg(feature = "gpu")]
            Self::Gpu(decoder) => device::gpu::describe(decoder.gpu()),
        }
    }

    /// What a step may hold.
    pub fn limits(&self, common: &Common) -> Limits {
        model::limits(common, !matches!(self, Self::Tensors(_)))
    }

    /// What the device allows at most, measured now; of Metal it is not known.
    ///
    /// # Errors
    /// The driver's.
    pub fn limit(&self, common: &Common) -> Result<Option<Limit>> {
        let (peak, step) = match self {
            Self::Tensors(decoder) if !decoder.device().is_cpu() => return Ok(None),
            Self::Tensors(decoder) => (peak::measure(), decoder.step_cost()),
            #[cfg(feature = "gpu")]
            Self::Gpu(decoder) => (models::gpu::peak(decoder.gpu())?, decoder.step_cost()),
        };
        let bytes_per_token = self.bytes_per_token(common);
        Ok(Some(Limit { peak, step, config: self.config().clone(), bytes_per_token }))
    }

    /// From now on takes the times of its operations.
    ///
    /// # Errors
    /// It is not on a GPU.
    pub fn profile(&mut self) -> Result<Profiler> {
        match self {
            Self::Tensors(_) => bail!("--profile is for NVIDIA GPUs; leave it out"),
            #[cfg(feature = "gpu")]
            Self::Gpu(decoder) => Ok(Profiler(Some(decoder.profile()))),
        }
    }

    /// Blocks of the pool of keys and values that the options ask for. A GPU runs its largest step to find out what is
    /// free.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn kv_blocks(&mut self, common: &Common) -> Result<usize> {
        match self {
            Self::Tensors(decoder) => model::kv_blocks(decoder.config(), common),
            #[cfg(feature = "gpu")]
            Self::Gpu(decoder) => Ok(GpuRunner::room(decoder, common.kv_memory)?),
        }
    }

    /// With a pool of keys and values as the options say.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn runner(mut self, common: &Common) -> Result<AnyRunner> {
        let blocks = self.kv_blocks(common)?;
        self.runner_of(blocks, common)
    }

    /// With a pool of so many blocks.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn runner_of(self, blocks: usize, common: &Common) -> Result<AnyRunner> {
        Ok(match self {
            Self::Tensors(decoder) => Box::new(
                DecoderRunner::new(*decoder, blocks, model::kv_dtype(common))
                    .context("no room for keys and values")?,
            ),
            #[cfg(feature = "gpu")]
            Self::Gpu(decoder) => Box::new(GpuRunner::new(*decoder, blocks)?),
        })
    }
}

#[cfg(feature = "gpu")]
fn gpu_options(common: &Common) -> Result<GpuOptions> {
    if common.dtype == Dtype::Q8_0 {
        bail!("--dtype q8_0 is for the processor; leave it out, or take e4m3 for 8 bits on a GPU");
    }
    Ok(GpuOptions {
        rows: model::limits(common, true).tokens_per_step,
        deterministic: common.deterministic,
        graphs: true,
        share: !common.no_cascade,
        weights: match common.dtype {
            Dtype::E4m3 => WeightType::E4m3,
            _ => WeightType::Bf16,
        },
        kv_type: match common.kv_dtype {
            KvType::E4m3 => kernels::gpu::KvType::E4m3,
            KvType::Auto => kernels::gpu::KvType::Bf16,
        },
    })
}

/// What kind of device models run on: results of one kind are the same wherever they are made.
///
/// # Errors
/// The device can't be opened.
pub fn kind(common: &Common) -> Result<&'static str> {
    #[cfg(feature = "gpu")]
    if let Some(gpu) = device::gpu::open(common.device)? {
        return kind_of(&gpu, common);
    }
    Ok(device::kind(&common.device.open()?))
}

#[cfg(feature = "gpu")]
fn kind_of(gpu: &Gpu, common: &Common) -> Result<&'static str> {
    Ok(match (gpu.properties()?.emulated, common.deterministic) {
        (true, _) => "emulated",
        (false, true) => "cuda deterministic",
        (false, false) => "cuda",
    })
}
