//! One sequence of tokens and the KV pages that hold it.

use super::pages::{Page, PagePool};
use crate::backend::{PAGE_TOKENS, PageId};

/// Tokens in the KV cache, in order, and their pages. Dropping it frees the pages.
#[derive(Default)]
pub struct Sequence {
    tokens: Vec<u32>,
    pages: Vec<Page>,
    page_ids: Vec<PageId>,
}

impl Sequence {
    /// An empty sequence.
    pub fn new() -> Sequence {
        Sequence::default()
    }

    /// The tokens whose keys and values are cached.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Number of cached tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether nothing is cached.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Pages of the cached tokens and of what `reserve` added.
    pub fn page_ids(&self) -> &[PageId] {
        &self.page_ids
    }

    /// Forgets all tokens from position `len` on and frees the pages that only they used.
    pub fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
        self.keep_pages(self.tokens.len().div_ceil(PAGE_TOKENS));
    }

    /// Keeps the longest common prefix with `tokens`, but always leaves one token of `tokens` to be
    /// computed, because only a computed token has logits. Gives the length kept.
    pub fn keep_prefix_of(&mut self, tokens: &[u32]) -> usize {
        let shared = self
            .tokens
            .iter()
            .zip(tokens)
            .take_while(|(a, b)| a == b)
            .count();
        self.truncate(shared.min(tokens.len().saturating_sub(1)));
        self.len()
    }

    /// A second sequence with the same tokens up to the last full page, whose pages it shares.
    pub fn fork_full_pages(&self) -> Sequence {
        let n_pages = self.len() / PAGE_TOKENS;
        Sequence {
            tokens: self.tokens[..n_pages * PAGE_TOKENS].to_vec(),
            pages: self.pages[..n_pages].to_vec(),
            page_ids: self.page_ids[..n_pages].to_vec(),
        }
    }

    /// Makes room for `n` more tokens; `false`, and nothing changed, when the pool has too few pages.
    pub(super) fn reserve(&mut self, n: usize, pool: &PagePool) -> bool {
        let held = self.pages.len();
        for _ in held..(self.len() + n).div_ceil(PAGE_TOKENS) {
            let Some(page) = pool.allocate() else {
                self.keep_pages(held);
                return false;
            };
            self.page_ids.push(page.id());
            self.pages.push(page);
        }
        true
    }

    /// Notes that `tokens` are now in the cache.
    pub(super) fn append(&mut self, tokens: &[u32]) {
        self.tokens.extend_from_slice(tokens);
        debug_assert!(self.tokens.len() <= self.pages.len() * PAGE_TOKENS);
    }

    fn keep_pages(&mut self, n: usize) {
        self.pages.truncate(n);
        self.page_ids.truncate(n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(pool: &PagePool, n: usize) -> Sequence {
        let mut sequence = Sequence::new();
        assert!(sequence.reserve(n, pool));
        sequence.append(&(0..n as u32).collect::<Vec<_>>());
        sequence
    }

    #[test]
    fn truncation_frees_whole_pages() {
        let pool = PagePool::new(4);
        let mut sequence = filled(&pool, 3 * PAGE_TOKENS + 1);
        assert_eq!(pool.n_free(), 0);
        sequence.truncate(PAGE_TOKENS + 1);
        assert_eq!((sequence.page_ids().len(), pool.n_free()), (2, 2));
        sequence.truncate(0);
        assert_eq!(pool.n_free(), 4);
    }

    #[test]
    fn a_failed_reservation_changes_nothing() {
        let pool = PagePool::new(2);
        let mut sequence = filled(&pool, PAGE_TOKENS);
        assert!(!sequence.reserve(2 * PAGE_TOKENS, &pool));
        assert_eq!((sequence.page_ids().len(), pool.n_free()), (1, 1));
    }

    #[test]
    fn a_fork_shares_full_pages() {
        let pool = PagePool::new(4);
        let sequence = filled(&pool, 2 * PAGE_TOKENS + 3);
        let fork = sequence.fork_full_pages();
        assert_eq!((fork.len(), pool.n_free()), (2 * PAGE_TOKENS, 1));
        assert_eq!(fork.page_ids(), &sequence.page_ids()[..2]);
        drop(sequence);
        assert_eq!(pool.n_free(), 2);
    }

    #[test]
    fn the_last_prompt_token_is_always_computed() {
        let pool = PagePool::new(1);
        let mut sequence = filled(&pool, 5);
        assert_eq!(sequence.keep_prefix_of(&[0, 1, 2, 3, 4]), 4);
        assert_eq!(sequence.keep_prefix_of(&[0, 1, 9]), 2);
    }
}
