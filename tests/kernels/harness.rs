//! What a kernel's test consists of: inputs, a launch, a reference in f64, and a tolerance with its
//! reason.
//!
//! ```ignore
//! let mut case = Case::new("add, 1000 elements");
//! let (a, b) = (case.input("a", &a), case.input("b", &b));
//! let y = case.output::<f32>("y", 1000);
//! case.launch(&ADD_F32, Shape::new([4, 1, 1], 256), AddParams { .. });
//! case.check(y, &reference, Tolerance { relative: 6e-8, absolute: 0.0, reason: "one rounding" });
//! ```
//!
//! Outputs are poisoned with NaN before, so that an element never written fails. On a GPU every
//! buffer lies between guard bands that must be intact after each launch; the simulator's own
//! buffers end exactly where the data ends, and it reports each access outside. Inputs must be
//! unchanged when the case ends.

use std::sync::Arc;

use bytemuck::Pod;
use half::f16;
use hyperion::device::{Buffer, Launch};
use kernels_gpu::abi::{DevicePtr, KernelDef, KernelParams};
use kernels_gpu::prim::half::F16;

use crate::device::{TestDevice, record, test_device};

/// Every float type reads this as NaN.
const POISON: u8 = 0xff;
/// No float that a kernel writes has these bytes often.
const GUARD: u8 = 0xa5;

/// One test of one kernel or of a few that work together.
pub struct Case {
    name: String,
    device: Arc<TestDevice>,
    buffers: Vec<Guarded>,
}

struct Guarded {
    label: String,
    buffer: Buffer,
    /// Bytes between the guard bands.
    len: usize,
    /// The data that must still be there at the end.
    unchanged: Option<Vec<u8>>,
}

/// Blocks, threads of a block, bytes of dynamic shared memory.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block, which has one dimension.
    pub block: u32,
    /// Dynamic shared memory.
    pub shared_bytes: u32,
}

impl Shape {
    /// A launch without dynamic shared memory.
    pub fn new(grid: [u32; 3], block: u32) -> Self {
        Self {
            grid,
            block,
            shared_bytes: 0,
        }
    }
}

/// `|actual - expected| <= absolute + relative * |expected|` for each element.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// Part of the expected value.
    pub relative: f64,
    /// For values near zero.
    pub absolute: f64,
    /// Why the kernel cannot do better.
    pub reason: &'static str,
}

impl Tolerance {
    /// The same value.
    pub const EXACT: Self = Self {
        relative: 0.0,
        absolute: 0.0,
        reason: "exact operations",
    };
}

/// An element that is compared as f64.
pub trait Element: Pod {
    /// The value, exactly.
    fn to_f64(self) -> f64;
}

impl Element for f32 {
    fn to_f64(self) -> f64 {
        self.into()
    }
}

impl Element for u32 {
    fn to_f64(self) -> f64 {
        self.into()
    }
}

impl Element for F16 {
    fn to_f64(self) -> f64 {
        f16::from_bits(self.0).to_f64()
    }
}

impl Case {
    /// A case without buffers; the name is in every failure.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            device: test_device(),
            buffers: Vec::new(),
        }
    }

    /// Data that the kernel only reads.
    pub fn input<T: Pod>(&mut self, label: &str, data: &[T]) -> DevicePtr<T> {
        let bytes = bytemuck::cast_slice(data);
        self.allocate(label, bytes, Some(bytes.to_vec()))
    }

    /// Data that the kernel reads and writes.
    pub fn in_out<T: Pod>(&mut self, label: &str, data: &[T]) -> DevicePtr<T> {
        self.allocate(label, bytemuck::cast_slice(data), None)
    }

    /// `len` poisoned elements.
    pub fn output<T: Pod>(&mut self, label: &str, len: usize) -> DevicePtr<T> {
        self.allocate(label, &vec![POISON; len * size_of::<T>()], None)
    }

    /// Runs the kernel, waits for it and looks at the guard bands.
    pub fn launch<P: KernelParams>(&self, kernel: &KernelDef<P>, shape: Shape, params: P) {
        assert!(
            shape.block <= kernel.max_threads,
            "{}: {} threads of {}",
            self.name,
            shape.block,
            kernel.name
        );
        record(kernel.name, &self.name);
        let device = &self.device.device;
        let run = || {
            let launch = Launch {
                kernel: device.kernel(kernel.name)?,
                grid: shape.grid,
                block: [shape.block, 1, 1],
                shared_bytes: shape.shared_bytes,
                params: bytemuck::bytes_of(&params),
                // As the engine launches them, so that the simulator sees what comes before a kernel's wait.
                dependent: true,
            };
            // SAFETY: the case's buffers live until it is dropped, and nothing else is on the
            // device that a wrong kernel under test could damage.
            unsafe { device.launch(&launch) }?;
            device.synchronize()
        };
        if let Err(error) = run() {
            panic!("{}: {}: {error}", self.name, kernel.name);
        }
        for buffer in &self.buffers {
            let (before, _, after) = self.parts(buffer);
            let intact = |band: &[u8]| band.iter().all(|&byte| byte == GUARD);
            assert!(
                intact(&before) && intact(&after),
                "{}: {} wrote outside of `{}`",
                self.name,
                kernel.name,
                buffer.label
            );
        }
    }

    /// What is in a buffer now.
    pub fn read<T: Pod>(&self, pointer: DevicePtr<T>) -> Vec<T> {
        let (_, data, _) = self.parts(self.buffer(pointer));
        // Copied, because the bytes are not aligned for `T`.
        let mut elements = vec![T::zeroed(); data.len() / size_of::<T>()];
        bytemuck::cast_slice_mut(&mut elements).copy_from_slice(&data);
        elements
    }

    /// [`check`](Self::check) where what is expected may be no number: there nothing else will do.
    pub fn check_broken<T: Element>(
        &self,
        pointer: DevicePtr<T>,
        expected: &[f64],
        tolerance: Tolerance,
    ) {
        let mut actual: Vec<f64> = self.read(pointer).into_iter().map(T::to_f64).collect();
        let mut expected = expected.to_vec();
        for (actual, expected) in actual.iter_mut().zip(&mut expected) {
            if actual.is_nan() && expected.is_nan() {
                (*actual, *expected) = (0.0, 0.0);
            }
        }
        let label = &self.buffer(pointer).label;
        if let Err(difference) = compare(&actual, &expected, tolerance) {
            panic!("{}: `{label}`: {difference}", self.name);
        }
    }

    /// Compares a buffer with the reference; a NaN in either fails.
    pub fn check<T: Element>(&self, pointer: DevicePtr<T>, expected: &[f64], tolerance: Tolerance) {
        let actual: Vec<f64> = self.read(pointer).into_iter().map(T::to_f64).collect();
        let label = &self.buffer(pointer).label;
        if let Err(difference) = compare(&actual, expected, tolerance) {
            panic!("{}: `{label}`: {difference}", self.name);
        }
    }

    fn allocate<T>(
        &mut self,
        label: &str,
        data: &[u8],
        unchanged: Option<Vec<u8>>,
    ) -> DevicePtr<T> {
        let guard = self.device.guard_bytes;
        let mut image = vec![GUARD; guard];
        image.extend_from_slice(data);
        image.resize(image.len() + guard, GUARD);
        let device = &self.device.device;
        let buffer = device
            .alloc(image.len(), &format!("{}: {label}", self.name))
            .and_then(|buffer| device.upload(buffer.all(), &image).map(|()| buffer))
            .unwrap_or_else(|error| panic!("{}: {label}: {error}", self.name));
        let pointer = DevicePtr::from_address(buffer.addr() + guard as u64);
        self.buffers.push(Guarded {
            label: label.to_owned(),
            buffer,
            len: data.len(),
            unchanged,
        });
        pointer
    }

    fn buffer<T>(&self, pointer: DevicePtr<T>) -> &Guarded {
        let start = pointer.address() - self.device.guard_bytes as u64;
        let found = self
            .buffers
            .iter()
            .find(|buffer| buffer.buffer.addr() == start);
        found.unwrap_or_else(|| panic!("{}: no buffer at {pointer:?}", self.name))
    }

    /// Guard band, data, guard band.
    fn parts(&self, buffer: &Guarded) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
        let mut before = vec![0; buffer.buffer.len()];
        self.device
            .device
            .download(&mut before, buffer.buffer.all())
            .unwrap_or_else(|error| panic!("{}: {}: {error}", self.name, buffer.label));
        let mut data = before.split_off(self.device.guard_bytes);
        let after = data.split_off(buffer.len);
        (before, data, after)
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        for buffer in &self.buffers {
            if let Some(unchanged) = &buffer.unchanged {
                let same = self.parts(buffer).1 == *unchanged;
                assert!(same, "{}: input `{}` was changed", self.name, buffer.label);
            }
        }
    }
}

/// The first of the worst differences in words, where one is over the tolerance.
fn compare(actual: &[f64], expected: &[f64], tolerance: Tolerance) -> Result<(), String> {
    if actual.len() != expected.len() {
        return Err(format!("{} elements, not {}", actual.len(), expected.len()));
    }
    // How far over the tolerance, NaN the farthest.
    let excess = |i: usize| {
        let error = (actual[i] - expected[i]).abs();
        let allowed = tolerance.absolute + tolerance.relative * expected[i].abs();
        if error <= allowed {
            0.0
        } else if error.is_nan() {
            f64::INFINITY
        } else {
            // At most f64::MAX, also where nothing is allowed.
            (error / allowed).min(f64::MAX)
        }
    };
    let wrong = (0..actual.len()).filter(|&i| excess(i) > 0.0).count();
    let worst = (0..actual.len()).max_by(|&a, &b| excess(a).total_cmp(&excess(b)).then(b.cmp(&a)));
    match worst {
        Some(i) if wrong > 0 => Err(format!(
            "{wrong} of {} elements are wrong, most at {i}: {} instead of {} ({:.1e} + {:.1e} of it \
             allowed: {})",
            actual.len(),
            actual[i],
            expected[i],
            tolerance.absolute,
            tolerance.relative,
            tolerance.reason
        )),
        _ => Ok(()),
    }
}

/// The same numbers for the same seed on every machine (SplitMix64).
pub struct Random(u64);

impl Random {
    /// A sequence of its own for each seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// Evenly between `-scale` and `scale`.
    pub fn float(&mut self, scale: f32) -> f32 {
        let unit = (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0;
        unit * scale
    }

    /// `n` values of [`float`](Self::float).
    pub fn floats(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|_| self.float(scale)).collect()
    }

    /// `n` values of [`float`](Self::float), rounded to halves.
    pub fn halves(&mut self, n: usize, scale: f32) -> Vec<F16> {
        let half = |value| F16(f16::from_f32(value).to_bits());
        (0..n).map(|_| half(self.float(scale))).collect()
    }
}

/// The values as f64.
pub fn widen<T: Element>(values: &[T]) -> Vec<f64> {
    values.iter().map(|value| value.to_f64()).collect()
}

#[test]
fn a_nan_never_passes() {
    let loose = Tolerance {
        relative: 1.0,
        absolute: f64::MAX,
        reason: "test",
    };
    assert!(compare(&[1.0, 2.0], &[1.0, 2.0], Tolerance::EXACT).is_ok());
    assert!(compare(&[1.0, f64::NAN], &[1.0, 2.0], loose).is_err());
    assert!(compare(&[1.0], &[f64::NAN], loose).is_err());
    assert!(compare(&[f64::NAN], &[f64::NAN], loose).is_err());
    assert!(compare(&[f64::INFINITY], &[1.0], loose).is_err());
    assert!(compare(&[1.0], &[1.0, 2.0], loose).is_err());
    let message = compare(&[1.0, 3.0, 9.0], &[1.0, 2.0, 3.0], Tolerance::EXACT).unwrap_err();
    assert!(
        message.starts_with("2 of 3 elements are wrong"),
        "{message}"
    );
}
