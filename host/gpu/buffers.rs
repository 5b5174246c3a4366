//! Buffers that are allocated together.

#[cfg(doc)]
use super::products::ROW_MULTIPLE;
use crate::device::{Buffer, Device, DeviceError, Result};

/// Allocates buffers by their labels and bytes, which the result gives one by one. They are filled with no numbers:
/// products compute rows that nobody wrote ([`ROW_MULTIPLE`]), and whoever took one of them for a result would notice.
pub fn buffers(
    device: &dyn Device,
    sizes: &[(&'static str, usize)],
) -> Result<impl FnMut() -> Result<Buffer> + use<>> {
    let buffers: Vec<Buffer> = sizes
        .iter()
        .map(|&(label, bytes)| device.alloc(bytes, label))
        .collect::<Result<_>>()?;
    buffers
        .iter()
        .try_for_each(|buffer| device.fill(buffer.all(), 0xff))?;
    let mut buffers = buffers.into_iter();
    Ok(move || {
        let missing = || DeviceError::Unsupported("fewer buffers than a workspace has".into());
        buffers.next().ok_or_else(missing)
    })
}
