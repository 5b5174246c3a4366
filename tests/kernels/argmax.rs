//! Tests of `ops/argmax.rs`.

use kernels_gpu::abi::{ARGMAX_THREADS, ArgmaxParams, NOT_FINITE, POSTED_ROWS};
use kernels_gpu::ops::argmax::ARGMAX;

use crate::harness::{Case, Random, Shape, Tolerance};

const BROKEN: f64 = NOT_FINITE as f64;

/// `rows` of equal length, `stride` apart; what lies between is no finite logit.
fn check(name: &str, rows: &[Vec<f32>], stride: usize, blocks: u32, expected: &[f64]) {
    let vocab = rows[0].len();
    let mut logits = vec![f32::INFINITY; rows.len() * stride];
    for (row, place) in rows.iter().zip(logits.chunks_exact_mut(stride)) {
        place[..vocab].copy_from_slice(row);
    }
    let n = rows.len();
    let mut case = Case::new(format!("{name}, {n} rows of {vocab}, {blocks} blocks"));
    let tokens = case.output::<u32>("tokens", n);
    let best = case.in_out("best", &vec![0u64; n]);
    let arrived = case.in_out("arrived", &vec![0u32; n]);
    let next_tokens = case.output::<u32>("next tokens", n);
    let positions = case.in_out("positions", &vec![7u32; n]);
    let posted = case.in_out("posted", &vec![12345u32; 2 * POSTED_ROWS as usize]);
    let params = ArgmaxParams {
        logits: case.input("logits", &logits),
        tokens,
        best,
        arrived,
        next_tokens,
        next_positions: positions,
        posted,
        vocab: vocab as u32,
        stride: stride as u32,
    };
    // Twice: the scratch memory must be ready for the next launch.
    for _ in 0..2 {
        case.launch(
            &ARGMAX,
            Shape::new([blocks, n as u32, 1], ARGMAX_THREADS),
            params,
        );
        case.check(tokens, expected, Tolerance::EXACT);
        // A token in any case: the step that follows reads its embedding.
        let next: Vec<f64> = expected
            .iter()
            .map(|&token| if token == BROKEN { 0.0 } else { token })
            .collect();
        case.check(next_tokens, &next, Tolerance::EXACT);
    }
    // The position was odd in the first launch, and even in the second one.
    for half in case.read(posted).chunks(POSTED_ROWS as usize) {
        let tokens: Vec<f64> = half[..n].iter().map(|&token| token.into()).collect();
        assert_eq!(tokens, expected);
        assert!(half[n..].iter().all(|&token| token == 12345));
    }
    assert_eq!(case.read(positions), vec![9; n]);
    assert_eq!(case.read(best), vec![0; n]);
    assert_eq!(case.read(arrived), vec![0; n]);
}

#[test]
fn random_rows() {
    for (vocab, stride, rows, blocks) in [
        (1, 1, 1, 1),
        (31, 33, 3, 2),
        (1000, 1000, 2, 1),
        (4099, 4100, 5, 7),
        (151_936, 151_936, 2, 32),
    ] {
        let mut random = Random::new(vocab as u64);
        let rows: Vec<Vec<f32>> = (0..rows).map(|_| random.floats(vocab, 20.0)).collect();
        let expected: Vec<f64> = rows
            .iter()
            .map(|row| {
                let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                row.iter().position(|&x| x == largest).unwrap() as f64
            })
            .collect();
        check("random", &rows, stride, blocks, &expected);
    }
}

#[test]
fn equal_and_unusual_elements() {
    const NAN: f32 = f32::NAN;
    const LOW: f32 = f32::NEG_INFINITY;
    let rows: [(&[f32], f64); 13] = [
        (&[1.0, 3.0, 3.0, 2.0, 3.0], 1.0),
        (&[-5.0, -5.0, -5.0, -6.0, -5.0], 0.0),
        (&[NAN, -1.0, NAN, -0.5, -2.0], BROKEN),
        (&[-NAN, NAN, LOW, LOW, NAN], BROKEN),
        (&[-1.0, -0.0, 0.0, -0.0, -1.0], 1.0),
        (&[NAN, NAN, NAN, NAN, NAN], BROKEN),
        (&[1.0, 2.0, f32::INFINITY, f32::MAX, NAN], BROKEN),
        (&[f32::MAX, f32::MAX, 0.0, f32::MIN, 1.0], 0.0),
        (&[LOW, f32::MIN, LOW, LOW, LOW], BROKEN),
        (&[1.0, 2.0, 3.0, 4.0, LOW], BROKEN),
        (&[1.0, 2.0, 3.0, 4.0, -NAN], BROKEN),
        (&[f32::MIN, f32::MIN, f32::MIN, f32::MIN, f32::MIN], 0.0),
        (&[0.0, 1e-45, 0.0, 0.0, -1e-45], 1.0),
    ];
    let expected: Vec<f64> = rows.iter().map(|(_, expected)| *expected).collect();
    let rows: Vec<Vec<f32>> = rows.iter().map(|(row, _)| row.to_vec()).collect();
    check("unusual", &rows, 8, 1, &expected);
    // Spread over blocks: the equals are far from each other.
    let mut long = vec![0.5; 3000];
    for place in [700, 701, 1500, 2999] {
        long[place] = 9.0;
    }
    check("far equals", &[long.clone()], 3000, 3, &[700.0]);
    for (broken, place) in [(NAN, 0), (f32::INFINITY, 1600), (LOW, 2999)] {
        let mut row = long.clone();
        row[place] = broken;
        check("one broken", &[row], 3000, 3, &[BROKEN]);
    }
}
