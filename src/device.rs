//! The device that a model runs on, chosen once.

use candle_core::Device;
use std::str::FromStr;

/// What was asked for with `--device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The first GPU that this build supports, else the processor.
    #[default]
    Auto,
    Cpu,
    Cuda(usize),
    Metal,
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("`{text}` is none of auto, cpu, cuda, cuda:N, metal");
        match text.split_once(':') {
            None if text == "auto" => Ok(Self::Auto),
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(0)),
            None if text == "metal" => Ok(Self::Metal),
            Some(("cuda", n)) => n.parse().map(Self::Cuda).map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }
}

impl DeviceChoice {
    /// Opens the device of tensors: the processor where models run on the program's own kernels for NVIDIA GPUs
    /// (`gpu::open`).
    ///
    /// # Errors
    /// The build lacks the backend, or the machine the device; the text says which.
    pub fn open(self) -> anyhow::Result<Device> {
        use anyhow::Context;
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Auto if cfg!(feature = "metal") => {
                Device::new_metal(0).context("Metal did not start; try --device cpu")
            }
            Self::Auto => Ok(Device::Cpu),
            Self::Cuda(_) if !cfg!(feature = "gpu") => {
                anyhow::bail!("this build has no CUDA: build with `--features cuda`")
            }
            Self::Metal if !cfg!(feature = "metal") => {
                anyhow::bail!("this build has no Metal: build with `--features metal`")
            }
            Self::Cuda(_) => Ok(Device::Cpu),
            Self::Metal => Device::new_metal(0).context("no Metal device"),
        }
    }
}

/// NVIDIA GPUs, which models run on without tensors.
#[cfg(feature = "gpu")]
pub mod gpu {
    use super::DeviceChoice;
    use anyhow::Context;
    use kernels::gpu::Gpu;

    /// The GPU that models run on, if they do.
    ///
    /// # Errors
    /// There is no such GPU, no driver, or none of the kernels are for it; the text says which.
    pub fn open(choice: DeviceChoice) -> anyhow::Result<Option<Gpu>> {
        match choice {
            DeviceChoice::Cpu | DeviceChoice::Metal => Ok(None),
            DeviceChoice::Cuda(n) => {
                Gpu::open(n).map(Some).with_context(|| format!("cuda:{n} can't be used"))
            }
            // Nobody wants a GPU that the processor plays without asking for it.
            DeviceChoice::Auto if !cfg!(feature = "cuda") => Ok(None),
            DeviceChoice::Auto => Ok(Gpu::open(0)
                .inspect_err(|error| tracing::warn!("no GPU, so the processor: {error}"))
                .ok()),
        }
    }

    /// A short name for reports.
    ///
    /// # Errors
    /// The driver's.
    pub fn describe(gpu: &Gpu) -> anyhow::Result<String> {
        let (is, memory) = (gpu.properties()?, gpu.memory()?);
        let (major, minor) = (is.capability / 10, is.capability % 10);
        Ok(format!("{}, {major}.{minor}, {:.0} GB", is.name, memory.total as f64 / 1e9))
    }
}

/// What kind of device it is: results of one kind are the same wherever they are made.
pub fn kind(device: &Device) -> &'static str {
    match device {
        Device::Cpu => "cpu",
        Device::Cuda(_) => "cuda",
        Device::Metal(_) => "metal",
    }
}

/// A short name for reports.
pub fn describe(device: &Device) -> String {
    match device {
        Device::Cpu => format!(
            "processor, {} threads, {}",
            rayon::current_num_threads(),
            kernels::instruction_set()
        ),
        other => format!("{:?}", other.location()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        assert_eq!("cuda:3".parse(), Ok(DeviceChoice::Cuda(3)));
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        assert_eq!("auto".parse(), Ok(DeviceChoice::Auto));
        for bad in ["gpu", "cuda:x", "cpu:1", ""] {
            assert!(bad.parse::<DeviceChoice>().is_err(), "{bad}");
        }
    }
}
