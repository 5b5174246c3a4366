//! The paged KV cache on the device, and the tables by position: cosines and sines, factors on queries.

use std::ops::Range;

use kernels_gpu::abi::{DevicePtr, PAGE_TOKENS};
use kernels_gpu::prim::half::F16;

use super::workspace::Limits;
use crate::device::{Buffer, Device, DeviceError, Result};
use crate::model::{Config, KvLayout, QueryTemperature, Rope};

/// Keys and values of all layers; `kernels-gpu/src/abi/attention.rs` has the layout.
pub struct KvCache {
    pages: Buffer,
    layout: KvLayout,
    /// Elements of a page.
    pub page_stride: u32,
}

/// Bytes of a page.
pub fn page_bytes(config: &Config) -> usize {
    2 * layout(config).page_elements()
}

fn layout(config: &Config) -> KvLayout {
    KvLayout::new(config, PAGE_TOKENS as usize)
}

impl KvCache {
    /// Allocates all pages.
    pub fn new(device: &dyn Device, config: &Config, n_pages: usize) -> Result<KvCache> {
        let layout = layout(config);
        let page_stride = u32::try_from(layout.page_elements())
            .map_err(|_| DeviceError::Unsupported("a KV page of over 2^32 elements".into()))?;
        let pages = device.alloc(n_pages * page_bytes(config), "KV cache")?;
        Ok(KvCache {
            pages,
            layout,
            page_stride,
        })
    }

    /// The address of a layer's part of page 0; null where it has none.
    pub fn layer(&self, layer: usize) -> DevicePtr<F16> {
        self.layout.part(layer).map_or(DevicePtr::NULL, |part| {
            DevicePtr::from_address(self.pages.addr() + 2 * part.offset as u64)
        })
    }

    /// Reads head `head` of a layer at slot `slot` of page `page` (K's heads, then V's) as f16 bits.
    pub fn read_head(
        &self,
        device: &dyn Device,
        layer: usize,
        (page, slot): (u32, usize),
        heads: Range<usize>,
        head_dim: usize,
    ) -> Result<Vec<u16>> {
        let mut values = Vec::with_capacity(heads.len() * head_dim);
        let Some(part) = self.layout.part(layer) else {
            return Ok(values);
        };
        for head in heads {
            let row = head * PAGE_TOKENS as usize + slot;
            let element = page as usize * self.page_stride as usize + part.offset + row * head_dim;
            let mut bits = vec![0u16; head_dim];
            let from = self.pages.slice(2 * element, 2 * head_dim)?;
            device.download(bytemuck::cast_slice_mut(&mut bits), from)?;
            values.extend(bits);
        }
        Ok(values)
    }
}

/// Cosines and sines of one rotation, f32 `[context][pairs][2]`: computed in f64 on the host, because
/// at position 30,000 an f32 angle is already off by 1e-3 radians.
pub struct RopeTable {
    /// The table.
    pub table: Buffer,
    /// Pairs of a head.
    pub pairs: u32,
}

impl RopeTable {
    /// Bytes of the table.
    pub fn bytes(rope: &Rope, limits: Limits) -> usize {
        4 * limits.context * rope.rotated()
    }

    /// Computes and uploads the table.
    pub fn new(device: &dyn Device, rope: &Rope, limits: Limits) -> Result<RopeTable> {
        let table = device.alloc(Self::bytes(rope, limits), "RoPE table")?;
        let values: Vec<f32> = (0..limits.context)
            .flat_map(|position| rope.cos_sin(position).flatten())
            .map(|value| value as f32)
            .collect();
        device.upload(table.all(), bytemuck::cast_slice(&values))?;
        Ok(RopeTable {
            table,
            pairs: (rope.rotated() / 2) as u32,
        })
    }
}

/// Bytes of [`query_factors`].
pub fn query_factors_bytes(limits: Limits) -> usize {
    4 * limits.context
}

/// What queries are multiplied by at each position, f32 `[context]`.
pub fn query_factors(
    device: &dyn Device,
    temperature: QueryTemperature,
    limits: Limits,
) -> Result<Buffer> {
    let table = device.alloc(query_factors_bytes(limits), "factors on queries")?;
    let factors = (0..limits.context).map(|position| temperature.factor(position) as f32);
    let factors: Vec<f32> = factors.collect();
    device.upload(table.all(), bytemuck::cast_slice(&factors))?;
    Ok(table)
}
