//! The same checks for every device: on the simulator, or on a GPU with HYPERION_TEST_DEVICE=cuda.

mod faults;
mod graphs;
mod kernels;
mod products;
mod simulator;
mod support;

use std::sync::atomic::{AtomicBool, Ordering};

use bytemuck::{Pod, Zeroable, bytes_of, cast_slice};
use hyperion::device::upload::{STAGING_BYTES, Uploader};
use hyperion::device::{DeviceError, Launch};
use support::{device, download, noise, one_block, upload_new, values};

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Saxpy {
    x: u64,
    y: u64,
    a: f32,
    n: u32,
}

#[test]
fn info_is_plausible() {
    let device = device();
    let info = device.info();
    assert!(info.compute_capability >= (8, 0) && info.multiprocessors > 0);
    assert!(info.max_threads_per_block >= 1024 && info.max_shared_per_block >= 99 << 10);
    let memory = device.memory().unwrap();
    assert!(memory.free > 0 && memory.free <= memory.total);
    eprintln!("{info}, {memory:?}");
}

#[test]
fn bytes_survive_copies_of_every_size() {
    let device = device();
    for len in [0, 1, 63, 64 << 10, (64 << 10) + 1, (1 << 20) + 3] {
        let data = noise(len, 7);
        let first = upload_new(&*device, &data, "first");
        let second = device.alloc(len + 32, "second").unwrap();
        device.fill(second.all(), 0xa5).unwrap();
        device
            .copy(second.slice(16, len).unwrap(), first.all())
            .unwrap();
        let got = download(&*device, &second);
        assert!(
            got[..16]
                .iter()
                .chain(&got[16 + len..])
                .all(|&byte| byte == 0xa5),
            "{len}"
        );
        assert!(got[16..16 + len] == data, "{len}");
    }
}

#[test]
fn many_small_uploads_arrive() {
    // More than the page-locked memory for small copies holds at once.
    let device = device();
    let data = noise(3000 * 501, 11);
    let buffer = device.alloc(data.len(), "target").unwrap();
    for (i, part) in data.chunks(501).enumerate() {
        device
            .upload(buffer.slice(i * 501, part.len()).unwrap(), part)
            .unwrap();
    }
    assert!(download(&*device, &buffer) == data);
}

#[test]
fn a_kernel_computes() {
    let device = device();
    for n in [1usize, 31, 256, 1000] {
        let (xs, ys) = (values(n, 1), values(n, 2));
        let x = upload_new(&*device, cast_slice(&xs), "x");
        let y = upload_new(&*device, cast_slice(&ys), "y");
        let params = Saxpy {
            x: x.addr(),
            y: y.addr(),
            a: 1.5,
            n: n as u32,
        };
        let launch = Launch {
            grid: [n.div_ceil(128) as u32, 1, 1],
            ..one_block(&*device, "saxpy", bytes_of(&params))
        };
        // SAFETY: both buffers hold n floats, and live.
        unsafe { device.launch(&launch) }.unwrap();
        let got = download(&*device, &y);
        let expected: Vec<f32> = xs
            .iter()
            .zip(&ys)
            .map(|(x, y)| 1.5f32.mul_add(*x, *y))
            .collect();
        assert_eq!(cast_slice::<u8, f32>(&got), expected);
    }
}

#[test]
fn a_block_gets_more_than_48_kib_of_shared_memory() {
    let device = device();
    let out = device.alloc(4096, "out").unwrap();
    let params = out.addr();
    let launch = Launch {
        block: [1024, 1, 1],
        shared_bytes: 64 << 10,
        ..one_block(&*device, "reverse", bytes_of(&params))
    };
    // SAFETY: 1024 threads write a word each.
    unsafe { device.launch(&launch) }.unwrap();
    let got = download(&*device, &out);
    assert!(
        cast_slice::<u8, u32>(&got)
            .iter()
            .copied()
            .eq((0..1024).rev())
    );
}

#[test]
fn large_uploads_report_progress() {
    let device = device();
    let data = noise(2 * STAGING_BYTES + 12345, 17);
    let (big, small) = (
        device.alloc(data.len(), "big").unwrap(),
        device.alloc(7, "small").unwrap(),
    );
    let (cancel, mut seen) = (AtomicBool::new(false), Vec::new());
    let mut progress = |done| seen.push(done);
    let mut uploader = Uploader::new(&*device, &cancel, &mut progress).unwrap();
    uploader.upload(big.all(), &data).unwrap();
    uploader.upload(small.all(), &data[..7]).unwrap();
    assert!(uploader.upload(small.all(), &data[..8]).is_err());
    uploader.finish().unwrap();
    assert!(
        seen.is_sorted() && seen.len() == 4 && seen[3] == (data.len() + 7) as u64,
        "{seen:?}"
    );
    assert!(download(&*device, &big) == data);
    assert!(download(&*device, &small) == data[..7]);
}

#[test]
fn an_upload_can_be_cancelled() {
    let device = device();
    let data = vec![1; 3 * STAGING_BYTES];
    let buffer = device.alloc(data.len(), "weights").unwrap();
    let cancel = AtomicBool::new(false);
    let mut calls = 0;
    let mut progress = |_| {
        calls += 1;
        cancel.store(true, Ordering::Relaxed);
    };
    let mut uploader = Uploader::new(&*device, &cancel, &mut progress).unwrap();
    assert!(matches!(
        uploader.upload(buffer.all(), &data),
        Err(DeviceError::Cancelled)
    ));
    drop(uploader);
    assert_eq!(calls, 1);
}
