//! The gated activations of a step, and the rows that their scales leave behind.
//!
//! A row of gated activations that f16 would not hold is divided by a power of two. A product straight from a
//! matrix's blocks multiplies its results by it. One by cuBLAS cannot: it adds to a residual stream whose row
//! was divided as well, and the norm that reads the row next multiplies it back.

use kernels_gpu::abi::{DevicePtr, GatedRowsParams, gated_rows_geometry};
use kernels_gpu::ops::gated_rows::{
    GEGLU_BOUNDED_ROWS, GEGLU_ROWS, SWIGLU_BOUNDED_ROWS, SWIGLU_ROWS,
};

use super::matvec::Product;
use crate::device::{Buffer, Result};
use crate::gpu::launcher::{Geometry, at};
use crate::gpu::pass::Pass;
use crate::gpu::scales::HalfRows;
use crate::gpu::weights::GpuNetwork;
use crate::model::GateFunction;

impl<'a> Pass<'a> {
    /// Whether the products of the gate and of the other factor in a step of `rows` tokens say how large they
    /// are.
    pub fn knows_gate_maxima(&self, network: &GpuNetwork, rows: usize) -> bool {
        [&network.gate, &network.up]
            .map(|linear| Product::new(linear, &self.workspace.gate))
            .iter()
            .all(|product| self.matmul_plan(&[*product], rows).is_some())
    }

    /// Whether the product that follows the gated activations is by cuBLAS in a step of `rows` tokens.
    pub fn decodes_down(&self, network: &GpuNetwork, rows: usize) -> bool {
        let down = Product::new(&network.down, &self.workspace.x);
        self.matmul_plan(&[down], rows).is_none()
    }

    /// Whether a block leaves rows of the residual stream divided by `gated_scales`. Those of experts do not add to it
    /// by a product.
    pub fn leaves_scaled(&self, layer: usize, rows: usize) -> bool {
        let weights = &self.weights.layers[layer];
        match (&weights.network, &weights.experts, &weights.post_ffn_norm) {
            (Some(network), None, None) => self.decodes_down(network, rows),
            _ => false,
        }
    }

    /// The gated product of `gate` and `up` of a block to `gated`, in scaled f16.
    pub fn gate_rows(
        &self,
        layer: usize,
        network: &GpuNetwork,
        rows: usize,
    ) -> Result<HalfRows<'_>> {
        /// Rows that leave multiprocessors without work.
        const FEW_ROWS: usize = 64;
        let (config, w) = (self.config, self.workspace);
        let ffn = config.ffn_width as u32;
        let knows_maxima = self.knows_gate_maxima(network, rows);
        let (blocks, block) = gated_rows_geometry(ffn, knows_maxima, rows <= FEW_ROWS);
        let address = |is_given: bool, buffer: &Buffer| if is_given { buffer.addr() } else { 0 };
        let params = GatedRowsParams {
            gate: at(&w.gate, 0),
            up: at(&w.up, 0),
            y: at(&w.gated, 0),
            scales: at(&w.gated_scales, 0),
            maxima: DevicePtr::from_address(address(knows_maxima, &w.gated_maxima)),
            addend: DevicePtr::from_address(address(self.leaves_scaled(layer, rows), &w.x)),
            width: ffn,
            addend_width: config.width as u32,
            reserved: [0; 2],
        };
        let kernel = match (config.gate_function(), knows_maxima) {
            (GateFunction::Silu, false) => SWIGLU_ROWS,
            (GateFunction::Silu, true) => SWIGLU_BOUNDED_ROWS,
            (GateFunction::GeluTanh, false) => GEGLU_ROWS,
            (GateFunction::GeluTanh, true) => GEGLU_BOUNDED_ROWS,
        };
        let geometry = Geometry::new([blocks, rows as u32, 1], block);
        // SAFETY: gate, up and `gated` have `rows` rows of `ffn` elements, a multiple of 4, the residual stream of
        // `width`, and there is a scale and a maximum for each.
        unsafe { self.launcher.launch(&kernel, geometry, &params) }?;
        Ok(HalfRows {
            scales: Some(&w.gated_scales),
            ..HalfRows::new(&w.gated, rows)
        })
    }
}
