//! One generic body, compiled for several vector instruction sets and chosen at run time.
//!
//! The bodies are plain loops over arrays that the compiler vectorizes. A baseline x86-64 build may
//! use SSE2 alone, which leaves most of a CPU's speed unused; [`dispatch`] compiles each body again
//! with AVX2 and with AVX-512.

/// A loop nest to be compiled for each instruction set.
///
/// `run` and everything it calls must be `#[inline(always)]`: code that is not inlined is compiled
/// for the baseline.
pub trait Kernel {
    /// What it computes.
    type Output;

    /// Computes it. `FUSED` says that [`mul_add`] is one instruction here.
    fn run<const FUSED: bool>(self) -> Self::Output;
}

/// Runs `kernel` with the widest vectors that this CPU has.
#[inline]
pub fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
        {
            // SAFETY: the CPU has what `avx512` enables (avx512f implies avx2 and fma).
            return unsafe { avx512(kernel) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the CPU has what `avx2` enables.
            return unsafe { avx2(kernel) };
        }
    }
    kernel.run::<{ cfg!(any(target_arch = "aarch64", target_feature = "fma")) }>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<true>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<true>()
}

/// `a * b + c`, rounded once where that is an instruction. Elsewhere it is rounded twice: the
/// library function that rounds once would cost a call for each element.
#[inline(always)]
pub fn mul_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// Partial sums of a dot product: enough independent chains to hide the latency of additions.
pub const LANES: usize = 32;

/// Adds the products of 32 pairs to as many partial sums.
#[inline(always)]
pub fn accumulate<const FUSED: bool>(sums: &mut [f32; LANES], a: &[f32; LANES], b: &[f32; LANES]) {
    for i in 0..LANES {
        sums[i] = mul_add::<FUSED>(a[i], b[i], sums[i]);
    }
}

/// The sum of the partial sums, pairwise.
#[inline(always)]
pub fn total(mut sums: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            sums[i] += sums[i + half];
        }
        half /= 2;
    }
    sums[0]
}
