//! How the simulated device does what is sent to it.

use super::super::error::Result;
use super::super::gemm::GemmType;
use super::super::gemm_call::{GemmCall, Op, gemm_reference};
use super::state::{Shared, Work, fault};
use half::f16;

impl Shared {
    /// Records the work if a graph is being captured, or runs it.
    pub(super) fn send(&self, work: Work) -> Result<()> {
        if let Some(recorded) = &mut *self.recording() {
            recorded.push(work);
            return Ok(());
        }
        self.run(&work)
    }

    /// Does it.
    pub(super) fn run(&self, work: &Work) -> Result<()> {
        match work {
            Work::Launch {
                kernel,
                grid,
                block,
                shared,
                params,
                dependent,
            } => {
                let name = &self.table.get(*kernel)?.name;
                let launch = ptx_sim::Launch {
                    grid: *grid,
                    block: *block,
                    dynamic_shared: *shared,
                    params,
                    dependent: *dependent,
                };
                self.profile(name, (*grid, *block), || {
                    let ran = self
                        .simulator
                        .launch(&self.memory(), &self.module, name, &launch);
                    ran.map(drop).map_err(|error| fault(name, error))
                })
            }
            Work::Gemm(call) => self.profile("gemm", ([1; 3], [1; 3]), || self.gemm(call)),
            Work::Copy { dst, src, len } => {
                let mut bytes = vec![0; *len];
                // Whoever copies a page of the cache copies the part not yet written too.
                if *len > 0 {
                    let read = self.memory().read_lossy(*src, &mut bytes);
                    read.map_err(|error| fault("a copy", error))?;
                }
                self.write(*dst, &bytes)
            }
            Work::Fill { dst, len, byte } => self.write(*dst, &vec![*byte; *len]),
        }
    }

    fn gemm(&self, call: &GemmCall) -> Result<()> {
        let (m, n, k) = (call.m as usize, call.n as usize, call.k as usize);
        let (a_rows, a_columns) = if call.op_a == Op::N { (m, k) } else { (k, m) };
        let (b_rows, b_columns) = if call.op_b == Op::N { (k, n) } else { (n, k) };
        let a = self.read_columns(call.a, GemmType::F16, call.lda, a_rows, a_columns)?;
        let b = self.read_columns(call.b, GemmType::F16, call.ldb, b_rows, b_columns)?;
        let mut c = match call.accumulate {
            true => self.read_columns(call.c, call.c_ty, call.ldc, m, n)?,
            false => vec![0.0; call.ldc as usize * n],
        };
        gemm_reference(call, &a, &b, &mut c);
        let mut columns = Vec::with_capacity(n);
        for (j, column) in c.chunks(call.ldc as usize).enumerate() {
            let bytes: Vec<u8> = match call.c_ty {
                GemmType::F16 => column[..m]
                    .iter()
                    .flat_map(|&v| f16::from_f64(v).to_le_bytes())
                    .collect(),
                GemmType::F32 => column[..m]
                    .iter()
                    .flat_map(|&v| (v as f32).to_le_bytes())
                    .collect(),
            };
            let offset = j * call.ldc as usize * call.c_ty.size();
            columns.push((call.c + offset as u64, bytes));
        }
        let written = self.memory().write_as_launch(&columns);
        written.map_err(|error| fault("a product", error))
    }

    /// Reads a column-major matrix, without the padding between its columns, which may hold nothing.
    fn read_columns(
        &self,
        addr: u64,
        ty: GemmType,
        ld: u32,
        rows: usize,
        columns: usize,
    ) -> Result<Vec<f64>> {
        let ld = ld as usize;
        let mut matrix = vec![0.0; ld * columns];
        let mut bytes = vec![0; rows * ty.size()];
        for (j, column) in matrix.chunks_mut(ld).enumerate() {
            self.read(addr + (j * ld * ty.size()) as u64, &mut bytes)?;
            for (out, bytes) in column.iter_mut().zip(bytes.chunks(ty.size())) {
                *out = match ty {
                    GemmType::F16 => f16::from_le_bytes([bytes[0], bytes[1]]).to_f64(),
                    GemmType::F32 => {
                        f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]).into()
                    }
                };
            }
        }
        Ok(matrix)
    }
}
