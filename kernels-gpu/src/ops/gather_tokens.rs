//! Tokens that an earlier step chose become those of this one, without the host.
//!
//! - Formula: `tokens[i] = chosen[sources[i]]` where `sources[i]` is not [`NO_SOURCE`]; 0 for an error in place of a
//!   token, so that there is an embedding.
//! - Shapes: up to [`GATHER_THREADS`](crate::abi::GATHER_THREADS) tokens.
//! - Threads: a token each.
//! - Launch: grid = 1, block = [`GATHER_THREADS`](crate::abi::GATHER_THREADS). `tokens` and `chosen` do not overlap.
//! - Moves: 12 bytes a token.

use cuda_std::prelude::*;

use super::choice::known;
use super::entry_points;
use crate::abi::{GATHER_THREADS, GatherTokensParams, NO_SOURCE};
use crate::prim::grid;

entry_points! {
    /// Of u32.
    GATHER_TOKENS = gather_tokens(GatherTokensParams), max_threads = GATHER_THREADS => gather;
}

/// The body.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn gather(p: GatherTokensParams) {
    grid::wait();
    let i = thread::thread_idx_x();
    if i < p.count {
        // SAFETY: there are `count` tokens and sources; a source is a row of `chosen`.
        unsafe {
            let source = *p.sources.ptr().add(i as usize);
            if source != NO_SOURCE {
                let token = *p.chosen.ptr().add(source as usize);
                *p.tokens.mut_ptr().add(i as usize) = known(token);
            }
        }
    }
}
