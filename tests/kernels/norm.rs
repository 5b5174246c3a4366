//! Tests of `ops/norm.rs`.

use kernels_gpu::abi::{DevicePtr, KernelDef, RmsNormParams};
use kernels_gpu::ops::norm::{RMS_NORM_F16, RMS_NORM_F32, ROWS_F16};
use kernels_gpu::prim::half::F16;

use crate::harness::{Case, Element, Random, Shape, Tolerance};

const EPSILON: f32 = 1e-6;

/// Of results in f32.
pub const F32_TOLERANCE: Tolerance = Tolerance {
    relative: 1e-6,
    absolute: 0.0,
    reason: "a dozen f32 roundings",
};

/// Rows of a test: `heads` of `width` elements side by side for each of `tokens` tokens, with `gap`
/// elements behind them.
pub struct Rows {
    tokens: usize,
    heads: usize,
    width: usize,
    gap: usize,
    threads: u32,
}

/// The shapes: minimal, ragged, gaps that end the alignment, a head's norm, Qwen2.5-0.5B's and a wide row.
const ROWS: [Rows; 7] = [
    rows(1, 1, 1, 0, 32),
    rows(3, 1, 31, 0, 64),
    rows(2, 1, 100, 3, 96),
    rows(5, 14, 64, 128, 32),
    rows(4, 3, 128, 0, 32),
    rows(7, 1, 896, 0, 256),
    rows(2, 1, 4864, 4, 1024),
];

/// Rows as they are in [`Rows`].
pub const fn rows(tokens: usize, heads: usize, width: usize, gap: usize, threads: u32) -> Rows {
    Rows {
        tokens,
        heads,
        width,
        gap,
        threads,
    }
}

/// Normalizes on the device and in f64, and compares.
pub fn check<Y: Element>(kernel: &KernelDef<RmsNormParams>, rows: &Rows, tolerance: Tolerance) {
    let &Rows {
        tokens,
        heads,
        width,
        gap,
        threads,
    } = rows;
    let stride = heads * width + gap;
    let mut random = Random::new((tokens * stride) as u64);
    let x = random.floats(tokens * stride, 3.0);
    let weight = random.floats(width, 2.0);

    let mut case = Case::new(format!(
        "{}, {tokens} tokens, {heads} heads of {width}, gap {gap}",
        kernel.name
    ));
    // What is in the gaps must stay there.
    let before: Vec<Y> = vec![Y::zeroed(); tokens * stride];
    let params = RmsNormParams {
        x: case.in_out("x", &x),
        weight: case.input("weight", &weight),
        y: case.in_out("y", &before).cast(),
        width: width as u32,
        heads: heads as u32,
        x_stride: stride as u32,
        y_stride: stride as u32,
        epsilon: EPSILON,
        x_scales: DevicePtr::NULL,
        cleared: DevicePtr::NULL,
        factor: 1.0,
    };
    let shape = Shape::new([(tokens * heads) as u32, 1, 1], threads);
    case.launch(kernel, shape, params);

    let unchanged: Vec<f64> = x.iter().map(|&v| v.into()).collect();
    let mut expected = vec![0f64; tokens * stride];
    for token in 0..tokens {
        for head in 0..heads {
            let row = token * stride + head * width..token * stride + (head + 1) * width;
            let squares: f64 = unchanged[row.clone()].iter().map(|v| v * v).sum();
            let scale = 1.0 / (squares / width as f64 + f64::from(EPSILON)).sqrt();
            for (i, &weight) in row.zip(&weight) {
                expected[i] = unchanged[i] * scale * f64::from(weight);
            }
        }
    }
    case.check(params.x, &unchanged, Tolerance::EXACT);
    case.check(params.y.cast::<Y>(), &expected, tolerance);
}

#[test]
fn rms_norm_to_f32() {
    for rows in &ROWS {
        check::<f32>(&RMS_NORM_F32, rows, F32_TOLERANCE);
    }
}

#[test]
fn rms_norm_to_f16() {
    let tolerance = Tolerance {
        relative: 4.9e-4,
        absolute: 3e-8,
        reason: "one rounding to f16, which may be subnormal",
    };
    for rows in &ROWS {
        check::<F16>(&RMS_NORM_F16, rows, tolerance);
    }
}

/// Rows that were divided, and outputs that f16 would not hold.
#[test]
fn scales_around_a_norm() {
    for (tokens, width, threads) in [(1, 4, 32), (3, 31, 64), (5, 896, 256), (4, 1000, 128)] {
        let mut random = Random::new((tokens * width) as u64);
        let x = random.floats(tokens * width, 3.0);
        let weight = random.floats(width, 1e6);
        let scales: Vec<f32> = (0..tokens).map(|t| [1.0, 256.0, 2.0][t % 3]).collect();
        let factor = 1.0 / 4096.0;

        let mut case = Case::new(format!("rms_norm_f16 of {tokens} scaled rows of {width}"));
        let y = case.output::<F16>("y", tokens * width);
        let cleared = case.in_out("cleared", &vec![7u32; tokens]);
        let params = RmsNormParams {
            x: case.in_out("x", &x),
            weight: case.input("weight", &weight),
            y: y.cast(),
            x_scales: case.input("scales", &scales),
            cleared,
            width: width as u32,
            heads: 1,
            x_stride: width as u32,
            y_stride: width as u32,
            epsilon: EPSILON,
            factor,
        };
        let shape = Shape::new([tokens as u32, 1, 1], threads);
        case.launch(&RMS_NORM_F16, shape, params);

        let mut restored = Vec::new();
        let mut expected = Vec::new();
        for (t, row) in x.chunks(width).enumerate() {
            let row: Vec<f64> = row.iter().map(|v| f64::from(v * scales[t])).collect();
            let squares: f64 = row.iter().map(|v| v * v).sum();
            let scale = 1.0 / (squares / width as f64 + f64::from(EPSILON)).sqrt();
            let factor = f64::from(factor) * scale;
            let outputs = row.iter().zip(&weight);
            expected.extend(outputs.map(|(v, &w)| v * factor * f64::from(w)));
            restored.extend(row);
        }
        case.check(params.x, &restored, Tolerance::EXACT);
        case.check(cleared, &vec![0.0; tokens], Tolerance::EXACT);
        let tolerance = Tolerance {
            relative: 4.9e-4,
            absolute: 3e-8,
            reason: "one rounding to f16, which may be subnormal",
        };
        case.check(y, &expected, tolerance);
    }
}

#[test]
fn rows_without_a_norm() {
    for &Rows {
        tokens,
        heads,
        width,
        gap,
        threads,
    } in &ROWS
    {
        let stride = heads * width + gap;
        let mut random = Random::new((tokens * stride) as u64);
        let x = random.floats(tokens * stride, 1e5);
        let factor = 1.0 / 256.0;
        let name = format!("rows_f16, {tokens} tokens, {heads} rows of {width}, gap {gap}");
        let mut case = Case::new(name);
        let y = case.in_out("y", &vec![F16(0); tokens * stride]);
        let cleared = case.in_out("cleared", &vec![7u32; tokens]);
        let params = RmsNormParams {
            x: case.input("x", &x),
            weight: DevicePtr::NULL,
            y: y.cast(),
            x_scales: DevicePtr::NULL,
            cleared,
            width: width as u32,
            heads: heads as u32,
            x_stride: stride as u32,
            y_stride: stride as u32,
            epsilon: EPSILON,
            factor,
        };
        let shape = Shape::new([(tokens * heads) as u32, 1, 1], threads);
        case.launch(&ROWS_F16, shape, params);

        let is_gap = |i: usize| i % stride >= heads * width;
        let expected = x.iter().enumerate().map(|(i, &x)| match is_gap(i) {
            true => 0.0,
            false => f64::from(x) * f64::from(factor),
        });
        case.check(cleared, &vec![0.0; tokens], Tolerance::EXACT);
        let tolerance = Tolerance {
            relative: 4.9e-4,
            absolute: 3e-8,
            reason: "one rounding to f16, which may be subnormal",
        };
        case.check(y, &expected.collect::<Vec<f64>>(), tolerance);
    }
}

/// As the norms of all heads of Q and of K are.
#[test]
fn a_norm_in_place() {
    for (tokens, width, threads) in [(1, 4, 32), (3, 96, 32), (5, 896, 256)] {
        let mut random = Random::new((tokens * width) as u64);
        let x = random.floats(tokens * width, 3.0);
        let weight = random.floats(width, 2.0);
        let mut case = Case::new(format!("rms_norm_f32 of {tokens} rows of {width} in place"));
        let in_place = case.in_out("x", &x);
        let params = RmsNormParams {
            x: in_place,
            weight: case.input("weight", &weight),
            y: in_place.cast(),
            x_scales: DevicePtr::NULL,
            cleared: DevicePtr::NULL,
            width: width as u32,
            heads: 1,
            x_stride: width as u32,
            y_stride: width as u32,
            epsilon: EPSILON,
            factor: 1.0,
        };
        let shape = Shape::new([tokens as u32, 1, 1], threads);
        case.launch(&RMS_NORM_F32, shape, params);
        let normed = x.chunks(width).flat_map(|row| {
            let squares: f64 = row.iter().map(|&v| f64::from(v).powi(2)).sum();
            let scale = 1.0 / (squares / width as f64 + f64::from(EPSILON)).sqrt();
            let outputs = row.iter().zip(&weight);
            outputs.map(move |(&v, &w)| f64::from(v) * scale * f64::from(w))
        });
        case.check(in_place, &normed.collect::<Vec<f64>>(), F32_TOLERANCE);
    }
}
