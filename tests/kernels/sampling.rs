//! The kernels from logits to tokens one after the other, as a step launches them, twice.

use kernels_gpu::abi::*;
use kernels_gpu::ops::adjust_logits::ADJUST_LOGITS;
use kernels_gpu::ops::argmax::ARGMAX;
use kernels_gpu::ops::gather_tokens::GATHER_TOKENS;
use kernels_gpu::ops::group_maxima::GROUP_MAXIMA;
use kernels_gpu::ops::logprobs::{CHOSEN_LOGPROB, LOGPROBS};
use kernels_gpu::ops::sample::SAMPLE;
use kernels_gpu::ops::soft_cap::SOFT_CAP;

use crate::adjust_logits::{Adjustments, KINDS};
use crate::choice::Outputs;
use crate::harness::{Case, Random, Shape};
use crate::logprobs::{check_row, old_mailbox};

const CAP: f32 = 30.0;
const ROWS: usize = 10;

/// The buffers of the steps.
struct Steps {
    case: Case,
    outputs: Outputs,
    adjustments: Adjustments,
    vocab: usize,
    logits: DevicePtr<f32>,
    sums: DevicePtr<[f32; 2]>,
    wanted: DevicePtr<u32>,
    posted: DevicePtr<PostedLogprobs>,
    rows: DevicePtr<RowAdjustment>,
    entries: DevicePtr<LogitEntry>,
    masks: DevicePtr<u32>,
}

/// What rows want: nothing, the chosen token's log-probability, or that of some others as well.
const WANTED: [u32; ROWS] = [1, 4, 0, 21, 2, 3, 1, 0, 6, 21];

impl Steps {
    fn new(vocab: usize, draws: bool) -> Self {
        let mut random = Random::new(vocab as u64);
        let mut case = Case::new(format!("steps, {vocab} tokens, draws: {draws}"));
        let mut adjustments = Adjustments::default();
        for row in 0..ROWS {
            adjustments.push(KINDS[row % KINDS.len()], vocab, &mut random);
        }
        let positions: Vec<u32> = (0..ROWS as u32).map(|row| 100 * row).collect();
        let mut logits = random.floats(ROWS * vocab, 60.0);
        // A row of no adjustment whose logits are broken, and one whose mask has forbidden that.
        logits[5 * vocab] = f32::NEG_INFINITY;
        logits[9 * vocab] = f32::NAN;
        Self {
            outputs: Outputs::moving(&mut case, &positions),
            vocab,
            logits: case.in_out("logits", &logits),
            sums: case.output("sums", ROWS),
            wanted: case.input("wanted", &WANTED),
            posted: case.in_out("posted logprobs", &old_mailbox()),
            rows: case.input("rows", &adjustments.rows),
            entries: case.in_out("entries", &adjustments.entries),
            masks: case.input("masks", &adjustments.masks),
            adjustments,
            case,
        }
    }

    /// From the soft cap to the adjusted logits; those before the adjustments come back.
    fn prepare(&self) -> Vec<f32> {
        let (vocab, stride) = (self.vocab as u32, self.vocab as u32);
        let (case, rows) = (&self.case, ROWS as u32);
        let params = SoftCapParams {
            logits: self.logits,
            vocab,
            stride,
            cap: CAP,
            reserved: 0,
        };
        let blocks = vocab.div_ceil(SOFT_CAP_THREADS);
        case.launch(
            &SOFT_CAP,
            Shape::new([blocks, rows, 1], SOFT_CAP_THREADS),
            params,
        );
        let capped = case.read(self.logits);
        let params = LogprobsParams {
            logits: self.logits,
            wanted: self.wanted,
            sums: self.sums,
            turns: self.outputs.params.turns,
            posted: self.posted,
            vocab,
            stride,
        };
        case.launch(
            &LOGPROBS,
            Shape::new([rows, 1, 1], LOGPROBS_THREADS),
            params,
        );
        let params = AdjustLogitsParams {
            logits: self.logits,
            rows: self.rows,
            entries: self.entries,
            masks: self.masks,
            vocab,
            stride,
        };
        let blocks = vocab.div_ceil(ADJUST_BLOCK_LOGITS);
        case.launch(
            &ADJUST_LOGITS,
            Shape::new([blocks, rows, 1], ADJUST_THREADS),
            params,
        );
        capped
    }

    fn choose(&mut self, draws: bool) -> Vec<u32> {
        let (vocab, stride) = (self.vocab as u32, self.vocab as u32);
        let (outputs, rows) = (self.outputs.params, ROWS as u32);
        if draws {
            // Little is kept, so that the likeliest token is the only one.
            let settings = SampleSettings {
                temperature: 1.0,
                top_k: 1,
                top_p: 1.0,
                min_p: 0.0,
                seed: [1, 2],
            };
            let groups = vocab.div_ceil(GROUP_LOGITS);
            let maxima = self.case.output("maxima", ROWS * groups as usize);
            let params = GroupMaximaParams {
                logits: self.logits,
                maxima,
                vocab,
                stride,
                forbids: 1,
                reserved: 0,
            };
            let blocks = groups.div_ceil(GROUP_THREADS / 32);
            let shape = Shape::new([blocks, rows, 1], GROUP_THREADS);
            self.case.launch(&GROUP_MAXIMA, shape, params);
            let params = SampleParams {
                logits: self.logits,
                maxima,
                settings: self.case.input("settings", &[settings; ROWS]),
                outputs,
                vocab,
                stride,
            };
            self.case
                .launch(&SAMPLE, Shape::new([rows, 1, 1], SAMPLE_THREADS), params);
        } else {
            let params = ArgmaxParams {
                logits: self.logits,
                best: self.case.in_out("best", &[0u64; ROWS]),
                arrived: self.case.in_out("arrived", &[0u32; ROWS]),
                outputs,
                vocab,
                stride,
                forbids: 1,
                reserved: 0,
            };
            let blocks = vocab.div_ceil(ARGMAX_BLOCK_LOGITS);
            self.case.launch(
                &ARGMAX,
                Shape::new([blocks, rows, 1], ARGMAX_THREADS),
                params,
            );
        }
        let params = ChosenLogprobParams {
            logits: self.logits,
            wanted: self.wanted,
            sums: self.sums,
            tokens: outputs.tokens,
            rows: self.rows,
            entries: self.entries,
            turns: outputs.turns,
            posted: self.posted,
            vocab,
            stride,
        };
        let shape = Shape::new([rows, 1, 1], CHOSEN_LOGPROB_THREADS);
        self.case.launch(&CHOSEN_LOGPROB, shape, params);
        self.outputs.tokens(&self.case)
    }

    /// One step, whose rows are at these turns.
    fn step(&mut self, draws: bool, turns: &[u32]) -> Vec<u32> {
        let before = self.case.read(self.posted);
        let capped = self.prepare();
        let tokens = self.choose(draws);
        let posted = self.case.read(self.posted);
        for (row, logits) in capped.chunks(self.vocab).enumerate() {
            let expected = chosen(&self.adjustments.adjusted(row, logits));
            assert_eq!(tokens[row], expected, "row {row}");
            let places =
                [turns[row], turns[row] ^ 1].map(|half| (half * POSTED_ROWS) as usize + row);
            if WANTED[row] > 0 {
                let name = format!("row {row}");
                check_row(
                    &name,
                    &posted[places[0]],
                    logits,
                    WANTED[row],
                    Some(expected),
                );
            }
            // The results of the step before are still there.
            let bytes = |posted: &[PostedLogprobs]| bytemuck::bytes_of(&posted[places[1]]).to_vec();
            assert_eq!(bytes(&posted), bytes(&before), "row {row}");
        }
        tokens
    }

    /// The tokens of the last step, in another order.
    fn gather(&mut self) {
        let chosen = self.case.read(self.outputs.params.tokens);
        let sources: Vec<u32> = (0..ROWS as u32).rev().collect();
        let tokens = self.case.output::<u32>("gathered", ROWS);
        let params = GatherTokensParams {
            tokens,
            sources: self.case.input("sources", &sources),
            chosen: self.outputs.params.tokens,
            count: ROWS as u32,
            reserved: 0,
        };
        self.case.launch(
            &GATHER_TOKENS,
            Shape::new([1, 1, 1], GATHER_THREADS),
            params,
        );
        let expected = chosen
            .iter()
            .rev()
            .map(|&token| if token >= NOTHING_ALLOWED { 0 } else { token });
        assert_eq!(self.case.read(tokens), expected.collect::<Vec<u32>>());
    }
}

/// The likeliest allowed token of adjusted logits.
fn chosen(logits: &[f32]) -> u32 {
    let mut best = NOTHING_ALLOWED;
    for (token, &logit) in logits.iter().enumerate() {
        if logit.is_nan() {
            return NOT_FINITE;
        }
        let is_better = best == NOTHING_ALLOWED || logit > logits[best as usize];
        if logit > f32::NEG_INFINITY && is_better {
            best = token as u32;
        }
    }
    best
}

#[test]
fn two_steps() {
    for vocab in [5, 100, 1031, 2500, 5000] {
        for draws in [false, true] {
            let mut steps = Steps::new(vocab, draws);
            let turns = steps.case.read(steps.outputs.params.turns);
            let tokens = steps.step(draws, &turns);
            assert_eq!((tokens[4], tokens[5]), (NOTHING_ALLOWED, NOT_FINITE));
            assert_eq!(tokens[9], NOT_FINITE);
            // The second step's logits are what the first one left, finite where they were not forbidden.
            let mut logits = steps.case.read(steps.logits);
            logits.iter_mut().for_each(|x| *x = x.clamp(-1e3, 1e3));
            steps.logits = steps.case.in_out("more logits", &logits);
            let turns: Vec<u32> = turns.iter().map(|turn| turn ^ 1).collect();
            assert_eq!(steps.case.read(steps.outputs.params.turns), turns);
            steps.step(draws, &turns);
            steps.gather();
        }
    }
}
