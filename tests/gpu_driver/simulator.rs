//! What only the simulator does: failing on demand, and checking every access.

use crate::kernels::IMAGES;
use crate::support::one_block;
use bytemuck::bytes_of;
use hyperion::device::sim::SimDevice;
use hyperion::device::{Device, DeviceError, KernelTable};
use hyperion::ptx;
use hyperion::ptx::embedded;

fn small() -> SimDevice {
    SimDevice::with(IMAGES, 1 << 20, Default::default()).unwrap()
}

#[test]
fn memory_is_counted_and_given_back() {
    let device = small();
    let free = || device.memory().unwrap().free;
    assert_eq!(free(), 1 << 20);
    let first = device.alloc(1 << 19, "first").unwrap();
    let second = device.alloc(1 << 18, "second").unwrap();
    assert_eq!(free(), 1 << 18);
    assert!(matches!(
        device.alloc((1 << 18) + 1, "third"),
        Err(DeviceError::OutOfMemory { .. })
    ));
    drop(first);
    drop(second);
    assert_eq!(free(), 1 << 20);
}

#[test]
fn allocations_fail_on_demand() {
    let device = small();
    device.fail_allocations_after(2);
    let kept: Vec<_> = (0..2).map(|_| device.alloc(16, "kept").unwrap()).collect();
    for _ in 0..2 {
        assert!(matches!(
            device.alloc(16, "late"),
            Err(DeviceError::OutOfMemory { .. })
        ));
    }
    assert_eq!(kept.len(), 2);
}

#[test]
fn reading_what_nothing_wrote_is_an_error() {
    let device = small();
    let buffer = device.alloc(512, "fresh").unwrap();
    let error = device
        .download(&mut [0; 512], buffer.all())
        .unwrap_err()
        .to_string();
    assert!(error.contains("`fresh` was never written"), "{error}");
}

#[test]
fn an_access_past_the_end_names_the_kernel_and_the_buffer() {
    let device = small();
    let v = device.alloc(508, "short").unwrap();
    device.fill(v.all(), 0).unwrap();
    let params = v.addr();
    let launch = one_block(&device, "advance", bytes_of(&params));
    // SAFETY: the simulator reports the access past the end and touches nothing.
    let error = unsafe { device.launch(&launch) }.unwrap_err().to_string();
    assert!(
        error.contains("`advance`") && error.contains("short"),
        "{error}"
    );
}

#[test]
fn the_embedded_kernels_load_with_the_parameters_of_their_definitions() {
    let images = embedded();
    assert!(SimDevice::open(&images).is_ok());
    for (image, module) in images.iter().zip(ptx::modules()) {
        let table = KernelTable::parse(image.text.get()).unwrap();
        assert_eq!(table.entries().len(), module.kernels.len());
        for entry in table.entries() {
            let kernel = module.kernel(&entry.name).unwrap();
            assert_eq!(
                (entry.param_bytes, entry.max_threads),
                (kernel.param_bytes, kernel.max_threads),
                "{}",
                entry.name
            );
        }
    }
}
