//! The paged float32 KV cache.

use crate::backend::{PAGE_TOKENS, PageId, Row};
use crate::model::Config;

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

/// Keys and values of all layers. A layer's page is `[kv_head][token][head_dim]`, keys and values
/// apart; a page is allocated when it is first written, so that an unused cache costs nothing.
pub struct KvCache {
    n_layers: usize,
    n_kv_heads: usize,
    head_dim: usize,
    /// `[n_pages]`, each `[n_layers][keys, values]` or empty.
    pages: Vec<Vec<f32>>,
}

impl KvCache {
    /// An empty cache of `n_pages` pages for a model of shape `config`.
    pub fn new(config: &Config, n_pages: usize) -> KvCache {
        KvCache {
            n_layers: config.n_layers,
            n_kv_heads: config.n_kv_heads,
            head_dim: config.head_dim,
            pages: vec![Vec::new(); n_pages],
        }
    }

    /// Number of pages.
    pub fn n_pages(&self) -> usize {
        self.pages.len()
    }

    /// Elements of the keys of one layer in one page.
    fn block(&self) -> usize {
        self.n_kv_heads * PAGE_TOKENS * self.head_dim
    }

    /// Stores the keys and values of `tokens`, each `[tokens, n_kv_heads * head_dim]`.
    pub fn write(&mut self, layer: usize, tokens: &[Token<'_>], k: &[f64], v: &[f64]) {
        let (block, dim, heads) = (self.block(), self.head_dim, self.n_kv_heads);
        let page_elements = self.n_layers * 2 * block;
        for (index, token) in tokens.iter().enumerate() {
            let page = &mut self.pages[token.page() as usize];
            page.resize(page_elements, 0.0);
            let (keys, values) = page[layer * 2 * block..][..2 * block].split_at_mut(block);
            for head in 0..heads {
                let from = (index * heads + head) * dim;
                let to = (head * PAGE_TOKENS + token.position % PAGE_TOKENS) * dim;
                store(&mut keys[to..to + dim], &k[from..from + dim]);
                store(&mut values[to..to + dim], &v[from..from + dim]);
            }
        }
    }

    /// Keys and values of `kv_head` in `page`, each `[PAGE_TOKENS, head_dim]`.
    pub fn head(&self, layer: usize, page: PageId, kv_head: usize) -> (&[f32], &[f32]) {
        let (block, size) = (self.block(), PAGE_TOKENS * self.head_dim);
        let layer = &self.pages[page as usize][layer * 2 * block..][..2 * block];
        (
            &layer[kv_head * size..][..size],
            &layer[block + kv_head * size..][..size],
        )
    }
}

fn store(to: &mut [f32], from: &[f64]) {
    to.iter_mut()
        .zip(from)
        .for_each(|(to, &from)| *to = from as f32);
}
