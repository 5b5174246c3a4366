//! A temperature of attention by position: behind the context of the original training queries grow with the logarithm
//! of how often it fits before them, so that a softmax over many more keys stays as sharp (Llama 4's rule, which
//! llama.cpp applies after RoPE).

/// The rule's numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QueryTemperature {
    /// Factor on the logarithm: `attention.temperature_scale` of the file.
    pub scale: f32,
    /// Tokens of a step of the rule, above 0.
    pub length: usize,
}

impl QueryTemperature {
    /// What a query at `position` is multiplied by: 1 within the first `length` tokens.
    pub fn factor(&self, position: usize) -> f64 {
        let steps = position / self.length;
        1.0 + f64::from(self.scale) * (steps as f64).ln_1p()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_grow_at_multiples_of_the_length() {
        let temperature = QueryTemperature {
            scale: 0.5,
            length: 64,
        };
        let found = [0, 63, 64, 127, 128].map(|position| temperature.factor(position));
        let [one, two] = [2f64, 3.0].map(|steps| 1.0 + 0.5 * steps.ln());
        let expected = [1.0, 1.0, one, one, two];
        let is_close = |(found, expected): (&f64, &f64)| (found - expected).abs() < 1e-12;
        assert!(found.iter().zip(&expected).all(is_close), "{found:?}");
    }
}
