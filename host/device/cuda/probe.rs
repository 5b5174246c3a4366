//! Starts the driver and reads the facts of a GPU, with an error for each reason why it cannot serve.

use super::super::codes::{CallError, NO_DEVICE};
use super::super::driver;
use super::super::error::{DeviceError, Result};
use super::super::traits::DeviceInfo;
use super::api::{self, Api};
use super::context::cust_call;

/// The oldest driver: its CUDA version has every function that we call, and cuBLAS 12.
pub(super) const MIN_DRIVER: (u32, u32) = (12, 0);

/// The oldest compute capability: the kernels use `cp.async` and `mma.sync` of Ampere.
const MIN_CAPABILITY: (u32, u32) = (8, 0);

/// Starts the driver, and gives GPU `ordinal` with its facts.
///
/// # Errors
/// No driver, an old one, no such GPU, or a GPU that is too old.
pub(super) fn probe(ordinal: usize) -> Result<(&'static Api, cust::device::Device, DeviceInfo)> {
    let api = api::api()?;
    // SAFETY: no arguments that matter; may be called again.
    match unsafe { api.cuInit(0) } {
        Err(error) if error.code == NO_DEVICE => {
            return Err(DeviceError::NoDevice { ordinal, count: 0 });
        }
        other => other.map_err(|e| e.doing("starting the driver"))?,
    }
    let driver_version = api::version(driver::load()?);
    check_driver(driver_version)?;
    let count = device_count(api)?;
    let number = u32::try_from(ordinal).ok().filter(|_| ordinal < count);
    let number = number.ok_or(DeviceError::NoDevice { ordinal, count })?;
    let device = cust_call("cuDeviceGet", cust::device::Device::get_device(number))?;
    let info = device_info(api, device, driver_version)?;
    check_capability(&info)?;
    Ok((api, device, info))
}

fn check_driver(found: (u32, u32)) -> Result<()> {
    if found >= MIN_DRIVER {
        return Ok(());
    }
    let missing = String::new();
    Err(DeviceError::OldDriver {
        found,
        needed: MIN_DRIVER,
        missing,
    })
}

fn check_capability(info: &DeviceInfo) -> Result<()> {
    if info.compute_capability >= MIN_CAPABILITY {
        return Ok(());
    }
    let (name, capability) = (info.name.clone(), info.compute_capability);
    Err(DeviceError::OldGpu { name, capability })
}

fn device_count(api: &Api) -> Result<usize> {
    let mut count = 0;
    // SAFETY: a valid place for the answer.
    unsafe { api.cuDeviceGetCount(&mut count)? };
    Ok(count.max(0) as usize)
}

fn device_info(
    api: &Api,
    device: cust::device::Device,
    driver_version: (u32, u32),
) -> Result<DeviceInfo> {
    let attribute = |key| -> Result<u32, CallError> {
        let mut value = 0;
        // SAFETY: a valid place for the answer and a device that the driver gave.
        unsafe { api.cuDeviceGetAttribute(&mut value, key, device.as_raw())? };
        Ok(value as u32)
    };
    Ok(DeviceInfo {
        name: cust_call("cuDeviceGetName", device.name())?,
        compute_capability: (
            attribute(api::DEVICE_CAPABILITY_MAJOR)?,
            attribute(api::DEVICE_CAPABILITY_MINOR)?,
        ),
        multiprocessors: attribute(api::DEVICE_MULTIPROCESSORS)?,
        l2_bytes: attribute(api::DEVICE_L2_BYTES)?.into(),
        total_memory: cust_call("cuDeviceTotalMem_v2", device.total_memory())? as u64,
        driver_version,
        max_threads_per_block: attribute(api::DEVICE_MAX_THREADS)?,
        is_simulated: false,
        max_shared_per_block: attribute(api::DEVICE_MAX_SHARED_OPTIN)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_drivers_are_refused() {
        for version in [(12, 0), (12, 4), (13, 0)] {
            check_driver(version).unwrap();
        }
        let error = check_driver((11, 8)).unwrap_err().to_string();
        assert!(
            error.contains("CUDA 11.8") && error.contains("CUDA 12.0"),
            "{error}"
        );
    }

    #[test]
    fn old_gpus_are_refused() {
        let info = |name: &str, compute_capability| DeviceInfo {
            name: name.into(),
            compute_capability,
            multiprocessors: 1,
            l2_bytes: 0,
            total_memory: 0,
            driver_version: (13, 0),
            max_threads_per_block: 1024,
            is_simulated: false,
            max_shared_per_block: 48 << 10,
        };
        check_capability(&info("A100", (8, 0))).unwrap();
        check_capability(&info("B200", (10, 0))).unwrap();
        let error = check_capability(&info("T4", (7, 5)))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("T4") && error.contains("7.5") && error.contains("8.0"),
            "{error}"
        );
    }
}
