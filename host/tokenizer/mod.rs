//! Tokenizers, built from the metadata of a model file.
//!
//! Two algorithms cover the models that this engine runs: byte-level BPE (`gpt2`) and
//! SentencePiece's BPE (`llama`). Where a file is silent or ambiguous, llama.cpp's choices are
//! followed, because they are what the files were made for.

mod bpe;
mod byte_level;
mod end;
mod error;
mod pretokenizer;
mod pretokenizer_table;
mod prompt;
mod special;
mod spm;
mod stream;
mod vocab;

use std::collections::BTreeSet;
use std::sync::Arc;

pub use error::TokenizerError;
pub use prompt::Prompt;
pub use stream::StreamDecoder;
pub use vocab::VocabSpec;

use crate::gguf::Gguf;

use bpe::Bpe;
use special::{Fragment, SpecialTokens};
use spm::Spm;
use vocab::{Defaults, ModelKind, TokenKind, Vocab, byte_of};

/// What to do besides turning text into tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Add the BOS and EOS tokens that the file asks for.
    pub add_special: bool,
    /// Read control tokens such as `<|im_end|>` in the text as what they are. Leave this off for
    /// text of unknown origin.
    pub parse_special: bool,
}

/// Turns text into tokens and back. Clones are cheap and share the vocabulary.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    vocab: Vocab,
    special: SpecialTokens,
    algorithm: Algorithm,
    warnings: Vec<String>,
}

#[derive(Debug)]
enum Algorithm {
    Bpe(Box<Bpe>),
    Spm(Spm),
}

impl Tokenizer {
    /// Builds the tokenizer that a model file describes. The file need not hold any tensors.
    ///
    /// # Errors
    /// Missing or contradictory metadata, and as [`new`](Self::new).
    pub fn from_gguf(gguf: &Gguf) -> Result<Tokenizer, TokenizerError> {
        Tokenizer::new(VocabSpec::from_gguf(gguf)?)
    }

    /// Builds a tokenizer from what a file says.
    ///
    /// # Errors
    /// Everything in `spec` that contradicts itself, and models and pre-tokenizers that are not
    /// implemented.
    pub fn new(mut spec: VocabSpec) -> Result<Tokenizer, TokenizerError> {
        let mut warnings = Vec::new();
        let (vocab, algorithm) = match model_kind(&spec.model)? {
            ModelKind::Bpe => {
                if spec.pre.is_none() {
                    warnings.push(
                        "tokenizer.ggml.pre is missing; 'default' is used, with which the model \
                         may do worse"
                            .to_owned(),
                    );
                }
                let pre = pretokenizer::find(spec.pre.as_deref().unwrap_or("default"))?;
                let defaults = Defaults {
                    add_bos: pre.add_bos,
                    add_space_prefix: false,
                    bos: Some(11),
                    eos: Some(11),
                    unk: None,
                };
                let vocab = Vocab::new(&mut spec, defaults, &mut warnings)?;
                let bpe = Bpe::new(&vocab, &spec.merges, pre, &mut warnings)?;
                (vocab, Algorithm::Bpe(Box::new(bpe)))
            }
            ModelKind::Spm => {
                let defaults = Defaults {
                    add_bos: true,
                    add_space_prefix: true,
                    bos: Some(1),
                    eos: Some(2),
                    unk: Some(0),
                };
                let vocab = Vocab::new(&mut spec, defaults, &mut warnings)?;
                let spm = Spm::new(&vocab, &spec.scores)?;
                (vocab, Algorithm::Spm(spm))
            }
        };
        Ok(Tokenizer {
            shared: Arc::new(Shared {
                special: SpecialTokens::new(&vocab)?,
                vocab,
                algorithm,
                warnings,
            }),
        })
    }

    /// What is odd about the file but does not prevent its use, a sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.shared.warnings
    }

    /// The tokens of `text`.
    ///
    /// # Errors
    /// The vocabulary has no token for some byte of the text, or the text exceeds 4 GiB.
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>, TokenizerError> {
        let vocab = &self.shared.vocab;
        let mut out = Vec::with_capacity(text.len() / 4 + 2);
        if options.add_special && vocab.add_bos {
            out.extend(vocab.bos);
        }
        let fragments = self.shared.special.split(text, options.parse_special);
        self.encode_fragments(fragments, &BTreeSet::new(), &mut out)?;
        if options.add_special && vocab.add_eos {
            out.extend(vocab.eos);
        }
        Ok(out)
    }

    /// The tokens of a rendered chat: markup is parsed in what the template wrote and nowhere else,
    /// and the BOS token is added if the file asks for one and the template has not written it.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_prompt(&self, prompt: &Prompt) -> Result<Vec<u32>, TokenizerError> {
        let vocab = &self.shared.vocab;
        let (fragments, markup) = prompt.split(&self.shared.special);
        let bos = vocab.bos.filter(|_| vocab.add_bos);
        let bos = bos.filter(|&bos| fragments.first() != Some(&Fragment::Token(bos)));
        let mut out = Vec::with_capacity(prompt.text.len() / 4 + 1);
        out.extend(bos);
        self.encode_fragments(fragments, &markup, &mut out)?;
        Ok(out)
    }

    /// What is odd about the tokens of a prompt, a sentence each.
    pub fn prompt_warnings(&self, tokens: &[u32]) -> Vec<String> {
        let vocab = &self.shared.vocab;
        let mut warnings = Vec::new();
        if let Some(bos) = vocab.bos
            && tokens.starts_with(&[bos, bos])
        {
            warnings.push(format!(
                "the prompt begins with two {:?} tokens: the file adds one, and the text has one",
                self.token_text(bos)
            ));
        }
        if let Some(eos) = vocab.eos
            && tokens.len() > 1
            && tokens.ends_with(&[eos])
        {
            warnings.push(format!(
                "the prompt ends with {:?}, after which a model begins something else",
                self.token_text(eos)
            ));
        }
        warnings
    }

    /// Appends the tokens of `fragments`, whose texts must not become one of `barred`.
    fn encode_fragments(
        &self,
        fragments: Vec<Fragment>,
        barred: &BTreeSet<u32>,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let mut after_special = true;
        for fragment in fragments {
            match fragment {
                Fragment::Token(id) => {
                    out.push(id);
                    after_special = true;
                }
                Fragment::Text(text) => {
                    match &self.shared.algorithm {
                        Algorithm::Bpe(bpe) => bpe.encode(text, barred, out)?,
                        Algorithm::Spm(spm) => {
                            let prefix = self.shared.vocab.add_space_prefix && after_special;
                            let prefix = if prefix { spm::SPACE } else { "" };
                            let text = [prefix, &text.replace(' ', spm::SPACE)].concat();
                            spm.encode(&text, barred, out)?;
                        }
                    }
                    after_special = false;
                }
            }
        }
        Ok(())
    }

    /// The text of `tokens`, without control tokens and without the space that encoding put
    /// before the first word. Bytes that are not UTF-8 become U+FFFD.
    pub fn decode(&self, tokens: &[u32]) -> String {
        let mut bytes = Vec::new();
        for &token in tokens.iter().filter(|&&token| !self.is_control(token)) {
            bytes.extend(self.token_bytes(token));
        }
        let added = self.shared.vocab.add_space_prefix && bytes.first() == Some(&b' ');
        String::from_utf8_lossy(&bytes[usize::from(added)..]).into_owned()
    }

    /// A decoder for tokens that come one at a time.
    pub fn stream(&self) -> StreamDecoder {
        StreamDecoder::new(self.clone())
    }

    /// The bytes that a token stands for, which need not be whole characters; for a control token
    /// its name. Empty for an id outside of the vocabulary.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        let Some((text, kind)) = self.token(id) else {
            return Vec::new();
        };
        match kind {
            TokenKind::Control | TokenKind::Unknown | TokenKind::UserDefined => {
                text.as_bytes().to_vec()
            }
            TokenKind::Byte => match byte_of(text) {
                Some(byte) => vec![byte],
                None => text.as_bytes().to_vec(),
            },
            TokenKind::Normal | TokenKind::Unused => match self.shared.algorithm {
                Algorithm::Bpe(_) => byte_level::decode(text),
                Algorithm::Spm(_) => text.replace(spm::SPACE, " ").into_bytes(),
            },
        }
    }

    /// [`token_bytes`](Self::token_bytes) for people to read: partial characters become U+FFFD.
    pub fn token_text(&self, id: u32) -> String {
        String::from_utf8_lossy(&self.token_bytes(id)).into_owned()
    }

    /// Whether a token is markup (control or unknown), which is no part of the text.
    pub fn is_control(&self, id: u32) -> bool {
        let kind = self.token(id).map(|(_, kind)| kind);
        matches!(kind, Some(TokenKind::Control | TokenKind::Unknown))
    }

    /// Whether a model that gives this token has finished: end of text, of turn, of message.
    pub fn is_end_of_generation(&self, id: u32) -> bool {
        self.end_of_generation().binary_search(&id).is_ok()
    }

    /// All tokens that end a generation, in ascending order.
    pub fn end_of_generation(&self) -> &[u32] {
        &self.shared.vocab.end_of_generation
    }

    /// The parts of `text`: markup that is a token of its own (control tokens, and user-defined ones of more than white
    /// space) with its id, and what is between.
    pub fn markup_in<'t>(&self, text: &'t str) -> Vec<(&'t str, Option<u32>)> {
        let special = &self.shared.special;
        let mut parts = Vec::new();
        let mut copied = 0;
        let mut at = 0;
        while let Some(found) = special.find(text, at) {
            at = found.end;
            if special.is_control(found.id) || special.is_visible(found.id) {
                if copied < found.start {
                    parts.push((&text[copied..found.start], None));
                }
                parts.push((&text[found.start..found.end], Some(found.id)));
                copied = found.end;
            }
        }
        if copied < text.len() {
            parts.push((&text[copied..], None));
        }
        parts
    }

    /// The token that opens a text, whether or not it is added by itself.
    pub fn bos(&self) -> Option<u32> {
        self.shared.vocab.bos
    }

    /// The token that closes a text.
    pub fn eos(&self) -> Option<u32> {
        self.shared.vocab.eos
    }

    /// The number of tokens; ids count from 0.
    pub fn vocab_size(&self) -> usize {
        self.shared.vocab.tokens.len()
    }

    fn token(&self, id: u32) -> Option<(&str, TokenKind)> {
        let vocab = &self.shared.vocab;
        let text = vocab.tokens.get(id as usize)?;
        Some((text, *vocab.kinds.get(id as usize)?))
    }
}

fn model_kind(model: &str) -> Result<ModelKind, TokenizerError> {
    match model {
        "gpt2" => Ok(ModelKind::Bpe),
        "llama" => Ok(ModelKind::Spm),
        other => Err(TokenizerError::UnknownModel(other.to_owned())),
    }
}
