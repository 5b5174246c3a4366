//! The geometry that `abi/` gives the host's launchers, against the bounds that the kernels are compiled with
//! (`.maxntid` in the PTX): more threads would not launch, and fewer than the bound waste registers. Every kernel must be
//! here.

use std::collections::BTreeMap;

use hyperion::ptx;
use kernels_gpu::abi::*;
use kernels_gpu::ops::adjust_logits::ADJUST_LOGITS;
use kernels_gpu::ops::argmax::ARGMAX;
use kernels_gpu::ops::attention_decode::*;
use kernels_gpu::ops::attention_prefill::*;
use kernels_gpu::ops::choose_experts::CHOOSE_EXPERTS;
use kernels_gpu::ops::combine_experts::COMBINE_EXPERTS;
use kernels_gpu::ops::elementwise::{ADD_F32, BIAS_F32, GEGLU_F32, RESTORE_ROWS, SWIGLU_F32};
use kernels_gpu::ops::gated_rows::{
    GEGLU_BOUNDED_ROWS, GEGLU_ROWS, SWIGLU_BOUNDED_ROWS, SWIGLU_ROWS,
};
use kernels_gpu::ops::gather_rows::GATHER_ROWS;
use kernels_gpu::ops::gather_tokens::GATHER_TOKENS;
use kernels_gpu::ops::group_maxima::GROUP_MAXIMA;
use kernels_gpu::ops::group_pairs::GROUP_PAIRS;
use kernels_gpu::ops::logprobs::{CHOSEN_LOGPROB, LOGPROBS};
use kernels_gpu::ops::norm::{RMS_NORM_F16, RMS_NORM_F32, ROWS_F16};
use kernels_gpu::ops::q8_rows::{GEGLU_Q8, Q8_ROWS, RMS_NORM_Q8, SWIGLU_Q8};
use kernels_gpu::ops::rope_kv::ROPE_KV;
use kernels_gpu::ops::router::ROUTER_SCORES;
use kernels_gpu::ops::sample::SAMPLE;
use kernels_gpu::ops::soft_cap::SOFT_CAP;
use kernels_gpu::ops::{
    dequantize, embed, expert_matmul, expert_matvec, matmul_entries, matmul_q8_entries,
    matvec_entries,
};

/// The most threads that a launch of each kernel has, by the kernel's name.
#[derive(Default)]
struct Launches(BTreeMap<&'static str, u32>);

impl Launches {
    fn add<P: KernelParams>(&mut self, kernel: KernelDef<P>, threads: u32) {
        assert!(
            threads <= kernel.max_threads && threads.is_multiple_of(32),
            "{}: {threads} threads of {}",
            kernel.name,
            kernel.max_threads
        );
        let most = self.0.entry(kernel.name).or_default();
        *most = threads.max(*most);
    }

    fn fixed(&mut self) {
        self.add(ADD_F32, ELEMENTWISE_THREADS);
        self.add(BIAS_F32, ELEMENTWISE_THREADS);
        self.add(SWIGLU_F32, ELEMENTWISE_THREADS);
        self.add(GEGLU_F32, ELEMENTWISE_THREADS);
        self.add(RESTORE_ROWS, ELEMENTWISE_THREADS);
        self.add(ARGMAX, ARGMAX_THREADS);
        self.add(SAMPLE, SAMPLE_THREADS);
        self.add(GATHER_TOKENS, GATHER_THREADS);
        self.add(GROUP_MAXIMA, GROUP_THREADS);
        self.add(SOFT_CAP, SOFT_CAP_THREADS);
        self.add(ADJUST_LOGITS, ADJUST_THREADS);
        self.add(LOGPROBS, LOGPROBS_THREADS);
        self.add(CHOSEN_LOGPROB, CHOSEN_LOGPROB_THREADS);
        self.add(ROPE_KV, ROPE_THREADS);
        self.add(Q8_ROWS, Q8_ROWS_THREADS);
        self.add(SWIGLU_Q8, Q8_ROWS_THREADS);
        self.add(GEGLU_Q8, Q8_ROWS_THREADS);
        self.add(ROUTER_SCORES, ROUTER_THREADS);
        self.add(CHOOSE_EXPERTS, CHOOSE_EXPERTS_THREADS);
        self.add(GROUP_PAIRS, GROUP_PAIRS_THREADS);
        self.add(GATHER_ROWS, GATHER_ROWS_THREADS);
        self.add(COMBINE_EXPERTS, COMBINE_THREADS);
        for width in (0..=8192).step_by(4).skip(1) {
            self.add(RMS_NORM_F32, norm_threads(width));
            self.add(RMS_NORM_F16, norm_threads(width));
            self.add(ROWS_F16, norm_threads(width));
            self.add(RMS_NORM_Q8, norm_threads(width));
            for (knows_maxima, alone) in [(true, true), (false, true), (false, false)] {
                let (_, threads) = gated_rows_geometry(width, knows_maxima, alone);
                let kernels = match knows_maxima {
                    true => [SWIGLU_BOUNDED_ROWS, GEGLU_BOUNDED_ROWS],
                    false => [SWIGLU_ROWS, GEGLU_ROWS],
                };
                for kernel in kernels {
                    self.add(kernel, threads);
                }
            }
        }
        for &ty in WeightType::ALL {
            self.add(embed::kernel(ty), UNPACK_THREADS);
            self.add(dequantize::kernel(ty), UNPACK_THREADS);
        }
    }

    fn attention(&mut self) {
        for kernel in [
            ATTENTION_PREFILL_32,
            ATTENTION_PREFILL_64,
            ATTENTION_PREFILL_64_WIDE,
            ATTENTION_PREFILL_80,
            ATTENTION_PREFILL_96,
            ATTENTION_PREFILL_128,
            ATTENTION_PREFILL_128_WIDE,
            ATTENTION_PREFILL_256,
        ] {
            self.add(kernel, PREFILL_THREADS);
        }
        for (head_dim, kernel) in [
            (32, ATTENTION_DECODE_32),
            (64, ATTENTION_DECODE_64),
            (80, ATTENTION_DECODE_80),
            (96, ATTENTION_DECODE_96),
            (128, ATTENTION_DECODE_128),
            (256, ATTENTION_DECODE_256),
        ] {
            let name = kernel.name;
            let most = decode_threads(head_dim).max(DECODE_SHARED_THREADS);
            self.add(kernel, most);
            assert!(name.ends_with(&format!("_{head_dim}")), "{name}");
        }
    }

    /// By the plans for matrices of many shapes, on GPUs from one multiprocessor to an H100.
    fn products(&mut self) {
        const SHARED: [u32; 3] = [99 << 10, 163 << 10, 227 << 10];
        for &ty in WeightType::ALL {
            let rows = [256, 2048, 8192];
            let shapes = [1, 16, 300, 4096, 128_256].map(|n_out| rows.map(|n_in| (n_out, n_in)));
            for (n_out, n_in) in shapes.into_iter().flatten() {
                for (multiprocessors, shared) in [1, 46, 132].into_iter().zip(SHARED) {
                    let device = (multiprocessors, shared);
                    self.matvec(ty, n_out, n_in, device);
                    self.matmul(ty, n_out, n_in, device);
                    self.matmul_q8(ty, n_out, n_in, device);
                }
            }
        }
    }

    fn matvec(&mut self, ty: WeightType, n_out: u32, n_in: u32, (sms, shared): (u32, u32)) {
        for format in [VectorFormat::Q8, VectorFormat::F16] {
            if format == VectorFormat::Q8 && !ty.is_quantized() {
                continue;
            }
            for &vectors in matvec_vectors(ty, format) {
                let plan = MatvecPlan::new(ty, format, false, n_out, n_in, vectors, sms, shared);
                let Some(plan) = plan else { continue };
                let kernel = matvec_entries::kernel(ty, format, plan.vectors);
                self.add(kernel.expect("the plan's kernel"), plan.block);
            }
            let shape = [n_out, n_in];
            if let Some(plan) = MatvecPlan::expert(ty, format, false, shape, (sms, shared)) {
                let kernel = expert_matvec::kernel(ty, format);
                self.add(kernel.expect("an expert's kernel"), plan.block);
            }
        }
    }

    fn matmul_q8(&mut self, ty: WeightType, n_out: u32, n_in: u32, (sms, shared): (u32, u32)) {
        for vectors in [1, 16, 24, 32] {
            let plan = MatmulQ8Plan::new(ty, [n_out, 0, 0], n_in, vectors, sms, shared);
            let Some(plan) = plan else { continue };
            if let Some(kernel) = matmul_q8_entries::kernel(ty, plan.tiles) {
                self.add(kernel, plan.block);
            }
        }
    }

    fn matmul(&mut self, ty: WeightType, n_out: u32, n_in: u32, (sms, shared): (u32, u32)) {
        if !ty.is_quantized() {
            return;
        }
        for vectors in [1, 16, 32, 64] {
            let plan = MatmulPlan::new(ty, [n_out, 0, 0], n_in, vectors, sms, shared);
            let Some(plan) = plan else { continue };
            let kernel = matmul_entries::kernel(ty, plan.tiles);
            self.add(kernel.expect("the plan's kernel"), plan.block);
            if EXPERT_MATMUL_TILES.contains(&plan.tiles) {
                let kernel = expert_matmul::kernel(ty, plan.tiles);
                self.add(kernel.expect("experts' kernel"), plan.block);
            }
        }
    }
}

#[test]
fn launches_use_the_threads_that_kernels_are_compiled_for() {
    let mut launches = Launches::default();
    launches.fixed();
    launches.attention();
    launches.products();
    for module in ptx::modules() {
        let names: Vec<&str> = module.kernels.iter().map(|kernel| kernel.name).collect();
        let unknown = launches.0.keys().filter(|name| !names.contains(name));
        assert_eq!(unknown.count(), 0, "kernels that are not in the module");
        let wrong = names.iter().filter_map(|&name| {
            let bound = bound(module.ptx(), name);
            // Two blocks of matrix products with the most vectors share a multiprocessor; the bound of one that is
            // twice as large leaves each the registers for that.
            let blocks = if name.ends_with("_t8") { 2 } else { 1 };
            let most = launches.0.get(name).map(|most| blocks * most);
            (most != Some(bound)).then(|| format!("{name}: {most:?} threads of {bound}"))
        });
        let wrong: Vec<String> = wrong.collect();
        assert!(
            wrong.is_empty(),
            "sm_{}: {wrong:#?}",
            module.compute_capability
        );
    }
}

/// The most threads that a kernel's PTX allows.
fn bound(ptx: &str, name: &str) -> u32 {
    let (_, kernel) = ptx
        .split_once(&format!(".entry {name}("))
        .expect("the kernel");
    let (head, _) = kernel.split_once("\n{").expect("a body");
    let (_, bound) = head.split_once(".maxntid ").expect("a bound");
    bound
        .lines()
        .next()
        .and_then(|bound| bound.parse().ok())
        .expect("a number")
}
