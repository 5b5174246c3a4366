//! What the filters of the sampling kernel keep of a row: `top_k`, `top_p` and `min_p`, one after the other.

#[cfg_attr(test, allow(unused_imports))] // where there is std, f32 has these functions itself
use cuda_std::GpuFloat;

use super::order;
use super::sample_tokens::{Tokens, weight};

/// What is kept: keys above `cut`, and of those at it the tokens up to a number.
#[derive(Clone, Copy)]
pub struct Kept {
    /// The least key.
    pub cut: u32,
    last_equal: u32,
}

impl Kept {
    /// # Safety
    /// As for [`Tokens::number`].
    #[inline(always)]
    pub unsafe fn has(&self, tokens: &Tokens, i: u32, key: u32) -> bool {
        // SAFETY: the caller's.
        key > self.cut || (key == self.cut && unsafe { tokens.number(i) } <= self.last_equal)
    }

    /// What the filters keep of tokens the largest of whose logits is `max`.
    ///
    /// # Safety
    /// All threads of the block come here.
    #[inline(always)]
    pub unsafe fn of(
        tokens: &mut Tokens,
        max: f32,
        vocab: u32,
        (top_k, top_p, min_p): (u32, f32, f32),
    ) -> Kept {
        let mut kept = Kept {
            cut: order::LOWEST_KEY,
            last_equal: u32::MAX,
        };
        // SAFETY: all threads have the same results and take each branch.
        unsafe {
            if top_k > 0 && top_k < vocab {
                kept.cut = tokens.cut(kept.cut, max, |_, _, _| true, |count, _| count >= top_k);
                let above = tokens.measure(kept.cut + 1, max, |_, _| true).0;
                kept.keep_equals(tokens, max, vocab, top_k - above.min(top_k));
            }
            if top_p < 1.0 {
                let all = tokens
                    .measure(kept.cut, max, |i, key| kept.has(tokens, i, key))
                    .1;
                let goal = top_p * all;
                let before = kept;
                kept.cut = tokens.cut(
                    kept.cut,
                    max,
                    |tokens, i, key| before.has(tokens, i, key),
                    |count, mass| mass >= goal && count > 0,
                );
                let above = tokens.measure(kept.cut + 1, max, |_, _| true).1;
                let equals = ((goal - above) / weight(kept.cut, max, 1.0))
                    .ceil()
                    .max(1.0);
                if kept.cut > before.cut {
                    kept.last_equal = u32::MAX;
                }
                kept.keep_equals(tokens, max, vocab, equals as u32);
            }
        }
        if min_p > 0.0 {
            let least = order::key(max + min_p.ln());
            if least > kept.cut {
                kept = Kept {
                    cut: least,
                    last_equal: u32::MAX,
                };
            }
        }
        kept
    }

    /// Keeps only the first `equals` of the tokens at the cut.
    ///
    /// # Safety
    /// All threads of the block come here.
    #[inline(always)]
    unsafe fn keep_equals(&mut self, tokens: &Tokens, max: f32, vocab: u32, equals: u32) {
        let (mut low, mut high) = (0, vocab - 1);
        // SAFETY: all threads have the same results.
        unsafe {
            if tokens.measure(self.cut, max, |_, key| key == self.cut).0 <= equals {
                return;
            }
            while low < high {
                let middle = low + (high - low) / 2;
                let up_to = Self {
                    cut: self.cut,
                    last_equal: middle,
                };
                let select = |i, key| key == self.cut && up_to.has(tokens, i, key);
                if tokens.measure(self.cut, max, select).0 >= equals {
                    high = middle;
                } else {
                    low = middle + 1;
                }
            }
        }
        self.last_equal = self.last_equal.min(low);
    }
}
