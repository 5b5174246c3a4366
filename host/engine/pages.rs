//! The pool of KV pages: handed out, shared, found again by what they hold.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::backend::PageId;

/// What a full page holds: the tokens of a text up to its end. Two pages of one content have the same tokens, and
/// the same ones before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentId(u64);

/// A content by what makes it: the content before it, and its own tokens. Compared in full, so that no two texts are
/// taken for each other.
type Key = (Option<ContentId>, Box<[u32]>);

/// All pages of a backend's KV cache. Clones share one pool.
///
/// A page that nobody holds is free, and keeps its content until it is handed out again: the blank ones go first,
/// then those that have been free for longest. So the cache of prefixes is the pool's own memory and never more.
#[derive(Clone)]
pub struct PagePool {
    state: Arc<Mutex<State>>,
    n_pages: usize,
}

struct State {
    /// Free pages without content.
    blank: Vec<PageId>,
    /// Free pages with content, by the time at which they became free.
    idle: BTreeMap<u64, PageId>,
    pages: Vec<PageState>,
    by_content: HashMap<Key, PageId>,
    n_contents: u64,
    clock: u64,
}

#[derive(Default)]
struct PageState {
    holders: usize,
    /// When it became free.
    freed: u64,
    content: Option<(ContentId, Key)>,
}

impl PagePool {
    /// A pool of pages `0..n_pages`, all free.
    pub fn new(n_pages: usize) -> PagePool {
        let state = State {
            // Popped from the end, so that pages are handed out in order.
            blank: (0..n_pages as PageId).rev().collect(),
            idle: BTreeMap::new(),
            pages: (0..n_pages).map(|_| PageState::default()).collect(),
            by_content: HashMap::new(),
            n_contents: 0,
            clock: 0,
        };
        PagePool {
            state: Arc::new(Mutex::new(state)),
            n_pages,
        }
    }

    /// Takes a free page, if there is one; its content is lost.
    pub fn allocate(&self) -> Option<Page> {
        let id = self.lock().take()?;
        Some(self.page(id))
    }

    /// The page that holds `tokens` behind the content `before`, if there is one.
    pub fn find(&self, before: Option<ContentId>, tokens: &[u32]) -> Option<(Page, ContentId)> {
        let (id, content) = self.lock().find(before, tokens)?;
        Some((self.page(id), content))
    }

    /// Notes that `page` holds `tokens` behind the content `before`, all of them computed. Where another page holds
    /// the same, that one stays the one to be found.
    pub fn publish(&self, page: &Page, before: Option<ContentId>, tokens: &[u32]) -> ContentId {
        self.lock().publish(page.id, before, tokens)
    }

    /// Pages that nobody holds.
    pub fn n_free(&self) -> usize {
        let state = self.lock();
        state.blank.len() + state.idle.len()
    }

    /// Free pages whose content can be found.
    pub fn n_cached(&self) -> usize {
        self.lock().idle.len()
    }

    /// All pages.
    pub fn n_pages(&self) -> usize {
        self.n_pages
    }

    /// Forgets all contents.
    pub fn forget(&self) {
        self.lock().forget();
    }

    fn page(&self, id: PageId) -> Page {
        Page {
            id,
            pool: self.clone(),
        }
    }

    /// Every change of the state is complete before anything can panic, so a poisoned state is still a state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self) -> Option<PageId> {
        let id = match self.blank.pop() {
            Some(id) => id,
            None => self.idle.pop_first()?.1,
        };
        self.clear(id);
        self.pages[id as usize].holders = 1;
        Some(id)
    }

    fn clear(&mut self, id: PageId) {
        if let Some((_, key)) = self.pages[id as usize].content.take() {
            self.by_content.remove(&key);
        }
    }

    fn find(&mut self, before: Option<ContentId>, tokens: &[u32]) -> Option<(PageId, ContentId)> {
        let id = *self.by_content.get(&(before, tokens.into()))?;
        let content = self.pages[id as usize].content.as_ref()?.0;
        self.hold(id);
        Some((id, content))
    }

    fn hold(&mut self, id: PageId) {
        let page = &mut self.pages[id as usize];
        if page.holders == 0 {
            self.idle.remove(&page.freed);
        }
        page.holders += 1;
    }

    fn release(&mut self, id: PageId) {
        let page = &mut self.pages[id as usize];
        page.holders -= 1;
        if page.holders > 0 {
            return;
        }
        match page.content {
            None => self.blank.push(id),
            Some(_) => {
                self.clock += 1;
                page.freed = self.clock;
                self.idle.insert(page.freed, id);
            }
        }
    }

    fn publish(&mut self, id: PageId, before: Option<ContentId>, tokens: &[u32]) -> ContentId {
        let key: Key = (before, tokens.into());
        if let Some(other) = self.by_content.get(&key)
            && let Some((content, _)) = &self.pages[*other as usize].content
        {
            return *content;
        }
        self.clear(id);
        self.n_contents += 1;
        let content = ContentId(self.n_contents);
        self.by_content.insert(key.clone(), id);
        self.pages[id as usize].content = Some((content, key));
        content
    }

    fn forget(&mut self) {
        self.by_content.clear();
        self.pages.iter_mut().for_each(|page| page.content = None);
        let idle = std::mem::take(&mut self.idle);
        self.blank.extend(idle.into_values());
    }
}

/// A page in use. Clones share it; it is free again when the last one is dropped.
pub struct Page {
    id: PageId,
    pool: PagePool,
}

impl Page {
    /// Its index in the cache.
    pub fn id(&self) -> PageId {
        self.id
    }
}

impl Clone for Page {
    fn clone(&self) -> Page {
        self.pool.lock().hold(self.id);
        self.pool.page(self.id)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.pool.lock().release(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_shared(page: &Page) -> bool {
        page.pool.lock().pages[page.id as usize].holders > 1
    }

    #[test]
    fn pages_are_reused_after_the_last_holder() {
        let pool = PagePool::new(2);
        let first = pool.allocate().unwrap();
        let shared = first.clone();
        let second = pool.allocate().unwrap();
        assert!(pool.allocate().is_none());
        assert!(is_shared(&first) && !is_shared(&second));
        drop(first);
        assert_eq!(pool.n_free(), 0);
        let id = shared.id();
        drop(shared);
        assert_eq!(pool.allocate().unwrap().id(), id);
    }

    #[test]
    fn a_free_page_is_found_until_it_is_needed() {
        let pool = PagePool::new(3);
        let [a, b] = [0; 2].map(|_| pool.allocate().unwrap());
        let ids = [a.id(), b.id()];
        let first = pool.publish(&a, None, &[1, 2]);
        let second = pool.publish(&b, Some(first), &[3, 4]);
        assert!(
            pool.find(None, &[3, 4]).is_none(),
            "not without what was before"
        );
        // The end of a text is freed first, so that its beginning is found for longer.
        drop(b);
        drop(a);
        assert_eq!((pool.n_free(), pool.n_cached()), (3, 2));
        let (found, content) = pool.find(Some(first), &[3, 4]).unwrap();
        assert_eq!((found.id(), content, pool.n_free()), (ids[1], second, 2));
        drop(found);
        // The blank page, then the one that has been free for longest.
        let taken: Vec<Page> = (0..2).map(|_| pool.allocate().unwrap()).collect();
        assert_eq!(taken[1].id(), ids[0]);
        assert!(pool.find(None, &[1, 2]).is_none());
        assert!(pool.find(Some(first), &[3, 4]).is_some());
    }

    #[test]
    fn of_equal_pages_the_first_is_found() {
        let pool = PagePool::new(2);
        let [a, b] = [0; 2].map(|_| pool.allocate().unwrap());
        let content = pool.publish(&a, None, &[7]);
        assert_eq!(pool.publish(&b, None, &[7]), content);
        drop(b);
        assert_eq!(pool.n_cached(), 0, "the second one is blank again");
        assert_eq!(pool.find(None, &[7]).unwrap().0.id(), a.id());
        pool.forget();
        assert!(pool.find(None, &[7]).is_none());
    }

    proptest! {
        /// Whatever is allocated, shared, published and dropped: no page has two owners, none is lost, and a page
        /// that is found holds what was published.
        #[test]
        fn pages_are_neither_lost_nor_doubled(
            actions in prop::collection::vec((0u8..5, any::<prop::sample::Index>(), 0u32..4), 0..120)
        ) {
            let pool = PagePool::new(4);
            let mut held: Vec<(Page, Option<u32>)> = Vec::new();
            for (action, index, text) in actions {
                let any = |held: &Vec<(Page, Option<u32>)>| {
                    (!held.is_empty()).then(|| index.index(held.len()))
                };
                match action {
                    0 => held.extend(pool.allocate().map(|page| (page, None))),
                    1 => if let Some((page, _)) = pool.find(None, &[text]) {
                        held.push((page, Some(text)));
                    },
                    2 => if let Some(at) = any(&held) {
                        let (page, text) = &held[at];
                        let copy = (page.clone(), *text);
                        held.push(copy);
                    },
                    3 => if let Some(at) = any(&held) {
                        // Only the writer of a page publishes it, once.
                        if held[at].1.is_none() && !is_shared(&held[at].0) {
                            pool.publish(&held[at].0, None, &[text]);
                            held[at].1 = Some(text);
                        }
                    },
                    _ => if let Some(at) = any(&held) {
                        held.swap_remove(at);
                    },
                }
                let distinct: std::collections::HashSet<PageId> =
                    held.iter().map(|(page, _)| page.id()).collect();
                prop_assert_eq!(distinct.len() + pool.n_free(), pool.n_pages());
                for (page, text) in &held {
                    let same = held.iter().filter(|(other, _)| other.id() == page.id());
                    prop_assert!(same.clone().all(|(_, other)| other == text));
                }
            }
            drop(held);
            prop_assert_eq!(pool.n_free(), 4);
        }
    }
}
