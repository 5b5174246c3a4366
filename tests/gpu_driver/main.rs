//! The same checks for every device: on the simulator, or on a GPU with HYPERION_TEST_DEVICE=cuda.

mod kernels;
mod simulator;

use bytemuck::{Pod, Zeroable, bytes_of, cast_slice};
use half::f16;
use hyperion::gpu::choice::{PtxImage, open};
use hyperion::gpu::upload::{STAGING_BYTES, Uploader};
use hyperion::gpu::{
    Buffer, Device, Gemm, GemmType, GpuError, Launch, Matrix, Result, gemm_reference,
};
use kernels::{BROKEN, IMAGES};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn choice() -> String {
    std::env::var("HYPERION_TEST_DEVICE").unwrap_or_else(|_| "sim".into())
}

fn open_with(images: &[PtxImage]) -> Result<Arc<dyn Device>> {
    let opened = open(choice().parse().unwrap(), images)?;
    Ok(opened
        .device
        .expect("HYPERION_TEST_DEVICE names a device other than the CPU"))
}

fn device() -> Arc<dyn Device> {
    open_with(IMAGES).unwrap()
}

/// Reproducible bytes.
fn noise(count: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        (state >> 24) as u8
    };
    (0..count).map(|_| next()).collect()
}

/// Reproducible values in -1 to 1.
fn values(count: usize, seed: u32) -> Vec<f32> {
    noise(2 * count, seed)
        .chunks(2)
        .map(|b| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32768.0)
        .collect()
}

fn upload_new(device: &dyn Device, data: &[u8], label: &str) -> Buffer {
    let buffer = device.alloc(data.len(), label).unwrap();
    device.upload(buffer.all(), data).unwrap();
    buffer
}

fn download(device: &dyn Device, buffer: &Buffer) -> Vec<u8> {
    let mut data = vec![0; buffer.len()];
    device.download(&mut data, buffer.all()).unwrap();
    data
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Saxpy {
    x: u64,
    y: u64,
    a: f32,
    n: u32,
}

/// Launches `advance` on all of `v`, whose length is a multiple of 128 words.
fn advance(device: &dyn Device, v: &Buffer, dependent: bool) -> Result<()> {
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

fn advanced(v: &[u8], times: usize) -> Vec<u32> {
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
    let kernel = device.kernel("saxpy").unwrap();
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
            kernel,
            grid: [n.div_ceil(128) as u32, 1, 1],
            block: [128, 1, 1],
            shared_bytes: 0,
            params: bytes_of(&params),
            dependent: false,
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
        kernel: device.kernel("reverse").unwrap(),
        grid: [1, 1, 1],
        block: [1024, 1, 1],
        shared_bytes: 64 << 10,
        params: bytes_of(&params),
        dependent: false,
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

/// Largest deviation allowed: f32 sums of `k` products of at most 1 (each step rounds by 2^-24 of a
/// sum below `k`), and the rounding of the result's own type.
fn tolerance(k: usize, result: f64, ty: GemmType) -> f64 {
    let sums = (k * k) as f64 * 2f64.powi(-24);
    let own = if ty == GemmType::F16 {
        result.abs() * 2f64.powi(-11) + 2f64.powi(-24)
    } else {
        0.0
    };
    sums + own
}

#[test]
fn matrix_products_match_the_reference() {
    let device = device();
    for (i, (tokens, n_in, n_out, pad)) in [
        (1, 64, 96, 0),
        (3, 37, 5, 0),
        (7, 130, 67, 3),
        (33, 256, 129, 8),
        (64, 48, 1, 0),
    ]
    .into_iter()
    .enumerate()
    {
        for (ty, accumulate) in [
            (GemmType::F32, false),
            (GemmType::F32, true),
            (GemmType::F16, false),
        ] {
            let seed = 10 * i as u32;
            let halves = |count, seed| -> Vec<f16> {
                values(count, seed).into_iter().map(f16::from_f32).collect()
            };
            let (xs, ws) = (
                halves(tokens * (n_in + pad), seed),
                halves(n_out * n_in, seed + 1),
            );
            let ys = values(tokens * n_out, seed + 2);
            let y_bytes: Vec<u8> = match ty {
                GemmType::F32 => cast_slice(&ys).to_vec(),
                GemmType::F16 => cast_slice(&halves(ys.len(), seed + 2)).to_vec(),
            };
            let x = upload_new(&*device, cast_slice(&xs), "x");
            let w = upload_new(&*device, cast_slice(&ws), "w");
            let y = upload_new(&*device, &y_bytes, "y");
            let padded = Matrix::dense(x.all(), GemmType::F16, tokens, n_in);
            let gemm = Gemm {
                x: Matrix {
                    stride: n_in + pad,
                    ..padded
                },
                w: Matrix::dense(w.all(), GemmType::F16, n_out, n_in),
                y: Matrix::dense(y.all(), ty, tokens, n_out),
                accumulate,
            };
            let call = gemm.call().unwrap();
            // SAFETY: `Gemm::call` checked the live buffers.
            unsafe { device.gemm(&call) }.unwrap();

            let wide = |v: &[f16]| -> Vec<f64> { v.iter().map(|v| v.to_f64()).collect() };
            let mut expected: Vec<f64> = ys.iter().map(|&v| f64::from(v)).collect();
            gemm_reference(&call, &wide(&ws), &wide(&xs), &mut expected);
            let got = download(&*device, &y);
            let got: Vec<f64> = match ty {
                GemmType::F32 => cast_slice::<u8, f32>(&got)
                    .iter()
                    .map(|&v| f64::from(v))
                    .collect(),
                GemmType::F16 => wide(cast_slice(&got)),
            };
            for (at, (got, expected)) in got.iter().zip(&expected).enumerate() {
                let close = (got - expected).abs() <= tolerance(n_in, *expected, ty);
                assert!(close, "{call}: element {at} is {got}, not {expected}");
            }
        }
    }
}

#[test]
fn a_graph_runs_only_when_replayed() {
    let device = device();
    let start = noise(1024, 5);
    let v = upload_new(&*device, &start, "v");
    let copy = device.alloc(v.len(), "copy").unwrap();
    device.fill(copy.all(), 0).unwrap();
    // Kernels are loaded when they are first asked for, which cannot be recorded.
    device.kernel("advance").unwrap();
    let graph = device
        .capture(&mut || {
            advance(&*device, &v, false)?;
            advance(&*device, &v, false)?;
            device.copy(copy.all(), v.all())?;
            device.fill(v.slice(0, 4)?, 0)
        })
        .unwrap();
    assert!(
        download(&*device, &v) == start,
        "recording must not run anything"
    );
    for times in 1..=3 {
        // SAFETY: `v` and `copy` live.
        unsafe { graph.replay() }.unwrap();
        let got = download(&*device, &copy);
        let expected = advanced(&start, 2 * times);
        assert_eq!(
            cast_slice::<u8, u32>(&got)[1..],
            expected[1..],
            "after {times} replays"
        );
    }
    assert_eq!(download(&*device, &v)[..4], [0; 4]);
}

#[test]
fn a_profiler_sees_launches_and_replays() {
    let device = device();
    let mut profiler = match device.profiler() {
        // A GPU machine may lack CUPTI; the simulator needs nothing.
        Err(GpuError::NoCupti { .. }) if choice() != "sim" => {
            return eprintln!("no CUPTI: not tested");
        }
        other => other.unwrap(),
    };
    assert!(matches!(device.profiler(), Err(GpuError::Profile(_))));
    // A grid of its own: a GPU's profiler sees the kernels of all tests that run meanwhile.
    const GRID: [u32; 3] = [37, 1, 1];
    let v = upload_new(&*device, &noise(37 * 512, 8), "v");
    device.kernel("advance").unwrap();
    let graph = device
        .capture(&mut || {
            advance(&*device, &v, false)?;
            advance(&*device, &v, true)
        })
        .unwrap();
    let mut take = || -> Vec<_> {
        let runs = profiler.take().unwrap().into_iter();
        runs.filter(|run| run.grid == GRID).collect()
    };
    assert!(take().is_empty(), "recording a graph runs nothing");
    advance(&*device, &v, false).unwrap();
    // SAFETY: `v` lives.
    unsafe { graph.replay() }.unwrap();
    let runs = take();
    assert_eq!(runs.len(), 3);
    for run in &runs {
        assert_eq!((&*run.name, run.block), ("advance", [128, 1, 1]));
        assert!(run.start > 0 && run.start < run.end);
    }
    assert!(runs.is_sorted_by_key(|run| run.start));
    assert!(take().is_empty());
    drop(profiler);
    device.profiler().unwrap();
}

#[test]
fn a_matrix_product_can_be_part_of_a_graph() {
    let device = device();
    let ones = vec![f16::ONE; 64 * 64];
    let (x, w) = (upload_new(&*device, cast_slice(&ones), "x"), &ones);
    let w = upload_new(&*device, cast_slice(w), "w");
    let y = upload_new(&*device, &[0; 64 * 64 * 4], "y");
    let dense = |buffer, ty| Matrix::dense(buffer, ty, 64, 64);
    let gemm = Gemm {
        x: dense(x.all(), GemmType::F16),
        w: dense(w.all(), GemmType::F16),
        y: dense(y.all(), GemmType::F32),
        accumulate: true,
    };
    let call = gemm.call().unwrap();
    // SAFETY: `Gemm::call` checked the buffers, which outlive the graph.
    let graph = device
        .capture(&mut || unsafe { device.gemm(&call) })
        .unwrap();
    for _ in 0..2 {
        // SAFETY: the buffers live.
        unsafe { graph.replay() }.unwrap();
    }
    let got = download(&*device, &y);
    assert!(cast_slice::<u8, f32>(&got).iter().all(|&v| v == 128.0));
}

/// As in a step of many sequences: the launch behind a product may not begin before it ends.
#[test]
fn a_matrix_product_between_dependent_launches() {
    let device = device();
    let start = noise(64 << 10, 5);
    let v = upload_new(&*device, &start, "v");
    let halves: Vec<f16> = (0..64 * 64)
        .map(|i| f16::from_f32((i % 7) as f32))
        .collect();
    let identity: Vec<f16> = (0..64 * 64)
        .map(|i| f16::from_f32(f32::from(u8::from(i / 64 == i % 64))))
        .collect();
    let x = upload_new(&*device, cast_slice(&halves), "x");
    let w = upload_new(&*device, cast_slice(&identity), "w");
    let dense = |buffer, ty| Matrix::dense(buffer, ty, 64, 64);
    // The product goes where the launches before and after it work.
    let place = v.slice(0, 64 * 64 * 4).unwrap();
    let gemm = Gemm {
        x: dense(x.all(), GemmType::F16),
        w: dense(w.all(), GemmType::F16),
        y: dense(place, GemmType::F32),
        accumulate: false,
    };
    let call = gemm.call().unwrap();
    let mut record = || {
        advance(&*device, &v, true)?;
        // SAFETY: `Gemm::call` checked the buffers, which outlive the graph.
        unsafe { device.gemm(&call) }?;
        advance(&*device, &v, true)
    };
    record().unwrap();
    let graph = device.capture(&mut record).unwrap();
    // SAFETY: `v` lives.
    unsafe { graph.replay() }.unwrap();
    let (product, rest) = start.split_at(64 * 64 * 4);
    let floats: Vec<f32> = halves.iter().map(|half| half.to_f32()).collect();
    assert_eq!(floats.len() * 4, product.len());
    let got = download(&*device, &v);
    let got: &[u32] = cast_slice(&got);
    let (got_product, got_rest) = got.split_at(64 * 64);
    assert!(got_product == advanced(cast_slice(&floats), 1));
    assert!(got_rest == advanced(rest, 4));
}

#[test]
fn a_failed_capture_leaves_the_device_usable() {
    let device = device();
    let start = noise(512, 3);
    let v = upload_new(&*device, &start, "v");
    device.kernel("advance").unwrap();
    let refused: [(&str, &dyn Fn() -> Result<()>); 4] = [
        ("a download", &|| device.download(&mut [0; 512], v.all())),
        ("an upload", &|| device.upload(v.all(), &start)),
        ("waiting", &|| device.synchronize()),
        ("another graph", &|| {
            device.capture(&mut || Ok(())).map(drop)
        }),
    ];
    for (what, operation) in refused {
        let mut record = || {
            advance(&*device, &v, false)?;
            operation()
        };
        let error = device.capture(&mut record).err().expect(what).to_string();
        assert!(error.starts_with(what), "{error}");
    }
    assert!(download(&*device, &v) == start);
}

#[test]
fn dependent_launches_keep_their_order() {
    let device = device();
    let start = noise(64 << 10, 9);
    let v = upload_new(&*device, &start, "v");
    let chain = || (0..100).try_for_each(|_| advance(&*device, &v, true));
    chain().unwrap();
    // SAFETY: `v` lives.
    unsafe { device.capture(&mut { chain }).unwrap().replay() }.unwrap();
    let got = download(&*device, &v);
    assert!(cast_slice::<u8, u32>(&got) == advanced(&start, 200));
}

#[test]
fn what_does_not_fit_is_refused() {
    let (device, other) = (device(), device());
    let v = device.alloc(512, "v").unwrap();
    assert!(matches!(v.slice(500, 13), Err(GpuError::Range { .. })));
    assert!(matches!(
        device.upload(v.all(), &[0; 511]),
        Err(GpuError::Range { .. })
    ));
    assert!(matches!(
        device.download(&mut [0; 513], v.all()),
        Err(GpuError::Range { .. })
    ));
    let part = v.slice(0, 100).unwrap();
    assert!(matches!(
        device.copy(v.all(), part),
        Err(GpuError::Range { .. })
    ));
    let error = other.upload(v.all(), &[0; 512]).unwrap_err().to_string();
    assert!(error.contains("another device"), "{error}");

    let error = device.kernel("absent").unwrap_err().to_string();
    assert!(error.contains("`absent`"), "{error}");
    let params = v.addr();
    let good = Launch {
        kernel: device.kernel("advance").unwrap(),
        grid: [1, 1, 1],
        block: [128, 1, 1],
        shared_bytes: 0,
        params: bytes_of(&params),
        dependent: false,
    };
    for bad in [
        Launch {
            block: [2048, 1, 1],
            ..good
        },
        Launch {
            block: [32, 33, 1],
            ..good
        },
        Launch {
            grid: [1, 0, 1],
            ..good
        },
        Launch {
            shared_bytes: 1 << 20,
            ..good
        },
        Launch {
            params: &[0; 4],
            ..good
        },
    ] {
        // SAFETY: refused before anything runs.
        let error = unsafe { device.launch(&bad) }.unwrap_err();
        assert!(matches!(error, GpuError::Launch { .. }), "{error}");
    }
}

#[test]
fn too_large_an_allocation_names_its_purpose() {
    let device = device();
    let bytes = device.info().total_memory as usize * 2;
    let error = device.alloc(bytes, "the KV cache").unwrap_err();
    assert!(matches!(error, GpuError::OutOfMemory { .. }), "{error}");
    assert!(error.to_string().contains("the KV cache needs"), "{error}");
    device.alloc(1024, "small").unwrap();
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
        Err(GpuError::Cancelled)
    ));
    drop(uploader);
    assert_eq!(calls, 1);
}

#[test]
fn a_timer_measures() {
    let device = device();
    let v = upload_new(&*device, &noise(512, 1), "v");
    let mut timer = device.timer().unwrap();
    timer.start().unwrap();
    for _ in 0..10 {
        advance(&*device, &v, false).unwrap();
    }
    timer.stop().unwrap();
    assert!(timer.elapsed().unwrap().as_nanos() > 0);
}

#[test]
fn ptx_that_does_not_compile_says_why() {
    // The simulator reads the text at once, a driver when a kernel is first asked for.
    let error = open_with(BROKEN)
        .and_then(|device| device.kernel("broken"))
        .expect_err("the PTX is broken")
        .to_string();
    assert!(error.contains("frobnicate"), "{error}");
}

/// A fault ends a GPU context for the whole process, so it happens in a process of its own.
#[test]
fn a_faulting_kernel_is_named() {
    const CHILD: &str = "HYPERION_TEST_FAULT";
    if std::env::var_os(CHILD).is_some() {
        let device = device();
        let launch = Launch {
            kernel: device.kernel("advance").unwrap(),
            grid: [1, 1, 1],
            block: [32, 1, 1],
            shared_bytes: 0,
            params: bytes_of(&0x10u64),
            dependent: false,
        };
        // SAFETY: breaks the contract on purpose: the device reports the access, the host is not
        // touched.
        let error = unsafe { device.launch(&launch) }.and_then(|()| device.synchronize());
        eprintln!("fault: {}", error.unwrap_err());
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_faulting_kernel_is_named", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    let fault = text
        .lines()
        .find(|line| line.starts_with("fault: "))
        .expect(&text);
    assert!(
        output.status.success() && fault.contains("`advance`"),
        "{text}"
    );
}

#[test]
fn a_gpu_that_does_not_exist_is_reported() {
    let error = open("cuda:9999".parse().unwrap(), IMAGES)
        .err()
        .expect("9999 GPUs")
        .to_string();
    let explained = ["no GPU 9999", "no NVIDIA driver", "no CUDA support"];
    assert!(explained.iter().any(|text| error.contains(text)), "{error}");
}
