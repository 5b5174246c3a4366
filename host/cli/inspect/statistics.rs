//! Statistics of a tensor's values.

use serde::Serialize;

/// Statistics of the finite values, and how many are not finite.
#[derive(Debug, Default)]
pub(super) struct Statistics {
    finite: u64,
    non_finite: u64,
    min: f32,
    max: f32,
    mean: f64,
    /// Sum of the squared distances from the mean.
    squares: f64,
}

/// What is printed of [`Statistics`]; `None` where no value is finite.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Summary {
    pub(super) min: Option<f32>,
    pub(super) max: Option<f32>,
    pub(super) mean: Option<f64>,
    /// Standard deviation of the population.
    pub(super) std: Option<f64>,
    pub(super) non_finite: u64,
}

impl Statistics {
    /// Takes in a value, by Welford's method: sums of squares would lose a small deviation from a
    /// large mean.
    pub(super) fn add(&mut self, value: f32) {
        if !value.is_finite() {
            self.non_finite += 1;
            return;
        }
        if self.finite == 0 {
            (self.min, self.max) = (value, value);
        }
        self.finite += 1;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        let distance = f64::from(value) - self.mean;
        self.mean += distance / self.finite as f64;
        self.squares += distance * (f64::from(value) - self.mean);
    }

    pub(super) fn summary(&self) -> Summary {
        let any = self.finite > 0;
        Summary {
            min: any.then_some(self.min),
            max: any.then_some(self.max),
            mean: any.then_some(self.mean),
            std: any.then(|| (self.squares / self.finite as f64).sqrt()),
            non_finite: self.non_finite,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(values: &[f32]) -> Summary {
        let mut statistics = Statistics::default();
        values.iter().for_each(|&value| statistics.add(value));
        statistics.summary()
    }

    #[test]
    fn values_that_are_not_finite_are_counted_apart() {
        let got = summary(&[f32::NAN, 1.0, 3.0, f32::INFINITY]);
        let want = Summary {
            min: Some(1.0),
            max: Some(3.0),
            mean: Some(2.0),
            std: Some(1.0),
            non_finite: 2,
        };
        assert_eq!(got, want);
    }

    #[test]
    fn without_finite_values_there_is_nothing_to_say() {
        let none = Summary {
            min: None,
            max: None,
            mean: None,
            std: None,
            non_finite: 1,
        };
        assert_eq!(summary(&[f32::NAN]), none);
    }
}
