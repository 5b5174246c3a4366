//! Kernels as rustc's NVPTX backend emits them: local arrays, calls, function pointers, jump tables,
//! panics, constants, parameters by value.

mod common;

use common::{Random, launch, params, simulator};
use ptx_sim::{FaultKind, Launch, Memory, Module};

fn module() -> Module {
    Module::parse(include_str!("ptx/rustc.ptx")).unwrap()
}

fn floats(memory: &Memory, address: u64, count: usize) -> Vec<f32> {
    let mut bytes = vec![0; count * 4];
    memory.read(address, &mut bytes).unwrap();
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|word| f32::from_le_bytes(*word))
        .collect()
}

fn words(memory: &Memory, address: u64, count: usize) -> Vec<u32> {
    floats(memory, address, count)
        .into_iter()
        .map(f32::to_bits)
        .collect()
}

fn upload(memory: &mut Memory, label: &str, words: &[u32]) -> u64 {
    let address = memory.alloc(words.len() * 4, label).unwrap();
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    memory.write(address, &bytes).unwrap();
    address
}

#[test]
fn a_struct_by_value_arrives() {
    let mut memory = Memory::new();
    let mut random = Random(1);
    let input: Vec<f32> = (0..100).map(|_| random.float()).collect();
    let bits: Vec<u32> = input.iter().map(|x| x.to_bits()).collect();
    let (a, b) = (
        upload(&mut memory, "a", &bits),
        memory.alloc(400, "b").unwrap(),
    );
    let mut params = params(&[a, b]);
    params.extend(100u32.to_le_bytes());
    params.extend((-7i32).to_le_bytes());
    params.extend(2.5f32.to_le_bytes());
    params.extend([0; 4]);
    simulator()
        .launch(&memory, &module(), "k_struct", &launch(4, 32, &params))
        .unwrap();
    let expected: Vec<f32> = input.iter().map(|x| x * 2.5 - 7.0).collect();
    assert_eq!(floats(&memory, b, 100), expected);
}

fn helper(x: f32, k: u32) -> f32 {
    (0..k).fold(x, |r, i| r * 1.5 + i as f32)
}

#[test]
fn local_arrays_and_calls_with_results_in_memory() {
    const TABLE: [u8; 16] = [0, 1, 2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43];
    const FT: [f32; 8] = [0.5, 1.5, 2.25, -3.0, 4.0, 5.5, 6.0, 7.0];
    let mut memory = Memory::new();
    let input: Vec<f32> = (0..50).map(|i| i as f32 * 0.75).collect();
    let bits: Vec<u32> = input.iter().map(|x| x.to_bits()).collect();
    let (a, b) = (
        upload(&mut memory, "a", &bits),
        memory.alloc(4 * 96, "b").unwrap(),
    );
    let mut params = params(&[a, b]);
    params.extend(50u32.to_le_bytes());
    params.extend([0; 12]);
    simulator()
        .launch(&memory, &module(), "k_local", &launch(2, 48, &params))
        .unwrap();
    let expected: Vec<f32> = (0..96u32)
        .map(|i| {
            let mut array = [0f32; 8];
            for j in 0..8 {
                array[j] = input[((i + j as u32) % 50) as usize];
            }
            let mut s = 0u64;
            for j in 0..8 {
                array[(j + i as usize) & 7] += 1.0;
                s += array[j] as u64;
            }
            let k = i.wrapping_mul(7) as usize & 7;
            array[k] += helper(array[(k + 1) & 7], i & 3);
            let mut sum = s as f32 + (i * 3) as f32;
            for j in 0..8 {
                sum += array[(j * 3 + i as usize) & 7];
            }
            sum + f32::from(TABLE[i as usize & 15]) + FT[i as usize & 7]
        })
        .collect();
    assert_eq!(floats(&memory, b, 96), expected);
}

#[test]
fn a_panic_traps_with_the_thread_that_did_it() {
    let mut memory = Memory::new();
    let a = upload(&mut memory, "a", &[7; 20]);
    let b = memory.alloc(4 * 32, "b").unwrap();
    let ok = params(&[a, 20, b]);
    simulator()
        .launch(&memory, &module(), "k_panic", &launch(1, 10, &ok))
        .unwrap();
    let fault = simulator()
        .launch(&memory, &module(), "k_panic", &launch(1, 11, &ok))
        .unwrap_err();
    assert_eq!(fault.kind, FaultKind::Trap);
    assert_eq!(fault.thread, [10, 0, 0]);
    assert_eq!(&*fault.text, "trap;");
}

#[test]
fn a_tree_reduction_in_dynamic_shared_memory() {
    let mut memory = Memory::new();
    let input: Vec<u32> = (0..1000u32).map(|i| (i as f32).to_bits()).collect();
    let (a, b) = (
        upload(&mut memory, "a", &input),
        memory.alloc(16, "b").unwrap(),
    );
    let mut params = params(&[a, b]);
    params.extend(1000u32.to_le_bytes());
    let launch = Launch {
        grid: [4, 1, 1],
        block: [256, 1, 1],
        dynamic_shared: 1024,
        params: &params,
        dependent: false,
    };
    simulator()
        .launch(&memory, &module(), "k_shared", &launch)
        .unwrap();
    let sums: Vec<f32> = (0..4)
        .map(|block| {
            (block * 256..1000.min(block * 256 + 256))
                .map(|i| i as f32)
                .sum()
        })
        .collect();
    assert_eq!(floats(&memory, b, 4), sums);
    let short = Launch {
        dynamic_shared: 1020,
        ..launch
    };
    let fault = simulator()
        .launch(&memory, &module(), "k_shared", &short)
        .unwrap_err();
    assert_eq!(fault.kind, FaultKind::OutOfBounds { bytes: 4 });
    assert_eq!(fault.thread, [255, 0, 0]);
}

#[test]
fn a_jump_table_in_a_loop_with_calls() {
    let mut memory = Memory::new();
    let input: Vec<u32> = (0..64u32).map(|i| i * 5 % 41).collect();
    let (a, b) = (
        upload(&mut memory, "a", &input),
        memory.alloc(256, "b").unwrap(),
    );
    let stats = simulator()
        .launch(
            &memory,
            &module(),
            "k_switch",
            &launch(1, 64, &params(&[a, b])),
        )
        .unwrap();
    assert!(stats.instructions > 64 * 100);
    let expected: Vec<u32> = input
        .iter()
        .map(|&x| {
            let (mut r, mut j) = (0u32, 0u32);
            while j < x {
                match (x + j) % 7 {
                    0 => r = r.wrapping_add(helper(x as f32, j) as u32),
                    1 => r ^= 5 + j,
                    2 => {
                        if r & 1 == 0 {
                            r = r.wrapping_add(77);
                            r = r.wrapping_add(r << 3);
                        }
                    }
                    3 => r = r.wrapping_mul(31),
                    4 => {
                        if j > 20 {
                            break;
                        }
                        r = r.wrapping_add(input[(r & 3) as usize]);
                    }
                    5 => r |= 1 << (j & 31),
                    _ => {
                        for q in 0..(j & 3) {
                            r = r.wrapping_add(q * input[q as usize]);
                        }
                    }
                }
                j += 1;
            }
            r
        })
        .collect();
    assert_eq!(words(&memory, b, 64), expected);
}

#[test]
fn byte_vectors_and_function_pointers() {
    let mut memory = Memory::new();
    let bytes: Vec<u8> = (0..32 * 16u32).map(|i| (i * 37 % 251) as u8).collect();
    let a = memory.alloc(512, "a").unwrap();
    memory.write(a, &bytes).unwrap();
    let b = memory.alloc(512, "b").unwrap();
    simulator()
        .launch(
            &memory,
            &module(),
            "k_vec",
            &launch(1, 32, &params(&[a, b])),
        )
        .unwrap();
    let mut got = vec![0; 512];
    memory.read(b, &mut got).unwrap();
    for i in 0..32usize {
        let mut expected: Vec<u8> = (0..16)
            .map(|j| bytes[i * 16 + j].wrapping_mul(3).wrapping_add(j as u8))
            .collect();
        let q = if i & 1 == 0 { i + 1 } else { i * 3 };
        expected[q & 15] = q as u8;
        assert_eq!(got[i * 16..i * 16 + 16], expected);
    }
}

#[test]
fn atomics_and_fences() {
    let mut memory = Memory::new();
    let a = upload(&mut memory, "a", &[10, 0, 0, 0, 0, 99]);
    let b = upload(&mut memory, "b", &[3, 0, 0, 0]);
    simulator()
        .launch(
            &memory,
            &module(),
            "k_atomic",
            &launch(1, 32, &params(&[a, b])),
        )
        .unwrap();
    assert_eq!(words(&memory, a, 6), [10 + 31 * 16, 0, 0, 0, 99, 99]);
    assert_eq!(words(&memory, b, 4), [7, 0, 7, 0]);
}

/// What Rust computes for case `op` of `k_conv`, in the bytes it stores.
fn conversion(op: u32, i: u32, f: f32, d: f64, u: u64, w: u32) -> Option<Vec<u8>> {
    let clamp16 = |x: u32| (x & 0xffff) as u16;
    Some(match op {
        0 => vec![f as u8],
        1 => vec![(f as i8).cast_unsigned()],
        2 => (f as u16).to_le_bytes().into(),
        3 => (d as i16).to_le_bytes().into(),
        4 => (d as u32).to_le_bytes().into(),
        5 => (f as i64).to_le_bytes().into(),
        6 => (d as u64).to_le_bytes().into(),
        7 => (u as f32).to_le_bytes().into(),
        8 => (u.cast_signed() as f64).to_le_bytes().into(),
        9 => (d as f32).to_le_bytes().into(),
        10 => (f64::from(f) * d).to_le_bytes().into(),
        11 => f32::from((w as u8).cast_signed()).to_le_bytes().into(),
        12 => (w.leading_zeros() + w.count_ones())
            .wrapping_add(w.reverse_bits())
            .wrapping_add(w.trailing_zeros())
            .wrapping_add(w.swap_bytes())
            .wrapping_add(w.rotate_left(i))
            .to_le_bytes()
            .into(),
        13 => u64::from(u.leading_zeros() + u.count_ones())
            .wrapping_add(u.reverse_bits())
            .wrapping_add(u.rotate_left(i))
            .wrapping_add(u.swap_bytes())
            .to_le_bytes()
            .into(),
        14 => (w / (i | 1)).wrapping_add(w % (i | 3)).to_le_bytes().into(),
        15 => {
            let i = u64::from(i);
            (u / (i | 1))
                .wrapping_add(u % (i | 3))
                .wrapping_add(((u128::from(u) * 12345) >> 64) as u64)
                .to_le_bytes()
                .into()
        }
        16 => (f.clamp(1.0, 3.0) + f.abs() - f.clamp(-1.0, 1.0))
            .to_le_bytes()
            .into(),
        17 => (u32::from(f < 1.0)
            + 2 * u32::from(f >= d as f32)
            + 4 * u32::from(f > 3.0)
            + 8 * u32::from(f.is_nan()))
        .to_le_bytes()
        .into(),
        18 => (w.saturating_add(77)
            ^ w.saturating_sub(9)
            ^ w.wrapping_shl(i)
            ^ (w.cast_signed() >> (i & 31)).cast_unsigned())
        .to_le_bytes()
        .into(),
        19 => (clamp16(w).saturating_mul(3)
            ^ clamp16(w).leading_zeros() as u16
            ^ (clamp16(w).cast_signed() >> 3).cast_unsigned())
        .to_le_bytes()
        .into(),
        20 => vec![
            (w as u8).saturating_add(3)
                ^ (w as u8).count_ones() as u8
                ^ ((w as u8).cast_signed() / 3).cast_unsigned(),
        ],
        21 => w
            .checked_add(w)
            .unwrap_or(3)
            .wrapping_add(w.checked_mul(77).unwrap_or(5))
            .wrapping_add(
                w.cast_signed()
                    .checked_sub(i32::MAX)
                    .map_or(1, i32::cast_unsigned),
            )
            .to_le_bytes()
            .into(),
        22 => (-f / (f + 2.0) % 3.0).to_le_bytes().into(),
        23 => f.sqrt().to_le_bytes().into(),
        _ => return None,
    })
}

#[test]
fn integer_and_float_conversions_agree_with_rust_on_the_host() {
    let mut random = Random(7);
    let threads = 32usize;
    // The same bytes are read as singles, doubles, words and longs: finite doubles of all sizes.
    let mut bytes = Vec::new();
    for i in 0..threads {
        let scale = 10f64.powi(i as i32 - 12);
        bytes.extend((f64::from(random.float()) * scale).to_le_bytes());
    }
    let single = |i: usize| f32::from_le_bytes(bytes[i * 4..][..4].try_into().unwrap());
    let long = |i: usize| u64::from_le_bytes(bytes[i * 8..][..8].try_into().unwrap());
    let module = module();
    for op in 0..24u32 {
        let mut memory = Memory::new();
        let a = memory.alloc(bytes.len(), "a").unwrap();
        memory.write(a, &bytes).unwrap();
        let b = memory.alloc(threads * 8, "b").unwrap();
        let mut params = params(&[a, b]);
        params.extend(op.to_le_bytes());
        simulator()
            .launch(&memory, &module, "k_conv", &launch(1, 32, &params))
            .unwrap();
        for i in 0..threads {
            let (f, u) = (single(i), long(i));
            let word = f.to_bits();
            let expected = conversion(op, i as u32, f, f64::from_bits(u), u, word).unwrap();
            let mut got = vec![0; expected.len()];
            memory
                .read(b + (i * expected.len()) as u64, &mut got)
                .unwrap();
            let both_nan = matches!(op, 10 | 16 | 22 | 23)
                && expected.len() == 4
                && f32::from_le_bytes(expected[..].try_into().unwrap()).is_nan()
                && f32::from_le_bytes(got[..].try_into().unwrap()).is_nan();
            assert!(
                both_nan || got == expected,
                "op {op} thread {i}: {got:?} {expected:?} from {f}"
            );
        }
    }
}
