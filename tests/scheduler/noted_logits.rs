//! A backend whose logits a test sees.

use std::sync::{Arc, Mutex};

use hyperion::backend::{
    Ask, Backend, BackendError, Limits, Report, Row, RowResult, Ticket, TraceSink,
};
use hyperion::model::Model;

/// The bits of all logits from which tokens were chosen, in their order.
#[derive(Clone, Default)]
pub struct Noted(Arc<Mutex<Vec<Vec<u32>>>>);

impl Noted {
    /// `inner`, with its logits noted here; requests have no log-probabilities there.
    pub fn of(&self, inner: Box<dyn Backend>) -> Box<dyn Backend> {
        Box::new(NotingBackend {
            inner,
            noted: self.clone(),
        })
    }

    /// Those since the last call.
    pub fn take(&self) -> Vec<Vec<u32>> {
        std::mem::take(&mut self.0.lock().expect("a list"))
    }
}

struct NotingBackend {
    inner: Box<dyn Backend>,
    noted: Noted,
}

impl Backend for NotingBackend {
    fn model(&self) -> &Arc<Model> {
        self.inner.model()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn submit(
        &mut self,
        rows: &[Row<'_>],
        trace: &mut dyn TraceSink,
    ) -> Result<Ticket, BackendError> {
        let asking = |row: &Row<'_>| match row.ask.choose {
            Some(_) => Report::Logits,
            None => row.ask.report,
        };
        let rows = rows.iter().map(|row| Row {
            ask: Ask {
                report: asking(row),
                ..row.ask
            },
            ..*row
        });
        self.inner.submit(&rows.collect::<Vec<_>>(), trace)
    }

    fn collect(&mut self, ticket: Ticket) -> Result<Vec<RowResult>, BackendError> {
        let results = self.inner.collect(ticket)?;
        let outputs = results.iter().flatten();
        let logits = outputs.filter(|output| !output.logits.is_empty());
        let bits = logits.map(|output| output.logits.iter().map(|x| x.to_bits()).collect());
        self.noted.0.lock().expect("a list").extend(bits);
        Ok(results)
    }

    fn overlaps(&self) -> bool {
        self.inner.overlaps()
    }

    fn description(&self) -> String {
        self.inner.description()
    }
}
