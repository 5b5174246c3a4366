//! Matrix products, alone and in graphs.

use bytemuck::cast_slice;
use half::f16;
use hyperion::device::{Gemm, GemmType, Matrix, gemm_reference};

use super::support::{advance, advanced, device, download, noise, upload_new, values};

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
                factor: 1.0,
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
        factor: 1.0,
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
        factor: 1.0,
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
