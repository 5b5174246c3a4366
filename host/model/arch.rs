//! The architecture table: one row says everything in which a model family differs from the others.

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
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// GELU in its tanh form, as Gemma was trained with.
    GeluTanh,
}

/// Layers with a sliding attention window, where an architecture has them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlidingLayers {
    /// Every `period`-th layer is global, the others are local.
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
    pub activation: Activation,
    /// Q, K and V have biases.
    pub qkv_bias: bool,
    /// RMSNorm over each head of Q and K before RoPE.
    pub qk_norm: bool,
    /// RMSNorm after attention and after the feed-forward block, before the residual ("sandwich").
    pub post_norms: bool,
    /// Embeddings are multiplied by `sqrt(width)`.
    pub scale_embeddings: bool,
    /// Local and global layers alternate.
    pub sliding: Option<SlidingLayers>,
}

const LLAMA: Architecture = Architecture {
    name: "llama",
    rope_pairing: RopePairing::Adjacent,
    activation: Activation::Silu,
    qkv_bias: false,
    qk_norm: false,
    post_norms: false,
    scale_embeddings: false,
    sliding: None,
};

/// Every architecture that hyperion runs.
pub const ARCHITECTURES: &[Architecture] = &[
    LLAMA,
    Architecture {
        name: "qwen2",
        rope_pairing: RopePairing::Halves,
        qkv_bias: true,
        ..LLAMA
    },
    Architecture {
        name: "qwen3",
        rope_pairing: RopePairing::Halves,
        qk_norm: true,
        ..LLAMA
    },
    Architecture {
        name: "gemma3",
        rope_pairing: RopePairing::Halves,
        activation: Activation::GeluTanh,
        qk_norm: true,
        post_norms: true,
        scale_embeddings: true,
        sliding: Some(SlidingLayers {
            period: 6,
            local_rope_base: 10_000.0,
        }),
        ..LLAMA
    },
];

impl Architecture {
    /// The row named `name`.
    pub fn find(name: &str) -> Option<&'static Architecture> {
        ARCHITECTURES.iter().find(|arch| arch.name == name)
    }
}
