//! Which device to run on: `--device cpu|cuda|cuda:N|sim|auto`.

use super::error::{DeviceError, Result};
use super::sim::SimDevice;
use super::traits::Device;
use crate::ptx::PtxImage;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The user's choice of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The first GPU that works, or else the CPU.
    #[default]
    Auto,
    /// The CPU reference.
    Cpu,
    /// A GPU by its ordinal, or the first.
    Cuda(Option<usize>),
    /// The PTX simulator.
    Sim,
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "cuda" => Ok(DeviceChoice::Cuda(None)),
            "sim" => Ok(DeviceChoice::Sim),
            _ => match text.strip_prefix("cuda:").map(str::parse) {
                Some(Ok(ordinal)) => Ok(DeviceChoice::Cuda(Some(ordinal))),
                _ => Err(format!(
                    "`{text}` is no device: use auto, cpu, cuda, cuda:N or sim"
                )),
            },
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Cpu => f.write_str("cpu"),
            DeviceChoice::Cuda(None) => f.write_str("cuda"),
            DeviceChoice::Cuda(Some(ordinal)) => write!(f, "cuda:{ordinal}"),
            DeviceChoice::Sim => f.write_str("sim"),
        }
    }
}

/// What [`open`] opened.
pub struct Opened {
    /// The device; none is the CPU.
    pub device: Option<Arc<dyn Device>>,
    /// Why `auto` chose the CPU.
    pub reason: Option<DeviceError>,
}

/// Opens the chosen device with the PTX image that suits it.
///
/// # Errors
/// The device cannot be used; `auto` never fails, and says why it took the CPU.
pub fn open(choice: DeviceChoice, images: &[PtxImage]) -> Result<Opened> {
    let device: Option<Arc<dyn Device>> = match choice {
        DeviceChoice::Cpu => None,
        DeviceChoice::Sim => Some(Arc::new(SimDevice::open(images)?)),
        DeviceChoice::Cuda(ordinal) => Some(open_cuda(ordinal.unwrap_or(0), images)?),
        DeviceChoice::Auto => match open_cuda(0, images) {
            Ok(device) => Some(device),
            Err(error) => {
                return Ok(Opened {
                    device: None,
                    reason: Some(error),
                });
            }
        },
    };
    Ok(Opened {
        device,
        reason: None,
    })
}

#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
fn open_cuda(ordinal: usize, images: &[PtxImage]) -> Result<Arc<dyn Device>> {
    Ok(Arc::new(super::cuda::CudaDevice::open(ordinal, images)?))
}

#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
fn open_cuda(_ordinal: usize, _images: &[PtxImage]) -> Result<Arc<dyn Device>> {
    Err(DeviceError::NoCuda)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_parse_and_print() {
        for (text, choice) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("cuda", DeviceChoice::Cuda(None)),
            ("cuda:0", DeviceChoice::Cuda(Some(0))),
            ("cuda:13", DeviceChoice::Cuda(Some(13))),
            ("sim", DeviceChoice::Sim),
        ] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap(), choice);
            assert_eq!(choice.to_string(), text);
        }
        for text in [
            "",
            "gpu",
            "cuda:",
            "cuda:x",
            "cuda:-1",
            "cuda:99999999999999999999",
            "CPU",
        ] {
            let error = text.parse::<DeviceChoice>().unwrap_err();
            assert!(error.contains("cuda:N"), "{error}");
        }
    }
}
