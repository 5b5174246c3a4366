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

impl GateFunction {
    /// Its value at `x`.
    pub fn of(self, x: f64) -> f64 {
        const SQRT_2_OVER_PI: f64 = 0.797_884_560_802_865_4;
        match self {
            GateFunction::Silu => x / (1.0 + (-x).exp()),
            GateFunction::GeluTanh => {
                0.5 * x * (1.0 + (SQRT_2_OVER_PI * x * (1.0 + 0.044_715 * x * x)).tanh())
            }
        }
    }
}

/// Where a block's RMSNorms are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockNorms {
    /// Before attention and before the feed-forward network.
    Before,
    /// There, and behind both, before the residual ("sandwich").
    Around,
    /// Behind both alone: they read the residual stream as it is.
    Behind,
}

/// What the RMSNorms of Q and K run over, before RoPE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    /// There are none.
    None,
    /// Each head.
    Head,
    /// All heads of a token together.
    Projection,
}

/// Factors beside those that follow from the shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scales {
    /// None.
    None,
    /// Embeddings are multiplied by `sqrt(width)`.
    SqrtWidth,
    /// The file's own: `embedding_scale`, `attention.scale` and `residual_scale`, which are factors, and `logit_scale`,
    /// by which logits are divided.
    File,
}

/// Tensors whose factors divide the frequencies of RoPE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeFactors {
    /// There are none.
    None,
    /// `rope_freqs.weight`, where the file has it.
    One,
    /// `rope_factors_short.weight` and `rope_factors_long.weight`, where the file has them: the long ones where
    /// the context is longer than that of the original training.
    ShortAndLong,
}

/// Layers whose queries and keys are not rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unrotated {
    /// None.
    None,
    /// The last of each so many.
    EachLastOf(usize),
    /// All, where the file says `rope.scaling.finetuned = false`, which this family's writers mean by it.
    UnlessFinetuned,
}

/// Layers with a sliding attention window, where an architecture has them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlidingLayers {
    /// Every `period`-th layer is global, the others are local, unless the file has a pattern of its own; 0 for
    /// local layers alone.
    pub period: usize,
    /// RoPE of the local layers.
    pub rope: LocalRope,
}

/// How layers with a window rotate. None of them stretches positions but by [`LocalRope::Global`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LocalRope {
    /// As the global ones.
    Global,
    /// With the global ones' base unless the file names another, and no attention factor.
    Plain,
    /// With this base unless the file names another, and the global ones' attention factor.
    Base(f32),
}

/// Feed-forward networks of which each token takes some: a router's softmax over all of them says which, and how much
/// each counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpertRule {
    /// Whether files of this architecture may have none.
    pub is_optional: bool,
    /// Whether the weights of those that a token takes are divided by their sum.
    pub normalizes: bool,
    /// Whether there is one more that every token takes, times the sigmoid of a gate of its own.
    pub has_shared: bool,
    /// Whether `feed_forward_length` counts the elements of all networks that a token takes together, where the file
    /// does not name `expert_feed_forward_length`.
    pub shares_width: bool,
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
    /// The gate's matrix is the first half of `ffn_up`.
    pub gate_in_up: bool,
    /// RMSNorms of Q and K.
    pub qk_norm: QkNorm,
    /// RMSNorms of a block.
    pub norms: BlockNorms,
    /// Factors on embeddings, scores, sums and logits.
    pub scales: Scales,
    /// Local and global layers alternate, where the file names a window.
    pub sliding: Option<SlidingLayers>,
    /// Factors on the frequencies of RoPE.
    pub rope_factors: RopeFactors,
    /// Layers without RoPE.
    pub unrotated: Unrotated,
    /// Files may have a temperature of queries by position, and a share of YaRN's own temperature that is taken back:
    /// `attention.temperature_scale` and `rope.scaling.yarn_log_multiplier`.
    pub has_temperatures: bool,
    /// Logits are capped by `final_logit_softcapping`, where the file names it.
    pub logit_softcap: bool,
    /// Feed-forward networks of which each token takes some. They have norms before them alone.
    pub experts: Option<ExpertRule>,
}

const LLAMA: Architecture = Architecture {
    name: "llama",
    rope_pairing: RopePairing::Adjacent,
    activation: GateFunction::Silu,
    gate_in_up: false,
    qk_norm: QkNorm::None,
    norms: BlockNorms::Before,
    scales: Scales::None,
    sliding: None,
    rope_factors: RopeFactors::One,
    unrotated: Unrotated::None,
    has_temperatures: false,
    logit_softcap: false,
    experts: None,
};

/// Mixtral's experts.
const MIXTRAL: ExpertRule = ExpertRule {
    is_optional: true,
    normalizes: true,
    has_shared: false,
    shares_width: false,
};

/// Every architecture that hyperion runs.
pub const ARCHITECTURES: &[Architecture] = &[
    Architecture {
        experts: Some(MIXTRAL),
        ..LLAMA
    },
    Architecture {
        name: "qwen2",
        rope_pairing: RopePairing::Halves,
        rope_factors: RopeFactors::None,
        ..LLAMA
    },
    Architecture {
        name: "qwen3",
        rope_pairing: RopePairing::Halves,
        qk_norm: QkNorm::Head,
        rope_factors: RopeFactors::None,
        ..LLAMA
    },
    Architecture {
        name: "qwen2moe",
        rope_pairing: RopePairing::Halves,
        rope_factors: RopeFactors::None,
        experts: Some(ExpertRule {
            is_optional: false,
            normalizes: false,
            has_shared: true,
            shares_width: true,
        }),
        ..LLAMA
    },
    Architecture {
        name: "qwen3moe",
        rope_pairing: RopePairing::Halves,
        qk_norm: QkNorm::Head,
        rope_factors: RopeFactors::None,
        experts: Some(ExpertRule {
            is_optional: false,
            normalizes: true,
            has_shared: false,
            shares_width: true,
        }),
        ..LLAMA
    },
    Architecture {
        name: "gemma3",
        rope_pairing: RopePairing::Halves,
        activation: GateFunction::GeluTanh,
        qk_norm: QkNorm::Head,
        norms: BlockNorms::Around,
        scales: Scales::SqrtWidth,
        sliding: Some(SlidingLayers {
            period: 6,
            rope: LocalRope::Base(10_000.0),
        }),
        rope_factors: RopeFactors::None,
        logit_softcap: true,
        ..LLAMA
    },
    Architecture {
        name: "granite",
        scales: Scales::File,
        unrotated: Unrotated::UnlessFinetuned,
        ..LLAMA
    },
    Architecture {
        name: "smollm3",
        rope_factors: RopeFactors::None,
        unrotated: Unrotated::EachLastOf(4),
        ..LLAMA
    },
    Architecture {
        name: "phi3",
        rope_pairing: RopePairing::Halves,
        gate_in_up: true,
        // llama.cpp leaves the window out; the models were trained with it.
        sliding: Some(SlidingLayers {
            period: 0,
            rope: LocalRope::Global,
        }),
        rope_factors: RopeFactors::ShortAndLong,
        ..LLAMA
    },
    Architecture {
        name: "olmo2",
        rope_pairing: RopePairing::Halves,
        qk_norm: QkNorm::Projection,
        norms: BlockNorms::Behind,
        sliding: Some(SlidingLayers {
            period: 4,
            rope: LocalRope::Plain,
        }),
        rope_factors: RopeFactors::None,
        ..LLAMA
    },
    Architecture {
        name: "mistral3",
        has_temperatures: true,
        experts: Some(MIXTRAL),
        ..LLAMA
    },
];

impl Architecture {
    /// The names of all rows.
    pub fn names() -> impl Iterator<Item = &'static str> {
        ARCHITECTURES.iter().map(|arch| arch.name)
    }

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
            known: Architecture::names().collect(),
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
