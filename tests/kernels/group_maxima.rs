//! Tests of `ops/group_maxima.rs`.

use kernels_gpu::abi::{GROUP_LOGITS, GROUP_THREADS, GroupMaximaParams};
use kernels_gpu::ops::group_maxima::GROUP_MAXIMA;

use crate::harness::{Case, Random, Shape};

const LOW: f32 = f32::NEG_INFINITY;
/// Above every number.
const BROKEN: u32 = u32::MAX;

/// Integers in the order of the numbers, both zeros being the same one.
fn key(x: f32) -> u32 {
    let bits = (x + 0.0).to_bits();
    if bits >> 31 == 0 {
        bits | 1 << 31
    } else {
        !bits
    }
}

/// What must be there for a group.
fn expected(group: &[f32], forbids: bool) -> u32 {
    let is_sound = |x: &f32| x.is_finite() || forbids && *x == LOW;
    match group.iter().all(is_sound) {
        true => key(group.iter().copied().fold(LOW, f32::max)),
        false => BROKEN,
    }
}

/// `rows` of equal length, `stride` apart; what lies between is no finite logit.
fn check(name: &str, rows: &[Vec<f32>], stride: usize, extra_blocks: u32, forbids: bool) {
    let vocab = rows[0].len();
    let mut logits = vec![f32::NAN; rows.len() * stride];
    for (row, place) in rows.iter().zip(logits.chunks_exact_mut(stride)) {
        place[..vocab].copy_from_slice(row);
    }
    let groups = (vocab as u32).div_ceil(GROUP_LOGITS);
    let mut case = Case::new(format!(
        "{name}, {} rows of {vocab}, stride {stride}, {forbids}",
        rows.len()
    ));
    let maxima = case.output("maxima", rows.len() * groups as usize);
    let params = GroupMaximaParams {
        logits: case.input("logits", &logits),
        maxima,
        vocab: vocab as u32,
        stride: stride as u32,
        forbids: forbids.into(),
        reserved: 0,
    };
    let blocks = groups.div_ceil(GROUP_THREADS / 32) + extra_blocks;
    let shape = Shape::new([blocks, rows.len() as u32, 1], GROUP_THREADS);
    case.launch(&GROUP_MAXIMA, shape, params);
    let all = rows
        .iter()
        .flat_map(|row| row.chunks(GROUP_LOGITS as usize));
    let expected: Vec<u32> = all.map(|group| expected(group, forbids)).collect();
    assert_eq!(case.read(maxima), expected, "{name}");
}

#[test]
fn random_rows() {
    for (vocab, stride, rows, extra) in [
        (1, 1, 1, 0),
        (127, 130, 3, 1),
        (128, 128, 2, 0),
        (1030, 1032, 2, 2),
        (4099, 4099, 3, 0),
        (49_152, 49_152, 2, 0),
    ] {
        let mut random = Random::new(vocab as u64);
        let rows: Vec<Vec<f32>> = (0..rows).map(|_| random.floats(vocab, 20.0)).collect();
        for forbids in [false, true] {
            check("random", &rows, stride, extra, forbids);
        }
    }
}

#[test]
fn unusual_logits() {
    let mut random = Random::new(3);
    for odd in [f32::NAN, -f32::NAN, f32::INFINITY, LOW, f32::MAX, -0.0] {
        for place in [0, 127, 128, 300] {
            let mut row = random.floats(301, 5.0);
            row.iter_mut().for_each(|x| *x = -x.abs());
            row[place] = odd;
            for (stride, forbids) in [(304, false), (301, true)] {
                check(
                    &format!("{odd} at {place}"),
                    &[row.clone()],
                    stride,
                    0,
                    forbids,
                );
            }
        }
    }
    check("nothing allowed", &[vec![LOW; 200]], 200, 0, true);
}
