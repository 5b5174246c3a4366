//! Tests of `ops/argmax.rs`.

use kernels_gpu::abi::{ARGMAX_THREADS, ArgmaxParams, NOT_FINITE, NOTHING_ALLOWED};
use kernels_gpu::ops::argmax::ARGMAX;

use crate::choice::Outputs;
use crate::harness::{Case, Random, Shape};

const NAN: f32 = f32::NAN;
const INFINITY: f32 = f32::INFINITY;
const LOW: f32 = f32::NEG_INFINITY;

/// `rows` of equal length, `stride` apart; what lies between is no finite logit.
fn check(
    name: &str,
    rows: &[Vec<f32>],
    (stride, blocks): (usize, u32),
    forbids: bool,
    expected: &[u32],
) {
    let vocab = rows[0].len();
    let mut logits = vec![INFINITY; rows.len() * stride];
    for (row, place) in rows.iter().zip(logits.chunks_exact_mut(stride)) {
        place[..vocab].copy_from_slice(row);
    }
    let n = rows.len();
    for moves in [true, false] {
        let name =
            format!("{name}, {n} rows of {vocab}, {blocks} blocks, {forbids}, moves: {moves}");
        let mut case = Case::new(name);
        let mut outputs = if moves {
            let positions: Vec<u32> = (0..n as u32).map(|row| 7 + 100 * row).collect();
            Outputs::moving(&mut case, &positions)
        } else {
            Outputs::of_tokens(&mut case, &vec![2; n], &[1, 2, 3])
        };
        let best = case.in_out("best", &vec![0u64; n]);
        let arrived = case.in_out("arrived", &vec![0u32; n]);
        let params = ArgmaxParams {
            logits: case.input("logits", &logits),
            best,
            arrived,
            outputs: outputs.params,
            vocab: vocab as u32,
            stride: stride as u32,
            forbids: forbids.into(),
            reserved: 0,
        };
        // Three times: the scratch memory must be ready for the next launch, and both halves of the mailbox are used.
        for _ in 0..3 {
            let shape = Shape::new([blocks, n as u32, 1], ARGMAX_THREADS);
            case.launch(&ARGMAX, shape, params);
            assert_eq!(outputs.tokens(&case), expected);
        }
        assert_eq!(case.read(best), vec![0; n]);
        assert_eq!(case.read(arrived), vec![0; n]);
    }
}

#[test]
fn random_rows() {
    for (vocab, stride, rows, blocks) in [
        (1, 1, 1, 1),
        (31, 33, 3, 2),
        (1000, 1000, 2, 1),
        (4099, 4100, 5, 7),
        (151_936, 151_936, 2, 32),
        (9, 9, 256, 1),
    ] {
        let mut random = Random::new(vocab as u64);
        let rows: Vec<Vec<f32>> = (0..rows).map(|_| random.floats(vocab, 20.0)).collect();
        let expected: Vec<u32> = rows
            .iter()
            .map(|row| {
                let largest = row.iter().copied().fold(LOW, f32::max);
                row.iter().position(|&x| x == largest).unwrap() as u32
            })
            .collect();
        for forbids in [false, true] {
            check("random", &rows, (stride, blocks), forbids, &expected);
        }
    }
}

#[test]
fn equal_and_unusual_elements() {
    const BROKEN: u32 = NOT_FINITE;
    // The token without and with leave to forbid.
    let rows: [(&[f32], u32, u32); 15] = [
        (&[1.0, 3.0, 3.0, 2.0, 3.0], 1, 1),
        (&[-5.0, -5.0, -5.0, -6.0, -5.0], 0, 0),
        (&[NAN, -1.0, NAN, -0.5, -2.0], BROKEN, BROKEN),
        (&[-NAN, NAN, LOW, LOW, NAN], BROKEN, BROKEN),
        (&[-1.0, -0.0, 0.0, -0.0, -1.0], 1, 1),
        (&[NAN, NAN, NAN, NAN, NAN], BROKEN, BROKEN),
        (&[1.0, 2.0, INFINITY, f32::MAX, NAN], BROKEN, BROKEN),
        (&[1.0, LOW, INFINITY, LOW, 3.0], BROKEN, BROKEN),
        (&[f32::MAX, f32::MAX, 0.0, f32::MIN, 1.0], 0, 0),
        (&[LOW, f32::MIN, LOW, LOW, LOW], BROKEN, 1),
        (&[1.0, 2.0, 3.0, 4.0, LOW], BROKEN, 3),
        (&[1.0, 2.0, 3.0, 4.0, -NAN], BROKEN, BROKEN),
        (&[f32::MIN, f32::MIN, f32::MIN, f32::MIN, f32::MIN], 0, 0),
        (&[0.0, 1e-45, 0.0, 0.0, -1e-45], 1, 1),
        (&[LOW; 5], BROKEN, NOTHING_ALLOWED),
    ];
    let logits: Vec<Vec<f32>> = rows.iter().map(|(row, ..)| row.to_vec()).collect();
    let strict: Vec<u32> = rows.iter().map(|&(_, strict, _)| strict).collect();
    let forbidding: Vec<u32> = rows.iter().map(|&(.., forbidding)| forbidding).collect();
    check("unusual", &logits, (8, 1), false, &strict);
    check("unusual", &logits, (8, 1), true, &forbidding);
    // Spread over blocks: the equals are far from each other.
    let mut long = vec![0.5; 3000];
    for place in [700, 701, 1500, 2999] {
        long[place] = 9.0;
    }
    check("far equals", &[long.clone()], (3000, 3), false, &[700]);
    for (broken, place) in [(NAN, 0), (INFINITY, 1600), (LOW, 2999)] {
        let mut row = long.clone();
        row[place] = broken;
        check("one broken", &[row], (3000, 3), false, &[NOT_FINITE]);
    }
    let forbidden = vec![LOW; 3001];
    let mut but_one = forbidden.clone();
    but_one[2999] = f32::MIN;
    let rows = [forbidden, but_one];
    let expected = [NOTHING_ALLOWED, 2999];
    check("forbidden", &rows, (3001, 3), true, &expected);
}
