//! What can be wrong with a vocabulary, or with a text given to it.

use crate::gguf::GgufError;

/// An error of this module. Vocabularies come from untrusted files, so every one of their fields
/// is checked before use.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file lacks a key without which there is no tokenizer, or holds another type there.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// `tokenizer.ggml.model` names an algorithm that is not implemented.
    #[error(
        "tokenizer.ggml.model is '{0}'; this engine knows 'gpt2' (byte-level BPE) and 'llama' \
         (SentencePiece)"
    )]
    UnknownModel(String),
    /// `tokenizer.ggml.pre` names an unknown pre-tokenizer. Guessing one would silently change
    /// the tokens that the model sees, so this is an error, as it is in llama.cpp.
    #[error("tokenizer.ggml.pre is '{name}'; known are: {known}")]
    UnknownPreTokenizer {
        /// The name in the file.
        name: String,
        /// The names in the table, separated by commas.
        known: String,
    },
    /// `tokenizer.ggml.tokens` is empty.
    #[error("tokenizer.ggml.tokens is empty")]
    EmptyVocabulary,
    /// More tokens than a 32-bit id can count.
    #[error("tokenizer.ggml.tokens has {0} entries, more than token ids can count")]
    VocabularyTooLarge(usize),
    /// A list without which text cannot be cut into the tokens that the model was trained with.
    #[error("the file has no {key}, without which {of} cannot join letters to tokens")]
    Missing {
        /// The metadata key.
        key: &'static str,
        /// The algorithm.
        of: &'static str,
    },
    /// A per-token array is shorter than the list of tokens.
    #[error("{key} has {found} entries for {tokens} tokens")]
    Length {
        /// The metadata key.
        key: &'static str,
        /// Its length.
        found: usize,
        /// The number of tokens.
        tokens: usize,
    },
    /// Two tokens have the same text.
    #[error("tokenizer.ggml.tokens: ids {first} and {second} are both {text:?}")]
    DuplicateToken {
        /// The text.
        text: String,
        /// The lower id.
        first: u32,
        /// The higher id.
        second: u32,
    },
    /// A special id lies outside of the vocabulary.
    #[error("{key} is {id}, but there are {tokens} tokens")]
    IdOutOfRange {
        /// The metadata key.
        key: &'static str,
        /// The id in the file.
        id: u32,
        /// The number of tokens.
        tokens: usize,
    },
    /// A merge is not two texts with a space between them.
    #[error("tokenizer.ggml.merges[{index}] is {merge:?}, not two texts and a space")]
    BadMerge {
        /// Position in the list.
        index: usize,
        /// The entry.
        merge: String,
    },
    /// A flag asks for a token that the file does not name.
    #[error("{flag} is true, but {id} is not set")]
    MissingSpecial {
        /// The key of the flag.
        flag: &'static str,
        /// The key of the id.
        id: &'static str,
    },
    /// A byte of the text has neither a token of its own nor an unknown token to stand for it.
    #[error("the vocabulary has no token for the byte 0x{0:02X} and no unknown token")]
    NoByteToken(u8),
    /// The text is too long for 32-bit positions.
    #[error("the text has {0} bytes, more than the tokenizer can index")]
    TextTooLong(usize),
    /// A library refused what the file holds.
    #[error("{what}: {reason}")]
    Backend {
        /// What was being built or run.
        what: &'static str,
        /// The library's message.
        reason: String,
    },
}
