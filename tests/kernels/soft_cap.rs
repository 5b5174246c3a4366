//! Tests of `ops/soft_cap.rs`.

use kernels_gpu::abi::{SOFT_CAP_THREADS, SoftCapParams};
use kernels_gpu::ops::soft_cap::SOFT_CAP;

use crate::harness::{Case, Random, Shape};

/// Rows of `vocab` logits, `stride` apart; what lies between must stay.
fn check(name: &str, logits: &[f32], (vocab, stride): (usize, usize), cap: f32) {
    let rows = logits.len() / stride;
    let name = format!("soft cap, {name}, {rows} rows of {vocab} in {stride}, {cap}");
    let mut case = Case::new(name.as_str());
    let found = case.in_out("logits", logits);
    let params = SoftCapParams {
        logits: found,
        vocab: vocab as u32,
        stride: stride as u32,
        cap,
        reserved: 0,
    };
    let blocks = (vocab as u32).div_ceil(SOFT_CAP_THREADS);
    let shape = Shape::new([blocks, rows as u32, 1], SOFT_CAP_THREADS);
    case.launch(&SOFT_CAP, shape, params);
    for (i, (&before, &after)) in logits.iter().zip(&case.read(found)).enumerate() {
        if i % stride >= vocab || !before.is_finite() {
            assert_eq!(after.to_bits(), before.to_bits(), "{name}: {i}");
            continue;
        }
        // The host's own, and the exact one.
        let host = cap * (before / cap).tanh();
        let exact = f64::from(cap) * (f64::from(before) / f64::from(cap)).tanh();
        for (expected, bound) in [(f64::from(host), 1e-6), (exact, 7e-7)] {
            let error = (f64::from(after) - expected).abs();
            // A quotient below 1e-38 has fewer bits: the last one is worth 1.4e-45 times the cap.
            assert!(
                error <= bound * expected.abs() + 1.5e-45 * f64::from(cap),
                "{name}: {before} became {after} at {i}, not {expected}"
            );
        }
        let same_sign = after.is_sign_negative() == before.is_sign_negative();
        assert!(same_sign, "{name}: {before} became {after}");
    }
}

#[test]
fn random_rows() {
    for (rows, vocab, stride) in [(1, 1, 1), (3, 31, 33), (2, 1000, 1000), (5, 4099, 4103)] {
        let mut random = Random::new(vocab as u64);
        let mut logits = random.floats(rows * stride, 1.0);
        // From far below the cap to far above.
        for logit in &mut logits {
            *logit *= 10f32.powi(random.below(9) as i32 - 5);
        }
        check("random", &logits, (vocab, stride), 30.0);
        check("random", &logits, (vocab, stride), 0.7);
    }
}

#[test]
fn every_size_and_unusual_numbers() {
    let mut logits = vec![
        0.0,
        -0.0,
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        f32::MIN,
        1e-45,
        -1e-40,
        f32::MIN_POSITIVE,
    ];
    // Across the place where the formula changes.
    for i in 0..3000 {
        let x = 0.54 + i as f32 * 1e-5;
        logits.extend([30.0 * x, -30.0 * x, i as f32 * 0.1]);
    }
    let vocab = logits.len();
    check("unusual", &logits, (vocab, vocab), 30.0);
    check("unusual", &logits, (vocab, vocab), 50.0);
}
