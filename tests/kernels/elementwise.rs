//! Tests of `ops/elementwise.rs`.

use kernels_gpu::abi::{
    AddParams, BiasParams, DevicePtr, ELEMENTWISE_THREADS, GatedParams, KernelDef,
};
use kernels_gpu::ops::elementwise::*;

use crate::harness::{Case, Random, Shape, Tolerance};

/// Elements: minimal, ragged, a block, Qwen2.5-0.5B's width, more than one block's.
const SIZES: [usize; 5] = [1, 31, 256, 896, 4097];

fn blocks(n: usize) -> Shape {
    Shape::new(
        [(n as u32).div_ceil(ELEMENTWISE_THREADS), 1, 1],
        ELEMENTWISE_THREADS,
    )
}

/// Adds on the device and in f64, and compares.
pub fn check_add(n: usize, in_place: bool) {
    let mut random = Random::new(n as u64);
    let (a, b) = (random.floats(n, 4.0), random.floats(n, 4.0));
    let expected: Vec<f64> = a.iter().zip(&b).map(|(a, b)| f64::from(a + b)).collect();

    let mut case = Case::new(format!("add_f32, {n} elements, in place {in_place}"));
    let b = case.input("b", &b);
    let (a, y) = if in_place {
        let a = case.in_out("a", &a);
        (a, a)
    } else {
        (case.input("a", &a), case.output("y", n))
    };
    let params = AddParams {
        a,
        b,
        y,
        n: n as u32,
        reserved: 0,
    };
    case.launch(&ADD_F32, blocks(n), params);
    case.check(y, &expected, Tolerance::EXACT);
}

#[test]
fn add() {
    for n in SIZES {
        for in_place in [false, true] {
            check_add(n, in_place);
        }
    }
}

fn check_bias(rows: usize, width: usize) {
    let mut random = Random::new((rows * width) as u64);
    let x = random.floats(rows * width, 4.0);
    let bias = random.floats(width, 4.0);
    let expected: Vec<f64> = x
        .iter()
        .enumerate()
        .map(|(i, x)| f64::from(x + bias[i % width]))
        .collect();

    let mut case = Case::new(format!("bias_f32, {rows} rows of {width}"));
    let x = case.in_out("x", &x);
    let params = BiasParams {
        x,
        bias: case.input("bias", &bias),
        n: (rows * width) as u32,
        width: width as u32,
    };
    case.launch(&BIAS_F32, blocks(rows * width), params);
    case.check(x, &expected, Tolerance::EXACT);
}

#[test]
fn bias() {
    for (rows, width) in [(1, 1), (3, 31), (2, 256), (7, 896), (5, 1001)] {
        check_bias(rows, width);
    }
}

pub fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

pub fn gelu(x: f64) -> f64 {
    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
    0.5 * x * (1.0 + inner.tanh())
}

fn check_gated(
    kernel: &KernelDef<GatedParams>,
    activation: fn(f64) -> f64,
    rows: usize,
    width: usize,
    tolerance: Tolerance,
) {
    // Gate and up lie side by side, with a gap.
    let stride = 2 * width + 5;
    let y_stride = width + 2;
    let mut random = Random::new((rows * width) as u64);
    let x = random.floats(rows * stride, 8.0);
    let mut expected = vec![0.0; rows * y_stride];
    for row in 0..rows {
        for column in 0..width {
            let gate = x[row * stride + column].into();
            let up = f64::from(x[row * stride + width + column]);
            expected[row * y_stride + column] = activation(gate) * up;
        }
    }

    let mut case = Case::new(format!("{}, {rows} rows of {width}", kernel.name));
    let gate = case.input("gate and up", &x);
    let y = case.in_out("y", &vec![0f32; rows * y_stride]);
    let params = GatedParams {
        gate,
        up: DevicePtr::from_address(gate.address() + 4 * width as u64),
        y,
        width: width as u32,
        rows: rows as u32,
        gate_stride: stride as u32,
        up_stride: stride as u32,
        y_stride: y_stride as u32,
        reserved: 0,
    };
    let blocks = (width as u32).div_ceil(ELEMENTWISE_THREADS);
    let shape = Shape::new([blocks, rows as u32, 1], ELEMENTWISE_THREADS);
    case.launch(kernel, shape, params);
    case.check(y, &expected, tolerance);
}

#[test]
fn gated_units() {
    let tolerance = Tolerance {
        relative: 2e-6,
        absolute: 1e-7,
        reason: "approximate exponentials of arguments up to 100",
    };
    for (rows, width) in [(1, 1), (3, 31), (2, 256), (5, 300), (3, 4864)] {
        check_gated(&SWIGLU_F32, silu, rows, width, tolerance);
        check_gated(&GEGLU_F32, gelu, rows, width, tolerance);
    }
}
