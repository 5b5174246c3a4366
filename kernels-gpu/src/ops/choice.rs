//! Where the kernels that choose tokens put them.

use crate::abi::{ChoiceOutputs, NOTHING_ALLOWED, POSTED_ROWS};

/// What a row's token goes beside, read before the token is known, so that nobody waits for it afterwards.
#[derive(Clone, Copy)]
pub struct Place {
    row: usize,
    /// Of the token whose successor is chosen.
    pub position: u32,
    turn: u32,
}

impl Place {
    /// Of row `row`. The position is 0 unless the token moves on or `draws` says that it is needed.
    ///
    /// # Safety
    /// The row is one of the outputs', and nobody writes them at the same time.
    #[inline(always)]
    pub unsafe fn of(outputs: &ChoiceOutputs, row: usize, draws: bool) -> Self {
        // SAFETY: the caller's.
        unsafe {
            let turn = if outputs.posted.is_null() {
                0
            } else {
                *outputs.turns.ptr().add(row)
            };
            let position = if draws || !outputs.next_tokens.is_null() {
                let token = if outputs.token_of_row.is_null() {
                    row
                } else {
                    *outputs.token_of_row.ptr().add(row) as usize
                };
                *outputs.positions.ptr().add(token)
            } else {
                0
            };
            Self {
                row,
                position,
                turn,
            }
        }
    }

    /// Writes the row's token, or the error in its place, and moves on.
    ///
    /// # Safety
    /// As for [`of`](Self::of), which all threads that read these outputs have left.
    #[inline(always)]
    pub unsafe fn put(self, outputs: &ChoiceOutputs, token: u32) {
        // SAFETY: the caller's.
        unsafe {
            *outputs.tokens.mut_ptr().add(self.row) = token;
            if !outputs.posted.is_null() {
                let half = (POSTED_ROWS * self.turn) as usize;
                *outputs.posted.mut_ptr().add(half + self.row) = token;
                *outputs.turns.mut_ptr().add(self.row) = self.turn ^ 1;
            }
            if !outputs.next_tokens.is_null() {
                // The step that follows may be on its way already.
                *outputs.next_tokens.mut_ptr().add(self.row) = known(token);
                *outputs.positions.mut_ptr().add(self.row) = self.position + 1;
            }
        }
    }
}

/// A token in any case, whose embedding there is: 0 for an error.
#[inline(always)]
pub const fn known(token: u32) -> u32 {
    if token >= NOTHING_ALLOWED { 0 } else { token }
}
