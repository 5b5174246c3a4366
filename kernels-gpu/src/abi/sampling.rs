//! Parameters of the choice of the next token.

use super::{DevicePtr, kernel_params};

/// In place of a token where a logit of the row is NaN or infinite; no vocabulary is as large.
pub const NOT_FINITE: u32 = u32::MAX;

/// Threads of a block of `argmax`.
pub const ARGMAX_THREADS: u32 = 256;

/// Logits of a block of `argmax`: several for each thread, to be worth its start.
pub const ARGMAX_BLOCK_LOGITS: u32 = 1024;

/// Threads of a block of `sample`, which has a row to itself.
pub const SAMPLE_THREADS: u32 = 1024;

/// The most rows of [`ArgmaxParams::posted`].
pub const POSTED_ROWS: u32 = 64;

kernel_params! {
    /// The largest logit of each row; see `ops/argmax.rs`.
    pub struct ArgmaxParams [64] {
        /// f32 `[rows][stride]`.
        pub logits: DevicePtr<f32>,
        /// One for each row, or [`NOT_FINITE`].
        pub tokens: DevicePtr<u32>,
        /// Scratch, one for each row, zero between launches.
        pub best: DevicePtr<u64>,
        /// Scratch, one for each row, zero between launches.
        pub arrived: DevicePtr<u32>,
        /// A second place for each row's token, where the next step takes it from (a token in any case: 0 for
        /// [`NOT_FINITE`]); null where `next_positions` is.
        pub next_tokens: DevicePtr<u32>,
        /// One for each row, increased by one for the next step; or null.
        pub next_positions: DevicePtr<u32>,
        /// A third place for each row's token, in the host's memory, `[2][POSTED_ROWS]`: which of the two is the
        /// position's last bit, so that the step that follows leaves it alone. Null where `next_positions` is.
        pub posted: DevicePtr<u32>,
        /// Logits of a row.
        pub vocab: u32,
        /// Elements from row to row.
        pub stride: u32,
    }

    /// A random token of each row; see `ops/sample.rs`.
    pub struct SampleParams [32] {
        /// f32 `[rows][stride]`.
        pub logits: DevicePtr<f32>,
        /// One for each row, or [`NOT_FINITE`].
        pub tokens: DevicePtr<u32>,
        /// One for each row.
        pub settings: DevicePtr<SampleSettings>,
        /// Logits of a row.
        pub vocab: u32,
        /// Elements from row to row.
        pub stride: u32,
    }

    /// How a row's token is chosen: what `host/sampling` calls by the same names.
    pub struct SampleSettings [20] {
        /// Divides the logits, so that its inverse must be finite; 0 and less takes the likeliest token.
        pub temperature: f32,
        /// Tokens to keep; 0 keeps all.
        pub top_k: u32,
        /// Probability to keep; 1 keeps all.
        pub top_p: f32,
        /// Least share of the likeliest token's probability; 0 keeps all.
        pub min_p: f32,
        /// A random number, evenly from 0 to below 1.
        pub uniform: f32,
    }
}
