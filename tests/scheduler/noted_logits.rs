//! A backend whose logits a test sees.

use std::sync::{Arc, Mutex};

use hyperion::backend::{Ask, Backend, Report};

use crate::support::altered::Altered;

/// The bits of all logits from which tokens were chosen, in their order.
#[derive(Clone, Default)]
pub struct Noted(Arc<Mutex<Vec<Vec<u32>>>>);

impl Noted {
    /// `inner`, with its logits noted here; requests have no log-probabilities there.
    pub fn of(&self, inner: Box<dyn Backend>) -> Box<dyn Backend> {
        let noted = self.clone();
        let noting = Altered::new(inner, || Ok(()))
            .with_asks(|ask| match ask.choose {
                Some(_) => Ask {
                    report: Report::Logits,
                    ..ask
                },
                None => ask,
            })
            .with_results(move |results| {
                let outputs = results.iter().flatten();
                let logits = outputs.filter(|output| !output.logits.is_empty());
                let bits = logits.map(|output| output.logits.iter().map(|x| x.to_bits()).collect());
                noted.0.lock().expect("a list").extend(bits);
                Ok(results)
            });
        Box::new(noting)
    }

    /// Those since the last call.
    pub fn take(&self) -> Vec<Vec<u32>> {
        std::mem::take(&mut self.0.lock().expect("a list"))
    }
}
