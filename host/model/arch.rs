//! The architecture table: one row says everything in which a model family differs from the others.

use super::error::ModelError;
use crate::gguf::Gguf;

/// Which two elements of a head RoPE rotates together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopePairing {
    /// Elements `2i` and `2i + 1` (ggml's `NORM`; GGUF's Llama files permute Q and K for it).
    Adjacent,
    /// Elements `i` and `i + dim / 2` (ggml's `NEOX`).
    Halves,
}

/// The gate's activation in the feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateFunction {
    /// `x * sigmoid(x)`.
    Silu,
    /// GELU in its tanh form, as Gemma was trained with.
    GeluTanh,
}

/// Layers with a sliding attention window, where an architecture has them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlidingLayers {
    /// Every `period`-th layer is global, the others are local, unless the file has a pattern of its own.
    pub period: usize,
    /// RoPE base of the local layers unless the file names one.
    pub local_rope_base: f32,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Architecture {
    /// The value of `general.architecture` and the prefix of its keys.
    pub name: &'static str,
    /// RoPE pairing.
    pub rope_pairing: RopePairing,
    /// Feed-forward activation.
    pub activation: GateFunction,
    /// RMSNorm over each head of Q and K before RoPE.
    pub qk_norm: bool,
    /// RMSNorm after attention and after the feed-forward block, before the residual ("sandwich").
    pub post_norms: bool,
    /// Embeddings are multiplied by `sqrt(width)`.
    pub scale_embeddings: bool,
    /// Local and global layers alternate, where the file names a window.
    pub sliding: Option<SlidingLayers>,
    /// The frequencies of RoPE are divided by the factors in `rope_freqs.weight`, where the file has it.
    pub rope_factors: bool,
    /// Logits are capped by `final_logit_softcapping`, where the file names it.
    pub logit_softcap: bool,
}

const LLAMA: Architecture = Architecture {
    name: "llama",
    rope_pairing: RopePairing::Adjacent,
    activation: GateFunction::Silu,
    qk_norm: false,
    post_norms: false,
    scale_embeddings: false,
    sliding: None,
    rope_factors: true,
    logit_softcap: false,
};

/// Every architecture that hyperion runs.
pub const ARCHITECTURES: &[Architecture] = &[
    LLAMA,
    Architecture {
        name: "qwen2",
        rope_pairing: RopePairing::Halves,
        rope_factors: false,
        ..LLAMA
    },
    Architecture {
        name: "qwen3",
        rope_pairing: RopePairing::Halves,
        qk_norm: true,
        rope_factors: false,
        ..LLAMA
    },
    Architecture {
        name: "gemma3",
        rope_pairing: RopePairing::Halves,
        activation: GateFunction::GeluTanh,
        qk_norm: true,
        post_norms: true,
        scale_embeddings: true,
        sliding: Some(SlidingLayers {
            period: 6,
            local_rope_base: 10_000.0,
        }),
        rope_factors: false,
        logit_softcap: true,
    },
];

impl Architecture {
    /// The row named `name`.
    pub fn find(name: &str) -> Option<&'static Architecture> {
        ARCHITECTURES.iter().find(|arch| arch.name == name)
    }

    /// The row of the model in `gguf`.
    ///
    /// # Errors
    /// The file names none, or one that is not in the table, or holds something that is no model.
    pub fn of(gguf: &Gguf) -> Result<&'static Architecture, ModelError> {
        const KEY: &str = "general.architecture";
        let metadata = gguf.metadata();
        let kind: Option<&str> = metadata.find("general.type")?;
        let no_model = || {
            let kind = kind.filter(|kind| NO_MODELS.contains(kind))?;
            Some(ModelError::NotAModel(kind.to_owned()))
        };
        let found = match metadata.find(KEY)? {
            Some(found) => found,
            None => return Err(no_model().unwrap_or(metadata.missing(KEY).into())),
        };
        let arch = Architecture::find(found).ok_or_else(|| ModelError::UnknownArchitecture {
            found: found.to_owned(),
            what: what_it_is(found),
            known: ARCHITECTURES.iter().map(|arch| arch.name).collect(),
        })?;
        no_model().map_or(Ok(arch), Err)
    }
}

/// Values of `general.type` for files that accompany a model.
const NO_MODELS: &[&str] = &["adapter", "imatrix", "mmproj"];

/// What a file of architecture `name` is for, where it does not write text.
fn what_it_is(name: &str) -> Option<&'static str> {
    match name {
        "clip" => Some("the image or sound part of a multimodal model, an mmproj"),
        "bert" | "modern-bert" | "nomic-bert" | "nomic-bert-moe" | "neo-bert" | "jina-bert-v2"
        | "jina-bert-v3" | "eurobert" | "gemma-embedding" | "llama-embed" | "t5encoder" => {
            Some("an embedding model, which writes no text")
        }
        "eagle3" | "dflash" | "gemma4-assistant" => {
            Some("the draft part of another model, for speculative decoding")
        }
        "wavtokenizer-dec" => Some("a decoder of sound"),
        _ => None,
    }
}
