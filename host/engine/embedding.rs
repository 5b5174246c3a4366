//! The vector that stands for a prompt, from what its steps report.

use crate::backend::Pooling;

/// A vector that is being made, in as many parts as its prompt has chunks.
pub struct Embedding {
    /// How tokens are pooled.
    pub pooling: Pooling,
    sum: Vec<f64>,
    n_tokens: usize,
}

impl Embedding {
    /// Of no tokens yet.
    pub fn new(pooling: Pooling) -> Embedding {
        Embedding {
            pooling,
            sum: Vec::new(),
            n_tokens: 0,
        }
    }

    /// Whether a step's report is needed, of a chunk that is the prompt's last one or is not.
    pub fn wants(&self, is_last: bool) -> bool {
        self.pooling == Pooling::Mean || is_last
    }

    /// Takes the report of a chunk of `n` tokens, which is empty where none was asked for.
    pub fn add(&mut self, hidden: &[f32], n: usize) {
        if hidden.is_empty() {
            return;
        }
        // A report of the last token stands for itself, one of a chunk for all of its tokens.
        let weight = match self.pooling {
            Pooling::Last => 1,
            Pooling::Mean => n,
        };
        self.sum.resize(hidden.len(), 0.0);
        for (sum, value) in self.sum.iter_mut().zip(hidden) {
            *sum += f64::from(*value) * weight as f64;
        }
        self.n_tokens += weight;
    }

    /// The vector.
    pub fn into_vector(self) -> Vec<f32> {
        let n = self.n_tokens.max(1) as f64;
        self.sum.iter().map(|sum| (sum / n) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_count_by_their_tokens() {
        let mut mean = Embedding::new(Pooling::Mean);
        assert!(mean.wants(false));
        mean.add(&[1.0, 2.0], 3);
        mean.add(&[5.0, -2.0], 1);
        assert_eq!(mean.into_vector(), [2.0, 1.0]);
    }

    #[test]
    fn the_last_token_stands_for_itself() {
        let mut last = Embedding::new(Pooling::Last);
        assert!(!last.wants(false) && last.wants(true));
        last.add(&[], 64);
        last.add(&[1.0, 2.0], 5);
        assert_eq!(last.into_vector(), [1.0, 2.0]);
    }
}
