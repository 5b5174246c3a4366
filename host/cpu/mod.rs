//! The CPU backend: parallel over the cores, weights left quantized in the mapping, in two arithmetics.
//!
//! The *reference* is readable, and the GPU is held against it. Keys and values are f32. All else is f64: random weights
//! can cancel so well that the rounding of f32 activations grows a thousandfold from layer to layer, and a reference
//! should not be what differs. The *fast path* is for those who want a text: f32 between operations, and quantized
//! weights are multiplied in integers with activations rounded to 8 bits.
//!
//! In both a token's values depend on the tokens before it and on nothing else, bit for bit: not on what runs in the same
//! step, and not on where a prompt was cut into chunks.

mod arithmetic;
mod attention;
mod experts;
mod fast;
mod interrupt;
mod kv_cache;
mod ops;
mod outputs;
mod pass;
mod reference;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::backend::{
    ActivationPrecision, Backend, BackendError, IN_FLIGHT, Limits, NewTokens, PAGE_TOKENS, Row,
    RowResult, Ticket, TraceSink, Tracer, check_step,
};
use crate::model::Model;
use arithmetic::Arithmetic;
use fast::Fast;
use interrupt::Interrupt;
use kv_cache::KvCache;
use pass::Pass;
use reference::Reference;

/// A model on the CPU.
pub struct CpuBackend {
    model: Arc<Model>,
    cache: KvCache,
    is_fast: bool,
    interrupt: Interrupt,
    /// Steps so far.
    n_steps: u64,
    /// Steps that nobody has collected, oldest first.
    under_way: VecDeque<(Ticket, Vec<RowResult>)>,
}

impl CpuBackend {
    /// The reference with a KV cache of `n_pages` pages; memory is touched only when a page is used.
    pub fn new(model: Arc<Model>, n_pages: usize) -> CpuBackend {
        CpuBackend::of::<Reference>(model, n_pages, false)
    }

    /// The fast path, likewise.
    pub fn fast(model: Arc<Model>, n_pages: usize) -> CpuBackend {
        CpuBackend::of::<Fast>(model, n_pages, true)
    }

    fn of<A: Arithmetic>(model: Arc<Model>, n_pages: usize, is_fast: bool) -> CpuBackend {
        let cache = KvCache::new(&model.config, n_pages, A::KEYS);
        CpuBackend {
            model,
            cache,
            is_fast,
            interrupt: Interrupt::never(),
            n_steps: 0,
            under_way: VecDeque::new(),
        }
    }

    /// The same, whose steps end with [`BackendError::Interrupted`] soon after `flag` is set.
    pub fn interrupted_by(mut self, flag: &'static AtomicBool) -> CpuBackend {
        self.interrupt = Interrupt::by(flag);
        self
    }

    /// The ids of each row's new tokens.
    ///
    /// # Errors
    /// A token of a step that is not under way.
    fn ids(&self, rows: &[Row<'_>]) -> Result<Vec<Vec<u32>>, BackendError> {
        let ids = rows.iter().map(|row| match row.tokens {
            NewTokens::Known(tokens) => Ok(tokens.to_vec()),
            NewTokens::ChosenBy(ticket, index) => {
                let step = self.under_way.iter().find(|(step, _)| *step == ticket);
                let result = step.and_then(|(_, results)| results.get(index));
                let result = result.ok_or(BackendError::Ticket(ticket))?;
                // A failed row's successor is for nothing.
                let token = result.as_ref().ok().and_then(|output| output.token());
                Ok(vec![token.unwrap_or(0)])
            }
        });
        ids.collect()
    }

    /// What `rows`, whose tokens are `ids`, ask for.
    fn forward<A: Arithmetic>(
        &mut self,
        arithmetic: A,
        rows: &[Row<'_>],
        ids: &[Vec<u32>],
        trace: &mut Tracer,
    ) -> Result<Vec<RowResult>, BackendError> {
        let mut pass = Pass {
            model: &self.model,
            cache: &mut self.cache,
            interrupt: self.interrupt,
            arithmetic,
        };
        pass.forward(rows, ids, trace)
    }
}

impl Backend for CpuBackend {
    fn model(&self) -> &Arc<Model> {
        &self.model
    }

    fn limits(&self) -> Limits {
        Limits {
            max_sequences: usize::MAX,
            max_tokens: usize::MAX,
            n_pages: self.cache.n_pages(),
            max_context: self.cache.n_pages() * PAGE_TOKENS,
        }
    }

    fn submit(
        &mut self,
        rows: &[Row<'_>],
        trace: &mut dyn TraceSink,
    ) -> Result<Ticket, BackendError> {
        check_step(self.model.vocab(), self.limits(), rows)?;
        if self.under_way.len() >= IN_FLIGHT {
            return Err(BackendError::InFlight);
        }
        let ids = self.ids(rows)?;
        // All of it on a thread of the pool: any other would sleep through each of the hundreds of
        // parallel loops and be woken after it.
        let trace = &mut Tracer::new(trace);
        let results = rayon::scope(|_| match self.is_fast {
            true => self.forward(Fast, rows, &ids, trace),
            false => self.forward(Reference, rows, &ids, trace),
        })?;
        let ticket = Ticket(self.n_steps);
        self.n_steps += 1;
        self.under_way.push_back((ticket, results));
        Ok(ticket)
    }

    fn collect(&mut self, ticket: Ticket) -> Result<Vec<RowResult>, BackendError> {
        match self.under_way.front() {
            Some(&(oldest, _)) if oldest == ticket => {}
            _ => return Err(BackendError::Ticket(ticket)),
        }
        let step = self.under_way.pop_front();
        Ok(step.map_or_else(Vec::new, |(_, results)| results))
    }

    fn activations(&self) -> Option<ActivationPrecision> {
        self.is_fast.then_some(ActivationPrecision::Q8)
    }

    fn rounds_every_step(&self) -> bool {
        self.is_fast
    }

    fn kv_element_bytes(&self) -> usize {
        size_of::<f32>()
    }

    fn description(&self) -> String {
        format!("cpu, {} threads", rayon::current_num_threads())
    }
}
