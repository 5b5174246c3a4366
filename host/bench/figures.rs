//! What is computed from measured times.

use serde::Serialize;

use super::{Kind, Test};
use crate::model::{Config, Layer, Model};

/// Bytes that decoding reads.
#[derive(Debug, Clone, Copy)]
pub struct Traffic {
    /// All matrices of a step, read once for all sequences.
    weights: usize,
    kv_element: usize,
}

impl Traffic {
    /// For `model` with keys and values of `kv_element` bytes an element.
    pub fn new(model: &Model, kv_element: usize) -> Traffic {
        let matrices = model.weights.layers.iter().flat_map(Layer::linears);
        // Of the embeddings a step reads one row for each sequence: nothing in comparison.
        let matrices = matrices.chain([&model.weights.output]);
        Traffic {
            weights: matrices.map(|linear| linear.weight.bytes().len()).sum(),
            kv_element,
        }
    }

    /// Bytes that a decode step of `test` reads in the mean; `None` for prompts, whose limit is not
    /// the memory.
    pub fn of_step(&self, config: &Config, test: &Test) -> Option<f64> {
        let Kind::Decode(steps) = test.kind else {
            return None;
        };
        let keys: f64 = config
            .layers
            .iter()
            .map(|layer| {
                let window = layer.window.unwrap_or(usize::MAX);
                let seen = (0..steps).map(|step| (test.depth + step + 1).min(window));
                seen.sum::<usize>() as f64 / steps as f64
            })
            .sum();
        let token = 2 * config.kv_width() * self.kv_element;
        Some(self.weights as f64 + keys * (token * test.batch) as f64)
    }
}

/// The figures of one test.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// Its name.
    pub test: String,
    /// Sequences in a step.
    pub batch: usize,
    /// Tokens in the cache before.
    pub depth: usize,
    /// Tokens per second, of all sequences together.
    pub mean: f64,
    /// Standard deviation of it over the repetitions.
    pub deviation: f64,
    /// Its median.
    pub median: f64,
    /// Billions of bytes read per second, decoding.
    pub gb_per_second: Option<f64>,
    /// Share of the device's copy bandwidth.
    pub share: Option<f64>,
    /// Seconds of each repetition.
    pub seconds: Vec<f64>,
}

impl Figures {
    /// From the `seconds` of each repetition; `step_bytes` are read in a decode step, and `copy` is
    /// the device's bandwidth in bytes per second.
    pub fn new(
        test: &Test,
        seconds: Vec<f64>,
        step_bytes: Option<f64>,
        copy: Option<f64>,
    ) -> Figures {
        let mut rates: Vec<f64> = seconds.iter().map(|s| test.tokens() as f64 / s).collect();
        rates.sort_by(f64::total_cmp);
        let n = rates.len() as f64;
        let mean = rates.iter().sum::<f64>() / n;
        let square: f64 = rates.iter().map(|rate| (rate - mean).powi(2)).sum();
        let middle = rates.len() / 2;
        let median = match rates.len() % 2 {
            1 => rates[middle],
            _ if rates.is_empty() => f64::NAN,
            _ => (rates[middle - 1] + rates[middle]) / 2.0,
        };
        let bytes = step_bytes.map(|bytes| bytes * median / test.batch as f64);
        Figures {
            test: test.name(),
            batch: test.batch,
            depth: test.depth,
            mean,
            deviation: if rates.len() > 1 {
                (square / (n - 1.0)).sqrt()
            } else {
                0.0
            },
            median,
            gb_per_second: bytes.map(|bytes| bytes / 1e9),
            share: bytes.zip(copy).map(|(bytes, copy)| bytes / copy),
            seconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_follow_from_times() {
        let test = Test {
            kind: Kind::Decode(10),
            depth: 0,
            batch: 2,
        };
        // 20 tokens each: 20, 10 and 40 tokens per second.
        let figures = Figures::new(&test, vec![1.0, 2.0, 0.5], Some(3e9), Some(60e9));
        assert_eq!(figures.median, 20.0);
        assert!((figures.mean - 70.0 / 3.0).abs() < 1e-9);
        assert!((figures.deviation - 15.275).abs() < 1e-3);
        // Ten steps a second of 3 GB each.
        assert_eq!(
            (figures.gb_per_second, figures.share),
            (Some(30.0), Some(0.5))
        );
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        let test = Test {
            kind: Kind::Prompt(8),
            depth: 0,
            batch: 1,
        };
        let figures = Figures::new(&test, vec![1.0, 2.0], None, Some(1.0));
        assert_eq!((figures.median, figures.share), (6.0, None));
    }
}
