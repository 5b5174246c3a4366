//! Tests of `ops/adjust_logits.rs`: every bit as by the arithmetic of `host/sampling`.

use kernels_gpu::abi::{
    ADJUST_BLOCK_LOGITS, ADJUST_THREADS, AdjustLogitsParams, DevicePtr, LogitEntry, NO_BIAS,
    NO_MASK, RowAdjustment,
};
use kernels_gpu::ops::adjust_logits::ADJUST_LOGITS;

use crate::harness::{Case, Random, Shape};

/// What there is to adjust.
#[derive(Default)]
pub struct Adjustments {
    pub rows: Vec<RowAdjustment>,
    pub entries: Vec<LogitEntry>,
    pub masks: Vec<u32>,
}

/// The parts of a row's adjustment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Nothing,
    Mask,
    List,
    Both,
    Forbidden,
}

pub const KINDS: [Kind; 5] = [
    Kind::Nothing,
    Kind::Mask,
    Kind::List,
    Kind::Both,
    Kind::Forbidden,
];

impl Adjustments {
    /// One more row, for `vocab` tokens.
    pub fn push(&mut self, kind: Kind, vocab: usize, random: &mut Random) {
        let mut row = RowAdjustment::NONE;
        if kind != Kind::Nothing && kind != Kind::List {
            row.mask = self.masks.len() as u32;
            let word = |_| match kind {
                Kind::Forbidden => 0,
                _ => random.bits() as u32 | random.bits() as u32,
            };
            self.masks.extend((0..vocab.div_ceil(32)).map(word));
        }
        row.begin = self.entries.len() as u32;
        if kind == Kind::List || kind == Kind::Both {
            row.repeat = [1.0, 1.3, 0.7, 1e6][random.below(4)];
            row.presence = [0.0, 0.5, -1e6][random.below(3)];
            row.frequency = [0.0, 0.1, 1e6][random.below(3)];
            self.push_entries(vocab, random);
        }
        row.end = self.entries.len() as u32;
        self.rows.push(row);
    }

    /// Tokens in any order, some of them several times and one outside of the vocabulary.
    fn push_entries(&mut self, vocab: usize, random: &mut Random) {
        let mut tokens: Vec<u32> = (0..vocab as u32).collect();
        for i in 0..vocab {
            tokens.swap(i, random.below(vocab));
        }
        tokens.truncate(1 + random.below(vocab.min(700)));
        tokens.insert(tokens.len() / 2, vocab as u32);
        for token in tokens {
            for _ in 0..1 + random.below(9) / 7 {
                let biases = [NO_BIAS, 0.0, 1.5, -2.5, f32::MAX, -1e6, f32::NEG_INFINITY];
                self.entries.push(LogitEntry {
                    token,
                    bias: biases[random.below(biases.len())],
                    count: [0, 0, 1, 2, 77][random.below(5)],
                    original: f32::NAN,
                });
            }
        }
    }

    /// The row `index` of logits as `host/sampling` would make it.
    pub fn adjusted(&self, index: usize, logits: &[f32]) -> Vec<f32> {
        let row = &self.rows[index];
        let is_allowed = |token: usize| {
            row.mask == NO_MASK
                || self.masks[row.mask as usize + token / 32] >> (token % 32) & 1 == 1
        };
        let masked = logits.iter().enumerate().map(|(token, &logit)| {
            if !logit.is_finite() {
                f32::NAN
            } else if is_allowed(token) {
                logit
            } else {
                f32::NEG_INFINITY
            }
        });
        let mut adjusted: Vec<f32> = masked.collect();
        for entry in &self.entries[row.begin as usize..row.end as usize] {
            if let Some(logit) = adjusted.get_mut(entry.token as usize) {
                *logit = with_entry(*logit, entry, row);
            }
        }
        adjusted
    }
}

fn with_entry(logit: f32, entry: &LogitEntry, row: &RowAdjustment) -> f32 {
    let saturated = |logit: f32, changed: f32| match logit {
        f32::NEG_INFINITY => logit,
        _ => changed.clamp(f32::MIN, f32::MAX),
    };
    if logit.is_nan() {
        return logit;
    }
    let biased = match entry.bias {
        f32::NEG_INFINITY => f32::NEG_INFINITY,
        bias => saturated(logit, logit + bias),
    };
    if entry.count == 0 {
        return biased;
    }
    let scaled = match biased > 0.0 {
        true => biased / row.repeat,
        false => biased * row.repeat,
    };
    let frequency = entry.count as f32 * row.frequency;
    saturated(biased, scaled - frequency - row.presence)
}

/// Bits, those of all NaNs alike.
pub fn bits(logits: &[f32]) -> Vec<u32> {
    let bits = |x: &f32| if x.is_nan() { u32::MAX } else { x.to_bits() };
    logits.iter().map(bits).collect()
}

fn check(name: &str, logits: &[f32], (vocab, stride): (usize, usize), adjustments: &Adjustments) {
    let rows = adjustments.rows.len();
    let mut case = Case::new(format!(
        "adjust, {name}, {rows} rows of {vocab} in {stride}"
    ));
    let found = case.in_out("logits", logits);
    let entries = match adjustments.entries.as_slice() {
        [] => DevicePtr::NULL,
        entries => case.in_out("entries", entries),
    };
    let params = AdjustLogitsParams {
        logits: found,
        rows: case.input("rows", &adjustments.rows),
        entries,
        masks: match adjustments.masks.as_slice() {
            [] => DevicePtr::NULL,
            masks => case.input("masks", masks),
        },
        vocab: vocab as u32,
        stride: stride as u32,
    };
    let blocks = (vocab as u32).div_ceil(ADJUST_BLOCK_LOGITS);
    let shape = Shape::new([blocks, rows as u32, 1], ADJUST_THREADS);
    case.launch(&ADJUST_LOGITS, shape, params);
    let found = case.read(found);
    let pairs = logits.chunks(stride).zip(found.chunks(stride));
    for (index, (before, after)) in pairs.enumerate() {
        let mut expected = adjustments.adjusted(index, &before[..vocab]);
        expected.extend_from_slice(&before[vocab..]);
        assert_eq!(bits(after), bits(&expected), "{name}, row {index}");
    }
    if entries.is_null() {
        return;
    }
    let entries = case.read(entries);
    for (row, logits) in adjustments.rows.iter().zip(logits.chunks(stride)) {
        let range = row.begin as usize..row.end as usize;
        let pairs = entries[range.clone()]
            .iter()
            .zip(&adjustments.entries[range]);
        for (after, before) in pairs {
            let logit = logits[..vocab].get(before.token as usize);
            let original = *logit.unwrap_or(&before.original);
            assert_eq!(bits(&[after.original]), bits(&[original]), "{name}");
            assert_eq!(after.token, before.token);
            assert_eq!(
                (after.bias.to_bits(), after.count),
                (before.bias.to_bits(), before.count)
            );
        }
    }
}

#[test]
fn rows_of_every_kind() {
    for (vocab, stride) in [(1, 1), (31, 33), (1000, 1000), (1025, 1028), (5003, 5009)] {
        let mut random = Random::new(vocab as u64);
        let mut adjustments = Adjustments::default();
        for kind in KINDS.into_iter().cycle().take(15) {
            adjustments.push(kind, vocab, &mut random);
        }
        let mut logits = random.floats(stride * adjustments.rows.len(), 30.0);
        let unusual = [
            f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::MAX,
            f32::MIN,
            0.0,
            -0.0,
            1e-45,
        ];
        for logit in &mut logits {
            if random.below(8) == 0 {
                *logit = unusual[random.below(unusual.len())];
            }
        }
        check("every kind", &logits, (vocab, stride), &adjustments);
    }
}

/// One kind alone, so that buffers may be missing.
#[test]
fn one_kind_at_a_time() {
    for kind in KINDS {
        let (vocab, mut random) = (2050, Random::new(3));
        let mut adjustments = Adjustments::default();
        adjustments.push(kind, vocab, &mut random);
        let logits = random.floats(vocab, 10.0);
        check(&format!("{kind:?}"), &logits, (vocab, vocab), &adjustments);
    }
}
