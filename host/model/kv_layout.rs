//! Where the layers' keys and values lie in a page of the KV cache.

use super::Config;

/// A page: for each layer that has keys of its own a part, K then V, each `[kv_head][token][head_dim]`. Layers may
/// differ in heads and head size, and may share a part or have none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvLayout {
    /// Of each layer; `None` for one without keys.
    layers: Vec<Option<KvPart>>,
    page_elements: usize,
}

/// A layer's part of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvPart {
    /// Elements of the page before it.
    pub offset: usize,
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Tokens of a page.
    page_tokens: usize,
}

impl KvPart {
    /// Elements of a head's keys, or of its values.
    pub fn head_elements(&self) -> usize {
        self.page_tokens * self.head_dim
    }

    /// Elements of its keys, or of its values.
    pub fn keys(&self) -> usize {
        self.n_kv_heads * self.head_elements()
    }
}

impl KvLayout {
    /// The layout of pages of `page_tokens` tokens for a model of shape `config`.
    pub fn new(config: &Config, page_tokens: usize) -> KvLayout {
        let heads = (config.n_kv_heads, config.head_dim);
        KvLayout::of_layers((0..config.n_layers).map(|_| Some(heads)), page_tokens)
    }

    /// The same for layers of these key and value heads and head sizes.
    fn of_layers(
        layers: impl Iterator<Item = Option<(usize, usize)>>,
        page_tokens: usize,
    ) -> KvLayout {
        let mut page_elements = 0;
        let layers = layers.map(|heads| {
            let (n_kv_heads, head_dim) = heads?;
            let part = KvPart {
                offset: page_elements,
                n_kv_heads,
                head_dim,
                page_tokens,
            };
            page_elements += 2 * part.keys();
            Some(part)
        });
        KvLayout {
            layers: layers.collect(),
            page_elements,
        }
    }

    /// The part of layer `layer`, if it has one.
    pub fn part(&self, layer: usize) -> Option<KvPart> {
        self.layers.get(layer).copied().flatten()
    }

    /// Elements of a page.
    pub fn page_elements(&self) -> usize {
        self.page_elements
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_may_differ_and_have_none() {
        let layers = [Some((2, 32)), None, Some((1, 64)), Some((4, 16))];
        let layout = KvLayout::of_layers(layers.into_iter(), 10);
        let offsets = [0, 1, 2, 3].map(|layer| layout.part(layer).map(|part| part.offset));
        assert_eq!(offsets, [Some(0), None, Some(1280), Some(2560)]);
        assert_eq!(layout.page_elements(), 3 * 1280);
        assert_eq!(layout.part(2).map(|part| part.keys()), Some(640));
        assert_eq!(layout.part(4), None);
    }
}
