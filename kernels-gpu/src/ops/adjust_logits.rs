//! What a request wants of logits before its token is chosen: masks, biases and penalties.
//!
//! - Formula: a logit of the model that is not finite becomes NaN, and stays NaN. Tokens that the row's mask has not
//!   become minus infinity. Then, entry after entry of the row's list, `x += bias`, and where the token occurred
//!   `x = (x > 0 ? x / repeat : x * repeat) - count * frequency - presence`, in f32 and with each step rounded;
//!   sums saturate, so that minus infinity means forbidden, which nothing undoes.
//! - Shapes: see [`AdjustLogitsParams`].
//! - Threads: a block a stretch of [`ADJUST_BLOCK_LOGITS`] logits of a row. It looks at all of the row's list and
//!   takes the entries of its own stretch, a thread all of a token.
//! - Launch: grid = [blocks for a row, rows], block = [`ADJUST_THREADS`].
//! - Moves: the logits twice, the masks once, a list once for each block of its row.

use cuda_std::prelude::*;
use cuda_std::shared::Shared;
use cuda_std::static_shared;

use super::entry_points;
use crate::abi::{
    ADJUST_BLOCK_LOGITS, ADJUST_THREADS, AdjustLogitsParams, LogitEntry, NO_MASK, RowAdjustment,
};
use crate::prim::grid;

entry_points! {
    /// Of f32, in place.
    ADJUST_LOGITS = adjust_logits(AdjustLogitsParams), max_threads = ADJUST_THREADS => adjust;
}

// A block's first token begins a word of the mask.
const _: () = assert!(ADJUST_BLOCK_LOGITS.is_multiple_of(32));

/// The body.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn adjust(p: AdjustLogitsParams) {
    grid::wait();
    let thread = thread::thread_idx_x();
    let first = thread::block_idx_x() * ADJUST_BLOCK_LOGITS;
    let count = p.vocab.saturating_sub(first).min(ADJUST_BLOCK_LOGITS);
    let row = thread::block_idx_y() as usize;
    let tile = static_shared![f32; ADJUST_BLOCK_LOGITS as usize];
    // SAFETY: the row has a descriptor and logits; `first + i` is below `vocab`.
    unsafe {
        let adjustment = *p.rows.ptr().add(row);
        let start = row * p.stride as usize + first as usize;
        let logits = p.logits.mut_ptr().add(start);
        let mut i = thread;
        while i < count {
            let mut x = *logits.add(i as usize);
            if !x.is_finite() {
                x = f32::NAN;
            } else if adjustment.mask != NO_MASK {
                let token = first + i;
                let word = adjustment.mask as usize + (token / 32) as usize;
                if *p.masks.ptr().add(word) >> (token % 32) & 1 == 0 {
                    x = f32::NEG_INFINITY;
                }
            }
            tile.add(i).store(x);
            i += ADJUST_THREADS;
        }
        if adjustment.begin < adjustment.end {
            // Publishes the masked logits.
            thread::sync_threads();
            let stretch = Stretch {
                logits,
                tile,
                first,
                count,
            };
            let mut at = adjustment.begin + thread;
            while at < adjustment.end {
                stretch.apply(&p, &adjustment, at);
                at += ADJUST_THREADS;
            }
            // Publishes the adjusted logits; and no thread reads the model's own ones any more.
            thread::sync_threads();
        }
        let mut i = thread;
        while i < count {
            *logits.add(i as usize) = tile.add(i).load();
            i += ADJUST_THREADS;
        }
    }
}

/// A block's logits.
struct Stretch {
    /// The model's own.
    logits: *const f32,
    /// Those that become of them.
    tile: Shared<f32>,
    /// The token of the first one.
    first: u32,
    count: u32,
}

impl Stretch {
    /// Applies entry `at` and those of the same token behind it, where it is the first of them and the token is in
    /// this stretch.
    ///
    /// # Safety
    /// The tile is published, and `at` is one of the row's list.
    #[inline(always)]
    unsafe fn apply(&self, p: &AdjustLogitsParams, row: &RowAdjustment, mut at: u32) {
        // SAFETY: the token is in the stretch; its place in the tile and its entries, but for `token`, which nobody
        // writes, are this thread's.
        unsafe {
            let entries = p.entries.mut_ptr();
            let token_of = |at: u32| (*entries.add(at as usize)).token;
            let token = token_of(at);
            let i = token.wrapping_sub(self.first);
            if i >= self.count || (at > row.begin && token_of(at - 1) == token) {
                return;
            }
            let original = *self.logits.add(i as usize);
            let mut x = self.tile.add(i).load();
            while at < row.end && token_of(at) == token {
                let entry = &mut *entries.add(at as usize);
                x = changed(x, entry, row);
                entry.original = original;
                at += 1;
            }
            self.tile.add(i).store(x);
        }
    }
}

/// A logit after an entry: the arithmetic of `host/sampling`.
#[inline(always)]
fn changed(x: f32, entry: &LogitEntry, row: &RowAdjustment) -> f32 {
    // A NaN of the model is an error, also where the token is forbidden.
    if x.is_nan() || x == f32::NEG_INFINITY {
        return x;
    }
    if entry.bias == f32::NEG_INFINITY {
        return entry.bias;
    }
    let x = (x + entry.bias).clamp(f32::MIN, f32::MAX);
    if entry.count == 0 {
        return x;
    }
    let scaled = if x > 0.0 {
        x / row.repeat
    } else {
        x * row.repeat
    };
    let frequency = entry.count as f32 * row.frequency;
    (scaled - frequency - row.presence).clamp(f32::MIN, f32::MAX)
}
