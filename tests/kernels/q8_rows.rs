//! Tests of `ops/q8_rows.rs`.

use kernels_gpu::abi::{
    DevicePtr, KernelDef, MATMUL_Q8_STEP, Q8_ROWS_ELEMENTS, Q8_ROWS_THREADS, Q8RowsParams,
    matmul_q8_steps, norm_threads,
};
use kernels_gpu::ops::q8_rows::{GEGLU_Q8, Q8_ROWS, RMS_NORM_Q8, SWIGLU_Q8};

use crate::elementwise::{gelu, silu};
use crate::harness::{Case, Random, Shape, Tolerance, widen};
use crate::q8_vectors::Encoded;

/// Rows and their widths: a group; less than a step and more; widths of models; one tile and several.
const SHAPES: [(usize, usize); 6] = [(1, 32), (3, 96), (8, 256), (9, 896), (17, 4864), (2, 4096)];

/// What becomes of rows before they are encoded.
#[derive(Clone, Copy)]
enum Before {
    Nothing,
    Norm,
    Gate(fn(f64) -> f64),
}

fn check(kernel: &KernelDef<Q8RowsParams>, before: Before) {
    for (rows, width) in SHAPES {
        for wants_values in [true, false] {
            check_rows(kernel, before, rows, width, wants_values);
        }
    }
}

fn check_rows(
    kernel: &KernelDef<Q8RowsParams>,
    before: Before,
    rows: usize,
    width: usize,
    wants_values: bool,
) {
    const EPSILON: f32 = 1e-6;
    let mut random = Random::new((rows * width) as u64);
    let mut x = random.floats(rows * width, 4.0);
    // A group of zeros, and one whose elements are far apart.
    x[..32].fill(0.0);
    if width > 64 {
        x[32..64].fill(1e-3);
        x[40] = -1000.0;
    }
    let other = random.floats(rows * width, 2.0);
    let wide = widen(&x);
    let values = wide.chunks_exact(width).enumerate().flat_map(|(row, x)| {
        let squares: f64 = x.iter().map(|x| x * x).sum();
        let norm = 1.0 / (squares / width as f64 + f64::from(EPSILON)).sqrt();
        let other = &other;
        x.iter().enumerate().map(move |(i, &x)| match before {
            Before::Nothing => x,
            Before::Norm => x * norm * f64::from(other[i]),
            Before::Gate(activation) => activation(x) * f64::from(other[row * width + i]),
        })
    });
    let values: Vec<f64> = values.collect();

    let mut case = Case::new(format!("{} of {rows}x{width}, {wants_values}", kernel.name));
    let room = Encoded::room(&mut case, width, rows);
    let written = case.output::<f32>("values", rows * width);
    let params = Q8RowsParams {
        x: case.input("x", &x),
        other: match before {
            Before::Nothing => DevicePtr::NULL,
            _ => case.input("other", &other),
        },
        y: room.0,
        values: if wants_values {
            written
        } else {
            DevicePtr::NULL
        },
        width: width as u32,
        rows: rows as u32,
        epsilon: EPSILON,
        reserved: 0,
    };
    let padded = matmul_q8_steps(width as u32) * MATMUL_Q8_STEP;
    let blocks = padded.div_ceil(Q8_ROWS_THREADS * Q8_ROWS_ELEMENTS);
    let shape = match before {
        Before::Norm => Shape::new([1, rows as u32, 1], norm_threads(width as u32)),
        _ => Shape::new([blocks, rows as u32, 1], Q8_ROWS_THREADS),
    };
    case.launch(kernel, shape, params);

    if wants_values {
        let tolerance = Tolerance {
            relative: 2e-6,
            absolute: 1e-7,
            reason: "a few roundings of f32 and an approximate exponential",
        };
        case.check(written, &values, tolerance);
    }
    let encoded = Encoded::read(&case, room, width, rows);
    for (row, values) in values.chunks_exact(width).enumerate() {
        for (group, values) in values.chunks_exact(32).enumerate() {
            let first = 32 * group;
            let largest = values.iter().fold(0f64, |most, x| most.max(x.abs()));
            let scale = f64::from(encoded.scales[encoded.scale(row, first)]);
            assert!(
                (scale - largest / 127.0).abs() <= 4e-6 * largest,
                "row {row}, group {group}: scale {scale}, largest {largest}"
            );
            let mut sum = 0.0;
            for (i, value) in values.iter().enumerate() {
                let q = f64::from(encoded.elements[encoded.element(row, first + i)]);
                sum += q * scale;
                // Half a step, and what the value may be off.
                let most = 0.5001 * scale + 4e-6 * value.abs();
                assert!(
                    (q * scale - value).abs() <= most,
                    "row {row}, element {}: {q} times {scale} for {value}",
                    first + i
                );
            }
            let noted = f64::from(encoded.sums[encoded.sum(row, first)]);
            assert!(
                (noted - sum).abs() <= sum.abs() / 2048.0 + 1e-30,
                "row {row}, group {group}: sum {noted} for {sum}"
            );
        }
        for i in width..padded as usize {
            let q = encoded.elements[encoded.element(row, i)];
            assert_eq!(q, 0, "row {row}: element {i} is behind the end");
            let (scale, sum) = (encoded.scale(row, i), encoded.sum(row, i));
            assert_eq!((encoded.scales[scale], encoded.sums[sum]), (0.0, 0.0));
        }
    }
}

#[test]
fn rows_as_they_are() {
    check(&Q8_ROWS, Before::Nothing);
}

#[test]
fn normed_rows() {
    check(&RMS_NORM_Q8, Before::Norm);
}

#[test]
fn gated_rows() {
    check(&SWIGLU_Q8, Before::Gate(silu));
    check(&GEGLU_Q8, Before::Gate(gelu));
}
