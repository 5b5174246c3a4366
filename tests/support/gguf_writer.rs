//! Writes GGUF files, valid ones and, where a test asks for it, others.

use hyperion::gguf::{Array, GgmlType, Gguf, Value, ValueType};

/// A GGUF file to be written.
#[derive(Clone, Debug)]
pub struct GgufWriter {
    /// The format's version.
    pub version: u32,
    /// Where tensor data begins; written as metadata unless it is the default, 32.
    pub alignment: usize,
    /// Metadata in order.
    pub metadata: Vec<(String, Value)>,
    /// Tensors in order.
    pub tensors: Vec<TensorSource>,
}

/// A tensor to be written.
#[derive(Clone, Debug)]
pub struct TensorSource {
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: GgmlType,
    /// Its dimensions in the file's order.
    pub dims: Vec<usize>,
    /// Its data.
    pub data: Vec<u8>,
}

impl Default for GgufWriter {
    fn default() -> GgufWriter {
        GgufWriter {
            version: 3,
            alignment: 32,
            metadata: Vec::new(),
            tensors: Vec::new(),
        }
    }
}

impl GgufWriter {
    /// A copy of `gguf`, to be changed.
    pub fn from_gguf(gguf: &Gguf) -> GgufWriter {
        let tensors = gguf.tensors().iter().map(|tensor| TensorSource {
            name: tensor.name().to_owned(),
            ty: tensor.ty(),
            dims: tensor.dims().to_vec(),
            data: tensor.bytes().to_vec(),
        });
        GgufWriter {
            metadata: gguf
                .metadata()
                .iter()
                .map(|(key, value)| (key.to_owned(), value.clone()))
                .collect(),
            tensors: tensors.collect(),
            ..GgufWriter::default()
        }
    }

    /// Gives `key` the value `value`, whether the file has it or not.
    pub fn set(&mut self, key: &str, value: Value) {
        self.remove(key);
        self.metadata.push((key.to_owned(), value));
    }

    /// Takes `key` away.
    pub fn remove(&mut self, key: &str) {
        self.metadata.retain(|(name, _)| name != key);
    }

    /// The tensor called `name`.
    pub fn tensor(&mut self, name: &str) -> &mut TensorSource {
        let found = self.tensors.iter_mut().find(|tensor| tensor.name == name);
        found.unwrap_or_else(|| panic!("no tensor {name}"))
    }

    /// Takes the tensor called `name` out.
    pub fn take(&mut self, name: &str) -> TensorSource {
        let place = self.tensors.iter().position(|tensor| tensor.name == name);
        self.tensors
            .remove(place.unwrap_or_else(|| panic!("no tensor {name}")))
    }

    /// Adds a tensor of floats.
    pub fn add_f32(&mut self, name: &str, dims: &[usize], values: &[f32]) {
        self.tensors.push(TensorSource {
            name: name.to_owned(),
            ty: GgmlType::F32,
            dims: dims.to_vec(),
            data: values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
        });
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut metadata = self.metadata.clone();
        if self.alignment != 32 {
            let alignment = Value::U32(self.alignment as u32);
            metadata.push(("general.alignment".to_owned(), alignment));
        }
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        put_len(&mut out, self.tensors.len());
        put_len(&mut out, metadata.len());
        for (key, value) in &metadata {
            put_string(&mut out, key);
            put_type(&mut out, value.ty());
            put_value(&mut out, value);
        }
        let mut data = Vec::new();
        for tensor in &self.tensors {
            put_string(&mut out, &tensor.name);
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            tensor.dims.iter().for_each(|&dim| put_len(&mut out, dim));
            out.extend(tensor.ty.id().to_le_bytes());
            put_len(&mut out, data.len());
            data.extend(&tensor.data);
            data.resize(data.len().next_multiple_of(self.alignment), 0);
        }
        out.resize(out.len().next_multiple_of(self.alignment), 0);
        out.extend(data);
        out
    }
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend((len as u64).to_le_bytes());
}

fn put_string(out: &mut Vec<u8>, string: &str) {
    put_len(out, string.len());
    out.extend(string.as_bytes());
}

fn put_type(out: &mut Vec<u8>, ty: ValueType) {
    out.extend((ty as u32).to_le_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(v) => out.extend(v.to_le_bytes()),
        Value::I8(v) => out.extend(v.to_le_bytes()),
        Value::U16(v) => out.extend(v.to_le_bytes()),
        Value::I16(v) => out.extend(v.to_le_bytes()),
        Value::U32(v) => out.extend(v.to_le_bytes()),
        Value::I32(v) => out.extend(v.to_le_bytes()),
        Value::F32(v) => out.extend(v.to_le_bytes()),
        Value::U64(v) => out.extend(v.to_le_bytes()),
        Value::I64(v) => out.extend(v.to_le_bytes()),
        Value::F64(v) => out.extend(v.to_le_bytes()),
        Value::Bool(v) => out.push(u8::from(*v)),
        Value::String(v) => put_string(out, v),
        Value::Array(array) => put_array(out, array),
    }
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    put_type(out, array.element_type());
    put_len(out, array.len());
    for i in 0..array.len() {
        put_value(out, &array.get(i).expect("an index below the length"));
    }
}
