//! What is refused, and how the errors read.

use std::process::Command;

use bytemuck::bytes_of;
use hyperion::device::choice::open;
use hyperion::device::{DeviceError, Launch};

use super::kernels::{BROKEN, IMAGES};
use super::support::{device, one_block, open_with};

#[test]
fn what_does_not_fit_is_refused() {
    let (device, other) = (device(), device());
    let v = device.alloc(512, "v").unwrap();
    assert!(matches!(v.slice(500, 13), Err(DeviceError::Range { .. })));
    assert!(matches!(
        device.upload(v.all(), &[0; 511]),
        Err(DeviceError::Range { .. })
    ));
    assert!(matches!(
        device.download(&mut [0; 513], v.all()),
        Err(DeviceError::Range { .. })
    ));
    let part = v.slice(0, 100).unwrap();
    assert!(matches!(
        device.copy(v.all(), part),
        Err(DeviceError::Range { .. })
    ));
    let error = other.upload(v.all(), &[0; 512]).unwrap_err().to_string();
    assert!(error.contains("another device"), "{error}");

    let error = device.kernel("absent").unwrap_err().to_string();
    assert!(error.contains("`absent`"), "{error}");
    let params = v.addr();
    let good = one_block(&*device, "advance", bytes_of(&params));
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
        assert!(matches!(error, DeviceError::Launch { .. }), "{error}");
    }
}

#[test]
fn too_large_an_allocation_names_its_purpose() {
    let device = device();
    let bytes = device.info().total_memory as usize * 2;
    let error = device.alloc(bytes, "the KV cache").unwrap_err();
    assert!(matches!(error, DeviceError::OutOfMemory { .. }), "{error}");
    assert!(error.to_string().contains("the KV cache needs"), "{error}");
    device.alloc(1024, "small").unwrap();
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
            block: [32, 1, 1],
            ..one_block(&*device, "advance", bytes_of(&0x10u64))
        };
        // SAFETY: breaks the contract on purpose: the device reports the access, the host is not
        // touched.
        let error = unsafe { device.launch(&launch) }.and_then(|()| device.synchronize());
        eprintln!("fault: {}", error.unwrap_err());
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "faults::a_faulting_kernel_is_named",
            "--nocapture",
        ])
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
