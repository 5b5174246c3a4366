//! The model's weights on the device, in the file's own types.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use kernels_gpu::abi::{DevicePtr, WeightType};

use super::scales::matrix_scale;
use crate::device::upload::Uploader;
use crate::device::{Buffer, Device, DeviceError, Result};
use crate::gguf::Tensor;
use crate::model::{ExpertMatrix, Experts, GatedNetwork, Layer, Linear, Model};

/// A matrix `[n_out, n_in]` of blocks, row after row.
#[derive(Clone)]
pub struct GpuMatrix {
    /// The tensor's name in the file.
    pub name: String,
    /// The blocks.
    pub blocks: Arc<Buffer>,
    /// Their type.
    pub ty: WeightType,
    /// Elements of an input.
    pub n_in: usize,
    /// Elements of an output.
    pub n_out: usize,
    /// What the elements are divided by when they are unpacked to f16.
    pub scale: f32,
    /// All of them as f16, once there is a copy ([`GpuWeights::missing_copies`]).
    pub copy: Arc<OnceLock<Buffer>>,
}

/// A matrix and its bias.
#[derive(Clone)]
pub struct GpuLinear {
    /// The matrix.
    pub matrix: GpuMatrix,
    /// f32 `[n_out]`.
    pub bias: Option<Arc<Buffer>>,
}

impl GpuLinear {
    /// The bias, or null.
    pub fn bias(&self) -> DevicePtr<f32> {
        optional(&self.bias)
    }
}

/// The address of a vector, or null.
pub fn optional(vector: &Option<Arc<Buffer>>) -> DevicePtr<f32> {
    vector.as_ref().map_or(DevicePtr::NULL, |buffer| {
        DevicePtr::from_address(buffer.addr())
    })
}

/// The weights of one block; the fields are those of [`Layer`].
pub struct GpuLayer {
    pub attn_norm: Option<Arc<Buffer>>,
    pub q: GpuLinear,
    pub k: GpuLinear,
    pub v: GpuLinear,
    pub attn_output: GpuLinear,
    pub q_norm: Option<Arc<Buffer>>,
    pub k_norm: Option<Arc<Buffer>>,
    pub post_attn_norm: Option<Arc<Buffer>>,
    pub ffn_norm: Option<Arc<Buffer>>,
    /// The network that all tokens take, where there is one.
    pub network: Option<GpuNetwork>,
    pub experts: Option<GpuExperts>,
    pub post_ffn_norm: Option<Arc<Buffer>>,
}

/// A feed-forward network; the fields are those of [`GatedNetwork`].
pub struct GpuNetwork {
    pub gate: GpuLinear,
    pub up: GpuLinear,
    pub down: GpuLinear,
}

/// A mixture of experts; the fields are those of [`Experts`].
pub struct GpuExperts {
    /// f32, whatever the file's type: it is small, and scores nearly tie.
    pub router: Arc<Buffer>,
    pub gate: GpuExpertMatrix,
    pub up: GpuExpertMatrix,
    pub down: GpuExpertMatrix,
    /// The gate of the network that all tokens take, f32.
    pub shared_gate: Option<Arc<Buffer>>,
}

/// A matrix of each expert, one behind the other.
pub struct GpuExpertMatrix {
    /// All of them, as one of that many rows.
    pub all: GpuMatrix,
    /// Rows of one.
    pub n_out: usize,
}

impl GpuExpertMatrix {
    /// Bytes of one expert's.
    pub fn bytes(&self) -> u64 {
        self.n_out as u64 * u64::from(self.all.ty.row_bytes(self.all.n_in as u32))
    }
}

/// All weights.
pub struct GpuWeights {
    pub token_embd: GpuMatrix,
    pub layers: Vec<GpuLayer>,
    /// With the factor on the logits.
    pub output_norm: Arc<Buffer>,
    pub output: GpuLinear,
    /// All vectors by their names in the file.
    vectors: HashMap<String, Arc<Buffer>>,
}

impl GpuWeights {
    /// Bytes of all matrices of `model`, tied ones counted once.
    pub fn matrix_bytes(model: &Model) -> u64 {
        let tensors: HashSet<Extent> = matrices(model).map(extent).collect();
        tensors.iter().map(|&(_, len)| len as u64).sum()
    }

    /// Bytes of each allocation for the weights of `model`: its matrices, tied ones once, and its vectors as f32.
    pub fn allocations(model: &Model) -> Vec<u64> {
        let tensors: HashSet<Extent> = matrices(model).map(extent).collect();
        let layers = model.weights.layers.iter().flat_map(vectors);
        let vectors = layers.chain([model.weights.output_norm.as_slice()]);
        let vectors = vectors.map(|vector| 4 * vector.len() as u64);
        let experts = model.weights.layers.iter().filter_map(Layer::experts);
        let routers = experts.map(|experts| 4 * experts.router.weight.n_elements() as u64);
        tensors
            .iter()
            .map(|&(_, len)| len as u64)
            .chain(vectors)
            .chain(routers)
            .collect()
    }

    /// Bytes of each copy of a matrix as f16, for products with many rows, which otherwise unpack it each time.
    pub fn copies(model: &Model) -> Vec<u64> {
        let linears = model.weights.layers.iter().flat_map(Layer::linears);
        let linears = linears.chain(std::iter::once(&model.weights.output));
        let tensors = linears.map(|linear| &linear.weight);
        let packed = tensors.filter(|tensor| tensor.ty().weight_type() != Some(WeightType::F16));
        packed
            .map(|tensor| 2 * (tensor.row_len() * tensor.n_rows()) as u64)
            .collect()
    }

    /// Copies the weights of `model` to `device`; `progress` hears of the bytes copied so far.
    ///
    /// # Errors
    /// No memory, a failed copy, or [`crate::device::DeviceError::Cancelled`] after `cancel` became true.
    pub fn upload(
        model: &Model,
        device: &dyn Device,
        cancel: &AtomicBool,
        progress: &mut dyn FnMut(u64),
    ) -> Result<GpuWeights> {
        let mut transfer = Transfer {
            device,
            uploader: Uploader::new(device, cancel, progress)?,
            done: HashMap::new(),
            vectors: HashMap::new(),
        };
        let weights = &model.weights;
        let mut uploaded = GpuWeights {
            token_embd: transfer.matrix(&weights.token_embd)?,
            layers: weights
                .layers
                .iter()
                .enumerate()
                .map(|(index, layer)| transfer.layer(index, layer))
                .collect::<Result<_>>()?,
            output_norm: transfer.vector(&model.logit_norm(), logit_norm_name(model))?,
            output: transfer.linear(&weights.output)?,
            vectors: HashMap::new(),
        };
        uploaded.vectors = std::mem::take(&mut transfer.vectors);
        transfer.uploader.finish()?;
        Ok(uploaded)
    }
}

impl GpuWeights {
    /// The vector of tensor `name`.
    pub fn vector(&self, name: &str) -> Option<&Buffer> {
        self.vectors.get(name).map(|vector| &**vector)
    }

    /// The matrices of products that have no copy, of those that [`copies`](Self::copies) counts.
    pub fn missing_copies(&self) -> impl Iterator<Item = &GpuMatrix> {
        let is_missing =
            |matrix: &&GpuMatrix| matrix.ty != WeightType::F16 && matrix.copy.get().is_none();
        self.linears().filter(is_missing)
    }

    /// The matrix of tensor `name`.
    pub fn matrix(&self, name: &str) -> Option<&GpuMatrix> {
        let mut all = std::iter::once(&self.token_embd)
            .chain(self.linears())
            .chain(self.expert_matrices());
        all.find(|matrix| matrix.name == name)
    }

    /// The matrices of all products.
    fn linears(&self) -> impl Iterator<Item = &GpuMatrix> {
        let layers = self.layers.iter().flat_map(|layer| {
            let network = layer.network.as_ref();
            let network = network.map(|network| [&network.gate, &network.up, &network.down]);
            let attention = [&layer.q, &layer.k, &layer.v, &layer.attn_output];
            attention.into_iter().chain(network.into_iter().flatten())
        });
        layers.chain([&self.output]).map(|linear| &linear.matrix)
    }

    /// The matrices of all experts.
    fn expert_matrices(&self) -> impl Iterator<Item = &GpuMatrix> {
        let experts = self
            .layers
            .iter()
            .filter_map(|layer| layer.experts.as_ref());
        experts.flat_map(|experts| [&experts.gate.all, &experts.up.all, &experts.down.all])
    }
}

/// The last norm's name: the file's, where the device has it as it is there.
fn logit_norm_name(model: &Model) -> String {
    match model.config.logit_factor {
        1.0 => "output_norm.weight".to_owned(),
        factor => format!("output_norm.weight times {factor}"),
    }
}

/// Where a tensor's bytes begin in the mapping, and how many they are. Tensors of a file may begin at the same
/// byte and differ in length.
type Extent = (*const u8, usize);

fn extent(tensor: &Tensor) -> Extent {
    (tensor.bytes().as_ptr(), tensor.bytes().len())
}

fn matrices(model: &Model) -> impl Iterator<Item = &Tensor> {
    let layers = model.weights.layers.iter().flat_map(Layer::linears);
    let linears = layers.chain(std::iter::once(&model.weights.output));
    let experts = model.weights.layers.iter().filter_map(Layer::experts);
    let experts = experts.flat_map(Experts::matrices);
    std::iter::once(&model.weights.token_embd)
        .chain(linears.map(|linear| &linear.weight))
        .chain(experts.map(|matrix| &matrix.weight))
}

fn vectors(layer: &Layer) -> impl Iterator<Item = &[f32]> {
    let norms = [
        layer.attn_norm.as_ref(),
        layer.ffn_norm.as_ref(),
        layer.q_norm.as_ref(),
        layer.k_norm.as_ref(),
        layer.post_attn_norm.as_ref(),
        layer.post_ffn_norm.as_ref(),
    ];
    let biases = layer.linears().map(|linear| linear.bias.as_ref());
    let shared = layer.experts().and_then(|experts| experts.shared.as_ref());
    let shared = shared.map(|shared| &shared.gate);
    let all = norms.into_iter().chain(biases).chain([shared]);
    all.flatten().map(Vec::as_slice)
}

struct Transfer<'a> {
    device: &'a dyn Device,
    uploader: Uploader<'a>,
    /// Matrices by their place in the mapping: a tied one is uploaded once.
    done: HashMap<Extent, Arc<Buffer>>,
    vectors: HashMap<String, Arc<Buffer>>,
}

impl Transfer<'_> {
    fn layer(&mut self, index: usize, layer: &Layer) -> Result<GpuLayer> {
        let name = |part: &str| format!("blk.{index}.{part}.weight");
        Ok(GpuLayer {
            attn_norm: self.optional(&layer.attn_norm, name("attn_norm"))?,
            q: self.linear(&layer.q)?,
            k: self.linear(&layer.k)?,
            v: self.linear(&layer.v)?,
            attn_output: self.linear(&layer.attn_output)?,
            q_norm: self.optional(&layer.q_norm, name("attn_q_norm"))?,
            k_norm: self.optional(&layer.k_norm, name("attn_k_norm"))?,
            post_attn_norm: self.optional(&layer.post_attn_norm, name("post_attention_norm"))?,
            ffn_norm: self.optional(&layer.ffn_norm, name("ffn_norm"))?,
            network: layer.network().map(|n| self.network(n)).transpose()?,
            experts: layer
                .experts()
                .map(|experts| self.experts(index, experts))
                .transpose()?,
            post_ffn_norm: self.optional(&layer.post_ffn_norm, name("post_ffw_norm"))?,
        })
    }

    fn network(&mut self, network: &GatedNetwork) -> Result<GpuNetwork> {
        Ok(GpuNetwork {
            gate: self.linear(&network.gate)?,
            up: self.linear(&network.up)?,
            down: self.linear(&network.down)?,
        })
    }

    fn experts(&mut self, index: usize, experts: &Experts) -> Result<GpuExperts> {
        let name = |part: &str| format!("blk.{index}.{part}.weight");
        let shared_gate = experts.shared.as_ref().map(|shared| shared.gate.clone());
        Ok(GpuExperts {
            router: self.vector(&experts.router.weight.to_f32(), name("ffn_gate_inp"))?,
            gate: self.expert_matrix(&experts.gate)?,
            up: self.expert_matrix(&experts.up)?,
            down: self.expert_matrix(&experts.down)?,
            shared_gate: self.optional(&shared_gate, name("ffn_gate_inp_shexp"))?,
        })
    }

    fn expert_matrix(&mut self, matrix: &ExpertMatrix) -> Result<GpuExpertMatrix> {
        Ok(GpuExpertMatrix {
            all: self.matrix(&matrix.weight)?,
            n_out: matrix.n_out,
        })
    }

    fn linear(&mut self, linear: &Linear) -> Result<GpuLinear> {
        let name = linear.weight.name();
        let part = name.strip_suffix(".weight").unwrap_or(name);
        Ok(GpuLinear {
            matrix: self.matrix(&linear.weight)?,
            bias: self.optional(&linear.bias, format!("{part}.bias"))?,
        })
    }

    fn matrix(&mut self, tensor: &Tensor) -> Result<GpuMatrix> {
        let bytes = tensor.bytes();
        let blocks = match self.done.get(&extent(tensor)) {
            Some(blocks) => blocks.clone(),
            None => {
                let blocks = Arc::new(self.device.alloc(bytes.len(), tensor.name())?);
                self.uploader.upload(blocks.all(), bytes)?;
                self.done.insert(extent(tensor), blocks.clone());
                blocks
            }
        };
        Ok(GpuMatrix {
            name: tensor.name().to_owned(),
            blocks,
            ty: weight_type(tensor)?,
            n_in: tensor.row_len(),
            n_out: tensor.n_rows(),
            scale: matrix_scale(tensor),
            copy: Arc::default(),
        })
    }

    fn vector(&mut self, values: &[f32], name: String) -> Result<Arc<Buffer>> {
        let buffer = Arc::new(self.device.alloc(4 * values.len(), &name)?);
        self.device
            .upload(buffer.all(), bytemuck::cast_slice(values))?;
        self.vectors.insert(name, buffer.clone());
        Ok(buffer)
    }

    fn optional(&mut self, values: &Option<Vec<f32>>, name: String) -> Result<Option<Arc<Buffer>>> {
        let vector = values.as_ref().map(|values| self.vector(values, name));
        vector.transpose()
    }
}

/// The kernels' type for a tensor.
fn weight_type(tensor: &Tensor) -> Result<WeightType> {
    tensor.ty().weight_type().ok_or_else(|| {
        DeviceError::Unsupported(format!(
            "tensor `{}` has the type {}, which no kernel reads",
            tensor.name(),
            tensor.ty()
        ))
    })
}
