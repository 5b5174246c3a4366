//! Launches of what chooses tokens: `soft_cap`, `logprobs`, `adjust_logits`, `argmax`, `group_maxima`, `sample` and `gather_tokens`.

use kernels_gpu::abi::{
    ADJUST_BLOCK_LOGITS, ADJUST_THREADS, ARGMAX_BLOCK_LOGITS, ARGMAX_THREADS, AdjustLogitsParams,
    ArgmaxParams, CHOSEN_LOGPROB_THREADS, ChoiceOutputs, ChosenLogprobParams, DevicePtr,
    GATHER_THREADS, GROUP_LOGITS, GROUP_THREADS, GatherTokensParams, GroupMaximaParams,
    LOGPROBS_THREADS, LogprobsParams, SAMPLE_THREADS, SOFT_CAP_THREADS, SampleParams,
    SoftCapParams,
};
use kernels_gpu::ops::adjust_logits::ADJUST_LOGITS;
use kernels_gpu::ops::argmax::ARGMAX;
use kernels_gpu::ops::gather_tokens::GATHER_TOKENS;
use kernels_gpu::ops::group_maxima::GROUP_MAXIMA;
use kernels_gpu::ops::logprobs::{CHOSEN_LOGPROB, LOGPROBS};
use kernels_gpu::ops::sample::SAMPLE;
use kernels_gpu::ops::soft_cap::SOFT_CAP;

use crate::device::Result;
use crate::gpu::graphs::Choosing;
use crate::gpu::launcher::{Geometry, at};
use crate::gpu::pass::Pass;
use crate::gpu::under_way::LOGPROBS_AT;

impl Pass<'_> {
    /// Caps the first `rows` rows of logits as the model wants.
    pub fn cap_logits(&self, rows: usize) -> Result<()> {
        let Some(cap) = self.config.logit_softcap else {
            return Ok(());
        };
        let vocab = self.model.vocab() as u32;
        let params = SoftCapParams {
            logits: at(&self.workspace.logits, 0),
            vocab,
            stride: vocab,
            cap,
            reserved: 0,
        };
        let grid = [vocab.div_ceil(SOFT_CAP_THREADS), rows as u32, 1];
        // SAFETY: there are as many rows of logits.
        unsafe {
            self.launcher
                .launch(&SOFT_CAP, Geometry::new(grid, SOFT_CAP_THREADS), &params)
        }
    }

    /// Starts choosing tokens from the first `rows` rows of logits. Where each row of the step has one of them,
    /// `moves_on`, the tokens become the next step's, whose positions are one higher.
    pub fn choose(&self, rows: usize, choosing: Choosing, moves_on: bool) -> Result<()> {
        if !choosing.is_any {
            return Ok(());
        }
        if choosing.logprobs {
            self.send_logprobs(rows)?;
        }
        if choosing.adjusts {
            self.send_adjust(rows)?;
        }
        let outputs = ChoiceOutputs {
            tokens: at(&self.workspace.tokens, 0),
            token_of_row: match moves_on {
                true => DevicePtr::NULL,
                false => self.inputs.logit_tokens(),
            },
            positions: self.inputs.positions(0),
            next_tokens: match moves_on {
                true => self.inputs.token_ids(),
                false => DevicePtr::NULL,
            },
            turns: self.inputs.turns_on_device(),
            posted: self.posted,
        };
        match choosing.draws {
            true => self.send_sample(rows, outputs, choosing),
            false => self.send_argmax(rows, outputs, choosing),
        }?;
        match choosing.logprobs {
            true => self.send_chosen_logprobs(rows, choosing),
            false => Ok(()),
        }
    }

    fn send_argmax(&self, rows: usize, outputs: ChoiceOutputs, choosing: Choosing) -> Result<()> {
        let (vocab, w) = (self.model.vocab() as u32, self.workspace);
        let params = ArgmaxParams {
            logits: at(&w.logits, 0),
            best: at(&w.best, 0),
            arrived: at(&w.best_arrived, 0),
            outputs,
            vocab,
            stride: vocab,
            forbids: choosing.adjusts.into(),
            reserved: 0,
        };
        let grid = [vocab.div_ceil(ARGMAX_BLOCK_LOGITS), rows as u32, 1];
        // SAFETY: logits, tokens, scratch and mailbox have as many rows, of which `rows` are written.
        unsafe {
            self.launcher
                .launch(&ARGMAX, Geometry::new(grid, ARGMAX_THREADS), &params)
        }
    }

    fn send_sample(&self, rows: usize, outputs: ChoiceOutputs, choosing: Choosing) -> Result<()> {
        let vocab = self.model.vocab() as u32;
        let (logits, maxima) = (at(&self.workspace.logits, 0), &self.workspace.group_maxima);
        let params = GroupMaximaParams {
            logits,
            maxima: at(maxima, 0),
            vocab,
            stride: vocab,
            forbids: choosing.adjusts.into(),
            reserved: 0,
        };
        let blocks = vocab.div_ceil(GROUP_LOGITS).div_ceil(GROUP_THREADS / 32);
        let geometry = Geometry::new([blocks, rows as u32, 1], GROUP_THREADS);
        // SAFETY: logits and maxima have as many rows.
        unsafe { self.launcher.launch(&GROUP_MAXIMA, geometry, &params) }?;
        let params = SampleParams {
            logits,
            maxima: at(maxima, 0),
            settings: self.inputs.settings(),
            outputs,
            vocab,
            stride: vocab,
        };
        let geometry = Geometry::new([rows as u32, 1, 1], SAMPLE_THREADS);
        // SAFETY: logits, maxima, tokens and mailbox have as many rows; each has settings.
        unsafe { self.launcher.launch(&SAMPLE, geometry, &params) }
    }

    fn send_adjust(&self, rows: usize) -> Result<()> {
        let vocab = self.model.vocab() as u32;
        let params = AdjustLogitsParams {
            logits: at(&self.workspace.logits, 0),
            rows: self.inputs.adjustments(),
            entries: self.inputs.entries(),
            masks: self.inputs.masks(),
            vocab,
            stride: vocab,
        };
        let grid = [vocab.div_ceil(ADJUST_BLOCK_LOGITS), rows as u32, 1];
        // SAFETY: there are as many rows of logits and adjustments, whose lists and masks were uploaded.
        unsafe {
            self.launcher
                .launch(&ADJUST_LOGITS, Geometry::new(grid, ADJUST_THREADS), &params)
        }
    }

    fn send_logprobs(&self, rows: usize) -> Result<()> {
        let (vocab, w) = (self.model.vocab() as u32, self.workspace);
        let params = LogprobsParams {
            logits: at(&w.logits, 0),
            wanted: self.inputs.logprobs(),
            sums: at(&w.logit_sums, 0),
            turns: self.inputs.turns_on_device(),
            posted: self.posted.offset(LOGPROBS_AT).cast(),
            vocab,
            stride: vocab,
        };
        let geometry = Geometry::new([rows as u32, 1, 1], LOGPROBS_THREADS);
        // SAFETY: logits, sums and mailbox have as many rows.
        unsafe { self.launcher.launch(&LOGPROBS, geometry, &params) }
    }

    fn send_chosen_logprobs(&self, rows: usize, choosing: Choosing) -> Result<()> {
        let (vocab, w) = (self.model.vocab() as u32, self.workspace);
        let params = ChosenLogprobParams {
            logits: at(&w.logits, 0),
            wanted: self.inputs.logprobs(),
            sums: at(&w.logit_sums, 0),
            tokens: at(&w.tokens, 0),
            rows: match choosing.adjusts {
                true => self.inputs.adjustments(),
                false => DevicePtr::NULL,
            },
            entries: self.inputs.entries(),
            turns: self.inputs.turns_on_device(),
            posted: self.posted.offset(LOGPROBS_AT).cast(),
            vocab,
            stride: vocab,
        };
        let geometry = Geometry::new([rows as u32, 1, 1], CHOSEN_LOGPROB_THREADS);
        // SAFETY: as for `send_logprobs`, which ran before.
        unsafe { self.launcher.launch(&CHOSEN_LOGPROB, geometry, &params) }
    }

    /// Brings tokens that the step before chose to where the step's `n` rows take them from.
    pub fn gather_tokens(&self, n: usize) -> Result<()> {
        let params = GatherTokensParams {
            tokens: self.inputs.token_ids(),
            sources: self.inputs.sources(),
            chosen: at(&self.workspace.tokens, 0),
            count: n as u32,
            reserved: 0,
        };
        let geometry = Geometry::new([1, 1, 1], GATHER_THREADS);
        // SAFETY: the step has `n` rows of one token; sources are rows of logits of the step before.
        unsafe { self.launcher.launch(&GATHER_TOKENS, geometry, &params) }
    }
}
