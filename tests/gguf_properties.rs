//! The reader on generated files: valid ones come back as they were written; from damaged ones
//! comes an error, never a panic, and never more memory than the stated bound.
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;

use hyperion::gguf::{
    Array, FIXED_ALLOWANCE, GgmlType, Gguf, GgufError, MAX_EXPANSION, StringArray, Value,
};
use proptest::prelude::*;
use support::fixture_bytes;
use support::gguf_writer::{GgufWriter, TensorSource};

/// Counts what the calling thread has allocated, and the most it had at a time.
struct Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    LIVE.set(LIVE.get() + change);
    PEAK.set(PEAK.get().max(LIVE.get()));
}

// SAFETY: every call is passed on to the system's allocator; counting allocates nothing. The
// default `realloc` allocates, copies and frees, and so counts both blocks.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as above; `block` came from the system's allocator.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Opens `bytes`, holds the memory this takes against the bound, and reads all of every tensor.
fn open(bytes: &[u8]) -> Result<Gguf, GgufError> {
    let copy = bytes.to_vec();
    PEAK.set(LIVE.get());
    let before = LIVE.get();
    let result = Gguf::from_bytes(copy);
    let used = (PEAK.get() - before) as usize;
    // A file in memory is copied once, which one that is mapped is not.
    let bound = bytes.len().next_multiple_of(8) + MAX_EXPANSION * bytes.len() + FIXED_ALLOWANCE;
    assert!(
        used <= bound,
        "{used} bytes to open {} bytes; at most {bound}",
        bytes.len()
    );
    if let Ok(gguf) = &result {
        for tensor in gguf.tensors() {
            assert_eq!(tensor.to_f32().len(), tensor.n_elements());
        }
    } else if let Err(error) = &result {
        assert_eq!(error.to_string().lines().count(), 1, "{error}");
    }
    result
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        any::<f32>().prop_map(Value::F32),
        any::<f64>().prop_map(Value::F64),
        any::<bool>().prop_map(Value::Bool),
        ".{0,20}".prop_map(Value::String),
    ]
}

fn array() -> impl Strategy<Value = Array> {
    let leaf = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..9).prop_map(Array::U8),
        prop::collection::vec(any::<i16>(), 0..9).prop_map(Array::I16),
        prop::collection::vec(any::<i32>(), 0..9).prop_map(Array::I32),
        prop::collection::vec(any::<u64>(), 0..9).prop_map(Array::U64),
        prop::collection::vec(any::<f32>(), 0..9).prop_map(Array::F32),
        prop::collection::vec(any::<f64>(), 0..9).prop_map(Array::F64),
        prop::collection::vec(any::<bool>(), 0..9).prop_map(Array::Bool),
        prop::collection::vec(".{0,9}", 0..9).prop_map(|strings| {
            Array::String(strings.iter().map(String::as_str).collect::<StringArray>())
        }),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop::collection::vec(inner, 0..4).prop_map(Array::Array)
    })
}

fn tensor(name: String) -> impl Strategy<Value = TensorSource> {
    let ty = prop::sample::select(GgmlType::ALL);
    let shape = (1..4usize, prop::collection::vec(1..4usize, 0..=3));
    (ty, shape, any::<u8>()).prop_map(move |(ty, (blocks, rest), byte)| {
        let mut dims = vec![blocks * ty.block_elements()];
        dims.extend(rest);
        let bytes = ty.bytes_of(dims.iter().product()).expect("whole blocks");
        let data = (0..bytes).map(|i| byte.wrapping_add(i as u8)).collect();
        TensorSource {
            name: name.clone(),
            ty,
            dims,
            data,
        }
    })
}

fn file() -> impl Strategy<Value = GgufWriter> {
    let value = prop_oneof![3 => scalar(), 1 => array().prop_map(Value::Array)];
    let metadata = prop::collection::btree_map("[a-z.]{1,12}", value, 0..8);
    let tensors = prop::collection::btree_set("[a-z.]{1,12}", 0..5)
        .prop_flat_map(|names| names.into_iter().map(tensor).collect::<Vec<_>>());
    let alignment = prop::sample::select(vec![1, 2, 8, 32, 64, 4096]);
    (2..=3u32, alignment, metadata, tensors).prop_map(|(version, alignment, metadata, tensors)| {
        let metadata = BTreeMap::into_iter(metadata).collect();
        GgufWriter {
            version,
            alignment,
            metadata,
            tensors,
        }
    })
}

/// A small file with something of everything.
fn sample() -> Vec<u8> {
    let strings = Array::String(["a", "", "bcd"].into_iter().collect());
    let nested = Array::Array(vec![Array::I32(vec![1, -2]), Array::I32(vec![])]);
    let tensor = |name: &str, ty: GgmlType, dims: &[usize]| TensorSource {
        name: name.to_owned(),
        ty,
        dims: dims.to_vec(),
        data: vec![0x11; ty.bytes_of(dims.iter().product()).expect("whole blocks")],
    };
    let writer = GgufWriter {
        alignment: 16,
        metadata: vec![
            (
                "general.architecture".to_owned(),
                Value::String("llama".to_owned()),
            ),
            ("some.flag".to_owned(), Value::Bool(true)),
            ("some.number".to_owned(), Value::F64(0.5)),
            ("some.strings".to_owned(), Value::Array(strings)),
            ("some.nested".to_owned(), Value::Array(nested)),
        ],
        tensors: vec![
            tensor("norm", GgmlType::F32, &[5]),
            tensor("weight", GgmlType::Q4K, &[256, 2]),
            tensor("experts", GgmlType::MXFP4, &[32, 2, 2]),
        ],
        ..GgufWriter::default()
    };
    writer.to_bytes()
}

proptest! {
    #[test]
    fn what_was_written_is_read(writer in file()) {
        let gguf = open(&writer.to_bytes()).expect("a valid file");
        prop_assert_eq!(gguf.version(), writer.version);
        prop_assert_eq!(gguf.alignment(), writer.alignment as u64);
        for (key, value) in &writer.metadata {
            prop_assert_eq!(gguf.metadata().get(key), Some(value));
        }
        prop_assert_eq!(gguf.tensors().len(), writer.tensors.len());
        for source in &writer.tensors {
            let tensor = gguf.require(&source.name).expect("a tensor that was written");
            prop_assert_eq!(tensor.ty(), source.ty);
            prop_assert_eq!(tensor.dims(), &source.dims);
            prop_assert_eq!(tensor.bytes(), &source.data);
        }
    }

    #[test]
    fn damaged_files_give_errors(
        writer in file(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), hostile_number()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = writer.to_bytes();
        for (place, number) in edits {
            let place = place.index(bytes.len());
            let end = bytes.len().min(place + number.len());
            bytes[place..end].copy_from_slice(&number[..end - place]);
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let _ = open(&bytes);
    }
}

/// Bytes to be written over others: one at random, or a number that overflows something.
fn hostile_number() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        any::<u32>().prop_map(|number| number.to_le_bytes().to_vec()),
        prop::sample::select(vec![
            0,
            1,
            1 << 32,
            i64::MAX as u64,
            1 << 63,
            u64::MAX - 31,
            u64::MAX
        ])
        .prop_map(|number| number.to_le_bytes().to_vec()),
    ]
}

#[test]
fn every_cut_is_an_error() {
    let bytes = sample();
    open(&bytes).expect("a valid file");
    // The last tensor's data ends before the file does: it is padded.
    let data_end = bytes.len() - (4 * 17usize).next_multiple_of(16) + 4 * 17;
    for len in 0..data_end {
        let error = open(&bytes[..len]).expect_err("cut off").to_string();
        assert!(len < 24 || error.contains("offset"), "{len} bytes: {error}");
    }
}

#[test]
fn every_flipped_bit_and_every_extreme_byte_is_survived() {
    let bytes = sample();
    for place in 0..bytes.len() {
        for byte in (0..8)
            .map(|bit| bytes[place] ^ (1 << bit))
            .chain([0, 0x7f, 0xff])
        {
            let mut damaged = bytes.clone();
            damaged[place] = byte;
            let _ = open(&damaged);
        }
    }
}

#[test]
fn a_real_vocabulary_that_is_cut_is_an_error() {
    let bytes = fixture_bytes("vocab/llama-spm.gguf");
    open(&bytes).expect("a valid file");
    for len in (0..bytes.len()).step_by(9973) {
        open(&bytes[..len]).expect_err("cut off");
    }
}

/// Files that are all overhead: as many of the smallest things as fit.
#[test]
fn many_small_things_stay_within_the_bound() {
    let n = 20_000;
    let entries = |value: Value| GgufWriter {
        metadata: (0..n).map(|i| (format!("{i:x}"), value.clone())).collect(),
        ..GgufWriter::default()
    };
    let one = |array: Array| GgufWriter {
        metadata: vec![("a".to_owned(), Value::Array(array))],
        ..GgufWriter::default()
    };
    let tensors = GgufWriter {
        alignment: 1,
        tensors: (0..n)
            .map(|i| TensorSource {
                name: format!("{i:x}"),
                ty: GgmlType::I8,
                dims: vec![1],
                data: vec![0],
            })
            .collect(),
        ..GgufWriter::default()
    };
    for writer in [
        entries(Value::Bool(false)),
        entries(Value::String(String::new())),
        entries(Value::Array(Array::Array(Vec::new()))),
        one(Array::String((0..n).map(|_| "").collect())),
        one(Array::Array(vec![Array::U8(Vec::new()); n])),
        one(Array::Array(vec![Array::U8(vec![1]); n])),
        tensors,
    ] {
        open(&writer.to_bytes()).expect("a valid file");
    }
}

/// The same with tensors of a type that is not read, and with texts that are not UTF-8.
#[test]
fn many_unreadable_things_stay_within_the_bound() {
    let n = 20_000;
    let writer = GgufWriter {
        alignment: 1,
        metadata: (0..n)
            .map(|i| (format!("{i:x}"), Value::String("?".to_owned())))
            .collect(),
        tensors: (0..n)
            .map(|i| TensorSource {
                name: format!("{i:05}t~!"),
                ty: GgmlType::I8,
                dims: vec![1],
                data: vec![0],
            })
            .collect(),
        ..GgufWriter::default()
    };
    let mut bytes = writer.to_bytes();
    for at in 0..bytes.len() - 13 {
        match bytes[at] {
            b'?' => bytes[at] = 0xff,
            // Behind the name: the number of dimensions, the dimension, the type.
            b'!' if bytes[..at].ends_with(b"t~") => bytes[at + 13] = 16,
            _ => {}
        }
    }
    let gguf = open(&bytes).expect("a valid file");
    assert_eq!((gguf.tensors().len(), gguf.unread_tensors().len()), (0, n));
    assert!(gguf.metadata().damage("1f").is_some());
}

fn error_of(writer: &GgufWriter) -> String {
    open(&writer.to_bytes())
        .expect_err("an invalid file")
        .to_string()
}

#[test]
fn contradictions_are_named() {
    let tensor = |dims: &[usize], ty| TensorSource {
        name: "t".to_owned(),
        ty,
        dims: dims.to_vec(),
        data: vec![0; 64],
    };
    let with = |tensors: Vec<TensorSource>| GgufWriter {
        tensors,
        ..GgufWriter::default()
    };
    let key = |key: &str, value| GgufWriter {
        metadata: vec![(key.to_owned(), value)],
        ..GgufWriter::default()
    };
    let mut deep = Array::U8(Vec::new());
    for _ in 0..8 {
        deep = Array::Array(vec![deep]);
    }
    let twice = GgufWriter {
        metadata: vec![
            ("k".to_owned(), Value::U8(1)),
            ("k".to_owned(), Value::U8(2)),
        ],
        ..GgufWriter::default()
    };
    let ok = tensor(&[4], GgmlType::F32);
    let cases = [
        (
            with(vec![tensor(&[], GgmlType::F32)]),
            "number of dimensions of tensor t at offset 33: 0",
        ),
        (
            with(vec![tensor(&[1; 5], GgmlType::F32)]),
            "5; 1 to 4 are allowed",
        ),
        (
            with(vec![tensor(&[4, 0], GgmlType::F32)]),
            "dimension 1 of tensor t at offset 45: is 0",
        ),
        (
            with(vec![tensor(&[48], GgmlType::Q8_0)]),
            "rows of 48 are no whole blocks of 32 (Q8_0)",
        ),
        (
            with(vec![tensor(&[1 << 40, 1 << 40], GgmlType::I8)]),
            "are too many elements",
        ),
        (
            with(vec![tensor(&[1 << 50], GgmlType::I8)]),
            "cut off: data of tensor t at offset 64",
        ),
        (with(vec![ok.clone(), ok]), "tensor t occurs twice"),
        (twice, "metadata k occurs twice"),
        (
            key("general.alignment", Value::U32(24)),
            "general.alignment is 24",
        ),
        (
            key("general.alignment", Value::I32(-8)),
            "general.alignment is -8",
        ),
        (
            key("general.alignment", Value::F32(8.0)),
            "general.alignment is f32",
        ),
        (key("deep", Value::Array(deep)), "metadata deep at offset"),
        (
            key(&"k".repeat(70_000), Value::U8(0)),
            "70000 bytes; at most 65535 are allowed",
        ),
        (
            GgufWriter {
                version: 4,
                ..GgufWriter::default()
            },
            "GGUF version 4",
        ),
    ];
    for (writer, expected) in cases {
        let error = error_of(&writer);
        assert!(error.contains(expected), "{error}, not {expected}");
    }
}
