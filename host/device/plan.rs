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

/// What the driver maps at a time: larger allocations take whole granules of it.
pub const GRANULE: u64 = 2 << 20;
/// Allocations up to this size share granules.
pub const SMALL_ALLOCATION: u64 = GRANULE / 2;
/// Where the driver lets small allocations begin.
const SMALL_ALIGNMENT: u64 = 512;
/// Kept for what the driver and cuBLAS load when it is first used: a module for each kernel of the model (some 30 of
/// the crate's, each at most a granule of code), cuBLAS's own kernels for the shapes that come up, and CUPTI's
/// buffers. The context, the cuBLAS handle and its workspace are there before free memory is asked for.
pub const LOADED_LATER: u64 = 128 << 20;

/// What grows with the context, for [`MemoryPlan::check`].
#[derive(Clone, Copy)]
pub struct ContextCost<'a> {
    /// Tokens planned for.
    pub tokens: u64,
    /// Tokens that are added together (a page of the cache).
    pub granularity: u64,
    /// The plan for another number of tokens; it never gets smaller with more of them.
    pub plan: &'a dyn Fn(u64) -> MemoryPlan,
}

/// What will be allocated: labels and sizes, in order, and what the driver adds to them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryPlan {
    entries: Vec<(String, u64)>,
    /// Bytes that whole granules add to large allocations.
    rounding: u64,
    /// Bytes of small allocations, as aligned, and as asked for.
    small: [u64; 2],
}

impl MemoryPlan {
    /// A plan that allocates nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an allocation of `bytes`.
    pub fn add(&mut self, label: impl Into<String>, bytes: u64) -> &mut Self {
        self.add_each(label, [bytes])
    }

    /// Adds several allocations as one entry.
    pub fn add_each(
        &mut self,
        label: impl Into<String>,
        allocations: impl IntoIterator<Item = u64>,
    ) -> &mut Self {
        let mut sum = 0u64;
        for bytes in allocations {
            sum = sum.saturating_add(bytes);
            if bytes <= SMALL_ALLOCATION {
                let aligned = bytes.max(1).next_multiple_of(SMALL_ALIGNMENT);
                self.small = [self.small[0] + aligned, self.small[1] + bytes];
            } else {
                let granules = bytes.div_ceil(GRANULE).saturating_mul(GRANULE);
                self.rounding = self.rounding.saturating_add(granules - bytes.min(granules));
            }
        }
        self.entries.push((label.into(), sum));
        self
    }

    /// Adds memory that is taken without an allocation of ours.
    pub fn reserve(&mut self, label: impl Into<String>, bytes: u64) -> &mut Self {
        self.entries.push((label.into(), bytes));
        self
    }

    /// Labels and sizes in order, as asked for.
    pub fn entries(&self) -> &[(String, u64)] {
        &self.entries
    }

    /// What the driver adds to the entries at most. A small allocation opens another granule only where no open one
    /// has room for it, so that all granules of small ones but the last are at least half full.
    pub fn rounding(&self) -> u64 {
        let [aligned, asked] = self.small;
        let granules = match aligned {
            0 => 0,
            aligned => (2 * aligned).div_ceil(GRANULE) + 1,
        };
        let small = granules * GRANULE - asked.min(granules * GRANULE);
        self.rounding.saturating_add(small)
    }

    /// The sum with what the driver adds; saturates, since sizes come from a model file.
    pub fn total(&self) -> u64 {
        self.entries
            .iter()
            .fold(self.rounding(), |sum, (_, bytes)| {
                sum.saturating_add(*bytes)
            })
    }

    /// Checks the plan against the memory that is free; `context` is the part of it that the user
    /// can make smaller.
    ///
    /// # Errors
    /// [`DeviceError::Plan`], with what is needed, what is free and which context would fit.
    pub fn check(&self, memory: MemoryInfo, context: ContextCost<'_>) -> Result<()> {
        let total = self.total();
        if total <= memory.free {
            return Ok(());
        }
        Err(DeviceError::Plan(Box::new(PlanError {
            needed: total,
            memory,
            asked: context.tokens,
            fitting: context.largest(memory.free),
            shortest: (context.plan)(context.step()).total(),
            plan: self.clone(),
        })))
    }
}

/// A plan that does not fit the device's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanError {
    /// Bytes of the plan.
    pub needed: u64,
    /// The device's memory.
    pub memory: MemoryInfo,
    /// Tokens of context asked for.
    pub asked: u64,
    /// The longest context that would fit, if any.
    pub fitting: Option<u64>,
    /// Bytes of a plan with the shortest context.
    pub shortest: u64,
    /// The plan.
    pub plan: MemoryPlan,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MemoryInfo { free, total } = self.memory;
        let (needed, free, total) = (Bytes(self.needed), Bytes(free), Bytes(total));
        write!(
            f,
            "not enough GPU memory: {needed} needed, {free} of {total} free; "
        )?;
        match self.fitting {
            Some(tokens) => write!(
                f,
                "a context of {tokens} tokens would fit ({} asked for)",
                self.asked
            )?,
            None => write!(
                f,
                "no context would fit, since the shortest one needs {}",
                Bytes(self.shortest)
            )?,
        }
        write!(f, "\n{}", self.plan)
    }
}

impl ContextCost<'_> {
    fn step(&self) -> u64 {
        self.granularity.max(1)
    }

    /// The most tokens, fewer than planned for, whose plan fits `free` bytes.
    fn largest(&self, free: u64) -> Option<u64> {
        let fits = |steps: u64| (self.plan)(steps * self.step()).total() <= free;
        let (mut low, mut high) = (0, self.tokens.div_ceil(self.step()));
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match fits(middle) {
                true => low = middle,
                false => high = middle,
            }
        }
        (low > 0).then(|| low * self.step())
    }
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounding = ("rounded up by the driver".to_owned(), self.rounding());
        let total = ("total".to_owned(), self.total());
        let lines = || self.entries.iter().chain([&rounding, &total]);
        let width = lines().map(|(label, _)| label.len()).max().unwrap_or(0);
        writeln!(f, "GPU memory plan:")?;
        for (label, bytes) in lines() {
            writeln!(f, "  {label:width$} {:>11}", Bytes(*bytes))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::device::sim::DriverMemory;

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

    /// 1 GiB of weights, and 1 MiB a token: 1 GiB for 1,024 tokens.
    fn check(free: u64) -> Result<()> {
        let of = |tokens: u64| plan(1 << 30, tokens << 20);
        let cost = ContextCost {
            tokens: 1024,
            granularity: 64,
            plan: &of,
        };
        of(1024).check(memory(free), cost)
    }

    #[test]
    fn a_plan_that_fits_passes() {
        check(2 << 30).unwrap();
    }

    #[test]
    fn a_plan_that_does_not_says_which_context_would() {
        let error = check(3 << 29).unwrap_err().to_string();
        for part in [
            "2.00 GiB needed",
            "1.50 GiB of 3.00 GiB free",
            "context of 512 tokens",
            "KV cache",
        ] {
            assert!(error.contains(part), "{part} is missing in: {error}");
        }
        // 100 tokens more than the weights: whole pages of 64 only.
        let error = check((1 << 30) + (100 << 20)).unwrap_err().to_string();
        assert!(error.contains("context of 64 tokens"), "{error}");
        // One byte short of all.
        let error = check((2 << 30) - 1).unwrap_err().to_string();
        assert!(error.contains("context of 960 tokens"), "{error}");
    }

    #[test]
    fn weights_alone_too_large() {
        for free in [1 << 29, 1 << 30, (1 << 30) + (63 << 20)] {
            let error = check(free).unwrap_err().to_string();
            assert!(error.contains("no context would fit"), "{error}");
            assert!(error.contains("1.06 GiB"), "{error}");
        }
    }

    #[test]
    fn absurd_sizes_saturate() {
        let absurd = |_| plan(u64::MAX, u64::MAX);
        assert_eq!(absurd(0).total(), u64::MAX);
        let cost = ContextCost {
            tokens: u64::MAX,
            granularity: 0,
            plan: &absurd,
        };
        assert!(absurd(0).check(memory(1 << 40), cost).is_err());
    }

    #[test]
    fn the_plan_prints_as_a_table() {
        let text = plan(3 << 29, 5 << 20).to_string();
        assert_eq!(
            text,
            "GPU memory plan:\n  weights                     1.50 GiB\n  KV cache                     5.0 MiB\n  \
             rounded up by the driver     1.0 MiB\n  total                       1.51 GiB\n"
        );
        assert_eq!(Bytes(1023).to_string(), "1023 B");
        assert_eq!(Bytes(1536).to_string(), "1.5 KiB");
    }

    /// Sizes of allocations: tiny, around the border between small and large, and large.
    fn sizes() -> impl Strategy<Value = Vec<u64>> {
        let size = prop_oneof![
            1u64..5000,
            (SMALL_ALLOCATION - 600)..(SMALL_ALLOCATION + 600),
            1u64..(9 << 20),
        ];
        prop::collection::vec(size, 0..200)
    }

    proptest! {
        /// What a driver takes for the allocations of a plan, in whichever order, is never more than the plan says.
        #[test]
        fn a_driver_takes_no_more_than_planned(sizes in sizes()) {
            let mut plan = MemoryPlan::new();
            plan.add_each("all", sizes.iter().copied());
            let mut driver = DriverMemory::granular();
            for (address, &size) in sizes.iter().enumerate() {
                driver.allocate(address as u64, size);
            }
            prop_assert!(driver.taken() <= plan.total(), "{} > {}", driver.taken(), plan.total());
            prop_assert!(plan.total() <= 2 * driver.taken() + 2 * GRANULE);
        }

        /// The advised context fits, and the next longer one does not.
        #[test]
        fn the_advice_fits_and_is_the_best(
            fixed in sizes(),
            token in 1u64..200_000,
            tokens in 1u64..5000,
            free in 0u64..(1 << 30),
        ) {
            let of = |tokens: u64| {
                let mut plan = MemoryPlan::new();
                plan.add_each("fixed", fixed.iter().copied());
                plan.add_each("growing", [tokens * token, tokens * 8]);
                plan
            };
            let cost = ContextCost { tokens, granularity: 64, plan: &of };
            match cost.largest(free) {
                Some(best) => {
                    prop_assert!(best < tokens && best.is_multiple_of(64));
                    prop_assert!(of(best).total() <= free);
                    prop_assert!(best + 64 >= tokens || of(best + 64).total() > free);
                }
                None => prop_assert!(tokens <= 64 || of(64).total() > free),
            }
        }
    }
}
