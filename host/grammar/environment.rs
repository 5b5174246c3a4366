//! The vocabulary as grammars see it: the bytes that each token stands for, in a trie.

use llguidance::panic_utils::catch_unwind;
use toktrie::{INVALID_TOKEN, SimpleVob, TokRxInfo, TokTrie, TokenId, TokenizerEnv};

use super::GrammarError;
use super::marker::Marker;
use crate::tokenizer::Tokenizer;

/// A trie of all tokens. Control tokens begin with a byte that no text has, so that a grammar's text never takes one.
pub struct Environment {
    trie: TokTrie,
}

impl Environment {
    /// Of the vocabulary of `tokenizer`.
    pub fn new(tokenizer: &Tokenizer) -> Result<Environment, GrammarError> {
        let n_tokens = u32::try_from(tokenizer.vocab_size())
            .map_err(|_| GrammarError::Vocabulary("too many tokens".to_owned()))?;
        let words: Vec<Vec<u8>> = (0..n_tokens)
            .map(|id| match tokenizer.is_control(id) {
                true => [
                    &[TokTrie::SPECIAL_TOKEN_MARKER][..],
                    format!("<|{id}|>").as_bytes(),
                ]
                .concat(),
                false => tokenizer.token_bytes(id),
            })
            .collect();
        let ends = tokenizer.end_of_generation();
        let first_end = ends.first().copied().unwrap_or(INVALID_TOKEN);
        // The library panics on vocabularies that its trie does not hold.
        let trie = catch_unwind(|| {
            let trie = TokTrie::from(&TokRxInfo::new(n_tokens, first_end), &words);
            Ok(match ends {
                [] => trie,
                ends => trie.with_eos_tokens(ends),
            })
        });
        let trie =
            trie.map_err(|error| GrammarError::Vocabulary(super::first_line(&error.to_string())))?;
        Ok(Environment { trie })
    }

    /// The bytes of a token that is text; none of a control token.
    pub fn text(&self, token: TokenId) -> &[u8] {
        if token as usize >= self.trie.vocab_size() {
            return &[];
        }
        match self.trie.token(token) {
            [TokTrie::SPECIAL_TOKEN_MARKER, ..] => &[],
            bytes => bytes,
        }
    }

    /// A mask with all tokens, but for those that end a generation where `may_end` is false.
    pub fn all(&self, may_end: bool) -> SimpleVob {
        let mut mask = self.trie.alloc_token_set();
        if let Some(last) = (self.trie.vocab_size() as u32).checked_sub(1) {
            mask.allow_range(0..=last);
        }
        for &end in self.trie.eos_tokens().iter().filter(|_| !may_end) {
            if end != INVALID_TOKEN {
                mask.disallow_token(end);
            }
        }
        mask
    }

    /// Tokens in which `marker` is followed, or followed once more, by something else.
    pub fn beyond(&self, marker: &Marker) -> Vec<TokenId> {
        let text = marker.text().as_bytes();
        let ids = 0..self.trie.vocab_size() as u32;
        let is_beyond = |&id: &TokenId| {
            let bytes = self.text(id);
            bytes.len() > text.len()
                && memchr::memmem::find(bytes, text).is_some_and(|at| at + text.len() < bytes.len())
        };
        ids.filter(is_beyond).collect()
    }

    /// Calls `found` with the tokens that begin with `start` and are longer.
    pub fn longer_than(&self, start: &[u8], mut found: impl FnMut(TokenId)) {
        let Some(node) = self.trie.child_at_bytes(self.trie.root(), start) else {
            return;
        };
        let mut nodes: Vec<_> = self.trie.node_children(node).collect();
        while let Some(node) = nodes.pop() {
            node.token_id().into_iter().for_each(&mut found);
            nodes.extend(self.trie.node_children(node));
        }
    }
}

impl TokenizerEnv for Environment {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        self.trie.greedy_tokenize(bytes)
    }

    /// The model decides how text is cut into tokens, also where a grammar leaves no choice of the text.
    fn tokenize_is_canonical(&self) -> bool {
        false
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment").finish_non_exhaustive()
    }
}
