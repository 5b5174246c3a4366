//! The device under test, and small work for it.

use std::sync::Arc;

use bytemuck::bytes_of;
use hyperion::device::choice::open;
use hyperion::device::{Buffer, Device, Launch, Result};
use hyperion::ptx::PtxImage;

use super::kernels::IMAGES;

pub fn choice() -> String {
    std::env::var("HYPERION_TEST_DEVICE").unwrap_or_else(|_| "sim".into())
}

pub fn open_with(images: &[PtxImage]) -> Result<Arc<dyn Device>> {
    let opened = open(choice().parse().unwrap(), images)?;
    Ok(opened
        .device
        .expect("HYPERION_TEST_DEVICE names a device other than the CPU"))
}

pub fn device() -> Arc<dyn Device> {
    open_with(IMAGES).unwrap()
}

/// Reproducible bytes.
pub fn noise(count: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        (state >> 24) as u8
    };
    (0..count).map(|_| next()).collect()
}

/// Reproducible values in -1 to 1.
pub fn values(count: usize, seed: u32) -> Vec<f32> {
    noise(2 * count, seed)
        .chunks(2)
        .map(|b| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32768.0)
        .collect()
}

pub fn upload_new(device: &dyn Device, data: &[u8], label: &str) -> Buffer {
    let buffer = device.alloc(data.len(), label).unwrap();
    device.upload(buffer.all(), data).unwrap();
    buffer
}

pub fn download(device: &dyn Device, buffer: &Buffer) -> Vec<u8> {
    let mut data = vec![0; buffer.len()];
    device.download(&mut data, buffer.all()).unwrap();
    data
}

/// A launch of one block of 128 threads.
pub fn one_block<'a>(device: &dyn Device, kernel: &str, params: &'a [u8]) -> Launch<'a> {
    Launch {
        kernel: device.kernel(kernel).unwrap(),
        grid: [1, 1, 1],
        block: [128, 1, 1],
        shared_bytes: 0,
        params,
        dependent: false,
    }
}

/// Launches `advance` on all of `v`, whose length is a multiple of 128 words.
pub fn advance(device: &dyn Device, v: &Buffer, dependent: bool) -> Result<()> {
    let params = v.addr();
    let launch = Launch {
        kernel: device.kernel("advance")?,
        grid: [(v.len() / 4 / 128) as u32, 1, 1],
        block: [128, 1, 1],
        shared_bytes: 0,
        params: bytes_of(&params),
        dependent,
    };
    // SAFETY: one thread for each word of `v`, which the callers keep.
    unsafe { device.launch(&launch) }
}

pub fn advanced(v: &[u8], times: usize) -> Vec<u32> {
    let step = |v: u32| v.wrapping_mul(3).wrapping_add(1);
    let words: Vec<u32> = v
        .chunks(4)
        .map(|b| u32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    words
        .into_iter()
        .map(|v| (0..times).fold(v, |v, _| step(v)))
        .collect()
}
