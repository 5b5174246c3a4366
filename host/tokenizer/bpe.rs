//! Byte-level BPE (`tokenizer.ggml.model` = `gpt2`), on the crate `tokenizers`.

use std::collections::{BTreeSet, HashSet};

use tokenizers::Model;
use tokenizers::models::bpe::{BPE, Vocab as BpeVocab};

use super::pretokenizer::{PreTokenizer, Splitter};
use super::vocab::{TokenKind, Vocab};
use super::{TokenizerError, byte_level};

#[derive(Debug)]
pub(super) struct Bpe {
    splitter: Splitter,
    model: BPE,
}

impl Bpe {
    /// Builds the model. `warnings` is told of merges that can never happen.
    pub fn new(
        vocab: &Vocab,
        merges: &[String],
        pre: &PreTokenizer,
        warnings: &mut Vec<String>,
    ) -> Result<Bpe, TokenizerError> {
        // Without them every letter would be a token of its own.
        if merges.is_empty() {
            return Err(TokenizerError::Missing {
                key: "tokenizer.ggml.merges",
                of: "byte-level BPE",
            });
        }
        // Plain text must never become a control token, not even one spelled like a word.
        let ids: BpeVocab = vocab
            .iter()
            .filter(|(.., kind)| !matches!(kind, TokenKind::Control | TokenKind::Unknown))
            .map(|(id, text, _)| (text.to_owned(), id))
            .collect();
        let pairs = reachable_merges(&ids, merges, warnings)?;
        let model = BPE::builder()
            .vocab_and_merges(ids, pairs)
            .ignore_merges(pre.ignore_merges)
            .build()
            .map_err(backend)?;
        Ok(Bpe {
            splitter: pre.splitter()?,
            model,
        })
    }

    /// Appends the tokens of plain `text`, none of them one of `barred`. As in llama.cpp, bytes
    /// without a token are left out.
    pub fn encode(
        &self,
        text: &str,
        barred: &BTreeSet<u32>,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let mut word = String::new();
        // What is still to be written of a word, its beginning last.
        let mut pending = Vec::new();
        for piece in self.splitter.split(text) {
            pending.push(Part::Bytes(piece.as_bytes().to_vec()));
            while let Some(part) = pending.pop() {
                let bytes = match part {
                    Part::Token(id) => {
                        out.push(id);
                        continue;
                    }
                    Part::Bytes(bytes) => bytes,
                };
                word.clear();
                byte_level::encode(&bytes, &mut word);
                let tokens = self.model.tokenize(&word).map_err(backend)?;
                for token in tokens.into_iter().rev() {
                    if !barred.contains(&token.id) {
                        pending.push(Part::Token(token.id));
                        continue;
                    }
                    let own = byte_level::decode(&token.value);
                    if own.len() > 1 {
                        // Neither its first byte nor the rest is this token.
                        pending.push(Part::Bytes(own[1..].to_vec()));
                        pending.push(Part::Bytes(own[..1].to_vec()));
                    } else {
                        pending.push(Part::Token(token.id));
                    }
                }
            }
        }
        Ok(())
    }
}

enum Part {
    Token(u32),
    Bytes(Vec<u8>),
}

/// The merges as pairs, without those that name a text outside of the vocabulary (the crate
/// refuses these) and without repetitions (of which the first counts).
fn reachable_merges(
    ids: &BpeVocab,
    merges: &[String],
    warnings: &mut Vec<String>,
) -> Result<Vec<(String, String)>, TokenizerError> {
    let mut pairs = Vec::with_capacity(merges.len());
    let mut seen = HashSet::with_capacity(merges.len());
    let mut joined = String::new();
    let mut unknown = 0usize;
    for (index, merge) in merges.iter().enumerate() {
        // The first half may itself begin with a space in vocabularies that are not byte-level.
        let space = merge.char_indices().skip(1).find(|(_, c)| *c == ' ');
        let (left, right) = space
            .map(|(at, _)| (&merge[..at], &merge[at + 1..]))
            .filter(|(_, right)| !right.is_empty())
            .ok_or_else(|| TokenizerError::BadMerge {
                index,
                merge: merge.clone(),
            })?;
        joined.clear();
        joined.push_str(left);
        joined.push_str(right);
        if ![left, right, joined.as_str()]
            .iter()
            .all(|text| ids.contains_key(*text))
        {
            unknown += 1;
        } else if seen.insert((left, right)) {
            pairs.push((left.to_owned(), right.to_owned()));
        }
    }
    // Where none is left the list is a placeholder: the vocabulary is one of single characters.
    if unknown > 0 && !pairs.is_empty() {
        warnings.push(format!(
            "tokenizer.ggml.merges: {unknown} of {} name texts that are not in the vocabulary; \
             they are left out",
            merges.len()
        ));
    }
    Ok(pairs)
}

fn backend(error: tokenizers::Error) -> TokenizerError {
    TokenizerError::Backend {
        what: "byte-level BPE",
        reason: error.to_string(),
    }
}
