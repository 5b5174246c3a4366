//! Reports tensors that lie on the device.

use std::cell::{Cell, RefCell};

use half::f16;

use super::scales::HalfRows;
use crate::backend::{TensorName, TraceSink};
use crate::device::{Buffer, Device, Result};

/// Share of a sum that a term must have to be told from the sum's rounding, 2^-25, to a thousandth.
const LEAST_ADDEND: f64 = 1e-4;

/// A trace sink with the device that the tensors come from.
pub struct DeviceTracer<'a> {
    device: &'a dyn Device,
    sink: RefCell<&'a mut dyn TraceSink>,
    n_tokens: usize,
    /// The running block.
    pub layer: Cell<Option<usize>>,
    /// The residual stream before the running operation, where somebody wants tensors.
    residual: RefCell<Vec<f32>>,
}

impl<'a> DeviceTracer<'a> {
    /// Reports tensors of `n_tokens` tokens to `sink`.
    pub fn new(device: &'a dyn Device, sink: &'a mut dyn TraceSink, n_tokens: usize) -> Self {
        DeviceTracer {
            device,
            sink: RefCell::new(sink),
            n_tokens,
            layer: Cell::new(None),
            residual: RefCell::default(),
        }
    }

    /// Whether anything may be wanted.
    pub fn is_active(&self) -> bool {
        self.sink.borrow().is_active()
    }

    /// Whether somebody wants tensor `base` of the running block.
    pub fn wants(&self, base: &'static str) -> bool {
        self.is_active() && self.sink.borrow().wants(self.name(base))
    }

    fn name(&self, base: &'static str) -> TensorName {
        let layer = self.layer.get();
        TensorName { base, layer }
    }

    /// Reports host values.
    pub fn values(&self, base: &'static str, elements: usize, data: &[f32]) {
        if self.wants(base) {
            self.sink
                .borrow_mut()
                .record(self.name(base), elements, data);
        }
    }

    /// Reports the f32 tensor `[tokens, elements]` in `buffer`.
    pub fn f32(&self, base: &'static str, elements: usize, buffer: &Buffer) -> Result<()> {
        if self.wants(base) {
            let data = self.read(elements, buffer)?;
            self.sink
                .borrow_mut()
                .record(self.name(base), elements, &data);
        }
        Ok(())
    }

    /// Reports the f16 tensor `[tokens, elements]` in `buffer`.
    pub fn f16(&self, base: &'static str, elements: usize, buffer: &Buffer) -> Result<()> {
        if self.wants(base) {
            let mut bits = vec![0u16; self.n_tokens * elements];
            let from = buffer.slice(0, 2 * bits.len())?;
            self.device
                .download(bytemuck::cast_slice_mut(&mut bits), from)?;
            self.f16_values(base, elements, &bits);
        }
        Ok(())
    }

    /// Reports the u32 tensor `[tokens, elements]` in `buffer`: numbers that f32 holds.
    pub fn u32(&self, base: &'static str, elements: usize, buffer: &Buffer) -> Result<()> {
        if self.wants(base) {
            let data = self.read_u32(self.n_tokens * elements, buffer)?;
            let data: Vec<f32> = data.iter().map(|&value| value as f32).collect();
            self.values(base, elements, &data);
        }
        Ok(())
    }

    /// Reports rows of `elements` elements that were divided to fit in f16.
    pub fn half_rows(&self, base: &'static str, elements: usize, rows: HalfRows<'_>) -> Result<()> {
        if self.wants(base) {
            let data = self.read_half_rows(elements, rows)?;
            self.values(base, elements, &data);
        }
        Ok(())
    }

    /// Rows of `elements` elements that were divided to fit in f16.
    pub fn read_half_rows(&self, elements: usize, rows: HalfRows<'_>) -> Result<Vec<f32>> {
        let mut scales = vec![1f32; rows.count];
        if let Some(from) = rows.scales {
            let from = from.slice(0, 4 * rows.count)?;
            self.device
                .download(bytemuck::cast_slice_mut(&mut scales), from)?;
        }
        let mut bits = vec![0u16; rows.count * elements];
        let from = rows.x.slice(0, 2 * bits.len())?;
        self.device
            .download(bytemuck::cast_slice_mut(&mut bits), from)?;
        let rows_of = bits.chunks_exact(elements).zip(scales);
        let data = rows_of.flat_map(|(row, scale)| {
            let factor = scale * rows.scale;
            row.iter()
                .map(move |&bits| f16::from_bits(bits).to_f32() * factor)
        });
        Ok(data.collect())
    }

    /// Reports f16 values by their bits.
    pub fn f16_values(&self, base: &'static str, elements: usize, bits: &[u16]) {
        let data: Vec<f32> = bits
            .iter()
            .map(|&bits| f16::from_bits(bits).to_f32())
            .collect();
        self.values(base, elements, &data);
    }

    /// Reports the residual stream, which is divided by `scale`, as `base`.
    pub fn residual(
        &self,
        base: &'static str,
        elements: usize,
        x: &Buffer,
        scale: f32,
    ) -> Result<()> {
        if self.is_active() {
            let data = self.read(elements, x)?;
            self.values(base, elements, &scaled(&data, scale));
            *self.residual.borrow_mut() = data;
        }
        Ok(())
    }

    /// Reports the residual stream, which is divided by `scale`, as `sum`, and as `addend` what was added to it since
    /// the last report: a product that is added in place exists nowhere else. One that the sum's own rounding
    /// to f32 would blur is left out.
    pub fn residual_and_addend(
        &self,
        addend: &'static str,
        sum: &'static str,
        elements: usize,
        x: &Buffer,
        scale: f32,
    ) -> Result<()> {
        if self.is_active() {
            let data = self.read(elements, x)?;
            let before = self.residual.take();
            if before.len() == data.len() {
                let added = data.iter().zip(before.iter()).map(|(new, old)| new - old);
                let added: Vec<f32> = added.collect();
                if length(&added) > LEAST_ADDEND * length(&data) {
                    self.values(addend, elements, &added);
                }
            }
            self.values(sum, elements, &scaled(&data, scale));
            *self.residual.borrow_mut() = data;
        }
        Ok(())
    }

    fn read(&self, elements: usize, buffer: &Buffer) -> Result<Vec<f32>> {
        self.read_f32(self.n_tokens * elements, buffer)
    }

    /// The first `n` f32 of `buffer`.
    pub fn read_f32(&self, n: usize, buffer: &Buffer) -> Result<Vec<f32>> {
        self.read_words(n, buffer)
    }

    /// The first `n` u32 of `buffer`.
    pub fn read_u32(&self, n: usize, buffer: &Buffer) -> Result<Vec<u32>> {
        self.read_words(n, buffer)
    }

    fn read_words<T: bytemuck::Pod>(&self, n: usize, buffer: &Buffer) -> Result<Vec<T>> {
        let mut data = vec![T::zeroed(); n];
        let bytes = bytemuck::cast_slice_mut(&mut data);
        let from = buffer.slice(0, bytes.len())?;
        self.device.download(bytes, from)?;
        Ok(data)
    }
}

fn scaled(values: &[f32], scale: f32) -> Vec<f32> {
    values.iter().map(|value| value * scale).collect()
}

/// The 2-norm.
fn length(values: &[f32]) -> f64 {
    let squares = values.iter().map(|&value| f64::from(value).powi(2));
    squares.sum::<f64>().sqrt()
}
