//! The paged float32 KV cache.

use super::arithmetic::Value;
use crate::backend::{PAGE_TOKENS, PageId, Row};
use crate::model::{Config, KvLayout};

/// One token of a step: what is needed to place it.
pub struct Token<'a> {
    /// Its id.
    pub id: u32,
    /// Its position in its sequence.
    pub position: usize,
    /// The pages of its sequence.
    pub pages: &'a [PageId],
}

impl Token<'_> {
    /// The page that holds its position.
    fn page(&self) -> PageId {
        self.pages[self.position / PAGE_TOKENS]
    }
}

/// The tokens of all rows one after the other; `ids` has those of each.
pub fn tokens_of<'a>(rows: &[Row<'a>], ids: &[Vec<u32>]) -> Vec<Token<'a>> {
    let tokens = rows.iter().zip(ids).flat_map(|(row, ids)| {
        ids.iter().enumerate().map(|(index, &id)| Token {
            id,
            position: row.start + index,
            pages: row.pages,
        })
    });
    tokens.collect()
}

/// How the keys of a head lie in a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyOrder {
    /// `[PAGE_TOKENS, head_dim]`, as values always do.
    TokenByToken,
    /// `[head_dim, PAGE_TOKENS]`.
    ElementByElement,
}

/// Keys and values of all layers. A page is allocated when it is first written, so that an unused cache costs
/// nothing.
pub struct KvCache {
    layout: KvLayout,
    keys: KeyOrder,
    /// `[n_pages]`, each of the layout's elements or empty.
    pages: Vec<Vec<f32>>,
}

impl KvCache {
    /// An empty cache of `n_pages` pages for a model of shape `config`.
    pub fn new(config: &Config, n_pages: usize, keys: KeyOrder) -> KvCache {
        KvCache {
            keys,
            layout: KvLayout::new(config, PAGE_TOKENS),
            pages: vec![Vec::new(); n_pages],
        }
    }

    /// Number of pages.
    pub fn n_pages(&self) -> usize {
        self.pages.len()
    }

    /// Stores the keys and values of `tokens`, each `[tokens, n_kv_heads * head_dim]`.
    pub fn write<V: Value>(&mut self, layer: usize, tokens: &[Token<'_>], k: &[V], v: &[V]) {
        let Some(part) = self.layout.part(layer) else {
            return;
        };
        let (block, dim, heads) = (part.keys(), part.head_dim, part.n_kv_heads);
        for (index, token) in tokens.iter().enumerate() {
            let page = &mut self.pages[token.page() as usize];
            page.resize(self.layout.page_elements(), 0.0);
            let (keys, values) = page[part.offset..][..2 * block].split_at_mut(block);
            for head in 0..heads {
                let from = (index * heads + head) * dim;
                let keys = &mut keys[head * PAGE_TOKENS * dim..][..PAGE_TOKENS * dim];
                let values = &mut values[head * PAGE_TOKENS * dim..][..PAGE_TOKENS * dim];
                let cell = token.position % PAGE_TOKENS;
                let place = cell * dim..(cell + 1) * dim;
                match self.keys {
                    KeyOrder::TokenByToken => store(&mut keys[place.clone()], &k[from..][..dim]),
                    KeyOrder::ElementByElement => {
                        store(
                            keys[cell..].iter_mut().step_by(PAGE_TOKENS),
                            &k[from..][..dim],
                        );
                    }
                }
                store(&mut values[place], &v[from..][..dim]);
            }
        }
    }

    /// Keys and values of `kv_head` in `page`, each of `PAGE_TOKENS * head_dim`; empty where the layer has none.
    pub fn head(&self, layer: usize, page: PageId, kv_head: usize) -> (&[f32], &[f32]) {
        let Some(part) = self.layout.part(layer) else {
            return (&[], &[]);
        };
        let size = part.head_elements();
        let keys = part.offset + kv_head * size;
        let page = &self.pages[page as usize];
        (&page[keys..][..size], &page[keys + part.keys()..][..size])
    }
}

fn store<'a, V: Value>(to: impl IntoIterator<Item = &'a mut f32>, from: &[V]) {
    for (to, &from) in to.into_iter().zip(from) {
        *to = from.into() as f32;
    }
}
