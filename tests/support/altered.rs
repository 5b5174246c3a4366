//! A backend around another one, which lets steps fail or see more than they ask for.

use std::sync::Arc;

use hyperion::backend::{Ask, Backend, BackendError, Limits, Row, RowResult, Ticket, TraceSink};
use hyperion::model::Model;

/// Decides on a step before it is submitted.
pub type Before = Box<dyn FnMut() -> Result<(), BackendError> + Send>;
/// Changes what a row asks for.
pub type Asking = Box<dyn for<'a> Fn(Ask<'a>) -> Ask<'a> + Send>;
/// Changes the results of a step, or loses them.
pub type After = Box<dyn FnMut(Vec<RowResult>) -> Result<Vec<RowResult>, BackendError> + Send>;

/// `inner`, whose steps pass `before` and whose results pass `after`.
pub struct Altered {
    inner: Box<dyn Backend>,
    before: Before,
    asking: Asking,
    after: After,
}

impl Altered {
    /// Steps that `before` refuses are not submitted.
    pub fn new(
        inner: Box<dyn Backend>,
        before: impl FnMut() -> Result<(), BackendError> + Send + 'static,
    ) -> Altered {
        Altered {
            inner,
            before: Box::new(before),
            asking: Box::new(|ask| ask),
            after: Box::new(Ok),
        }
    }

    /// Lets `asking` change what rows ask for.
    pub fn with_asks(
        self,
        asking: impl for<'a> Fn(Ask<'a>) -> Ask<'a> + Send + 'static,
    ) -> Altered {
        Altered {
            asking: Box::new(asking),
            ..self
        }
    }

    /// Lets `after` change results.
    pub fn with_results(
        self,
        after: impl FnMut(Vec<RowResult>) -> Result<Vec<RowResult>, BackendError> + Send + 'static,
    ) -> Altered {
        Altered {
            after: Box::new(after),
            ..self
        }
    }
}

impl Backend for Altered {
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
        (self.before)()?;
        let rows = rows.iter().map(|row| Row {
            ask: (self.asking)(row.ask),
            ..*row
        });
        self.inner.submit(&rows.collect::<Vec<_>>(), trace)
    }

    fn collect(&mut self, ticket: Ticket) -> Result<Vec<RowResult>, BackendError> {
        let results = self.inner.collect(ticket)?;
        (self.after)(results)
    }

    fn overlaps(&self) -> bool {
        self.inner.overlaps()
    }

    fn description(&self) -> String {
        self.inner.description()
    }
}
