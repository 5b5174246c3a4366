//! Next-token distributions of a backend against the reference's over a text.

use super::divergence::Collector;
use crate::backend::{Ask, Backend, BackendError, NewTokens, NoTrace, PAGE_TOKENS, Row};

/// Tokens whose logits are held at a time: 100 of a vocabulary of 262,144 are 100 MB.
const PIECE: usize = 100;

/// Runs `tokens` as sequences of `chunk` tokens through both, `step` tokens at a time on `subject`,
/// and collects every position. Both need pages for `chunk` tokens.
pub fn collect(
    subject: &mut dyn Backend,
    reference: &mut dyn Backend,
    tokens: &[u32],
    chunk: usize,
    step: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<Collector, BackendError> {
    let vocab = subject.model().vocab();
    let mut collector = Collector::default();
    for sequence in tokens.chunks(chunk.max(1)) {
        for (index, piece) in sequence.chunks(PIECE).enumerate() {
            let start = index * PIECE;
            let expected = logits(reference, piece, start)?;
            let mut found = Vec::with_capacity(expected.len());
            for (index, part) in piece.chunks(step.max(1)).enumerate() {
                found.extend(logits(subject, part, start + index * step.max(1))?);
            }
            let rows = expected.chunks_exact(vocab).zip(found.chunks_exact(vocab));
            rows.for_each(|(expected, found)| collector.add(expected, found));
            progress(piece.len());
        }
    }
    Ok(collector)
}

fn logits(
    backend: &mut dyn Backend,
    tokens: &[u32],
    start: usize,
) -> Result<Vec<f32>, BackendError> {
    let n_pages = (start + tokens.len()).div_ceil(PAGE_TOKENS) as u32;
    let pages: Vec<u32> = (0..n_pages).collect();
    let row = Row {
        tokens: NewTokens::Known(tokens),
        start,
        pages: &pages,
        ask: Ask::ALL_LOGITS,
    };
    let mut logits = Vec::new();
    for result in backend.step(&[row], &mut NoTrace)? {
        logits = result?.logits;
    }
    Ok(logits)
}
