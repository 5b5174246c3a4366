//! How far the next-token distributions of two backends are apart over a text.

use serde::Serialize;

/// Figures over all positions of a text.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Divergence {
    /// Positions compared.
    pub positions: usize,
    /// Mean of KL(reference || other), in nats.
    pub mean: f64,
    /// 99th percentile of it.
    pub p99: f64,
    /// Share of positions at which both find the same token most probable.
    pub top1_agreement: f64,
}

/// Collects positions.
#[derive(Debug, Default)]
pub struct Collector {
    divergences: Vec<f64>,
    agreements: usize,
}

impl Collector {
    /// Adds one position, given by the logits of both.
    pub fn add(&mut self, reference: &[f32], other: &[f32]) {
        self.divergences.push(kl_divergence(reference, other));
        self.agreements += usize::from(argmax(reference) == argmax(other));
    }

    /// The figures; `None` without any position.
    pub fn finish(mut self) -> Option<Divergence> {
        let positions = self.divergences.len();
        if positions == 0 {
            return None;
        }
        self.divergences.sort_by(f64::total_cmp);
        Some(Divergence {
            positions,
            mean: self.divergences.iter().sum::<f64>() / positions as f64,
            p99: self.divergences[(positions * 99).div_ceil(100) - 1],
            top1_agreement: self.agreements as f64 / positions as f64,
        })
    }
}

/// `sum p ln(p / q)` of the softmaxes `p` of `reference` and `q` of `other`. NaN logits give NaN.
pub fn kl_divergence(reference: &[f32], other: &[f32]) -> f64 {
    let (log_p, log_q) = (log_softmax(reference), log_softmax(other));
    log_p.zip(log_q).map(|(p, q)| p.exp() * (p - q)).sum()
}

fn log_softmax(logits: &[f32]) -> impl Iterator<Item = f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponent = move |&logit: &f32| f64::from(logit) - f64::from(max);
    let log_sum = logits
        .iter()
        .map(|logit| exponent(logit).exp())
        .sum::<f64>()
        .ln();
    logits.iter().map(move |logit| exponent(logit) - log_sum)
}

fn argmax(logits: &[f32]) -> Option<usize> {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_distributions_do_not_diverge() {
        let logits = [0.5, -1.0, 3.0];
        let shifted = logits.map(|logit| logit + 7.0);
        assert!(kl_divergence(&logits, &shifted).abs() < 1e-6);
    }

    #[test]
    fn divergence_follows_the_formula() {
        let (p, q) = ([0.75f64, 0.25], [0.5f64, 0.5]);
        let logits = |d: [f64; 2]| d.map(|p| p.ln() as f32);
        let expected = 0.75 * 1.5f64.ln() + 0.25 * 0.5f64.ln();
        assert!((kl_divergence(&logits(p), &logits(q)) - expected).abs() < 1e-6);
    }

    #[test]
    fn the_percentile_is_the_tail_and_nan_shows() {
        let mut collector = Collector::default();
        for i in 0..100 {
            collector.add(&[0.0, 0.0], &[0.0, if i == 99 { 9.0 } else { 0.0 }]);
        }
        let found = collector.finish().unwrap();
        assert!(found.p99 < 1e-9 && found.mean > 0.01);
        let mut collector = Collector::default();
        collector.add(&[0.0, 0.0], &[0.0, f32::NAN]);
        assert!(collector.finish().unwrap().mean.is_nan());
        assert!(Collector::default().finish().is_none());
    }
}
