//! Views of tensors.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytemuck::Pod;

use super::header::{MAX_DIMS, TensorInfo};
use super::storage::Storage;
use super::{GgmlType, GgufError, Problem, quant};

/// A tensor of a file: its description, and its bytes in place. A clone is cheap and keeps the file
/// mapped.
#[derive(Clone)]
pub struct Tensor {
    name: Arc<str>,
    ty: GgmlType,
    n_dims: usize,
    dims: [usize; MAX_DIMS],
    data: Range<usize>,
    path: Arc<Path>,
    storage: Arc<Storage>,
}

impl Tensor {
    /// `info.data` lies within `storage` and is as long as type and dimensions demand.
    pub(super) fn new(info: TensorInfo, path: Arc<Path>, storage: Arc<Storage>) -> Tensor {
        Tensor {
            name: info.name.into(),
            ty: info.ty,
            n_dims: info.n_dims,
            dims: info.dims,
            data: info.data,
            path,
            storage,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type of its elements.
    pub fn ty(&self) -> GgmlType {
        self.ty
    }

    /// Its dimensions as GGUF has them: the one whose elements lie side by side comes first. There
    /// are one to four; a matrix `[out, in]` has the dimensions `[in, out]`.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.n_dims]
    }

    /// Elements in a row: the first dimension.
    pub fn row_len(&self) -> usize {
        self.dims[0]
    }

    /// The number of rows: the product of the other dimensions.
    pub fn n_rows(&self) -> usize {
        self.dims[1..].iter().product()
    }

    /// The number of elements.
    pub fn n_elements(&self) -> usize {
        self.dims.iter().product()
    }

    /// Where its data begins in the file, in bytes.
    pub fn offset(&self) -> u64 {
        self.data.start as u64
    }

    /// Its data.
    pub fn bytes(&self) -> &[u8] {
        &self.storage.bytes()[self.data.clone()]
    }

    /// The data of row `row`.
    ///
    /// # Panics
    /// Where there is no such row.
    pub fn row_bytes(&self, row: usize) -> &[u8] {
        let len = self.data.len() / self.n_rows();
        &self.bytes()[row * len..][..len]
    }

    /// The rows `rows` as a tensor `[row_len, rows]` of its own, which is named after them.
    ///
    /// # Panics
    /// Where there are no such rows.
    pub fn rows(&self, rows: Range<usize>) -> Tensor {
        assert!(
            rows.start < rows.end && rows.end <= self.n_rows(),
            "{rows:?} of {self:?}"
        );
        let row_bytes = self.data.len() / self.n_rows();
        let at = |row: usize| self.data.start + row * row_bytes;
        let mut dims = [1; MAX_DIMS];
        (dims[0], dims[1]) = (self.row_len(), rows.len());
        Tensor {
            name: format!("{}[{}..{}]", self.name, rows.start, rows.end).into(),
            n_dims: 2,
            dims,
            data: at(rows.start)..at(rows.end),
            ..self.clone()
        }
    }

    /// Its data as blocks of type `B`, in place.
    ///
    /// # Errors
    /// Where a `B` is not as long as a block of the tensor's type, or the file aligns data too
    /// loosely for it.
    pub fn blocks<B: Pod>(&self) -> Result<&[B], GgufError> {
        let fits = size_of::<B>() == self.ty.block_bytes();
        fits.then(|| bytemuck::try_cast_slice(self.bytes()).ok())
            .flatten()
            .ok_or_else(|| {
                let problem = Problem::View {
                    tensor: self.name.to_string(),
                    found: self.ty,
                    offset: self.offset(),
                    expected: std::any::type_name::<B>(),
                };
                GgufError::new(&self.path, problem)
            })
    }

    /// All elements, unpacked.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.n_elements()];
        self.dequantize_rows(0..self.n_rows(), &mut values);
        values
    }

    /// Unpacks the rows `rows` into `out`.
    ///
    /// # Panics
    /// Where there are no such rows, or `out` is not as long as they are.
    pub fn dequantize_rows(&self, rows: Range<usize>, out: &mut [f32]) {
        let row_bytes = self.data.len() / self.n_rows();
        let bytes = &self.bytes()[rows.start * row_bytes..rows.end * row_bytes];
        if let Err(mismatch) = quant::dequantize(self.ty, bytes, out) {
            panic!("tensor {}, rows {rows:?}: {mismatch}", self.name);
        }
    }
}

/// A tensor of a type that is not read: it is there, and no more is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadTensor {
    /// Its name.
    pub name: String,
    /// ggml's number of its type.
    pub type_id: u32,
    /// ggml's name of its type, or `unknown`.
    pub type_name: &'static str,
    /// Its dimensions, the one whose elements lie side by side first.
    pub dims: Vec<usize>,
    /// Where the file names its type.
    pub(super) offset: u64,
}

impl UnreadTensor {
    /// Why it cannot be used.
    pub(super) fn problem(&self) -> Problem {
        Problem::Field {
            field: format!("type of tensor {}", self.name),
            offset: self.offset,
            reason: format!("{} ({}) is not supported", self.type_id, self.type_name),
        }
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Tensor({} {} {:?} at {})",
            self.name,
            self.ty,
            self.dims(),
            self.offset()
        )
    }
}
