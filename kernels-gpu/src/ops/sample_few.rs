//! The choice among few candidates of the sampling kernel, each compared with all. Its code is short on purpose: between
//! two launches all that was in a cache has made room for weights, so that a kernel of one block takes as long as its
//! instructions are many.

use cuda_std::prelude::*;
use cuda_std::static_shared;

use super::order;
use super::sample_tokens::{Tokens, weight};
use crate::abi::{SAMPLE_THREADS, SampleSettings};
use crate::prim::random::uniform;

/// Candidates that are few: one for each thread.
pub const FEW: u32 = SAMPLE_THREADS;

/// The token that is drawn for the row, in the thread that has it. `max` is the row's largest logit, the token's position
/// is `position`, and the temperature is above 0.
///
/// # Safety
/// All threads of the block come here. Candidates are in use, at most [`FEW`]; the settings' `top_k` are among them, or
/// there are no more.
#[inline(always)]
pub unsafe fn choose(
    tokens: &Tokens,
    max: f32,
    settings: &SampleSettings,
    position: u32,
) -> Option<u32> {
    let shares = static_shared![f32; FEW as usize];
    let mass = static_shared![f32; 1];
    let (i, n) = (thread::thread_idx_x(), tokens.count());
    let is_here = i < n;
    // SAFETY: indices are below `n`; all threads come to the barriers.
    unsafe {
        let [key, number] = if is_here { tokens.candidate(i) } else { [0; 2] };
        // How many are likelier, and their weight: no smaller for a less likely one, sums being monotonic.
        let (mut rank, mut before, mut j) = (0, 0.0, 0);
        while is_here && j < n {
            let [other, other_number] = tokens.candidate(j);
            if other > key || (other == key && other_number < number) {
                rank += 1;
                before += weight(other, max, 1.0);
            }
            j += 1;
        }
        if is_here && rank + 1 == n.min(settings.top_k) {
            mass.store(before + weight(key, max, 1.0));
        }
        // Publishes the weight of the `top_k`.
        thread::sync_threads();
        let has_enough = settings.top_p < 1.0 && before >= settings.top_p * mass.load();
        let is_likely = settings.min_p <= 0.0 || key >= order::key(max + settings.min_p.ln());
        let is_kept = rank == 0 || (rank < settings.top_k && !has_enough && is_likely);
        let mut share = 0.0;
        if is_here {
            if is_kept {
                share = weight(key, max, 1.0 / settings.temperature);
            }
            shares.add(i).store(share);
        }
        // Publishes the shares.
        thread::sync_threads();
        if share == 0.0 {
            return None;
        }
        let (mut before, mut all, mut j) = (0.0, 0.0, 0);
        while j < n {
            if j == i {
                before = all;
            }
            all += shares.add(j).load();
            j += 1;
        }
        let seed = settings.seed[0] as u64 | (settings.seed[1] as u64) << 32;
        // Below `all`, as the number is below 1 by at least 2^-24; so one thread has it, the sums being the same ones.
        let goal = uniform(seed, position) * all;
        (before <= goal && goal < before + share).then_some(number)
    }
}
