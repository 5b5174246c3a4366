//! Rotary position embedding: the angle of every pair of elements at every position.
//!
//! Pair `i` of a head turns by `position * theta^(-2i / dim)` (Su et al. 2021, arXiv 2104.09864),
//! changed by linear scaling, by YaRN (Peng et al. 2023, arXiv 2309.00071) or by the per-pair
//! factors of Llama 3's `rope_freqs` tensor, as llama.cpp applies them.

use super::arch::RopePairing;

/// How the trained context is stretched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// As trained.
    None,
    /// Positions are divided by `factor`.
    Linear {
        /// Stretch of the context.
        factor: f32,
    },
    /// YaRN: low frequencies are divided by `factor`, high ones are kept, those between are mixed.
    Yarn {
        /// Stretch of the context.
        factor: f32,
        /// Context length of the original training.
        original_context: usize,
        /// Rotations above which a frequency is kept.
        beta_fast: f32,
        /// Rotations below which a frequency is divided.
        beta_slow: f32,
        /// How much of the temperature that follows from `factor` is taken back: 0 for nothing, 1 for all of it.
        log_multiplier: f32,
    },
}

/// What one kind of layer needs to know of RoPE.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Which elements form a pair.
    pub pairing: RopePairing,
    /// Angle per position of each pair, `[rotated elements / 2]`, in radians.
    pub frequencies: Vec<f64>,
    /// Factor on cosine and sine: `attn_factor` of the file times YaRN's attention temperature.
    pub magnitude: f64,
}

impl Rope {
    /// Frequencies for `dim` rotated elements of a head at RoPE base `base`; `factors` is the
    /// content of `rope_freqs.weight` (`[dim / 2]`), where a file has it. The magnitude is YaRN's
    /// temperature, 1 otherwise; see [`Rope::with_attention_factor`].
    pub fn new(
        pairing: RopePairing,
        dim: usize,
        base: f32,
        scaling: RopeScaling,
        factors: Option<&[f32]>,
    ) -> Rope {
        let unscaled = |i: usize| {
            let frequency = f64::from(base).powf(-2.0 * i as f64 / dim as f64);
            frequency / factors.map_or(1.0, |f| f64::from(f[i]))
        };
        let pairs = 0..dim / 2;
        let (frequencies, magnitude) = match scaling {
            RopeScaling::None => (pairs.map(unscaled).collect(), 1.0),
            RopeScaling::Linear { factor } => (
                pairs.map(|i| unscaled(i) / f64::from(factor)).collect(),
                1.0,
            ),
            RopeScaling::Yarn {
                factor,
                original_context,
                beta_fast,
                beta_slow,
                log_multiplier,
            } => {
                let factor = f64::from(factor);
                let pair_with_rotations = |rotations: f32| {
                    let turns =
                        original_context as f64 / (f64::from(rotations) * std::f64::consts::TAU);
                    dim as f64 * turns.ln() / (2.0 * f64::from(base).ln())
                };
                let low = pair_with_rotations(beta_fast).floor().max(0.0);
                let high = pair_with_rotations(beta_slow).ceil().min(dim as f64 - 1.0);
                let mix = |i: usize| {
                    let kept = 1.0 - ((i as f64 - low) / (high - low).max(1e-3)).clamp(0.0, 1.0);
                    unscaled(i) * (kept + (1.0 - kept) / factor)
                };
                // A context that is not stretched has no temperature either.
                let logarithm = 0.1 * factor.max(1.0).ln();
                let taken_back = 1.0 + f64::from(log_multiplier) * logarithm;
                (pairs.map(mix).collect(), (1.0 + logarithm) / taken_back)
            }
        };
        Rope {
            pairing,
            frequencies,
            magnitude,
        }
    }

    /// The same with cosine and sine multiplied by the file's `rope.scaling.attn_factor`. llama.cpp applies
    /// it whatever the scaling is, to local layers too.
    pub fn with_attention_factor(mut self, factor: f32) -> Rope {
        self.magnitude *= f64::from(factor);
        self
    }

    /// Cosine and sine of every pair at `position`, `[pairs]` of `[cos, sin]`. In f64: at position
    /// 30,000 an f32 angle would already be off by 1e-3 radians.
    pub fn cos_sin(&self, position: usize) -> impl Iterator<Item = [f64; 2]> {
        self.frequencies.iter().map(move |frequency| {
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            [cos * self.magnitude, sin * self.magnitude]
        })
    }

    /// Number of elements of a head that are rotated; those behind them pass unchanged.
    pub fn rotated(&self) -> usize {
        2 * self.frequencies.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_frequencies_follow_the_formula() {
        let rope = Rope::new(RopePairing::Halves, 4, 10_000.0, RopeScaling::None, None);
        assert_eq!(rope.frequencies.len(), 2);
        assert!((rope.frequencies[0] - 1.0).abs() < 1e-15);
        assert!((rope.frequencies[1] - 0.01).abs() < 1e-12);
        let angles: Vec<_> = rope.cos_sin(3).collect();
        assert!((angles[0][1] - 3f64.sin()).abs() < 1e-12);
    }

    #[test]
    fn linear_scaling_and_factors_divide() {
        let scaling = RopeScaling::Linear { factor: 4.0 };
        let rope = Rope::new(RopePairing::Adjacent, 4, 100.0, scaling, Some(&[1.0, 2.0]));
        assert!((rope.frequencies[0] - 0.25).abs() < 1e-15);
        assert!((rope.frequencies[1] - 0.1 / 8.0).abs() < 1e-15);
    }

    #[test]
    fn yarn_keeps_high_and_divides_low_frequencies() {
        let scaling = |log_multiplier| RopeScaling::Yarn {
            factor: 8.0,
            original_context: 4096,
            beta_fast: 32.0,
            beta_slow: 1.0,
            log_multiplier,
        };
        let plain = Rope::new(RopePairing::Halves, 128, 1e4, RopeScaling::None, None);
        let of = |multiplier| Rope::new(RopePairing::Halves, 128, 1e4, scaling(multiplier), None);
        let yarn = of(0.0);
        assert_eq!(yarn.frequencies[0], plain.frequencies[0]);
        assert!((yarn.frequencies[63] * 8.0 / plain.frequencies[63] - 1.0).abs() < 1e-12);
        let temperature = |multiplier: f64| 1.0 + 0.1 * multiplier * 8f64.ln();
        assert!((yarn.magnitude - temperature(1.0)).abs() < 1e-12);
        assert_eq!(of(1.0).magnitude, 1.0);
        let half = temperature(1.0) / temperature(0.5);
        assert!((of(0.5).magnitude - half).abs() < 1e-12);
    }
}
