//! Parameters of what happens to logits: the soft cap, log-probabilities, masks, biases and penalties, and the choice
//! of the next token. They run in this order; [`ChoiceOutputs::turns`] says how the results of two steps keep out of
//! each other's way.

use super::{DevicePtr, kernel_params};

/// In place of a token where a logit of the row is NaN or infinite; no vocabulary is as large.
pub const NOT_FINITE: u32 = u32::MAX;

/// In place of a token where all tokens of the row are forbidden.
pub const NOTHING_ALLOWED: u32 = u32::MAX - 1;

/// The most rows of a step whose tokens are chosen: those of [`ChoiceOutputs::posted`] and of what lies beside it.
pub const POSTED_ROWS: u32 = 256;

/// Threads of a block of `argmax`.
pub const ARGMAX_THREADS: u32 = 256;

/// Logits of a block of `argmax`: several for each thread, to be worth its start.
pub const ARGMAX_BLOCK_LOGITS: u32 = 1024;

/// Neighbouring logits of a group: a warp's of `group_maxima`, and those that a warp of `sample` reads at a time.
pub const GROUP_LOGITS: u32 = 128;

/// Threads of a block of `group_maxima`.
pub const GROUP_THREADS: u32 = 256;

/// Threads of a block of `sample`, which has a row to itself.
pub const SAMPLE_THREADS: u32 = 1024;

/// The order in which tokens share a random number: `sample` draws without sorting, so that it is the order of its
/// threads, which take four neighbours each, and again after a round of all. Whoever draws for it has to keep it.
pub const fn sample_order(token: u32) -> (u32, u32) {
    (token / 4 % SAMPLE_THREADS, token)
}

/// Threads of a block of `soft_cap`; a logit each.
pub const SOFT_CAP_THREADS: u32 = 256;

/// Threads of a block of `adjust_logits`.
pub const ADJUST_THREADS: u32 = 256;

/// Logits of a block of `adjust_logits`: several for each thread; whole words of the mask.
pub const ADJUST_BLOCK_LOGITS: u32 = 1024;

/// Threads of a block of `logprobs`, which has a row to itself.
pub const LOGPROBS_THREADS: u32 = 1024;

/// Threads of a block of `chosen_logprob`, which has a row to itself.
pub const CHOSEN_LOGPROB_THREADS: u32 = 256;

/// Threads of the one block of `gather_tokens`.
pub const GATHER_THREADS: u32 = POSTED_ROWS;

/// In place of a row in [`GatherTokensParams::sources`]: the token is there already.
pub const NO_SOURCE: u32 = u32::MAX;

/// In place of [`RowAdjustment::mask`]: all tokens are allowed.
pub const NO_MASK: u32 = u32::MAX;

/// [`LogitEntry::bias`] where there is none: every number keeps its bits.
pub const NO_BIAS: f32 = -0.0;

/// The most likeliest tokens that are reported for a row.
pub const MAX_LOGPROBS: u32 = 20;

kernel_params! {
    /// Where `argmax` and `sample` leave the tokens of rows.
    pub struct ChoiceOutputs [48] {
        /// One for each row, or [`NOT_FINITE`] or [`NOTHING_ALLOWED`].
        pub tokens: DevicePtr<u32>,
        /// Which token of the step each row belongs to; null where row `r` is that of token `r`.
        pub token_of_row: DevicePtr<u32>,
        /// Position of each token of the step. `argmax` reads them only where `next_tokens` is not null.
        pub positions: DevicePtr<u32>,
        /// A second place for each row's token, where the next step takes it from (a token in any case: 0 for an
        /// error), whose position becomes one more. Null where nothing moves on, as in all steps with `token_of_row`.
        pub next_tokens: DevicePtr<u32>,
        /// One for each row, 0 or 1, which changes whenever the row's token is posted: the half of `posted` (and of
        /// [`LogprobsParams::posted`]) that is the next one. So the step that follows leaves this step's results
        /// alone, also where both are replays of one graph. Null where `posted` is.
        pub turns: DevicePtr<u32>,
        /// A third place for each row's token, in the host's memory, `[2][POSTED_ROWS]`; or null.
        pub posted: DevicePtr<u32>,
    }

    /// The largest logit of each row; see `ops/argmax.rs`.
    pub struct ArgmaxParams [88] {
        /// f32 `[rows][stride]`.
        pub logits: DevicePtr<f32>,
        /// Scratch, one for each row, zero between launches.
        pub best: DevicePtr<u64>,
        /// Scratch, one for each row, zero between launches.
        pub arrived: DevicePtr<u32>,
        /// Where the tokens go.
        pub outputs: ChoiceOutputs,
        /// Logits of a row.
        pub vocab: u32,
        /// Elements from row to row.
        pub stride: u32,
        /// 1 where minus infinity forbids a token, after `adjust_logits`; 0 where it is an error like infinity and NaN.
        pub forbids: u32,
        /// 0.
        pub reserved: u32,
    }

    /// The largest logit of each group of neighbours; see `ops/group_maxima.rs`.
    pub struct GroupMaximaParams [32] {
        /// f32 `[rows][stride]`.
        pub logits: DevicePtr<f32>,
        /// `[rows][ceil(vocab / GROUP_LOGITS)]`.
        pub maxima: DevicePtr<u32>,
        /// Logits of a row.
        pub vocab: u32,
        /// Elements from row to row.
        pub stride: u32,
        /// As [`ArgmaxParams::forbids`].
        pub forbids: u32,
        /// 0.
        pub reserved: u32,
    }

    /// A random token of each row; see `ops/sample.rs`.
    pub struct SampleParams [80] {
        /// f32 `[rows][stride]`.
        pub logits: DevicePtr<f32>,
        /// [`GroupMaximaParams::maxima`] of these logits, which say too what is an error.
        pub maxima: DevicePtr<u32>,
        /// One for each row.
        pub settings: DevicePtr<SampleSettings>,
        /// Where the tokens go.
        pub outputs: ChoiceOutputs,
        /// Logits of a row.
        pub vocab: u32,
        /// Elements from row to row.
        pub stride: u32,
    }

    /// How a row's token is chosen: what `host/backend/draw.rs` calls by the same names.
    pub struct SampleSettings [24] {
        /// Divides the logits, so that its inverse must be finite; 0 and less takes the likeliest token.
        pub temperature: f32,
        /// Tokens to keep; 0 keeps all.
        pub top_k: u32,
        /// Probability to keep; 1 keeps all.
        pub top_p: f32,
        /// Least share of the likeliest token's probability; 0 keeps all.
        pub min_p: f32,
        /// Of the random numbers (`prim/random.rs`), low word first.
        pub seed: [u32; 2],
    }

    /// Tokens of a step that an earlier one has chosen; see `ops/gather_tokens.rs`.
    pub struct GatherTokensParams [32] {
        /// The step's tokens.
        pub tokens: DevicePtr<u32>,
        /// For each of them the row of `chosen`, or [`NO_SOURCE`].
        pub sources: DevicePtr<u32>,
        /// [`ChoiceOutputs::tokens`] of the earlier step.
        pub chosen: DevicePtr<u32>,
        /// Tokens of the step, up to [`GATHER_THREADS`].
        pub count: u32,
        /// 0.
        pub reserved: u32,
    }

    /// The model's cap on its logits; see `ops/soft_cap.rs`.
    pub struct SoftCapParams [24] {
        /// f32 `[rows][stride]`, in place.
        pub logits: DevicePtr<f32>,
        /// Logits of a row.
        pub vocab: u32,
        /// Elements from row to row.
        pub stride: u32,
        /// What no logit exceeds; above 0.
        pub cap: f32,
        /// 0.
        pub reserved: u32,
    }

    /// Masks, biases and penalties; see `ops/adjust_logits.rs`.
    pub struct AdjustLogitsParams [40] {
        /// f32 `[rows][stride]`, in place.
        pub logits: DevicePtr<f32>,
        /// One for each row.
        pub rows: DevicePtr<RowAdjustment>,
        /// The rows' lists; may be null where all are empty.
        pub entries: DevicePtr<LogitEntry>,
        /// The rows' masks; may be null where none has one.
        pub masks: DevicePtr<u32>,
        /// Logits of a row.
        pub vocab: u32,
        /// Elements from row to row.
        pub stride: u32,
    }

    /// What changes the logits of a row.
    pub struct RowAdjustment [24] {
        /// Where the row's mask begins among [`AdjustLogitsParams::masks`], in words, or [`NO_MASK`]: a bit for each
        /// token, lowest first, 1 where it is allowed.
        pub mask: u32,
        /// The first entry of the row's list.
        pub begin: u32,
        /// The end of the row's list.
        pub end: u32,
        /// Divides positive logits of tokens that occurred and multiplies negative ones.
        pub repeat: f32,
        /// Subtracted from the logit of a token that occurred.
        pub presence: f32,
        /// Subtracted for each occurrence.
        pub frequency: f32,
    }

    /// What changes the logit of one token. Entries of one token lie next to each other and count one after the
    /// other.
    pub struct LogitEntry [16] {
        /// The token; one outside of the vocabulary changes nothing.
        pub token: u32,
        /// Added; minus infinity forbids the token, [`NO_BIAS`] is none.
        pub bias: f32,
        /// How often the token occurred, for the penalties.
        pub count: u32,
        /// Written by `adjust_logits`: the logit without mask, bias and penalties.
        pub original: f32,
    }

    /// Log-probabilities of the likeliest tokens; see `ops/logprobs.rs`.
    pub struct LogprobsParams [48] {
        /// f32 `[rows][stride]`, before `adjust_logits`.
        pub logits: DevicePtr<f32>,
        /// For each row 0 where nothing is wanted, else 1 and the number of likeliest tokens, up to [`MAX_LOGPROBS`].
        pub wanted: DevicePtr<u32>,
        /// Left for `chosen_logprob`: each row's largest logit, and the logarithm of the sum of the exponentials of
        /// all logits less that one.
        pub sums: DevicePtr<[f32; 2]>,
        /// As [`ChoiceOutputs::turns`], before the choice; null takes the first half.
        pub turns: DevicePtr<u32>,
        /// In the host's memory, `[2][POSTED_ROWS]`.
        pub posted: DevicePtr<PostedLogprobs>,
        /// Logits of a row.
        pub vocab: u32,
        /// Elements from row to row.
        pub stride: u32,
    }

    /// The log-probability of each chosen token; see `ops/logprobs.rs`.
    pub struct ChosenLogprobParams [72] {
        /// f32 `[rows][stride]`, after `adjust_logits`.
        pub logits: DevicePtr<f32>,
        /// As [`LogprobsParams::wanted`].
        pub wanted: DevicePtr<u32>,
        /// What `logprobs` left there.
        pub sums: DevicePtr<[f32; 2]>,
        /// [`ChoiceOutputs::tokens`].
        pub tokens: DevicePtr<u32>,
        /// As [`AdjustLogitsParams::rows`]; null where the logits are those of `logprobs`.
        pub rows: DevicePtr<RowAdjustment>,
        /// As [`AdjustLogitsParams::entries`].
        pub entries: DevicePtr<LogitEntry>,
        /// As [`ChoiceOutputs::turns`], after a choice that changed it; null takes the first half.
        pub turns: DevicePtr<u32>,
        /// As [`LogprobsParams::posted`].
        pub posted: DevicePtr<PostedLogprobs>,
        /// Logits of a row.
        pub vocab: u32,
        /// Elements from row to row.
        pub stride: u32,
    }

    /// Log-probabilities of a row as the host finds them: by the model's own logits, after the soft cap and before
    /// mask, bias, penalties and temperature. NaN where a logit is not finite.
    pub struct PostedLogprobs [168] {
        /// The logarithm of the sum of the exponentials of all logits.
        pub log_sum_exp: f32,
        /// Of the chosen token; NaN where there is none.
        pub chosen: f32,
        /// The likeliest tokens, the first one first and lower ones first among equals, as many as the row wants;
        /// [`NOT_FINITE`] where the vocabulary has no more or a logit is not finite. What lies behind is not written.
        pub tokens: [u32; MAX_LOGPROBS as usize],
        /// Of each of `tokens`; minus infinity where there is none.
        pub logprobs: [f32; MAX_LOGPROBS as usize],
    }
}

impl RowAdjustment {
    /// Changes nothing.
    pub const NONE: Self = Self {
        mask: NO_MASK,
        begin: 0,
        end: 0,
        repeat: 1.0,
        presence: 0.0,
        frequency: 0.0,
    };
}
