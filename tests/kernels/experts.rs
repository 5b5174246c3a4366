//! Tests of `ops/router.rs`, `choose_experts.rs`, `group_pairs.rs`, `gather_rows.rs` and `combine_experts.rs`.

use kernels_gpu::abi::{
    CHOOSE_EXPERTS_THREADS, COMBINE_THREADS, ChooseExpertsParams, CombineParams, DevicePtr,
    GATHER_ROWS_THREADS, GROUP_PAIRS_THREADS, GatherRowsParams, GroupPairsParams, MAX_EXPERTS,
    ROUTER_THREADS, RouterParams,
};
use kernels_gpu::ops::choose_experts::CHOOSE_EXPERTS;
use kernels_gpu::ops::combine_experts::COMBINE_EXPERTS;
use kernels_gpu::ops::gather_rows::GATHER_ROWS;
use kernels_gpu::ops::group_pairs::GROUP_PAIRS;
use kernels_gpu::ops::router::ROUTER_SCORES;

use crate::harness::{Case, Random, Shape, Tolerance, widen};

const EPSILON: f32 = 1e-5;
const LEAST_SUM: f32 = 6.103_515_6e-5;

/// Experts of pairs: each token takes `used` different ones.
pub fn experts_of_pairs(
    tokens: usize,
    used: usize,
    experts: usize,
    random: &mut Random,
) -> Vec<u32> {
    let of_token = |random: &mut Random| {
        let mut all: Vec<u32> = (0..experts as u32).collect();
        (0..used)
            .map(|_| all.swap_remove(random.below(all.len())))
            .collect::<Vec<u32>>()
    };
    (0..tokens).flat_map(|_| of_token(random)).collect()
}

#[test]
fn scores_of_a_router() {
    // A row of blocks for each token, or for several; rows of less than one part, one, and more.
    for (tokens, rows, experts, n_in, has_shared) in [
        (1, 1, 1, 4, false),
        (3, 3, 5, 96, true),
        (2, 2, 128, 2048, false),
        (4, 4, 8, 132, true),
        (1, 1, 33, 260, false),
        (2, 2, 9, 1024, true),
        (7, 3, 9, 2048, true),
        (5, 2, 9, 4224, false),
    ] {
        let mut random = Random::new((experts * n_in) as u64);
        let x = random.floats(tokens * n_in, 30.0);
        let norm = random.floats(n_in, 2.0);
        let router = random.floats(experts * n_in, 0.1);
        let gate = random.floats(n_in, 0.1);
        let mut case = Case::new(format!("router, {tokens} tokens, {experts} of {n_in}"));
        let scores = case.output("scores", tokens * experts);
        let shared = case.in_out("shared", &vec![7f32; tokens]);
        let null = DevicePtr::NULL;
        let params = RouterParams {
            x: case.input("x", &x),
            norm_weight: case.input("norm", &norm),
            router: case.input("router", &router),
            shared_gate: if has_shared {
                case.input("gate", &gate)
            } else {
                null
            },
            scores,
            shared: if has_shared { shared } else { null },
            n_in: n_in as u32,
            experts: experts as u32,
            tokens: tokens as u32,
            epsilon: EPSILON,
            reserved: [0; 2],
        };
        let warps = experts as u32 + u32::from(has_shared);
        let blocks = warps.div_ceil(ROUTER_THREADS / 32);
        let shape = Shape::new([blocks, rows, 1], ROUTER_THREADS);
        case.launch(&ROUTER_SCORES, shape, params);

        let (mut largest, mut expected, mut gates) = (0f64, Vec::new(), Vec::new());
        for x in widen(&x).chunks_exact(n_in) {
            let square = x.iter().map(|x| x * x).sum::<f64>() / n_in as f64;
            let scale = 1.0 / (square + f64::from(EPSILON)).sqrt();
            let mut product = |row: &[f32]| {
                let terms = row.iter().zip(x).zip(&norm);
                let terms =
                    terms.map(|((&w, x), &norm)| f64::from(w) * x * f64::from(norm) * scale);
                largest = largest.max(terms.clone().map(f64::abs).sum());
                terms.sum::<f64>()
            };
            expected.extend(router.chunks_exact(n_in).map(&mut product));
            gates.push(match has_shared {
                true => 1.0 / (1.0 + (-product(&gate)).exp()),
                false => 7.0,
            });
        }
        let tolerance = Tolerance {
            relative: 1e-6,
            absolute: 3e-7 * largest,
            reason: "f32 sums, whose roundings mostly cancel",
        };
        case.check(scores, &expected, tolerance);
        case.check(shared, &gates, tolerance);
    }
}

/// Chooses among the scores of `tokens`, `[tokens, experts]`, and compares with a sort.
pub fn check_choice(name: &str, scores: &[f32], experts: usize, used: usize, normalizes: bool) {
    let tokens = scores.len() / experts;
    let mut case = Case::new(format!(
        "{name}, {used} of {experts} for {tokens} tokens, {normalizes}"
    ));
    let ids = case.output::<u32>("ids", tokens * used);
    let weights = case.output::<f32>("weights", tokens * used);
    let params = ChooseExpertsParams {
        scores: case.input("scores", scores),
        ids,
        weights,
        experts: experts as u32,
        used: used as u32,
        normalizes: normalizes.into(),
        least_sum: LEAST_SUM,
        reserved: [0; 2],
    };
    let shape = Shape::new([tokens as u32, 1, 1], CHOOSE_EXPERTS_THREADS);
    case.launch(&CHOOSE_EXPERTS, shape, params);

    let (mut expected_ids, mut expected) = (Vec::new(), Vec::new());
    for scores in scores.chunks_exact(experts) {
        let key = |&index: &u32| match scores[index as usize] {
            score if score.is_nan() => f64::NEG_INFINITY,
            score => f64::from(score),
        };
        let mut order: Vec<u32> = (0..experts as u32).collect();
        order.sort_by(|a, b| key(b).partial_cmp(&key(a)).expect("numbers").then(a.cmp(b)));
        order.truncate(used);
        let largest = f64::from(scores[order[0] as usize]);
        let exponential = |&score: &f32| (f64::from(score) - largest).exp();
        let all: f64 = scores.iter().map(exponential).sum();
        let chosen: Vec<f64> = order
            .iter()
            .map(|&id| exponential(&scores[id as usize]) / all)
            .collect();
        let sum = match chosen.iter().sum::<f64>() {
            sum if sum < f64::from(LEAST_SUM) => f64::from(LEAST_SUM),
            sum => sum,
        };
        let by = if normalizes { sum } else { 1.0 };
        expected.extend(chosen.iter().map(|weight| weight / by));
        expected_ids.extend(order);
    }
    assert_eq!(case.read(ids), expected_ids, "{name}");
    let tolerance = Tolerance {
        relative: 8e-6,
        absolute: 1e-30,
        reason: "2^x of an x up to 60 in f32",
    };
    case.check_broken(weights, &expected, tolerance);
}

#[test]
fn the_best_experts() {
    for (experts, used, tokens) in [
        (1, 1, 1),
        (5, 2, 3),
        (6, 6, 2),
        (64, 1, 2),
        (128, 8, 3),
        (130, 33, 2),
        (256, 8, 2),
        (MAX_EXPERTS as usize, 10, 1),
    ] {
        let scores = Random::new(experts as u64).floats(tokens * experts, 20.0);
        for normalizes in [false, true] {
            check_choice("random", &scores, experts, used, normalizes);
        }
    }
}

#[test]
fn ties_and_scores_that_are_no_numbers() {
    // Nothing but ties; both zeros are one score.
    check_choice("equal", &[0.5; 40], 40, 5, true);
    check_choice("zeros", &[-0.0, 0.0, -0.0, 0.0, -1.0], 5, 3, true);
    let mut scores = Random::new(5).floats(100, 1.0);
    for place in [3, 40, 77, 78] {
        scores[place] = 1.0;
    }
    check_choice("some tie", &scores, 100, 3, true);
    // One far above all others, and chosen ones that hardly count.
    check_choice("far", &[-90.0, 0.0, -100.0, -95.0], 4, 2, true);
    for odd in [f32::NAN, f32::NEG_INFINITY] {
        let mut scores = Random::new(9).floats(12, 1.0);
        scores[7] = odd;
        check_choice(&format!("{odd}"), &scores, 6, 3, true);
    }
    check_choice("nothing but NaN", &[f32::NAN; 6], 6, 2, true);
}

/// Groups the pairs and compares with a stable sort.
pub fn check_groups(name: &str, ids: &[u32], experts: usize) {
    let mut case = Case::new(format!("{name}, {} pairs, {experts} experts", ids.len()));
    let order = case.output::<u32>("order", ids.len());
    let places = case.output::<u32>("places", ids.len());
    let starts = case.output::<u32>("starts", experts + 1);
    let params = GroupPairsParams {
        ids: case.input("ids", ids),
        order,
        places,
        starts,
        pairs: ids.len() as u32,
        experts: experts as u32,
    };
    let shape = Shape::new([experts as u32, 1, 1], GROUP_PAIRS_THREADS);
    case.launch(&GROUP_PAIRS, shape, params);

    let mut expected: Vec<u32> = (0..ids.len() as u32).collect();
    expected.sort_by_key(|&pair| ids[pair as usize]);
    let mut expected_places = vec![0u32; ids.len()];
    for (place, &pair) in expected.iter().enumerate() {
        expected_places[pair as usize] = place as u32;
    }
    let before = |expert: u32| ids.iter().filter(|&&id| id < expert).count() as u32;
    let expected_starts: Vec<u32> = (0..=experts as u32).map(before).collect();
    assert_eq!(case.read(starts), expected_starts, "{name}");
    assert_eq!(case.read(order), expected, "{name}");
    assert_eq!(case.read(places), expected_places, "{name}");
}

#[test]
fn pairs_by_experts() {
    for (tokens, used, experts) in [
        (1, 1, 1),
        (1, 2, 5),
        (100, 3, 5),
        (125, 8, 128),
        (257, 1, 3),
        (70, 6, 6),
    ] {
        let mut random = Random::new((tokens * experts) as u64);
        let ids = experts_of_pairs(tokens, used, experts, &mut random);
        check_groups("random", &ids, experts);
    }
    // All take one, and the others none.
    check_groups("one for all", &[4; 300], 6);
}

#[test]
fn rows_by_experts() {
    for (tokens, used, width, threads) in [
        (1, 1, 8, 32),
        (3, 2, 32, 32),
        (5, 3, 96, 32),
        (2, 8, 2048, GATHER_ROWS_THREADS),
        (4, 1, 2056, GATHER_ROWS_THREADS),
        (7, 4, 264, 64),
    ] {
        let mut random = Random::new(width as u64);
        let x = random.halves(tokens * width, 3.0);
        let pairs = tokens * used;
        let mut rest: Vec<u32> = (0..pairs as u32).collect();
        let order: Vec<u32> = (0..pairs)
            .map(|_| rest.swap_remove(random.below(rest.len())))
            .collect();
        let mut case = Case::new(format!("rows, {tokens} of {width}, {used} each"));
        let y = case.output("y", pairs * width);
        let params = GatherRowsParams {
            x: case.input("x", &x),
            y,
            order: case.input("order", &order),
            width: width as u32,
            used: used as u32,
        };
        let shape = Shape::new([pairs as u32, 1, 1], threads);
        case.launch(&GATHER_ROWS, shape, params);
        let rows = order
            .iter()
            .flat_map(|&pair| &x[pair as usize / used * width..][..width]);
        let expected: Vec<f64> = widen(&rows.copied().collect::<Vec<_>>());
        case.check(y, &expected, Tolerance::EXACT);
    }
}

#[test]
fn parts_are_added() {
    for (tokens, used, width, by_experts, has_shared) in [
        (1, 1, 4, false, false),
        (3, 2, 96, true, false),
        (2, 8, 2048, true, true),
        (5, 3, 1028, false, true),
        (4, 6, 260, true, true),
    ] {
        let mut random = Random::new((tokens * width) as u64);
        let pairs = tokens * used;
        let x = random.floats(tokens * width, 2.0);
        let parts = random.floats(pairs * width, 2.0);
        let weights = random.floats(pairs, 1.0);
        let shared = random.floats(tokens * width, 2.0);
        let shared_weights = random.floats(tokens, 1.0);
        let places: Vec<u32> = match by_experts {
            true => (0..pairs as u32).rev().collect(),
            false => (0..pairs as u32).collect(),
        };
        let mut case = Case::new(format!("combine, {tokens} of {width}, {used} each"));
        let sum = case.in_out("x", &x);
        let mut optional = |given: bool, label: &str, data: &[f32]| match given {
            true => case.input(label, data),
            false => DevicePtr::NULL,
        };
        let params = CombineParams {
            x: sum,
            parts: optional(true, "parts", &parts),
            weights: optional(true, "weights", &weights),
            shared: optional(has_shared, "shared", &shared),
            shared_weights: optional(has_shared, "shared weights", &shared_weights),
            places: match by_experts {
                true => case.input("places", &places),
                false => DevicePtr::NULL,
            },
            width: width as u32,
            used: used as u32,
            reserved: [0; 2],
        };
        let blocks = (width as u32).div_ceil(4 * COMBINE_THREADS);
        let shape = Shape::new([blocks, tokens as u32, 1], COMBINE_THREADS);
        case.launch(&COMBINE_EXPERTS, shape, params);

        let mut expected = widen(&x);
        for (token, row) in expected.chunks_exact_mut(width).enumerate() {
            for (i, value) in row.iter_mut().enumerate() {
                for pair in token * used..(token + 1) * used {
                    let part = parts[places[pair] as usize * width + i];
                    *value += f64::from(weights[pair]) * f64::from(part);
                }
                if has_shared {
                    let part = f64::from(shared[token * width + i]);
                    *value += f64::from(shared_weights[token]) * part;
                }
            }
        }
        let tolerance = Tolerance {
            relative: 1e-6,
            absolute: 2e-6,
            reason: "sums of a few products of up to 2 in f32",
        };
        case.check(sum, &expected, tolerance);
    }
}
