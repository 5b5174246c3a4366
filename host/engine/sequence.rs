//! One sequence of tokens and the KV pages that hold it.

use super::pages::{ContentId, Page, PagePool};
use crate::backend::{PAGE_TOKENS, PageId};

/// Tokens in the KV cache, in order, and their pages. Dropping it frees the pages.
#[derive(Default)]
pub struct Sequence {
    tokens: Vec<u32>,
    pages: Vec<Page>,
    page_ids: Vec<PageId>,
    /// Contents of the first pages, which others can find.
    contents: Vec<ContentId>,
}

impl Sequence {
    /// An empty sequence.
    pub fn new() -> Sequence {
        Sequence::default()
    }

    /// The sequence that holds as many of the first pages of `tokens` as `pool` has. One token at least is left to
    /// be computed, because only a computed token has logits.
    pub fn with_prefix_of(tokens: &[u32], pool: &PagePool) -> Sequence {
        let mut sequence = Sequence::new();
        let most = tokens.len().saturating_sub(1) / PAGE_TOKENS;
        for page_tokens in tokens.chunks_exact(PAGE_TOKENS).take(most) {
            let before = sequence.contents.last().copied();
            let Some((page, content)) = pool.find(before, page_tokens) else {
                break;
            };
            sequence.hold(page);
            sequence.contents.push(content);
            sequence.tokens.extend_from_slice(page_tokens);
        }
        sequence
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

    /// Forgets all tokens from position `len` on and frees the pages that only they used. Not for a sequence whose
    /// pages others can find, which would be overwritten under them.
    pub fn truncate(&mut self, len: usize) {
        debug_assert!(self.contents.is_empty(), "a published sequence only grows");
        self.tokens.truncate(len);
        self.keep_pages(self.tokens.len().div_ceil(PAGE_TOKENS));
    }

    /// Pages that room for positions up to `len` lacks.
    pub(super) fn missing_pages(&self, len: usize) -> usize {
        len.div_ceil(PAGE_TOKENS).saturating_sub(self.pages.len())
    }

    /// Makes room for positions up to `len`; `false`, and nothing changed, when the pool has too few pages.
    pub(super) fn reserve(&mut self, len: usize, pool: &PagePool) -> bool {
        let held = self.pages.len();
        for _ in 0..self.missing_pages(len) {
            let Some(page) = pool.allocate() else {
                self.keep_pages(held);
                return false;
            };
            self.hold(page);
        }
        true
    }

    /// Notes that `tokens` are now in the cache.
    pub(super) fn append(&mut self, tokens: &[u32]) {
        self.tokens.extend_from_slice(tokens);
        debug_assert!(self.tokens.len() <= self.pages.len() * PAGE_TOKENS);
    }

    /// Lets others find the full pages.
    pub(super) fn publish(&mut self, pool: &PagePool) {
        let published = self.contents.len();
        let full = self.tokens.chunks_exact(PAGE_TOKENS).zip(&self.pages);
        for (tokens, page) in full.skip(published) {
            let before = self.contents.last().copied();
            self.contents.push(pool.publish(page, before, tokens));
        }
    }

    fn hold(&mut self, page: Page) {
        self.page_ids.push(page.id());
        self.pages.push(page);
    }

    /// The last pages are freed first: of a text that is asked for again, the beginning is worth most.
    fn keep_pages(&mut self, n: usize) {
        while self.pages.len() > n {
            self.pages.pop();
        }
        self.page_ids.truncate(n);
    }
}

impl Drop for Sequence {
    fn drop(&mut self) {
        self.keep_pages(0);
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
        assert!(!sequence.reserve(3 * PAGE_TOKENS, &pool));
        assert_eq!((sequence.page_ids().len(), pool.n_free()), (1, 1));
    }

    #[test]
    fn a_prefix_is_found_in_whole_pages() {
        let pool = PagePool::new(4);
        let mut sequence = filled(&pool, 2 * PAGE_TOKENS + 3);
        sequence.publish(&pool);
        let tokens: Vec<u32> = (0..3 * PAGE_TOKENS as u32).collect();
        let pages = sequence.page_ids().to_vec();
        let found = Sequence::with_prefix_of(&tokens, &pool);
        assert_eq!((found.len(), pool.n_free()), (2 * PAGE_TOKENS, 1));
        assert_eq!(found.page_ids(), &pages[..2]);
        drop((sequence, found));
        assert_eq!((pool.n_free(), pool.n_cached()), (4, 2));
        // One token is left to be computed.
        let found = Sequence::with_prefix_of(&tokens[..2 * PAGE_TOKENS], &pool);
        assert_eq!(found.len(), PAGE_TOKENS);
        let other: Vec<u32> = (1..200).collect();
        assert!(Sequence::with_prefix_of(&other, &pool).is_empty());
    }

    #[test]
    fn the_end_of_a_text_is_overwritten_first() {
        let pool = PagePool::new(3);
        let mut sequence = filled(&pool, 3 * PAGE_TOKENS);
        sequence.publish(&pool);
        let tokens: Vec<u32> = (0..4 * PAGE_TOKENS as u32).collect();
        drop(sequence);
        let taken = pool.allocate();
        assert_eq!(
            Sequence::with_prefix_of(&tokens, &pool).len(),
            2 * PAGE_TOKENS
        );
        drop(taken);
    }
}
