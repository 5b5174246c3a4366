//! The header: counts, metadata, the table of tensors.

use std::borrow::Cow;
use std::fmt::Display;
use std::ops::Range;

use super::cursor::Cursor;
use super::damage::Damage;
use super::index::NameIndex;
use super::kind;
use super::ty::name_of_unread;
use super::{Array, GgmlType, Problem, StringArray, UnreadTensor, Value, ValueType};

const MAGIC: &[u8; 4] = b"GGUF";
const DEFAULT_ALIGNMENT: u64 = 32;
/// Above any page size, and small enough that no sum overflows.
const MAX_ALIGNMENT: u64 = 16 << 20;
/// The format's own limit for keys, which serves for the names of tensors too.
const MAX_NAME: usize = 65_535;
/// Arrays of arrays of arrays are already unheard of; reading them recurses.
const MAX_NESTING: usize = 8;
/// The format's limit (ggml's `GGML_MAX_DIMS`).
pub(super) const MAX_DIMS: usize = 4;

/// Bytes that an entry takes at least: the lengths of its strings, types, and the smallest value;
/// one dimension and an offset.
const MIN_ENTRY: u64 = 8 + 4 + 1;
const MIN_TENSOR: u64 = 8 + 4 + 8 + 4 + 8;

/// What a file's header says; lookups have been prepared and all ranges checked.
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) alignment: u64,
    pub(super) metadata: Vec<(String, Value)>,
    pub(super) keys: NameIndex,
    /// The entries of `metadata` with strings that are not UTF-8, by their places, in order.
    pub(super) damaged: Vec<(usize, Damage)>,
    pub(super) tensors: Vec<TensorInfo>,
    /// The tensors of types that are not read.
    pub(super) unread: Vec<UnreadTensor>,
}

impl Header {
    /// The number of tensors, whether they can be read or not.
    pub(super) fn n_tensors(&self) -> usize {
        self.tensors.len() + self.unread.len()
    }

    /// The whole number under `key`, where there is one.
    pub(super) fn integer(&self, key: &str) -> Option<i128> {
        let place = self.keys.find(key, |i| &self.metadata[i].0)?;
        self.metadata[place].1.as_integer()
    }
}

/// A row of the table of tensors.
pub(super) struct TensorInfo {
    pub(super) name: String,
    pub(super) ty: GgmlType,
    pub(super) n_dims: usize,
    /// In the file's order; 1 beyond `n_dims`.
    pub(super) dims: [usize; MAX_DIMS],
    /// Bytes within the file. Until the table's end is known they begin at the data section.
    pub(super) data: Range<usize>,
}

/// Reads and checks the header of the file `bytes`.
pub(super) fn read(bytes: &[u8]) -> Result<Header, Problem> {
    let mut cursor = Cursor::new(bytes);
    let version = read_version(&mut cursor, bytes)?;
    let n_tensors = read_count(&mut cursor, &"number of tensors", MIN_TENSOR)?;
    let n_entries = read_count(&mut cursor, &"number of metadata entries", MIN_ENTRY)?;

    // Not reserved in advance: a count may be a lie that only reading on will show.
    let mut metadata = Vec::new();
    let mut damaged = Vec::new();
    for i in 0..n_entries {
        let mut damage = None;
        metadata.push(read_entry(&mut cursor, i, &mut damage)?);
        damaged.extend(damage.map(|damage| (i as usize, damage)));
    }
    let keys = NameIndex::new(metadata.len(), |i| metadata[i].0.as_str())
        .map_err(|i| Problem::Duplicate(format!("metadata {}", metadata[i].0)))?;
    let alignment = read_alignment(&metadata)?;

    let mut tensors = Vec::new();
    let mut unread = Vec::new();
    for i in 0..n_tensors {
        match read_tensor(&mut cursor, i, alignment)? {
            Row::Tensor(tensor) => tensors.push(tensor),
            Row::Unread(tensor) => unread.push(tensor),
        }
    }
    place_data(
        &mut tensors,
        cursor.offset().next_multiple_of(alignment),
        bytes.len() as u64,
    )?;
    Ok(Header {
        version,
        alignment,
        metadata,
        keys,
        damaged,
        tensors,
        unread,
    })
}

fn invalid(field: impl Into<String>, offset: u64, reason: impl Into<String>) -> Problem {
    Problem::Field {
        field: field.into(),
        offset,
        reason: reason.into(),
    }
}

fn read_version(cursor: &mut Cursor, bytes: &[u8]) -> Result<u32, Problem> {
    if bytes.is_empty() {
        return Err(Problem::Empty);
    }
    if !bytes.starts_with(MAGIC) {
        if let Some(kind) = kind::recognize(bytes) {
            return Err(Problem::Other(kind));
        }
        return Err(Problem::Magic(
            bytes[..bytes.len().min(MAGIC.len())].to_vec(),
        ));
    }
    cursor.take(MAGIC.len() as u64, &"magic")?;
    let version = cursor.u32(&"version")?;
    match version {
        2 | 3 => Ok(version),
        // A small number read in the wrong order.
        _ if version != 0 && version.trailing_zeros() >= 16 => Err(Problem::BigEndian),
        _ => Err(Problem::Version(version)),
    }
}

/// A number of things of which each takes `min_bytes` at least.
fn read_count(cursor: &mut Cursor, field: &dyn Display, min_bytes: u64) -> Result<u64, Problem> {
    let offset = cursor.offset();
    let count = cursor.u64(field)?;
    let room = cursor.left() / min_bytes;
    if count > room {
        let reason = format!("{count}, but the rest of the file holds {room} at most");
        return Err(invalid(field.to_string(), offset, reason));
    }
    Ok(count)
}

/// A name. One that is not UTF-8 equals none that anybody looks for.
fn read_name<'a>(cursor: &mut Cursor<'a>, field: &dyn Display) -> Result<Cow<'a, str>, Problem> {
    let offset = cursor.offset();
    let name = cursor.string(field, &mut None)?;
    if name.len() > MAX_NAME {
        let reason = format!("{} bytes; at most {MAX_NAME} are allowed", name.len());
        return Err(invalid(field.to_string(), offset, reason));
    }
    Ok(name)
}

fn read_entry(
    cursor: &mut Cursor,
    index: u64,
    damage: &mut Option<Damage>,
) -> Result<(String, Value), Problem> {
    let key = read_name(cursor, &format_args!("key of metadata entry {index}"))?;
    let ty = read_value_type(cursor, &key)?;
    let value = read_value(cursor, &key, ty, damage)?;
    Ok((key.into_owned(), value))
}

fn read_value_type(cursor: &mut Cursor, key: &str) -> Result<ValueType, Problem> {
    let offset = cursor.offset();
    let id = cursor.u32(&format_args!("type of metadata {key}"))?;
    ValueType::from_id(id).ok_or_else(|| {
        invalid(
            format!("type of metadata {key}"),
            offset,
            format!("{id} is no value type"),
        )
    })
}

fn read_value(
    cursor: &mut Cursor,
    key: &str,
    ty: ValueType,
    damage: &mut Option<Damage>,
) -> Result<Value, Problem> {
    let field = format_args!("metadata {key}");
    Ok(match ty {
        ValueType::U8 => Value::U8(cursor.u8(&field)?),
        ValueType::I8 => Value::I8(cursor.u8(&field)? as i8),
        ValueType::U16 => Value::U16(cursor.u16(&field)?),
        ValueType::I16 => Value::I16(cursor.u16(&field)? as i16),
        ValueType::U32 => Value::U32(cursor.u32(&field)?),
        ValueType::I32 => Value::I32(cursor.u32(&field)? as i32),
        ValueType::F32 => Value::F32(f32::from_bits(cursor.u32(&field)?)),
        ValueType::U64 => Value::U64(cursor.u64(&field)?),
        ValueType::I64 => Value::I64(cursor.u64(&field)? as i64),
        ValueType::F64 => Value::F64(f64::from_bits(cursor.u64(&field)?)),
        ValueType::Bool => Value::Bool(read_bools(cursor, key, 1)?[0]),
        ValueType::String => Value::String(cursor.string(&field, damage)?.into_owned()),
        ValueType::Array => Value::Array(read_array(cursor, key, 1, damage)?),
    })
}

fn read_bools(cursor: &mut Cursor, key: &str, len: u64) -> Result<Vec<bool>, Problem> {
    let offset = cursor.offset();
    let bytes = cursor.take(len, &format_args!("metadata {key}"))?;
    match bytes.iter().position(|&byte| byte > 1) {
        Some(i) => {
            let reason = format!("{} is no truth value; 0 or 1 is expected", bytes[i]);
            Err(invalid(
                format!("metadata {key}"),
                offset + i as u64,
                reason,
            ))
        }
        None => Ok(bytes.iter().map(|&byte| byte == 1).collect()),
    }
}

fn read_array(
    cursor: &mut Cursor,
    key: &str,
    depth: usize,
    damage: &mut Option<Damage>,
) -> Result<Array, Problem> {
    let start = cursor.offset();
    let ty = read_value_type(cursor, key)?;
    let len = read_count(
        cursor,
        &format_args!("length of metadata {key}"),
        ty.min_bytes(),
    )?;
    let mut numbers = Numbers { cursor, key, len };
    Ok(match ty {
        ValueType::U8 => Array::U8(numbers.read(u8::from_le_bytes)?),
        ValueType::I8 => Array::I8(numbers.read(i8::from_le_bytes)?),
        ValueType::U16 => Array::U16(numbers.read(u16::from_le_bytes)?),
        ValueType::I16 => Array::I16(numbers.read(i16::from_le_bytes)?),
        ValueType::U32 => Array::U32(numbers.read(u32::from_le_bytes)?),
        ValueType::I32 => Array::I32(numbers.read(i32::from_le_bytes)?),
        ValueType::F32 => Array::F32(numbers.read(f32::from_le_bytes)?),
        ValueType::U64 => Array::U64(numbers.read(u64::from_le_bytes)?),
        ValueType::I64 => Array::I64(numbers.read(i64::from_le_bytes)?),
        ValueType::F64 => Array::F64(numbers.read(f64::from_le_bytes)?),
        ValueType::Bool => Array::Bool(read_bools(cursor, key, len)?),
        ValueType::String => {
            let mut strings = StringArray::default();
            for i in 0..len {
                let field = format_args!("metadata {key}[{i}]");
                strings.push(&cursor.string(&field, damage)?);
            }
            strings.shrink_to_fit();
            Array::String(strings)
        }
        ValueType::Array if depth == MAX_NESTING => {
            let reason = format!("arrays nested more than {MAX_NESTING} deep");
            return Err(invalid(format!("metadata {key}"), start, reason));
        }
        ValueType::Array => {
            let mut arrays = Vec::new();
            for _ in 0..len {
                arrays.push(read_array(cursor, key, depth + 1, damage)?);
            }
            Array::Array(arrays)
        }
    })
}

/// The elements of an array of numbers, about to be read.
struct Numbers<'c, 'a> {
    cursor: &'c mut Cursor<'a>,
    key: &'c str,
    len: u64,
}

impl Numbers<'_, '_> {
    fn read<T, const N: usize>(&mut self, convert: fn([u8; N]) -> T) -> Result<Vec<T>, Problem> {
        // No overflow: the count has been held against the bytes that are left.
        let bytes = self
            .cursor
            .take(self.len * N as u64, &format_args!("metadata {}", self.key))?;
        Ok(bytes
            .as_chunks()
            .0
            .iter()
            .map(|number| convert(*number))
            .collect())
    }
}

fn read_alignment(metadata: &[(String, Value)]) -> Result<u64, Problem> {
    const KEY: &str = "general.alignment";
    let Some((_, value)) = metadata.iter().find(|(key, _)| key == KEY) else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    let integer = value
        .as_integer()
        .ok_or_else(|| Problem::wrong_type(KEY, "a power of two", value.ty()))?;
    u64::try_from(integer)
        .ok()
        .filter(|alignment| alignment.is_power_of_two() && *alignment <= MAX_ALIGNMENT)
        .ok_or_else(|| Problem::WrongType {
            key: KEY.to_owned(),
            expected: "a power of two up to 2^24",
            found: integer.to_string(),
        })
}

/// A row of the table: a tensor that is read, or one whose type is not.
enum Row {
    Tensor(TensorInfo),
    Unread(UnreadTensor),
}

fn read_tensor(cursor: &mut Cursor, index: u64, alignment: u64) -> Result<Row, Problem> {
    let name = read_name(cursor, &format_args!("name of tensor {index}"))?;
    let name = name.as_ref();
    let start = cursor.offset();
    let n_dims = cursor.u32(&format_args!("dimensions of tensor {name}"))? as usize;
    if n_dims == 0 || n_dims > MAX_DIMS {
        let reason = format!("{n_dims}; 1 to {MAX_DIMS} are allowed");
        return Err(invalid(
            format!("number of dimensions of tensor {name}"),
            start,
            reason,
        ));
    }
    let mut dims = [1; MAX_DIMS];
    for (i, dim) in dims[..n_dims].iter_mut().enumerate() {
        let offset = cursor.offset();
        let value = cursor.u64(&format_args!("dimension {i} of tensor {name}"))?;
        *dim = usize::try_from(value)
            .ok()
            .filter(|&dim| dim > 0)
            .ok_or_else(|| {
                invalid(
                    format!("dimension {i} of tensor {name}"),
                    offset,
                    format!("is {value}"),
                )
            })?;
    }
    let type_offset = cursor.offset();
    let type_id = cursor.u32(&format_args!("type of tensor {name}"))?;
    let Some(ty) = GgmlType::from_id(type_id) else {
        // How long its data is, only its type could tell.
        read_data_range(cursor, name, 0, alignment)?;
        return Ok(Row::Unread(UnreadTensor {
            name: name.to_owned(),
            type_id,
            type_name: name_of_unread(type_id),
            dims: dims[..n_dims].to_vec(),
            offset: type_offset,
        }));
    };
    if !dims[0].is_multiple_of(ty.block_elements()) {
        let reason = format!(
            "rows of {} are no whole blocks of {} ({ty})",
            dims[0],
            ty.block_elements()
        );
        return Err(invalid(
            format!("dimension 0 of tensor {name}"),
            start,
            reason,
        ));
    }
    let bytes = dims
        .iter()
        .try_fold(1usize, |product, &dim| product.checked_mul(dim))
        .and_then(|elements| ty.bytes_of(elements))
        .ok_or_else(|| {
            let reason = format!("{:?} of {ty} are too many elements", &dims[..n_dims]);
            invalid(format!("dimensions of tensor {name}"), start, reason)
        })?;
    let data = read_data_range(cursor, name, bytes, alignment)?;
    Ok(Row::Tensor(TensorInfo {
        name: name.to_owned(),
        ty,
        n_dims,
        dims,
        data,
    }))
}

fn read_data_range(
    cursor: &mut Cursor,
    name: &str,
    bytes: usize,
    alignment: u64,
) -> Result<Range<usize>, Problem> {
    let offset = cursor.offset();
    let field = || format!("data offset of tensor {name}");
    let begin = cursor.u64(&format_args!("data offset of tensor {name}"))?;
    if !begin.is_multiple_of(alignment) {
        let reason = format!("{begin} is no multiple of the alignment {alignment}");
        return Err(invalid(field(), offset, reason));
    }
    usize::try_from(begin)
        .ok()
        .and_then(|begin| Some(begin..begin.checked_add(bytes)?))
        .ok_or_else(|| invalid(field(), offset, format!("{begin} is beyond any file")))
}

/// Moves the tensors' ranges from the data section to the file, and checks that it holds them.
fn place_data(tensors: &mut [TensorInfo], section: u64, file_len: u64) -> Result<(), Problem> {
    for tensor in tensors {
        // A cut-off file may end before the section begins; sums in 128 bits cannot overflow.
        let end = u128::from(section) + tensor.data.end as u128;
        let begin = section.saturating_add(tensor.data.start as u64);
        if end > u128::from(file_len) {
            return Err(Problem::CutOff {
                field: format!("data of tensor {}", tensor.name),
                offset: begin,
                needed: tensor.data.len() as u64,
                left: file_len.saturating_sub(begin),
            });
        }
        let section = section as usize;
        tensor.data = section + tensor.data.start..section + tensor.data.end;
    }
    Ok(())
}
