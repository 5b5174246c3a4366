//! Engines that do one thing differently, built around the CPU backend.

use std::collections::HashMap;
use std::sync::Arc;

use hyperion::backend::{
    Backend, BackendError, Limits, PageId, Row, RowResult, TensorName, Ticket, TraceSink,
};
use hyperion::cpu::CpuBackend;
use hyperion::model::Model;

/// What happens to a tensor.
pub enum Change {
    /// Nothing.
    Keep,
    /// The engine computed other values, and says so.
    Report(Vec<f32>),
    /// The engine goes on with other values than it reports, as one does that rounds its inputs.
    Hide(Vec<f32>),
}

/// The tensors of the running step so far, by name.
pub type Seen = HashMap<TensorName, Vec<f32>>;

/// Decides on a tensor, given its values and those before it.
pub type Rule = Box<dyn FnMut(TensorName, &[f32], &Seen) -> Change + Send>;

/// Changes steps before they run.
pub type Reroute = Box<dyn Fn(usize, &mut Vec<PageId>) -> usize + Send>;

/// A CPU backend with a fault.
pub struct Engine {
    inner: CpuBackend,
    rule: Rule,
    reroute: Reroute,
}

impl Engine {
    /// Runs `model` as it is.
    pub fn new(model: Model, n_pages: usize) -> Engine {
        Engine {
            inner: CpuBackend::new(Arc::new(model), n_pages),
            rule: Box::new(|_, _, _| Change::Keep),
            reroute: Box::new(|start, _| start),
        }
    }

    /// Applies `rule` to every tensor.
    pub fn with_rule(
        mut self,
        rule: impl FnMut(TensorName, &[f32], &Seen) -> Change + Send + 'static,
    ) -> Engine {
        self.rule = Box::new(rule);
        self
    }

    /// Lets `reroute` change a step's pages and give another start.
    pub fn with_reroute(
        mut self,
        reroute: impl Fn(usize, &mut Vec<PageId>) -> usize + Send + 'static,
    ) -> Engine {
        self.reroute = Box::new(reroute);
        self
    }
}

impl Backend for Engine {
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
        let rerouted: Vec<(usize, Vec<PageId>)> = rows
            .iter()
            .map(|row| {
                let mut pages = row.pages.to_vec();
                ((self.reroute)(row.start, &mut pages), pages)
            })
            .collect();
        let rows: Vec<Row<'_>> = rows
            .iter()
            .zip(&rerouted)
            .map(|(row, (start, pages))| Row {
                start: *start,
                pages,
                ..*row
            })
            .collect();
        let mut sink = Sink {
            outer: trace,
            rule: &mut self.rule,
            seen: HashMap::new(),
            forced: HashMap::new(),
        };
        self.inner.submit(&rows, &mut sink)
    }

    fn collect(&mut self, ticket: Ticket) -> Result<Vec<RowResult>, BackendError> {
        self.inner.collect(ticket)
    }

    fn description(&self) -> String {
        "an engine with a fault".to_owned()
    }
}

struct Sink<'a> {
    outer: &'a mut dyn TraceSink,
    rule: &'a mut Rule,
    seen: Seen,
    forced: HashMap<TensorName, Vec<f32>>,
}

impl TraceSink for Sink<'_> {
    fn wants(&self, _: TensorName) -> bool {
        true
    }

    fn record(&mut self, name: TensorName, elements: usize, data: &[f32]) {
        let (reported, used) = match (self.rule)(name, data, &self.seen) {
            Change::Keep => (data.to_vec(), None),
            Change::Report(values) => (values.clone(), Some(values)),
            Change::Hide(values) => (data.to_vec(), Some(values)),
        };
        if self.outer.wants(name) {
            self.outer.record(name, elements, &reported);
        }
        self.seen.insert(name, used.clone().unwrap_or(reported));
        if let Some(values) = used {
            self.forced.insert(name, values);
        }
    }

    fn forced(&self, name: TensorName) -> Option<&[f32]> {
        self.forced.get(&name).map(Vec::as_slice)
    }
}
