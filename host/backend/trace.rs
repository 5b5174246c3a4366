//! Named tensors that a backend reports while it runs a step, under llama.cpp's names.

use std::fmt;

/// Name of a tensor of the forward pass: `attn_norm-3`, `result_norm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorName {
    /// The operation's name.
    pub base: &'static str,
    /// The block it belongs to; `None` before the first and after the last.
    pub layer: Option<usize>,
}

impl fmt::Display for TensorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layer {
            Some(layer) => write!(f, "{}-{layer}", self.base),
            None => f.write_str(self.base),
        }
    }
}

/// Receives tensors while a step runs, on whichever thread runs it.
pub trait TraceSink: Send {
    /// Whether it wants anything at all. Where it does, a backend may take a slower way that keeps
    /// more of its tensors.
    fn is_active(&self) -> bool {
        true
    }

    /// Whether `name` is worth the trouble of fetching it.
    fn wants(&self, name: TensorName) -> bool;

    /// Takes a tensor, `[tokens, elements]` row-major, with the tokens of all sequences of the step
    /// one after the other.
    fn record(&mut self, name: TensorName, elements: usize, data: &[f32]);

    /// Values that the reference backend should go on with instead of its own, as many as it
    /// computed. With another backend's tensors here, every operation of the reference starts from
    /// what that backend's operation started from, so that errors do not travel.
    fn forced(&self, _name: TensorName) -> Option<&[f32]> {
        None
    }
}

/// Wants nothing.
pub struct NoTrace;

impl TraceSink for NoTrace {
    fn is_active(&self) -> bool {
        false
    }

    fn wants(&self, _: TensorName) -> bool {
        false
    }

    fn record(&mut self, _: TensorName, _: usize, _: &[f32]) {}
}

/// A sink together with the layer that is running.
pub struct Tracer<'a> {
    sink: &'a mut dyn TraceSink,
    /// The running block.
    pub layer: Option<usize>,
}

impl<'a> Tracer<'a> {
    /// Reports to `sink`; starts outside all blocks.
    pub fn new(sink: &'a mut dyn TraceSink) -> Tracer<'a> {
        Tracer { sink, layer: None }
    }

    /// Whether anybody wants tensor `base` of the running block.
    pub fn wants(&self, base: &'static str) -> bool {
        self.sink.wants(TensorName {
            base,
            layer: self.layer,
        })
    }

    /// Reports `data`, `[tokens, elements]`, if somebody wants it, and takes over forced values.
    pub fn tensor<V: Copy + Into<f64> + From<f32>>(
        &mut self,
        base: &'static str,
        elements: usize,
        data: &mut [V],
    ) {
        let name = TensorName {
            base,
            layer: self.layer,
        };
        if self.sink.wants(name) {
            let data: Vec<f32> = data.iter().map(|&value| value.into() as f32).collect();
            self.sink.record(name, elements, &data);
        }
        if let Some(forced) = self.sink.forced(name) {
            debug_assert_eq!(data.len(), forced.len());
            for (value, &forced) in data.iter_mut().zip(forced) {
                *value = V::from(forced);
            }
        }
    }
}

/// Keeps every tensor that a predicate wants.
pub struct Recorder<'a> {
    wanted: Box<dyn Fn(TensorName) -> bool + Send + 'a>,
    /// The tensors in order of execution. A step that comes later appends its tokens.
    pub tensors: Vec<RecordedTensor>,
}

/// A tensor of a forward pass.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedTensor {
    /// Its name.
    pub name: TensorName,
    /// Elements of a token.
    pub elements: usize,
    /// `[tokens, elements]`.
    pub data: Vec<f32>,
}

impl<'a> Recorder<'a> {
    /// Keeps the tensors for which `wanted` says so.
    pub fn new(wanted: impl Fn(TensorName) -> bool + Send + 'a) -> Recorder<'a> {
        Recorder {
            wanted: Box::new(wanted),
            tensors: Vec::new(),
        }
    }

    /// The tensor that displays as `name`.
    pub fn get(&self, name: &str) -> Option<&RecordedTensor> {
        self.tensors
            .iter()
            .find(|tensor| tensor.name.to_string() == name)
    }
}

impl TraceSink for Recorder<'_> {
    fn wants(&self, name: TensorName) -> bool {
        (self.wanted)(name)
    }

    fn record(&mut self, name: TensorName, elements: usize, data: &[f32]) {
        match self.tensors.iter_mut().find(|tensor| tensor.name == name) {
            Some(tensor) => tensor.data.extend_from_slice(data),
            None => self.tensors.push(RecordedTensor {
                name,
                elements,
                data: data.to_vec(),
            }),
        }
    }
}
