//! Engines with a fault in what stretches a context: YaRN and the temperature of queries.

use std::sync::Arc;

use hyperion::backend::{
    Backend, BackendError, Limits, NoTrace, Row, RowResult, Ticket, TraceSink,
};
use hyperion::cpu::CpuBackend;
use hyperion::model::{Model, Rope, RopePairing, RopeScaling};
use hyperion::verify::weights;

use crate::PAGES;
use crate::experts::{assert_named, changed, open, report};

/// Stretched by 8 from 64 tokens, of which the prompt has more.
const MISTRAL: &str = "families/mistral3-mixed.gguf";

#[test]
fn faults_are_named() {
    let right = report(MISTRAL, changed(MISTRAL, |_| ()));
    assert!(right.passed(), "{:?}", right.first_fault());
    let named = |what: &str, change: &dyn Fn(&mut Model)| {
        assert_named(what, MISTRAL, changed(MISTRAL, change), "Qcur-0");
    };
    named("no temperature", &|model| {
        model.config.query_temperature = None;
    });
    named("steps of the temperature", &|model| {
        let temperature = model.config.query_temperature.as_mut();
        temperature.expect("a temperature").length = 65;
    });
    named("no YaRN", &|model| {
        let pairing = RopePairing::Adjacent;
        model.config.ropes[0] = Rope::new(pairing, 32, 1e4, RopeScaling::None, None);
    });
    named("YaRN's own temperature", &|model| {
        model.config.ropes[0].magnitude = 1.0 + 0.1 * 8f64.ln();
    });
}

/// A device with one wrong factor.
struct Holder(CpuBackend);

impl Backend for Holder {
    fn model(&self) -> &Arc<Model> {
        self.0.model()
    }

    fn limits(&self) -> Limits {
        self.0.limits()
    }

    fn submit(&mut self, rows: &[Row<'_>], _: &mut dyn TraceSink) -> Result<Ticket, BackendError> {
        self.0.submit(rows, &mut NoTrace)
    }

    fn collect(&mut self, ticket: Ticket) -> Result<Vec<RowResult>, BackendError> {
        self.0.collect(ticket)
    }

    fn description(&self) -> String {
        "holder".to_owned()
    }

    fn read_query_factors(&self) -> Option<Result<Vec<f32>, BackendError>> {
        let temperature = self.model().config.query_temperature?;
        let factors = (0..200).map(|position| temperature.factor(position) as f32);
        let mut factors: Vec<f32> = factors.collect();
        factors[128] = factors[127];
        Some(Ok(factors))
    }
}

#[test]
fn a_wrong_factor_is_found() {
    let holder = |name: &str| Holder(CpuBackend::new(Arc::new(open(name)), PAGES));
    let found = weights::check_query_factors(&holder(MISTRAL), 3);
    let found = found.expect("held").expect("read");
    assert_eq!((found.different, found.first), (1, Some(128)));
    let yarn_alone = holder("families/qwen3-yarn.gguf");
    assert!(weights::check_query_factors(&yarn_alone, 3).is_none());
}
