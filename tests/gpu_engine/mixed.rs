//! Steps of tokens and prompt chunks in any order, and steps of as many rows as there may be.

use hyperion::backend::{
    ActivationPrecision, Ask, Backend, NewTokens, NoTrace, PAGE_TOKENS, PageId, Row, TraceSink,
};
use hyperion::cpu::CpuBackend;
use hyperion::gpu::Limits;
use hyperion::sampling::argmax;

use crate::setup::*;
use crate::support::relative_error;

/// What a sequence takes part with in the step: `n` tokens behind `start` others.
struct Part {
    text: Vec<u32>,
    start: usize,
    pages: Vec<PageId>,
}

impl Part {
    fn row(&self, ask: Ask<'static>) -> Row<'_> {
        Row {
            tokens: NewTokens::Known(&self.text[self.start..]),
            start: self.start,
            pages: &self.pages,
            ask,
        }
    }
}

/// Tokens before the step, and in it. Contexts of more than 4 pages are shared among blocks where they decode; chunks
/// go over the end of a page, begin behind a long context or at nothing.
const PARTS: [(usize, usize); 6] = [(330, 1), (50, 40), (5, 1), (300, 2), (0, 17), (64, 1)];
const ORDERS: [[usize; 6]; 3] = [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [3, 0, 4, 5, 1, 2]];
const LONG: Limits = Limits {
    context: 384,
    n_pages: 20,
    max_tokens: 128,
    max_sequences: 6,
};

fn parts(vocab: usize) -> Vec<Part> {
    let mut pages = (0..LONG.n_pages).map(|i| (i * 7 % LONG.n_pages) as PageId);
    let mut part = |s: usize, (start, n): (usize, usize)| Part {
        text: text(s, start + n, vocab),
        start,
        pages: pages
            .by_ref()
            .take((start + n).div_ceil(PAGE_TOKENS))
            .collect(),
    };
    let parts = PARTS.into_iter().enumerate();
    parts.map(|(s, shape)| part(s, shape)).collect()
}

/// Brings what is before the step into the cache.
fn prepare(backend: &mut dyn Backend, parts: &[Part], sink: &mut dyn TraceSink) {
    for part in parts {
        for start in (0..part.start).step_by(LONG.max_tokens) {
            let end = part.start.min(start + LONG.max_tokens);
            let row = Row {
                tokens: NewTokens::Known(&part.text[start..end]),
                start,
                ..part.row(Ask::NOTHING)
            };
            backend.step(&[row], sink).expect("a chunk");
        }
    }
}

/// The logits of all tokens of the parts in `order`, each at the place of its part.
fn step(
    backend: &mut dyn Backend,
    parts: &[Part],
    order: &[usize],
    sink: &mut dyn TraceSink,
) -> Vec<Vec<f32>> {
    let rows: Vec<Row<'_>> = order
        .iter()
        .map(|&i| parts[i].row(Ask::ALL_LOGITS))
        .collect();
    let outputs = sound(backend.step(&rows, sink).expect("a step"));
    let mut placed: Vec<(usize, Vec<f32>)> = order
        .iter()
        .copied()
        .zip(outputs.into_iter().map(logits))
        .collect();
    placed.sort_by_key(|&(part, _)| part);
    placed.into_iter().map(|(_, logits)| logits).collect()
}

#[test]
fn tokens_and_chunks_in_any_order_get_what_they_get_alone() {
    let _lock = device_lock();
    for name in [
        "tiny-llama-q4_k_m-1",
        "tiny-qwen2-f16-1",
        "tiny-gemma3-q4_k_m-1",
    ] {
        let model = model(name);
        let vocab = model.vocab();
        let parts = parts(vocab);
        let on_cpu = |sink: &mut dyn TraceSink| {
            let mut backend = CpuBackend::new(model.clone(), LONG.n_pages);
            prepare(&mut backend, &parts, sink);
            step(&mut backend, &parts, &ORDERS[0], sink).concat()
        };
        let expected = on_cpu(&mut NoTrace);
        let rounded = on_cpu(&mut RoundToF16::default());
        let mut gpu = gpu_within(&model, ActivationPrecision::F16, LONG);
        prepare(&mut gpu, &parts, &mut NoTrace);
        let ours = step(&mut gpu, &parts, &ORDERS[0], &mut NoTrace).concat();

        let n_tokens = ours.len() / vocab;
        assert_eq!(n_tokens, PARTS.iter().map(|&(_, n)| n).sum::<usize>());
        let of = |values: &[f32], t: usize| values[t * vocab..][..vocab].to_vec();
        let bounds: Vec<f64> = (0..n_tokens)
            .map(|t| bound(&of(&expected, t), &of(&rounded, t)))
            .collect();
        let shares = |found: &[f32], expected: &[f32]| -> Vec<f64> {
            let error = |t| relative_error(&of(found, t), &of(expected, t));
            (0..n_tokens).map(|t| error(t) / bounds[t]).collect()
        };
        assert_close(&shares(&ours, &expected), name);
        // Alone, decode rows take other kernels for their products.
        let alone = (0..parts.len()).flat_map(|part| {
            let own = &parts[part..=part];
            step(&mut gpu, own, &[0], &mut NoTrace).concat()
        });
        let alone: Vec<f32> = alone.collect();
        assert_close(&shares(&alone, &ours), &format!("{name}, each alone"));
        for order in &ORDERS[1..] {
            let again = step(&mut gpu, &parts, order, &mut NoTrace).concat();
            assert!(again == ours, "{name}: the order {order:?} matters");
        }

        // Tokens chosen on the device, where the gap is larger than the bound.
        let mut compared = 0;
        for order in ORDERS {
            let rows = order.map(|part| parts[part].row(Ask::GREEDY));
            let outputs = sound(gpu.step(&rows, &mut NoTrace).expect("a step"));
            for (part, output) in order.into_iter().zip(outputs) {
                let last = PARTS[..=part].iter().map(|&(_, n)| n).sum::<usize>() - 1;
                let expected = of(&expected, last);
                if gap(&expected) > bounds[last] * norm(&expected) {
                    let likeliest = token(argmax(&expected));
                    assert_eq!(output, likeliest, "{name}: {order:?}, part {part}");
                    compared += 1;
                }
            }
        }
        assert!(compared >= 9, "{name}: {compared} tokens were compared");
    }
}

/// Distance of the best logit to the second one.
fn gap(logits: &[f32]) -> f64 {
    let mut order = logits.to_vec();
    order.sort_by(|a, b| b.total_cmp(a));
    f64::from(order[0] - order[1])
}

fn norm(logits: &[f32]) -> f64 {
    let squares = logits.iter().map(|&x| f64::from(x).powi(2));
    squares.sum::<f64>().sqrt()
}

/// On either side of what some kernels take at a time, and as many as there may be.
#[test]
fn steps_of_up_to_256_rows() {
    const MOST: usize = 256;
    let _lock = device_lock();
    let limits = Limits {
        context: PAGE_TOKENS,
        n_pages: MOST,
        max_tokens: 2 * MOST,
        max_sequences: MOST,
    };
    let model = small_model();
    let prompt = |s: usize| 1 + s % 3;
    let texts: Vec<Vec<u32>> = (0..MOST)
        .map(|s| text(s, prompt(s) + 1, model.vocab()))
        .collect();
    let pages: Vec<PageId> = (0..MOST).map(|s| (s * 11 % MOST) as PageId).collect();
    // All prompts in one step, and a token each of the first `n` sequences.
    let rows = |n: usize, start: bool, ask: Ask<'static>| -> Vec<Row<'_>> {
        let row = |s: usize| Row {
            tokens: NewTokens::Known(match start {
                true => &texts[s][..prompt(s)],
                false => &texts[s][prompt(s)..],
            }),
            start: if start { 0 } else { prompt(s) },
            pages: &pages[s..=s],
            ask,
        };
        (0..n).map(row).collect()
    };
    let run = |backend: &mut dyn Backend, rows: &[Row<'_>], sink: &mut dyn TraceSink| {
        let outputs = sound(backend.step(rows, sink).expect("a step"));
        outputs.into_iter().map(logits).collect::<Vec<_>>()
    };
    let cpu = || CpuBackend::new(model.clone(), MOST);
    let (mut exact, mut rounding) = (cpu(), cpu());
    let mut gpu = gpu_within(&model, ActivationPrecision::F16, limits);
    for (n, start) in [(MOST, true), (65, false), (129, false), (MOST, false)] {
        let rows_of = |ask| rows(n, start, ask);
        let asking = rows_of(Ask::LOGITS);
        let expected = run(&mut exact, &asking, &mut NoTrace);
        let rounded = run(&mut rounding, &asking, &mut RoundToF16::default());
        let ours = run(&mut gpu, &asking, &mut NoTrace);
        assert_eq!(ours.len(), n);
        let shares: Vec<f64> = (0..n)
            .map(|s| share_of_bound(&ours[s], &expected[s], &rounded[s]))
            .collect();
        assert_close(&shares, &format!("{n} rows, prompts: {start}"));
        let greedy = gpu.step(&rows_of(Ask::GREEDY), &mut NoTrace);
        for (s, output) in sound(greedy.expect("a step")).into_iter().enumerate() {
            assert_eq!(output, token(argmax(&ours[s])), "row {s} of {n}");
        }
    }
}
