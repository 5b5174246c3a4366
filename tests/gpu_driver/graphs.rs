//! Recorded launches, their order, their profile and their time.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytemuck::cast_slice;
use hyperion::device::{DeviceError, Result};

use super::support::{advance, advanced, choice, device, download, noise, upload_new};

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
        Err(DeviceError::NoCupti { .. }) if choice() != "sim" => {
            return test_skips::report("no CUPTI on this machine");
        }
        other => other.unwrap(),
    };
    assert!(matches!(device.profiler(), Err(DeviceError::Profile(_))));
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
    let panics = AssertUnwindSafe(|| device.capture(&mut || panic!("while recording")));
    assert!(catch_unwind(panics).is_err());
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
