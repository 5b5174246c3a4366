//! On the CPU a token's logits have the same bits in every step: alone, beside others, in a chunk of any size; in the
//! reference and on the fast path.

mod support;

use std::sync::Arc;

use hyperion::backend::{Ask, Backend, NewTokens, NoTrace, PageId, Row};
use hyperion::cpu::CpuBackend;
use hyperion::model::Model;
use support::{TINY_MODELS, fixture};

/// A way to make a backend.
type Make = fn(Arc<Model>, usize) -> CpuBackend;

const BOTH: [(&str, Make); 2] = [("reference", CpuBackend::new), ("fast", CpuBackend::fast)];

/// Each tiny model on each of them, alone.
fn all_alone() -> impl Iterator<Item = Alone> {
    let pairs = TINY_MODELS
        .iter()
        .flat_map(|&name| BOTH.map(|way| (name, way)));
    pairs.map(|(name, way)| Alone::of(name, way))
}

/// Into the third page.
const LENGTH: usize = 132;
const PAGES: [PageId; 3] = [5, 0, 9];

fn text(sequence: usize, length: usize, vocab: usize) -> Vec<u32> {
    let token = |i: usize| ((i * 53 + sequence * 97 + 7) % vocab) as u32;
    (0..length).map(token).collect()
}

fn row<'a>(tokens: &'a [u32], start: usize, pages: &'a [PageId]) -> Row<'a> {
    Row {
        tokens: NewTokens::Known(tokens),
        start,
        pages,
        ask: Ask::ALL_LOGITS,
    }
}

/// The bits of the logits of each token of each row.
fn step(backend: &mut CpuBackend, rows: &[Row<'_>]) -> Vec<Vec<Vec<u32>>> {
    let vocab = backend.model().vocab();
    let results = backend.step(rows, &mut NoTrace).expect("a step");
    let bits = |logits: &[f32]| logits.iter().map(|logit| logit.to_bits()).collect();
    let rows = results.into_iter().map(|result| {
        let logits = result.expect("an output").logits;
        logits.chunks_exact(vocab).map(bits).collect()
    });
    rows.collect()
}

/// A model, a text, and the bits of its tokens' logits where each is a step of its own.
struct Alone {
    name: String,
    make: Make,
    model: Arc<Model>,
    text: Vec<u32>,
    bits: Vec<Vec<u32>>,
}

impl Alone {
    fn of(name: &str, (way, make): (&str, Make)) -> Alone {
        let path = fixture(&format!("tiny/{name}.gguf"));
        let model = Arc::new(Model::open(&path).expect("a model"));
        let text = text(0, LENGTH, model.vocab());
        let mut backend = make(model.clone(), 32);
        let bits = (0..LENGTH).flat_map(|at| {
            let row = row(&text[at..at + 1], at, &PAGES);
            step(&mut backend, &[row]).remove(0)
        });
        Alone {
            name: format!("{name}, {way}"),
            make,
            bits: bits.collect(),
            model,
            text,
        }
    }

    /// A backend that has the text's first `n` tokens, as one chunk.
    fn with(&self, n: usize) -> CpuBackend {
        let mut backend = (self.make)(self.model.clone(), 32);
        if n > 0 {
            step(&mut backend, &[row(&self.text[..n], 0, &PAGES)]);
        }
        backend
    }

    #[track_caller]
    fn assert_same(&self, first: usize, found: &[Vec<u32>], what: &str) {
        for (at, found) in found.iter().enumerate() {
            let at = first + at;
            assert!(
                *found == self.bits[at],
                "{}, {what}: token {at} has other logits than alone",
                self.name
            );
        }
    }
}

#[test]
fn in_chunks_of_any_size() {
    for alone in all_alone() {
        for chunk in [2, 3, 7, 8, 31, 64, 65, LENGTH] {
            let mut backend = alone.with(0);
            for (index, tokens) in alone.text.chunks(chunk).enumerate() {
                let first = index * chunk;
                let found = step(&mut backend, &[row(tokens, first, &PAGES)]).remove(0);
                alone.assert_same(first, &found, &format!("chunks of {chunk}"));
            }
        }
    }
}

#[test]
fn beside_seven_others() {
    // Behind as many tokens the others have one more, whose pages are 10 and the next ones.
    const OTHERS: [usize; 7] = [0, 1, 5, 30, 63, 64, 100];
    let pages: Vec<[PageId; 2]> = (0..7).map(|i| [10 + 2 * i, 11 + 2 * i]).collect();
    for alone in all_alone() {
        let vocab = alone.model.vocab();
        let others: Vec<Vec<u32>> = (0..7).map(|i| text(1 + i, OTHERS[i] + 1, vocab)).collect();
        // Before, on and after a page's border.
        for at in [0, 1, 63, 64, 65, LENGTH - 1] {
            let mut backend = alone.with(at);
            let rows_of = |before: bool| {
                let others = others.iter().zip(&pages).zip(OTHERS);
                let rows = others.map(move |((tokens, pages), n)| match before {
                    true => row(&tokens[..n], 0, pages),
                    false => row(&tokens[n..], n, pages),
                });
                rows.filter(|row| row.tokens.len() > 0)
            };
            step(&mut backend, &rows_of(true).collect::<Vec<_>>());
            for place in [0, 3, 7] {
                let mut rows: Vec<Row<'_>> = rows_of(false).collect();
                rows.insert(place, row(&alone.text[at..at + 1], at, &PAGES));
                let found = step(&mut backend, &rows).remove(place);
                alone.assert_same(at, &found, &format!("as row {place} of 8"));
            }
        }
    }
}

#[test]
fn in_a_step_of_chunks_and_tokens() {
    for alone in all_alone() {
        let others: Vec<Vec<u32>> = (0..3)
            .map(|i| text(1 + i, 80, alone.model.vocab()))
            .collect();
        for (first, end) in [(64, 65), (60, 70), (0, 33), (100, LENGTH)] {
            let mut backend = alone.with(first);
            step(&mut backend, &[row(&others[0][..40], 0, &[10, 11])]);
            let ours = row(&alone.text[first..end], first, &PAGES);
            let mut rows = vec![
                row(&others[0][40..41], 40, &[10, 11]),
                row(&others[1][..70], 0, &[12, 13]),
                row(&others[2][..1], 0, &[14]),
            ];
            rows.insert(2, ours);
            for place in [2, 1] {
                let found = step(&mut backend, &rows).remove(place);
                alone.assert_same(first, &found, "beside chunks and tokens");
                rows.swap(1, 2);
            }
        }
    }
}
