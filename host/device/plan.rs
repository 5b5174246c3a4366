//! The memory plan: what a run will allocate on the device, known before anything is allocated.

use super::error::{DeviceError, Result};
use super::traits::MemoryInfo;
use std::fmt;

/// A number of bytes, shown with a binary unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            n if n >= 1 << 30 => format!("{:.2} GiB", n as f64 / (1u64 << 30) as f64),
            n if n >= 1 << 20 => format!("{:.1} MiB", n as f64 / (1u64 << 20) as f64),
            n if n >= 1 << 10 => format!("{:.1} KiB", n as f64 / (1u64 << 10) as f64),
            n => format!("{n} B"),
        };
        f.pad(&text)
    }
}

/// The part of a plan that grows with the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContextCost {
    /// Tokens planned for.
    pub tokens: u64,
    /// Bytes that one more token costs.
    pub bytes_per_token: u64,
    /// Tokens that are added together (a page of the cache).
    pub granularity: u64,
}

/// What will be allocated: labels and sizes, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryPlan {
    entries: Vec<(String, u64)>,
}

impl MemoryPlan {
    /// A plan that allocates nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an allocation of `bytes`.
    pub fn add(&mut self, label: impl Into<String>, bytes: u64) -> &mut Self {
        self.entries.push((label.into(), bytes));
        self
    }

    /// Labels and sizes in order.
    pub fn entries(&self) -> &[(String, u64)] {
        &self.entries
    }

    /// The sum; saturates, since sizes come from a model file.
    pub fn total(&self) -> u64 {
        self.entries
            .iter()
            .fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes))
    }

    /// Checks the plan against the memory that is free; `context` is the part of it that the user
    /// can make smaller.
    ///
    /// # Errors
    /// [`DeviceError::Plan`], with what is needed, what is free and which context would fit.
    pub fn check(&self, memory: MemoryInfo, context: ContextCost) -> Result<()> {
        let total = self.total();
        if total <= memory.free {
            return Ok(());
        }
        let growing = context
            .tokens
            .saturating_mul(context.bytes_per_token)
            .min(total);
        let fixed = total - growing;
        let fitting = memory
            .free
            .checked_sub(fixed)
            .and_then(|room| room.checked_div(context.bytes_per_token))
            .map(|tokens| tokens - tokens % context.granularity.max(1))
            .filter(|&tokens| tokens > 0);
        let advice = match fitting {
            Some(tokens) => format!(
                "a context of {tokens} tokens would fit ({} asked for): use --ctx {tokens}",
                context.tokens
            ),
            None => format!(
                "no context would fit, since everything else needs {}: use a smaller \
                 quantization, another GPU, or --device cpu",
                Bytes(fixed)
            ),
        };
        Err(DeviceError::Plan(format!(
            "not enough GPU memory: {} needed, {} of {} free; {advice}\n{self}",
            Bytes(total),
            Bytes(memory.free),
            Bytes(memory.total)
        )))
    }
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = ("total".to_owned(), self.total());
        let width = self
            .entries
            .iter()
            .map(|(label, _)| label.len())
            .max()
            .unwrap_or(0)
            .max(5);
        writeln!(f, "GPU memory plan:")?;
        for (label, bytes) in self.entries.iter().chain([&total]) {
            writeln!(f, "  {label:width$} {:>11}", Bytes(*bytes))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(weights: u64, cache: u64) -> MemoryPlan {
        let mut plan = MemoryPlan::new();
        plan.add("weights", weights).add("KV cache", cache);
        plan
    }

    fn memory(free: u64) -> MemoryInfo {
        MemoryInfo {
            free,
            total: 2 * free,
        }
    }

    const COST: ContextCost = ContextCost {
        tokens: 1024,
        bytes_per_token: 1 << 20,
        granularity: 64,
    };

    #[test]
    fn a_plan_that_fits_passes() {
        plan(1 << 30, 1 << 30).check(memory(2 << 30), COST).unwrap();
    }

    #[test]
    fn a_plan_that_does_not_says_which_context_would() {
        let error = plan(1 << 30, 1 << 30)
            .check(memory(3 << 29), COST)
            .unwrap_err()
            .to_string();
        for part in [
            "2.00 GiB needed",
            "1.50 GiB of 3.00 GiB free",
            "--ctx 512",
            "KV cache",
        ] {
            assert!(error.contains(part), "{part} is missing in: {error}");
        }
        // 100 tokens more than the weights: whole pages of 64 only.
        let free = (1 << 30) + (100 << 20);
        let error = plan(1 << 30, 1 << 30)
            .check(memory(free), COST)
            .unwrap_err()
            .to_string();
        assert!(error.contains("--ctx 64"), "{error}");
    }

    #[test]
    fn weights_alone_too_large() {
        for free in [1 << 29, 1 << 30, (1 << 30) + 1] {
            let error = plan(1 << 30, 1 << 30)
                .check(memory(free), COST)
                .unwrap_err()
                .to_string();
            assert!(error.contains("no context would fit"), "{error}");
        }
        let none = ContextCost {
            bytes_per_token: 0,
            ..COST
        };
        assert!(plan(1 << 30, 1).check(memory(5), none).is_err());
    }

    #[test]
    fn absurd_sizes_saturate() {
        let plan = plan(u64::MAX, u64::MAX);
        assert_eq!(plan.total(), u64::MAX);
        let cost = ContextCost {
            tokens: u64::MAX,
            bytes_per_token: u64::MAX,
            granularity: 0,
        };
        assert!(plan.check(memory(1 << 40), cost).is_err());
    }

    #[test]
    fn the_plan_prints_as_a_table() {
        let text = plan(3 << 29, 5 << 20).to_string();
        assert_eq!(
            text,
            "GPU memory plan:\n  weights     1.50 GiB\n  KV cache     5.0 MiB\n  total       1.50 GiB\n"
        );
        assert_eq!(Bytes(1023).to_string(), "1023 B");
        assert_eq!(Bytes(1536).to_string(), "1.5 KiB");
    }
}
