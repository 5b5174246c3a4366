//! The tiny models of `tests/tools/family_references.py` with what llama.cpp computes for them.

use std::sync::Arc;

use hyperion::backend::RecordedTensor;
use hyperion::model::Model;

use super::greedy::GreedyText;
use super::{Reference, fixture};

/// A model for sequences of some length, and its reference.
pub struct Family {
    pub name: String,
    pub context: usize,
    pub model: Arc<Model>,
    reference: Reference,
    pub tokens: Vec<u32>,
    /// Positions of the tokens whose values the reference has.
    positions: Vec<usize>,
    greedy: Vec<u32>,
    gaps: Vec<f32>,
}

impl Family {
    pub fn open(name: &str, context: usize) -> Family {
        let model = Model::open(&fixture(&format!("families/{name}.gguf"))).expect("a model");
        let reference = Reference::open(&format!("families/{name}-{context}.safetensors"));
        let integers = |tensor: &str| reference.i32(tensor).1;
        assert_eq!(integers("context"), [context as i32]);
        Family {
            name: format!("{name} for {context} tokens"),
            context,
            model: Arc::new(model).for_context(context),
            tokens: integers("tokens").iter().map(|&t| t as u32).collect(),
            positions: integers("positions").iter().map(|&p| p as usize).collect(),
            greedy: integers("greedy").iter().map(|&t| t as u32).collect(),
            gaps: reference.f32("greedy_gap").1,
            reference,
        }
    }

    /// What llama.cpp chose after the tokens.
    pub fn greedy_text(&self) -> GreedyText<'_> {
        GreedyText {
            name: &self.name,
            prompt: &self.tokens,
            greedy: &self.greedy,
            gaps: &self.gaps,
        }
    }

    /// The reference's rows of `tensor`, each with its position.
    pub fn rows(&self, tensor: &str) -> Vec<(usize, Vec<f32>)> {
        let (shape, values) = self.reference.f32(tensor);
        let rows = values.chunks_exact(shape[1]).map(<[f32]>::to_vec);
        self.positions.iter().copied().zip(rows).collect()
    }

    /// The rows of each layer's output that the reference has, one after the other, in `recorded` and there.
    pub fn layers(&self, recorded: &[RecordedTensor]) -> Vec<(String, Vec<f32>, Vec<f32>)> {
        let layers = (0..self.model.config.n_layers).map(|layer| {
            let name = format!("l_out-{layer}");
            let ours = recorded
                .iter()
                .find(|tensor| tensor.name.to_string() == name);
            let ours = ours.unwrap_or_else(|| panic!("{}: no tensor {name}", self.name));
            let rows = self.rows(&name);
            let of_row = |position: usize| &ours.data[position * ours.elements..][..ours.elements];
            let found = rows
                .iter()
                .flat_map(|(position, _)| of_row(*position))
                .copied();
            let expected = rows.iter().flat_map(|(_, row)| row).copied();
            (name, found.collect(), expected.collect())
        });
        layers.collect()
    }
}
