//! Steps that the backend sends before they are asked for: what comes of them, and of those that are dropped.

use hyperion::backend::{ActivationPrecision, Ask, Backend, NoTrace, Output, Row};
use hyperion::gpu::GpuBackend;
use hyperion::sampling::argmax;

use crate::setup::*;

/// A sequence, on as many of its pages as it has come to.
struct Writer {
    tokens: Vec<u32>,
    pages: [u32; 2],
}

impl Writer {
    fn step(&self, first: usize, ask: Ask) -> Row<'_> {
        Row {
            tokens: &self.tokens[first..],
            start: first,
            pages: &self.pages[..self.tokens.len().div_ceil(64)],
            ask: want,
        }
    }
}

/// A backend whose every token is chosen by `want`: on the device, or here from logits.
struct Run {
    backend: GpuBackend,
    ask: Ask,
    chosen: Vec<u32>,
}

impl Run {
    fn start(&mut self, tokens: Vec<u32>, pages: [u32; 2]) -> Writer {
        let mut writer = Writer { tokens, pages };
        self.step(&mut [&mut writer], |_| 0);
        writer
    }

    /// A step of one more token of each of `writers`, which get the tokens that it chooses.
    fn decode(&mut self, writers: &mut [&mut Writer]) {
        self.step(writers, |writer| writer.tokens.len() - 1);
    }

    fn step(&mut self, writers: &mut [&mut Writer], first: impl Fn(&Writer) -> usize) {
        let steps: Vec<_> = writers
            .iter()
            .map(|writer| writer.step(first(writer), self.want))
            .collect();
        let outputs = self.backend.step(&steps, &mut NoTrace).expect("a step");
        for (writer, output) in writers.iter_mut().zip(outputs) {
            let token = match output {
                Output::Token(token) => token,
                output => argmax(&logits(output)),
            };
            writer.tokens.push(token);
            self.chosen.push(token);
        }
    }
}

/// Two texts, one of which goes over the end of a page, with everything in between that makes a step sent ahead
/// one that nobody asked for.
fn tokens(ask: Ask, name: &str) -> Vec<u32> {
    let model = model(name);
    let mut run = Run {
        backend: gpu(&model, ActivationPrecision::F16),
        ask: want,
        chosen: Vec::new(),
    };
    let vocab = model.vocab();
    let mut one = run.start(text(1, 57, vocab), [3, 17]);
    let mut two = run.start(text(2, 5, vocab), [20, 4]);
    for _ in 0..9 {
        run.decode(&mut [&mut one, &mut two]);
    }
    // Another token than the one that was chosen.
    let last = one.tokens.len() - 1;
    one.tokens[last] = (one.tokens[last] + 1) % vocab as u32;
    for _ in 0..5 {
        run.decode(&mut [&mut one, &mut two]);
    }
    // The same step once more.
    let again = two.tokens.pop().expect("a token");
    run.decode(&mut [&mut one, &mut two]);
    assert_eq!(two.tokens.last(), Some(&again));
    // One ends, and its pages become another's.
    for _ in 0..5 {
        run.decode(&mut [&mut one]);
    }
    let mut three = run.start(text(3, 60, vocab), two.pages);
    for _ in 0..4 {
        run.decode(&mut [&mut one, &mut three]);
    }
    // In another order.
    for _ in 0..4 {
        run.decode(&mut [&mut three, &mut one]);
    }
    run.chosen
}

#[test]
fn steps_sent_ahead_change_nothing() {
    let _lock = device_lock();
    for name in ["tiny-llama-q4_0-2", "tiny-qwen2-f16-1"] {
        let ours = tokens(Ask::GREEDY, name);
        assert_eq!(ours, tokens(Ask::LOGITS, name), "{name}");
    }
}
