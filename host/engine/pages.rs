//! The pool of KV pages: allocated, shared, freed and reused.

use std::sync::{Arc, Mutex, PoisonError};

use crate::backend::PageId;

/// All pages of a backend's KV cache. Clones share one pool.
#[derive(Clone)]
pub struct PagePool {
    free: Arc<Mutex<Vec<PageId>>>,
    n_pages: usize,
}

impl PagePool {
    /// A pool of pages `0..n_pages`, all free.
    pub fn new(n_pages: usize) -> PagePool {
        // Popped from the end, so that pages are handed out in order.
        let free = (0..n_pages as PageId).rev().collect();
        PagePool {
            free: Arc::new(Mutex::new(free)),
            n_pages,
        }
    }

    /// Takes a free page, if there is one.
    pub fn allocate(&self) -> Option<Page> {
        let id = self.lock().pop()?;
        Some(Page(Arc::new(OwnedPage {
            id,
            pool: self.clone(),
        })))
    }

    /// Pages that nobody holds.
    pub fn n_free(&self) -> usize {
        self.lock().len()
    }

    /// All pages.
    pub fn n_pages(&self) -> usize {
        self.n_pages
    }

    /// A push or pop cannot be left half done, so a poisoned list is still a list.
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<PageId>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A page in use. Clones share it; it is free again when the last one is dropped.
#[derive(Clone)]
pub struct Page(Arc<OwnedPage>);

impl Page {
    /// Its index in the cache.
    pub fn id(&self) -> PageId {
        self.0.id
    }

    /// Whether another sequence holds it too.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

struct OwnedPage {
    id: PageId,
    pool: PagePool,
}

impl Drop for OwnedPage {
    fn drop(&mut self) {
        self.pool.lock().push(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_reused_after_the_last_holder() {
        let pool = PagePool::new(2);
        let first = pool.allocate().unwrap();
        let shared = first.clone();
        let second = pool.allocate().unwrap();
        assert!(pool.allocate().is_none());
        assert!(first.is_shared() && !second.is_shared());
        drop(first);
        assert_eq!(pool.n_free(), 0);
        let id = shared.id();
        drop(shared);
        assert_eq!(pool.allocate().unwrap().id(), id);
    }
}
