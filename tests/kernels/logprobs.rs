//! Tests of `ops/logprobs.rs` against log-probabilities in f64.

use kernels_gpu::abi::{
    CHOSEN_LOGPROB_THREADS, ChosenLogprobParams, DevicePtr, LOGPROBS_THREADS, LogprobsParams,
    MAX_LOGPROBS, NOT_FINITE, NOTHING_ALLOWED, POSTED_ROWS, PostedLogprobs,
};
use kernels_gpu::ops::logprobs::{CHOSEN_LOGPROB, LOGPROBS};

use crate::harness::{Case, Random, Shape};

/// What was in the mailbox before.
const OLD: f32 = 4321.0;

/// Results that a step before has left.
pub fn old_mailbox() -> Vec<PostedLogprobs> {
    let old = PostedLogprobs {
        log_sum_exp: OLD,
        chosen: OLD,
        tokens: [OLD as u32; MAX_LOGPROBS as usize],
        logprobs: [OLD; MAX_LOGPROBS as usize],
    };
    vec![old; 2 * POSTED_ROWS as usize]
}

/// A result that is as near as f32 can be: sums of numbers of these sizes are rounded three times.
fn assert_close(name: &str, actual: f32, expected: f64) {
    let is_same = f64::from(actual) == expected || (actual.is_nan() && expected.is_nan());
    let error = (f64::from(actual) - expected).abs();
    let bound = 4e-6 + 1.2e-7 * expected.abs();
    assert!(
        is_same || error <= bound,
        "{name}: {actual}, not {expected}"
    );
    if expected.abs() < 45.0 {
        assert!(is_same || error < 1e-5);
    }
}

/// Log-probabilities of all tokens, and the logarithm of the sum.
fn reference(logits: &[f32]) -> (Vec<f64>, f64) {
    if !logits.iter().all(|x| x.is_finite()) {
        return (vec![f64::NAN; logits.len()], f64::NAN);
    }
    let logits: Vec<f64> = logits.iter().map(|&x| x.into()).collect();
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|x| (x - max).exp()).sum();
    let all = logits.iter().map(|x| x - max - sum.ln()).collect();
    (all, max + sum.ln())
}

/// What the mailbox must have for a row that wants something.
pub fn check_row(
    name: &str,
    posted: &PostedLogprobs,
    logits: &[f32],
    wanted: u32,
    chosen: Option<u32>,
) {
    let (all, log_sum_exp) = reference(logits);
    let is_sound = !log_sum_exp.is_nan();
    assert_close(name, posted.log_sum_exp, log_sum_exp);
    let mut order: Vec<usize> = (0..logits.len()).collect();
    // Stable: the first of equals stays first.
    if is_sound {
        order.sort_by(|&a, &b| logits[b].partial_cmp(&logits[a]).expect("numbers"));
    }
    for rank in 0..MAX_LOGPROBS as usize {
        let found = (posted.tokens[rank], posted.logprobs[rank]);
        if rank + 1 >= wanted as usize {
            assert_eq!(
                found,
                (OLD as u32, OLD),
                "{name}: rank {rank} is not wanted"
            );
        } else if !is_sound {
            assert!(
                found.0 == NOT_FINITE && found.1.is_nan(),
                "{name}: {found:?}"
            );
        } else if let Some(&token) = order.get(rank) {
            assert_eq!(found.0, token as u32, "{name}: rank {rank}");
            assert_close(name, found.1, all[token]);
        } else {
            assert_eq!(found, (NOT_FINITE, f32::NEG_INFINITY), "{name}");
        }
    }
    match chosen {
        None => assert_eq!(posted.chosen, OLD, "{name}"),
        Some(token) => {
            let expected = all.get(token as usize).copied().unwrap_or(f64::NAN);
            assert_close(name, posted.chosen, expected);
        }
    }
}

fn check(name: &str, rows: &[Vec<f32>], stride: usize, wanted: &[u32]) {
    let (n, vocab) = (rows.len(), rows[0].len());
    let name = format!("logprobs, {name}, {n} rows of {vocab} in {stride}, {wanted:?}");
    let mut random = Random::new(n as u64);
    let mut logits = vec![f32::NAN; n * stride];
    for (row, place) in rows.iter().zip(logits.chunks_exact_mut(stride)) {
        place[..vocab].copy_from_slice(row);
    }
    let turns: Vec<u32> = (0..n as u32).map(|row| row % 2).collect();
    let after: Vec<u32> = turns.iter().map(|turn| turn ^ 1).collect();
    let tokens: Vec<u32> = (0..n)
        .map(|row| match row % 5 {
            3 => NOT_FINITE,
            4 => NOTHING_ALLOWED,
            _ => random.below(vocab) as u32,
        })
        .collect();
    let mut case = Case::new(name.as_str());
    let sums = case.output::<[f32; 2]>("sums", n);
    let posted = case.in_out("posted", &old_mailbox());
    let (logits, wants) = (case.input("logits", &logits), case.input("wanted", wanted));
    let params = LogprobsParams {
        logits,
        wanted: wants,
        sums,
        turns: case.input("turns", &turns),
        posted,
        vocab: vocab as u32,
        stride: stride as u32,
    };
    case.launch(
        &LOGPROBS,
        Shape::new([n as u32, 1, 1], LOGPROBS_THREADS),
        params,
    );
    let in_half = |posted: &[PostedLogprobs], row: usize, half: u32| {
        posted[(half * POSTED_ROWS) as usize + row]
    };
    let is_untouched = |posted: &PostedLogprobs| {
        bytemuck::bytes_of(posted) == bytemuck::bytes_of(&old_mailbox()[0])
    };
    let check_all = |case: &Case, with_chosen: bool| {
        let posted = case.read(posted);
        for (row, logits) in rows.iter().enumerate() {
            let [found, other] = [turns[row], after[row]].map(|half| in_half(&posted, row, half));
            assert!(is_untouched(&other), "{name}: the other half of row {row}");
            if wanted[row] == 0 {
                assert!(is_untouched(&found), "{name}: row {row} wants nothing");
            } else {
                let chosen = with_chosen.then_some(tokens[row]);
                check_row(&name, &found, logits, wanted[row], chosen);
            }
        }
        let all = posted.chunks(POSTED_ROWS as usize);
        assert!(all.flat_map(|half| &half[n..]).all(is_untouched), "{name}");
    };
    check_all(&case, false);
    let params = ChosenLogprobParams {
        logits,
        wanted: wants,
        sums,
        tokens: case.input("tokens", &tokens),
        rows: DevicePtr::NULL,
        entries: DevicePtr::NULL,
        turns: case.input("turns after the choice", &after),
        posted,
        vocab: vocab as u32,
        stride: stride as u32,
    };
    let shape = Shape::new([n as u32, 1, 1], CHOSEN_LOGPROB_THREADS);
    case.launch(&CHOSEN_LOGPROB, shape, params);
    check_all(&case, true);
}

#[test]
fn random_rows() {
    for (vocab, stride, n) in [
        (1, 1, 3),
        (5, 7, 6),
        (31, 33, 5),
        (4099, 4100, 4),
        (9000, 9001, 2),
        (151_936, 151_936, 1),
    ] {
        let mut random = Random::new(vocab as u64);
        let rows: Vec<Vec<f32>> = (0..n)
            .map(|row| {
                let mut logits = random.floats(vocab, 2.4);
                logits.iter_mut().for_each(|x| *x = x.powi(3));
                if row % 2 == 1 {
                    // Many equals.
                    logits.iter_mut().for_each(|x| *x = x.round());
                }
                logits
            })
            .collect();
        let wanted = [21, 6, 1, 0, 2, 4];
        check("random", &rows, stride, &wanted[..n]);
    }
}

#[test]
fn unusual_rows() {
    let vocab = 6001;
    let plain = Random::new(1).floats(vocab, 5.0);
    let with = |place: usize, logit: f32| {
        let mut row = plain.clone();
        row[place] = logit;
        row
    };
    let rows = [
        vec![0.25; vocab],
        vec![-0.0; vocab],
        plain.iter().map(|x| x + 1000.0).collect(),
        plain.iter().map(|x| x * 1e4).collect(),
        with(6000, f32::NAN),
        with(0, f32::INFINITY),
        with(3000, f32::NEG_INFINITY),
        with(5, f32::MAX),
        vec![f32::MIN; vocab],
        (0..vocab)
            .map(|i| if i % 2 == 0 { 0.0 } else { -0.0 })
            .collect(),
    ];
    check("unusual", &rows, vocab + 3, &[21; 10]);
    check("unusual", &rows, vocab, &[3, 2, 1, 0, 4, 3, 2, 1, 0, 5]);
}
