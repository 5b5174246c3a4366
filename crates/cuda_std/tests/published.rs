//! Compares this crate with Rust-CUDA's published `cuda_std` 0.2.2: what both have must have the same
//! type, and every name that the kernels use must be on one of the two lists below.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use cuda_std_published as published;

/// Compiles only where both functions have the stated type, and gives their names.
macro_rules! same {
    ($($module:ident::{$($name:ident),* $(,)?}: $ty:ty;)*) => {
        &[$($({
            let _: [$ty; 2] = [cuda_std::$module::$name, published::$module::$name];
            concat!(stringify!($module), "::", stringify!($name))
        }),*),*]
    };
}

fn in_both() -> &'static [&'static str] {
    same! {
        thread::{
            thread_idx_x, thread_idx_y, thread_idx_z, block_idx_x, block_idx_y, block_idx_z,
            block_dim_x, block_dim_y, block_dim_z, grid_dim_x, grid_dim_y, grid_dim_z,
            index_1d, warp_size,
        }: fn() -> u32;
        thread::{sync_threads, device_fence, system_fence}: fn();
        thread::{sync_threads_count, sync_threads_and, sync_threads_or}: fn(u32) -> u32;
        thread::{nanosleep}: fn(u32);
        warp::{lane_id}: fn() -> u32;
        warp::{sync_warp}: unsafe fn(u32);
        shared::{dynamic_shared_mem}: fn() -> *mut f32;
        mem::{dynamic_smem_size, total_smem_size}: fn() -> u32;
        misc::{breakpoint}: fn();
        misc::{clock}: fn() -> u64;
    }
}

/// What the published release lacks at that path (its atomics are in `atomic::intrinsics`, written
/// for a compiler of 2021).
const LACKING: &[&str] = &[
    "atomic::atomic_fetch_add_acqrel_u32_device",
    "atomic::atomic_fetch_max_relaxed_u32_device",
    "atomic::atomic_fetch_max_relaxed_u64_device",
    "misc::trap",
    "shared::Shared",
    "shared::SharedValue",
    "shared::dynamic",
    "warp::FULL_MASK",
    "warp::warp_reduce_add_i32",
    "warp::warp_reduce_max_u32",
    "warp::warp_reduce_min_u32",
    "warp::warp_shuffle_idx",
    "warp::warp_shuffle_up",
    "warp::warp_shuffle_xor",
    "warp::warp_vote_any",
    "warp::warp_vote_ballot",
];

#[test]
fn float_math_has_the_same_methods() {
    /// Compiles only where both traits have the method with the stated type.
    macro_rules! methods {
        ($($name:ident: $ty:ty;)*) => {$(
            let _: [$ty; 2] = [
                <f32 as cuda_std::GpuFloat>::$name,
                <f32 as published::GpuFloat>::$name,
            ];
        )*};
    }
    methods! {
        floor: fn(f32) -> f32;
        ceil: fn(f32) -> f32;
        round: fn(f32) -> f32;
        trunc: fn(f32) -> f32;
        abs: fn(f32) -> f32;
        mul_add: fn(f32, f32, f32) -> f32;
        sqrt: fn(f32) -> f32;
        exp: fn(f32) -> f32;
        exp2: fn(f32) -> f32;
        ln: fn(f32) -> f32;
        log2: fn(f32) -> f32;
        powf: fn(f32, f32) -> f32;
        sin: fn(f32) -> f32;
        cos: fn(f32) -> f32;
        sin_cos: fn(f32) -> (f32, f32);
        tanh: fn(f32) -> f32;
    }
}

#[test]
fn the_kernels_use_known_names_only() {
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernels-gpu/src");
    let mut used = BTreeSet::new();
    collect(&kernels, &mut used);
    assert!(
        used.contains("thread::sync_threads"),
        "nothing found: {used:?}"
    );
    let known: BTreeSet<&str> = in_both().iter().chain(LACKING).copied().collect();
    let unknown: Vec<_> = used
        .iter()
        .filter(|name| !known.contains(name.as_str()))
        .collect();
    assert!(
        unknown.is_empty(),
        "{unknown:?}: compare them with cuda_std 0.2.2 in `in_both`, or list them in `LACKING`"
    );
    let unused: Vec<_> = LACKING
        .iter()
        .filter(|name| !used.contains(**name))
        .collect();
    assert!(
        unused.is_empty(),
        "{unused:?} is not used: remove it from `LACKING`"
    );
}

/// The names behind `thread::`, `warp::` and so on, in paths and in use lists, of a folder's files.
fn collect(folder: &Path, used: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, used);
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for module in ["thread", "warp", "shared", "atomic", "mem", "misc"] {
            for (at, _) in text.match_indices(&format!("{module}::")) {
                let inside_a_word = text[..at]
                    .ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
                    && !text[..at].ends_with("cuda_std::");
                if inside_a_word {
                    continue;
                }
                let rest = &text[at + module.len() + 2..];
                let list = match rest.strip_prefix('{') {
                    Some(list) => list.split('}').next().unwrap(),
                    None => rest
                        .split(|c: char| !c.is_alphanumeric() && c != '_')
                        .next()
                        .unwrap(),
                };
                used.extend(
                    list.split(',')
                        .map(str::trim)
                        .filter(|name| *name != "self")
                        .map(|name| format!("{module}::{name}")),
                );
            }
        }
    }
}
