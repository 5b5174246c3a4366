//! How each layer attends: its window and its rotation, from the file's keys and the architecture's row.

use super::arch::{LocalRope, RopeFactors, Unrotated};
use super::error::ModelError;
use super::keys::{Keys, integers};
use super::rope::{Rope, RopeScaling};
use super::temperature::QueryTemperature;
use crate::gguf::{Gguf, Value};

/// Llama 3's factors on the frequencies of RoPE.
const ROPE_FACTORS: &str = "rope_freqs.weight";
/// Phi 3's, for contexts up to the original one and for longer ones.
const SHORT_AND_LONG_FACTORS: [&str; 2] = ["rope_factors_short.weight", "rope_factors_long.weight"];

/// The tensors that [`LayerReader`] reads for these factors.
pub(super) fn factor_tensors(factors: RopeFactors) -> &'static [&'static str] {
    match factors {
        RopeFactors::None => &[],
        RopeFactors::One => &[ROPE_FACTORS],
        RopeFactors::ShortAndLong => &SHORT_AND_LONG_FACTORS,
    }
}

/// Which keys a layer attends to, and how it rotates them.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerAttention {
    /// `Some(w)`: a query sees itself and the `w - 1` tokens before it; `None`: all before it.
    pub window: Option<usize>,
    /// Index into [`Layers::ropes`]; `None` where nothing is rotated.
    pub rope: Option<usize>,
}

/// The rotation of global layers, where it depends on the length of the context.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeByContext {
    /// Tokens of the longest context that `short` is for.
    pub original_context: usize,
    /// Of contexts up to there.
    pub short: Rope,
    /// Of longer ones.
    pub long: Rope,
}

/// The layers' attention and what it refers to.
pub(super) struct Layers {
    /// The distinct rotations: `[0]` for global layers, `[1]` for local ones that rotate otherwise.
    pub ropes: Vec<Rope>,
    /// What `ropes[0]` is, for each context.
    pub rope_by_context: Option<RopeByContext>,
    /// What the queries of all layers are multiplied by.
    pub query_temperature: Option<QueryTemperature>,
    /// `[n_layers]`.
    pub layers: Vec<LayerAttention>,
}

/// What the rotations and windows of the layers depend on.
pub(super) struct LayerReader<'a> {
    pub keys: &'a Keys<'a>,
    pub n_blocks: usize,
    pub n_layers: usize,
    pub head_dim: usize,
    pub context_length: usize,
}

impl LayerReader<'_> {
    /// Reads the keys, and of `gguf` the factors of RoPE.
    ///
    /// # Errors
    /// An impossible value.
    pub(super) fn read(&self, gguf: &Gguf) -> Result<Layers, ModelError> {
        let arch = self.keys.arch();
        let base = self.base()?;
        let scaling = self.rope_scaling()?;
        if matches!(scaling, RopeScaling::Yarn { .. }) && base <= 1.0 {
            let what = format!("{base} with YaRN, not above 1");
            return Err(self.keys.invalid("rope.freq_base", what));
        }
        let attention_factor = self
            .keys
            .optional_positive("rope.scaling.attn_factor")?
            .unwrap_or(1.0);
        let rotated = self.rotated()?;
        let factors = factor_tensors(arch.rope_factors).iter();
        let factors: Vec<Option<Vec<f32>>> = factors
            .map(|name| self.factors(gguf, name, rotated))
            .collect::<Result<_, _>>()?;
        let rope = |base, scaling, factors: Option<&Vec<f32>>| {
            let factors = factors.map(Vec::as_slice);
            Rope::new(arch.rope_pairing, rotated, base, scaling, factors)
        };
        let global = |factors| rope(base, scaling, factors).with_attention_factor(attention_factor);

        let rope_by_context = match factors.as_slice() {
            [Some(short), Some(long)] => Some(RopeByContext {
                original_context: self.original_context()?,
                short: global(Some(short)),
                long: global(Some(long)),
            }),
            [None, None] | [] | [_] => None,
            [short, ..] => {
                let [first, second] = SHORT_AND_LONG_FACTORS;
                let (there, missing) = match short {
                    Some(_) => (first, second),
                    None => (second, first),
                };
                return Err(ModelError::Metadata {
                    key: missing.to_owned(),
                    what: format!("there is none beside {there}"),
                });
            }
        };
        let one = factors.first().and_then(Option::as_ref);
        let mut ropes = vec![match &rope_by_context {
            Some(ropes) => ropes.of(self.context_length).clone(),
            None => global(one),
        }];

        let windows = self.windows()?;
        let local_rope = arch.sliding.map_or(LocalRope::Global, |local| local.rope);
        if windows.iter().any(Option::is_some) && local_rope != LocalRope::Global {
            // The context is stretched on global layers only: local ones never see past their window.
            let named = &["rope.freq_base_swa", "rope.local.freq_base"];
            let named = self.keys.optional_alias(named)?;
            let local = |base| rope(named.unwrap_or(base), RopeScaling::None, one);
            ropes.push(match local_rope {
                LocalRope::Base(base) => local(base).with_attention_factor(attention_factor),
                LocalRope::Plain | LocalRope::Global => local(base),
            });
        }
        let unrotated = self.unrotated()?;
        let layers = windows.into_iter().zip(unrotated);
        let layers = layers.map(|(window, is_unrotated)| LayerAttention {
            window,
            rope: match window {
                _ if is_unrotated => None,
                None => Some(0),
                Some(_) => Some(ropes.len() - 1),
            },
        });
        Ok(Layers {
            layers: layers.collect(),
            ropes,
            rope_by_context,
            query_temperature: self.query_temperature()?,
        })
    }

    fn query_temperature(&self) -> Result<Option<QueryTemperature>, ModelError> {
        if !self.keys.arch().has_temperatures {
            return Ok(None);
        }
        let scale = self.keys.nonzero("attention.temperature_scale")?;
        let length = self.original_context()?;
        Ok(scale.map(|scale| QueryTemperature { scale, length }))
    }

    /// Elements of a head that are rotated.
    fn rotated(&self) -> Result<usize, ModelError> {
        let (keys, head_dim) = (self.keys, self.head_dim);
        let rotated = keys
            .optional_count("rope.dimension_count")?
            .unwrap_or(head_dim);
        if rotated > head_dim || rotated % 2 != 0 {
            let what = format!("{rotated} is odd or above the head size {head_dim}");
            return Err(keys.invalid("rope.dimension_count", what));
        }
        Ok(rotated)
    }

    /// RoPE's base on global layers.
    fn base(&self) -> Result<f32, ModelError> {
        // The second name is Ollama's.
        let names = &["rope.freq_base", "rope.global.freq_base"];
        Ok(self.keys.optional_alias(names)?.unwrap_or(10_000.0))
    }

    fn factors(
        &self,
        gguf: &Gguf,
        name: &str,
        rotated: usize,
    ) -> Result<Option<Vec<f32>>, ModelError> {
        let factors = gguf.tensor(name).map(|tensor| tensor.to_f32());
        let is_valid = |factors: &Vec<f32>| {
            factors.len() == rotated / 2 && factors.iter().all(|f| f.is_finite() && *f > 0.0)
        };
        if factors.as_ref().is_some_and(|factors| !is_valid(factors)) {
            return Err(ModelError::Metadata {
                key: name.to_owned(),
                what: format!("expected {} positive factors", rotated / 2),
            });
        }
        Ok(factors)
    }

    /// The window of each layer.
    fn windows(&self) -> Result<Vec<Option<usize>>, ModelError> {
        let none = || vec![None; self.n_layers];
        let Some(sliding) = self.keys.arch().sliding else {
            return Ok(none());
        };
        let window = self
            .keys
            .optional_whole("attention.sliding_window")?
            .filter(|&window| window > 0);
        let Some(window) = window else {
            return Ok(none());
        };
        let local = self.local_layers(sliding.period)?.into_iter();
        Ok(local.map(|local| local.then_some(window)).collect())
    }

    /// Which layers are local, `[n_layers]`: as the file says, by a period or one by one, else by `period`.
    fn local_layers(&self, period: usize) -> Result<Vec<bool>, ModelError> {
        const KEY: &str = "attention.sliding_window_pattern";
        let keys = self.keys;
        let period = match keys.value(KEY) {
            Some(Value::Array(array)) => {
                let local = integers(array)
                    .ok_or_else(|| keys.invalid(KEY, "the array does not hold truth values"))?;
                if local.len() != self.n_blocks {
                    let what = format!("{} entries for {} layers", local.len(), self.n_blocks);
                    return Err(keys.invalid(KEY, what));
                }
                let local = local.into_iter().map(|local| local != 0);
                return Ok(local.take(self.n_layers).collect());
            }
            Some(_) => keys.optional_whole(KEY)?.unwrap_or(period),
            None => period,
        };
        // llama.cpp's reading: 0 makes every layer local, 1 none.
        let local = |layer: usize| period == 0 || layer % period != period - 1;
        Ok((0..self.n_layers).map(local).collect())
    }

    /// Which layers do not rotate, `[n_layers]`.
    fn unrotated(&self) -> Result<Vec<bool>, ModelError> {
        const KEY: &str = "rope.scaling.finetuned";
        let period = match self.keys.arch().unrotated {
            Unrotated::None => None,
            Unrotated::EachLastOf(period) => Some(period),
            Unrotated::UnlessFinetuned => match self.keys.value(KEY) {
                None | Some(Value::Bool(true)) => None,
                Some(Value::Bool(false)) => Some(1),
                Some(_) => return Err(self.keys.invalid(KEY, "expected a truth value")),
            },
        };
        let is_last = |layer: usize| period.is_some_and(|n| (layer + 1).is_multiple_of(n));
        Ok((0..self.n_layers).map(is_last).collect())
    }

    /// Tokens of a context in the original training.
    fn original_context(&self) -> Result<usize, ModelError> {
        let named = self
            .keys
            .optional_count("rope.scaling.original_context_length")?;
        Ok(named.unwrap_or(self.context_length))
    }

    fn rope_scaling(&self) -> Result<RopeScaling, ModelError> {
        let keys = self.keys;
        // The second name is of the first GGUF files.
        let newer = keys.nonzero("rope.scaling.factor")?;
        let older = keys.nonzero("rope.scale_linear")?;
        let factor = newer.or(older).unwrap_or(1.0);
        let kind = keys.optional_str("rope.scaling.type")?.unwrap_or("linear");
        let has_long_factors = keys.arch().rope_factors == RopeFactors::ShortAndLong;
        match kind {
            "none" => Ok(RopeScaling::None),
            // What is special of longrope are its factors.
            "linear" | "longrope" if kind == "linear" || has_long_factors => match factor {
                1.0 => Ok(RopeScaling::None),
                factor => Ok(RopeScaling::Linear { factor }),
            },
            "yarn" => {
                let original_context = self.original_context()?;
                let beta_fast = keys.optional_positive("rope.scaling.yarn_beta_fast")?;
                let beta_slow = keys.optional_positive("rope.scaling.yarn_beta_slow")?;
                let log_multiplier = match keys.arch().has_temperatures {
                    true => keys.nonzero("rope.scaling.yarn_log_multiplier")?,
                    false => None,
                };
                if factor == 1.0 {
                    return Ok(RopeScaling::None);
                }
                Ok(RopeScaling::Yarn {
                    factor,
                    original_context,
                    beta_fast: beta_fast.unwrap_or(32.0),
                    beta_slow: beta_slow.unwrap_or(1.0),
                    log_multiplier: log_multiplier.unwrap_or(0.0),
                })
            }
            other => {
                let what = format!("{other:?} is not none, linear or yarn");
                Err(keys.invalid("rope.scaling.type", what))
            }
        }
    }
}

impl RopeByContext {
    /// The rotation for contexts of at most `context` tokens.
    pub(super) fn of(&self, context: usize) -> &Rope {
        match context > self.original_context {
            true => &self.long,
            false => &self.short,
        }
    }
}
