//! The other proofs find faults too: products by hand, and weights read back.

use std::sync::Arc;

use half::f16;
use hyperion::backend::{
    ActivationPrecision, Backend, BackendError, Limits, NoTrace, Row, RowResult, Ticket, TraceSink,
};
use hyperion::cpu::CpuBackend;
use hyperion::gguf::Gguf;
use hyperion::model::Model;
use hyperion::verify::gemm::{CheckedProduct, check_step};
use hyperion::verify::{Bounds, Plan, verify, weights};

use crate::engine::{Change, Engine};
use crate::{LLAMA, PAGES, bytes, in_block_1, product, prompt, tiny};

fn by_hand(mut engine: Engine) -> Vec<CheckedProduct> {
    let model = Arc::new(tiny(LLAMA));
    let bounds = Bounds::new(&model, Some(ActivationPrecision::Q8));
    let tokens = prompt(LLAMA);
    let plan = Plan {
        tokens: &tokens[..20],
        chunk: 20,
        decode_steps: 1,
        batch: 1,
    };
    let mut reference = CpuBackend::new(model.clone(), PAGES);
    let mut checked = Vec::new();
    verify(&mut engine, &mut reference, &plan, &bounds, &mut |step| {
        checked.extend(check_step(&model, &bounds, step, 0, 8).0);
    })
    .expect("a run");
    checked
}

#[test]
fn products_by_hand_find_the_wrong_one() {
    let right = by_hand(Engine::new(tiny(LLAMA), PAGES));
    assert_eq!(right.len(), 2 * 15);
    assert!(right.iter().all(|product| product.passed));

    let matrix = tiny(LLAMA).weights.layers[1].attn_output.clone();
    let wrong = Engine::new(tiny(LLAMA), PAGES).with_rule(move |name, _, seen| {
        if name != in_block_1("attn_out") {
            return Change::Keep;
        }
        let x = &seen[&in_block_1("kqv_out")];
        Change::Report(product(&matrix, x, |call| call.lda -= 64))
    });
    let failed: Vec<String> = by_hand(wrong)
        .into_iter()
        .filter(|product| !product.passed)
        .map(|product| product.output)
        .collect();
    assert_eq!(failed, ["attn_out-1", "attn_out-1"]);

    let nan = Engine::new(tiny(LLAMA), PAGES).with_rule(|name, data, _| {
        if name != in_block_1("ffn_up") {
            return Change::Keep;
        }
        Change::Report(vec![f32::NAN; data.len()])
    });
    let failed = by_hand(nan).into_iter().find(|product| !product.passed);
    assert_eq!(
        failed.map(|product| product.output).as_deref(),
        Some("ffn_up-1")
    );
}

/// A device that holds every tensor, one of them with a bit flipped.
struct Holder {
    backend: CpuBackend,
    gguf: Gguf,
    flipped: &'static str,
}

impl Backend for Holder {
    fn model(&self) -> &Arc<Model> {
        self.backend.model()
    }

    fn limits(&self) -> Limits {
        self.backend.limits()
    }

    fn submit(&mut self, rows: &[Row<'_>], _: &mut dyn TraceSink) -> Result<Ticket, BackendError> {
        self.backend.submit(rows, &mut NoTrace)
    }

    fn collect(&mut self, ticket: Ticket) -> Result<Vec<RowResult>, BackendError> {
        self.backend.collect(ticket)
    }

    fn description(&self) -> String {
        "holder".to_owned()
    }

    fn read_weight(&self, name: &str) -> Option<Result<Vec<u16>, BackendError>> {
        let tensor = self.gguf.tensor(name)?;
        if tensor.dims().len() == 1 {
            return None;
        }
        let values = tensor.to_f32();
        let mut bits: Vec<u16> = values
            .iter()
            .map(|&value| f16::from_f32(value).to_bits())
            .collect();
        if name == self.flipped {
            bits[1000] ^= 1;
        }
        Some(Ok(bits))
    }

    fn read_vector(&self, name: &str) -> Option<Result<Vec<f32>, BackendError>> {
        let mut values = self.gguf.tensor(name)?.to_f32();
        if name == self.flipped {
            // The lowest bit, which half precision would not show.
            values[7] = f32::from_bits(values[7].to_bits() ^ 1);
        }
        Some(Ok(values))
    }

    fn read_rope(&self, index: usize) -> Option<Result<Vec<f32>, BackendError>> {
        let rope = self.backend.model().config.ropes.get(index)?;
        let mut values: Vec<f32> = (0..9)
            .flat_map(|position| rope.cos_sin(position).flatten())
            .map(|value| value as f32)
            .collect();
        if self.flipped == "rope_freqs.weight" {
            values[30] = f32::from_bits(values[30].to_bits() ^ 1);
        }
        Some(Ok(values))
    }
}

#[test]
fn a_flipped_bit_of_a_vector_is_found() {
    let gguf = || Gguf::from_bytes(bytes::file(LLAMA)).expect("a GGUF file");
    for flipped in [
        "blk.0.ffn_norm.weight",
        "output_norm.weight",
        "rope_freqs.weight",
    ] {
        let holder = Holder {
            backend: CpuBackend::new(Arc::new(tiny(LLAMA)), 1),
            gguf: gguf(),
            flipped,
        };
        for tensor in gguf().tensors() {
            let checked = weights::check(&holder, tensor, 3)
                .expect("held")
                .expect("read");
            let is_flipped = tensor.name() == flipped && flipped != "rope_freqs.weight";
            let expected = (usize::from(is_flipped), is_flipped.then_some(7));
            assert_eq!(
                (checked.different, checked.first),
                expected,
                "{}",
                tensor.name()
            );
        }
        let table = weights::check_rope(&holder, 0, 3)
            .expect("held")
            .expect("read");
        let is_flipped = flipped == "rope_freqs.weight";
        let expected = (usize::from(is_flipped), is_flipped.then_some(30));
        assert_eq!((table.different, table.first), expected);
        assert!(weights::check_rope(&holder, 1, 3).is_none());
    }
}

#[test]
fn a_flipped_bit_of_a_weight_is_found() {
    let gguf = || Gguf::from_bytes(bytes::file(LLAMA)).expect("a GGUF file");
    let holder = Holder {
        backend: CpuBackend::new(Arc::new(tiny(LLAMA)), 1),
        gguf: gguf(),
        flipped: "blk.1.ffn_down.weight",
    };
    for tensor in gguf().tensors() {
        let checked = weights::check(&holder, tensor, 3)
            .expect("held")
            .expect("read");
        if tensor.name() == holder.flipped {
            assert_eq!((checked.different, checked.first), (1, Some(1000)));
            let (index, found, expected) = checked.values[0];
            assert!(index == 1000 && found != expected && checked.values.len() == 3);
        } else {
            assert_eq!(
                (checked.different, checked.first),
                (0, None),
                "{}",
                tensor.name()
            );
        }
    }
}
