//! How a device's results compare with the simulator's.

use anyhow::{Context, Result, bail};

/// What may differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Comparison {
    /// Nothing: the same bits.
    Exact,
    /// Singles, by so many units in the last place.
    Ulp(u32),
    /// Singles, by so much.
    Absolute(f32),
    /// Both halves of a word, by so many units in their last place.
    Half(u32),
}

impl Comparison {
    /// The comparison at the beginning of a line, and what follows it.
    ///
    /// # Errors
    /// There is none, or its bound is no number.
    pub fn parse(line: &str) -> Result<(Self, &str)> {
        let (kind, rest) = line.split_once(' ').context("no instructions")?;
        if kind == "exact" {
            return Ok((Self::Exact, rest));
        }
        let (bound, body) = rest.split_once(' ').context("no instructions")?;
        let comparison = match kind {
            "ulp" => Self::Ulp(bound.parse()?),
            "abs" => Self::Absolute(bound.parse()?),
            "half" => Self::Half(bound.parse()?),
            _ => bail!("`{kind}` is no comparison"),
        };
        Ok((comparison, body))
    }

    /// Whether a word of the device agrees with the simulator's.
    pub fn agree(self, device: u32, simulator: u32) -> bool {
        match self {
            Self::Exact => device == simulator,
            Self::Ulp(most) => {
                let distance = |a, b| ordered(a, 31).abs_diff(ordered(b, 31));
                let [a, b] = [device, simulator].map(f32::from_bits);
                same_kind(a, b) && (a.is_nan() || distance(device, simulator) <= most.into())
            }
            Self::Absolute(most) => {
                let [a, b] = [device, simulator].map(f32::from_bits);
                same_kind(a, b) && (!a.is_finite() || (a - b).abs() <= most)
            }
            Self::Half(most) => [0, 16].into_iter().all(|shift| {
                let [a, b] = [device, simulator].map(|word| word >> shift & 0xffff);
                let nan = |half: u32| half & 0x7fff > 0x7c00;
                let distance = ordered(a, 15).abs_diff(ordered(b, 15));
                nan(a) == nan(b) && (nan(a) || distance <= most.into())
            }),
        }
    }
}

/// Both NaN, both the same infinity, or both finite.
fn same_kind(a: f32, b: f32) -> bool {
    a.is_nan() == b.is_nan() && (a == b || !(a.is_infinite() || b.is_infinite()))
}

/// Neighbouring floats, whose sign is the given bit, become neighbouring integers; both zeros become 0.
fn ordered(bits: u32, sign: u32) -> i64 {
    let magnitude = i64::from(bits & ((1 << sign) - 1));
    if bits >> sign & 1 == 1 {
        -magnitude
    } else {
        magnitude
    }
}
