//! The vocabulary as a model file describes it, and its checked form.

use std::collections::HashMap;

use crate::gguf::{Array, Gguf, GgufError, Metadata, StringArray};

use super::TokenizerError;
use super::end::end_of_generation;

/// What the `tokenizer.ggml.*` metadata of a GGUF file says, unchecked. An absent key is `None`
/// or an empty list.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)] // Each field is the metadata key of the same name.
pub struct VocabSpec {
    pub model: String,
    pub pre: Option<String>,
    pub tokens: Vec<String>,
    pub scores: Vec<f32>,
    pub token_types: Vec<i32>,
    pub merges: Vec<String>,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub eot: Option<u32>,
    pub eom: Option<u32>,
    pub unk: Option<u32>,
    pub pad: Option<u32>,
    pub fim_pad: Option<u32>,
    pub fim_rep: Option<u32>,
    pub fim_sep: Option<u32>,
    pub add_bos: Option<bool>,
    pub add_eos: Option<bool>,
    pub add_space_prefix: Option<bool>,
}

impl VocabSpec {
    /// Reads the metadata of a file, which need not hold any tensors.
    ///
    /// # Errors
    /// `tokenizer.ggml.model` or `tokenizer.ggml.tokens` is missing, or a key holds another type
    /// than it should.
    pub fn from_gguf(gguf: &Gguf) -> Result<VocabSpec, GgufError> {
        let metadata = gguf.metadata();
        // -1 and 4294967295 stand for "none"; whether an id exists is checked later.
        let id = |name: &str| {
            let id: Option<i64> = metadata.find(&format!("tokenizer.ggml.{name}_token_id"))?;
            Ok::<_, GgufError>(id.map(|id| u32::try_from(id).unwrap_or(u32::MAX)))
        };
        let flag = |name: &str| metadata.find(&format!("tokenizer.ggml.{name}"));
        let merges: Option<&StringArray> = metadata.find("tokenizer.ggml.merges")?;
        Ok(VocabSpec {
            model: metadata.get_str("tokenizer.ggml.model")?.to_owned(),
            pre: metadata.find("tokenizer.ggml.pre")?.map(str::to_owned),
            tokens: owned(metadata.get_strs("tokenizer.ggml.tokens")?),
            scores: scores(metadata)?,
            token_types: token_types(metadata)?,
            merges: merges.map(owned).unwrap_or_default(),
            bos: id("bos")?,
            eos: id("eos")?,
            eot: id("eot")?,
            eom: id("eom")?,
            unk: id("unknown")?,
            pad: id("padding")?,
            fim_pad: id("fim_pad")?,
            fim_rep: id("fim_rep")?,
            fim_sep: id("fim_sep")?,
            add_bos: flag("add_bos_token")?,
            add_eos: flag("add_eos_token")?,
            add_space_prefix: flag("add_space_prefix")?,
        })
    }
}

fn owned(strings: &StringArray) -> Vec<String> {
    strings.iter().map(str::to_owned).collect()
}

/// Some converters wrote scores as integers.
fn scores(metadata: &Metadata) -> Result<Vec<f32>, GgufError> {
    let key = "tokenizer.ggml.scores";
    if let Some(Array::I32(scores)) = metadata.find::<&Array>(key)? {
        return Ok(scores.iter().map(|&score| score as f32).collect());
    }
    let scores: Option<&[f32]> = metadata.find(key)?;
    Ok(scores.unwrap_or_default().to_vec())
}

fn token_types(metadata: &Metadata) -> Result<Vec<i32>, GgufError> {
    let types: Option<&[i32]> = metadata.find("tokenizer.ggml.token_type")?;
    Ok(types.unwrap_or_default().to_vec())
}

/// The algorithms that are implemented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ModelKind {
    /// `gpt2`: byte-level BPE with ranked merges.
    Bpe,
    /// `llama`: SentencePiece's BPE, merging by the scores of the results.
    Spm,
}

/// `tokenizer.ggml.token_type`, numbered as in SentencePiece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

impl TokenKind {
    fn from_gguf(value: i32) -> TokenKind {
        match value {
            2 => TokenKind::Unknown,
            3 => TokenKind::Control,
            4 => TokenKind::UserDefined,
            5 => TokenKind::Unused,
            6 => TokenKind::Byte,
            _ => TokenKind::Normal,
        }
    }
}

/// What the algorithm and the pre-tokenizer imply where the file is silent.
pub(super) struct Defaults {
    pub add_bos: bool,
    pub add_space_prefix: bool,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub unk: Option<u32>,
}

/// A checked vocabulary: every id it names exists and every text is unique.
#[derive(Debug)]
pub(super) struct Vocab {
    pub tokens: Vec<String>,
    pub kinds: Vec<TokenKind>,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub unk: Option<u32>,
    /// The ids after which a model has nothing more to say, sorted.
    pub end_of_generation: Vec<u32>,
    pub add_bos: bool,
    pub add_eos: bool,
    pub add_space_prefix: bool,
}

impl Vocab {
    /// Checks `spec`, of which the scores and merges are the algorithm's to check. `warnings` is told of ids
    /// that do not exist and are not needed.
    pub fn new(
        spec: &mut VocabSpec,
        defaults: Defaults,
        warnings: &mut Vec<String>,
    ) -> Result<Vocab, TokenizerError> {
        let mut tokens = std::mem::take(&mut spec.tokens);
        let count = tokens.len();
        if count == 0 {
            return Err(TokenizerError::EmptyVocabulary);
        }
        if u32::try_from(count).is_err() {
            return Err(TokenizerError::VocabularyTooLarge(count));
        }
        check_length("tokenizer.ggml.token_type", spec.token_types.len(), count)?;
        let mut kinds: Vec<TokenKind> = spec
            .token_types
            .iter()
            .take(count)
            .map(|&value| TokenKind::from_gguf(value))
            .collect();
        kinds.resize(count, TokenKind::Normal);

        // llama.cpp's stand-in for an empty text, which could never be matched or told apart.
        for (id, text) in tokens.iter_mut().enumerate() {
            if text.is_empty() {
                *text = format!("[EMPTY_{id}]");
            }
        }
        let ids = index(&tokens)?;

        let add_bos = spec.add_bos.unwrap_or(defaults.add_bos);
        let add_eos = spec.add_eos.unwrap_or(false);
        let mut checked = |key, id: Option<u32>, needed: bool| match id {
            Some(id) if id as usize >= count && needed => Err(TokenizerError::IdOutOfRange {
                key,
                id,
                tokens: count,
            }),
            Some(id) if id as usize >= count => {
                // All bits set is how files say "none".
                if id != u32::MAX {
                    warnings.push(format!(
                        "{key} is {id}, but there are {count} tokens; it is ignored"
                    ));
                }
                Ok(None)
            }
            id => Ok(id),
        };
        let or_default = |id: Option<u32>, default: Option<u32>| {
            id.or(default.filter(|&id| (id as usize) < count))
        };
        let bos = checked("tokenizer.ggml.bos_token_id", spec.bos, add_bos)?;
        let eos = checked("tokenizer.ggml.eos_token_id", spec.eos, add_eos)?;
        let unk = checked("tokenizer.ggml.unknown_token_id", spec.unk, false)?;
        let bos = or_default(bos, defaults.bos);
        let eos = or_default(eos, defaults.eos);
        let named_ends = [
            eos,
            checked("tokenizer.ggml.eot_token_id", spec.eot, false)?,
            checked("tokenizer.ggml.eom_token_id", spec.eom, false)?,
            checked("tokenizer.ggml.fim_pad_token_id", spec.fim_pad, false)?,
            checked("tokenizer.ggml.fim_rep_token_id", spec.fim_rep, false)?,
            checked("tokenizer.ggml.fim_sep_token_id", spec.fim_sep, false)?,
        ];
        checked("tokenizer.ggml.padding_token_id", spec.pad, false)?;

        if add_bos && bos.is_none() {
            return Err(TokenizerError::MissingSpecial {
                flag: "tokenizer.ggml.add_bos_token",
                id: "tokenizer.ggml.bos_token_id",
            });
        }
        if add_eos && eos.is_none() {
            return Err(TokenizerError::MissingSpecial {
                flag: "tokenizer.ggml.add_eos_token",
                id: "tokenizer.ggml.eos_token_id",
            });
        }

        let end_of_generation = end_of_generation(&ids, &kinds, named_ends);
        // Files exist that give such a token an ordinary type; it must still parse as a control
        // token and stay out of the text.
        for &id in &end_of_generation {
            kinds[id as usize] = TokenKind::Control;
        }
        drop(ids);
        Ok(Vocab {
            kinds,
            bos,
            eos,
            unk: or_default(unk, defaults.unk),
            end_of_generation,
            add_bos,
            add_eos,
            add_space_prefix: spec.add_space_prefix.unwrap_or(defaults.add_space_prefix),
            tokens,
        })
    }

    /// Ids, texts and kinds.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &str, TokenKind)> {
        (0..)
            .zip(&self.tokens)
            .zip(&self.kinds)
            .map(|((id, text), &kind)| (id, text.as_str(), kind))
    }
}

/// An optional per-token array must cover all tokens; llama.cpp ignores what exceeds them.
pub(super) fn check_length(
    key: &'static str,
    found: usize,
    tokens: usize,
) -> Result<(), TokenizerError> {
    if found != 0 && found < tokens {
        return Err(TokenizerError::Length { key, found, tokens });
    }
    Ok(())
}

fn index(tokens: &[String]) -> Result<HashMap<&str, u32>, TokenizerError> {
    let mut ids = HashMap::with_capacity(tokens.len());
    for (second, text) in (0..).zip(tokens) {
        if let Some(first) = ids.insert(text.as_str(), second) {
            return Err(TokenizerError::DuplicateToken {
                text: text.clone(),
                first,
                second,
            });
        }
    }
    Ok(ids)
}

/// The byte that a SentencePiece byte token such as `<0x0A>` stands for.
pub(super) fn byte_of(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}
