//! `hyperion inspect --json`.

use std::io::{self, Write};

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::statistics::{Statistics, Summary};
use super::{Use, row_major};
use crate::gguf::{Array, Gguf, Metadata, Tensor, UnreadTensor, Value};
use crate::model::Unused;

/// The whole file but the tensors' data.
pub(super) fn write_file(out: &mut impl Write, gguf: &Gguf, used: &Use) -> io::Result<()> {
    let (unused, problem) = match used {
        Use::Nothing => (&[][..], None),
        Use::Runs(unused) => (&unused[..], None),
        Use::Fails(problem) => (&[][..], Some(problem.as_str())),
    };
    let damaged = gguf.metadata().iter().filter_map(|(key, _)| {
        Some(Reason {
            name: key,
            why: gguf.metadata().damage(key)?.to_string(),
        })
    });
    let parts = gguf.parts().iter();
    write(
        out,
        &File {
            path: gguf.path().display().to_string(),
            version: gguf.version(),
            alignment: gguf.alignment(),
            metadata: Entries(gguf.metadata()),
            tensors: gguf.tensors().iter().map(Description::new).collect(),
            parts: parts.map(|part| part.display().to_string()).collect(),
            damaged: damaged.collect(),
            unread_tensors: gguf.unread_tensors().iter().map(Unread::new).collect(),
            unused: unused.iter().map(Reason::new).collect(),
            problem,
        },
    )
}

/// One tensor.
pub(super) fn write_tensor(
    out: &mut impl Write,
    tensor: &Tensor,
    values: &[f32],
    statistics: &Statistics,
) -> io::Result<()> {
    let statistics = statistics.summary();
    write(
        out,
        &WithValues {
            description: Description::new(tensor),
            statistics,
            values,
        },
    )
}

fn write(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value).map_err(io::Error::from)?;
    writeln!(out)
}

#[derive(serde::Serialize)]
struct File<'a> {
    path: String,
    version: u32,
    alignment: u64,
    metadata: Entries<'a>,
    tensors: Vec<Description<'a>>,
    /// All files of the model.
    parts: Vec<String>,
    /// Metadata that is not UTF-8.
    damaged: Vec<Reason<'a>>,
    unread_tensors: Vec<Unread<'a>>,
    /// What the model does not use.
    unused: Vec<Reason<'a>>,
    /// Why the model does not run.
    problem: Option<&'a str>,
}

#[derive(serde::Serialize)]
struct Reason<'a> {
    name: &'a str,
    why: String,
}

impl<'a> Reason<'a> {
    fn new(unused: &'a Unused) -> Reason<'a> {
        Reason {
            name: &unused.name,
            why: unused.why.to_owned(),
        }
    }
}

/// A tensor of a type that is not read.
#[derive(serde::Serialize)]
struct Unread<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    ty: &'a str,
    type_id: u32,
    dims: &'a [usize],
}

impl<'a> Unread<'a> {
    fn new(tensor: &'a UnreadTensor) -> Unread<'a> {
        Unread {
            name: &tensor.name,
            ty: tensor.type_name,
            type_id: tensor.type_id,
            dims: &tensor.dims,
        }
    }
}

#[derive(serde::Serialize)]
struct Description<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    ty: &'static str,
    /// As GGUF has it, fastest dimension first.
    dims: &'a [usize],
    /// Row-major, fastest dimension last.
    shape: Vec<usize>,
    offset: u64,
    bytes: usize,
}

impl<'a> Description<'a> {
    fn new(tensor: &'a Tensor) -> Description<'a> {
        Description {
            name: tensor.name(),
            ty: tensor.ty().name(),
            dims: tensor.dims(),
            shape: row_major(tensor.dims()),
            offset: tensor.offset(),
            bytes: tensor.bytes().len(),
        }
    }
}

#[derive(serde::Serialize)]
struct WithValues<'a> {
    #[serde(flatten)]
    description: Description<'a>,
    statistics: Summary,
    /// Those that are not finite become `null`, for JSON has no such numbers.
    values: &'a [f32],
}

struct Entries<'a>(&'a Metadata);

impl Serialize for Entries<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in self.0.iter() {
            map.serialize_entry(key, &Json(value))?;
        }
        map.end()
    }
}

struct Json<'a, T>(&'a T);

impl Serialize for Json<'_, Value> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::U8(v) => v.serialize(serializer),
            Value::I8(v) => v.serialize(serializer),
            Value::U16(v) => v.serialize(serializer),
            Value::I16(v) => v.serialize(serializer),
            Value::U32(v) => v.serialize(serializer),
            Value::I32(v) => v.serialize(serializer),
            Value::U64(v) => v.serialize(serializer),
            Value::I64(v) => v.serialize(serializer),
            Value::F32(v) => v.serialize(serializer),
            Value::F64(v) => v.serialize(serializer),
            Value::Bool(v) => v.serialize(serializer),
            Value::String(v) => v.serialize(serializer),
            Value::Array(v) => Json(v).serialize(serializer),
        }
    }
}

impl Serialize for Json<'_, Array> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Array::U8(v) => v.serialize(serializer),
            Array::I8(v) => v.serialize(serializer),
            Array::U16(v) => v.serialize(serializer),
            Array::I16(v) => v.serialize(serializer),
            Array::U32(v) => v.serialize(serializer),
            Array::I32(v) => v.serialize(serializer),
            Array::U64(v) => v.serialize(serializer),
            Array::I64(v) => v.serialize(serializer),
            Array::F32(v) => v.serialize(serializer),
            Array::F64(v) => v.serialize(serializer),
            Array::Bool(v) => v.serialize(serializer),
            Array::String(v) => serializer.collect_seq(v.iter()),
            Array::Array(v) => serializer.collect_seq(v.iter().map(Json)),
        }
    }
}
