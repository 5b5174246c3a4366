//! Reports results of experts: by tokens, wherever they lie.

use super::experts::Mixture;
use super::pass::Pass;
use super::scales::HalfRows;
use crate::device::{Buffer, Result};

impl Pass<'_> {
    /// Reports the f32 values of pairs that lie by experts.
    pub fn trace_places(
        &self,
        name: &'static str,
        mixture: Mixture<'_>,
        elements: usize,
        buffer: &Buffer,
    ) -> Result<()> {
        if self.trace.wants(name) {
            let values = self.trace.read_f32(mixture.pairs() * elements, buffer)?;
            self.trace_in_order(name, mixture, elements, &values)?;
        }
        Ok(())
    }

    /// Reports rows of pairs that lie by experts.
    pub fn trace_half_places(
        &self,
        name: &'static str,
        mixture: Mixture<'_>,
        elements: usize,
        rows: HalfRows<'_>,
    ) -> Result<()> {
        if self.trace.wants(name) {
            let values = self.trace.read_half_rows(elements, rows)?;
            self.trace_in_order(name, mixture, elements, &values)?;
        }
        Ok(())
    }

    fn trace_in_order(
        &self,
        name: &'static str,
        mixture: Mixture<'_>,
        elements: usize,
        values: &[f32],
    ) -> Result<()> {
        let places = self
            .trace
            .read_u32(mixture.pairs(), &mixture.space.places)?;
        let rows: Vec<&[f32]> = values.chunks_exact(elements).collect();
        let row = |&place: &u32| rows.get(place as usize).copied().unwrap_or_default();
        let data: Vec<f32> = places.iter().flat_map(row).copied().collect();
        self.trace
            .values(name, mixture.counts.used * elements, &data);
        Ok(())
    }
}
