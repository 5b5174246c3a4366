//! The kernels, one operation a file: a header (formula, shapes, thread mapping, launch conditions,
//! bytes moved), a generic body, and a row of `entry_points!` for each instance.

pub mod activations;
pub mod adjust_logits;
pub mod argmax;
mod attention_context;
pub mod attention_decode;
mod attention_merge;
pub mod attention_prefill;
mod attention_rows;
mod attention_tiles;
mod choice;
pub mod choose_experts;
pub mod combine_experts;
pub mod dequantize;
pub mod elementwise;
pub mod embed;
pub mod expert_matmul;
pub mod expert_matvec;
pub mod gated_rows;
pub mod gather_rows;
pub mod gather_tokens;
pub mod group_maxima;
pub mod group_pairs;
mod head;
pub mod logprobs;
pub mod matmul;
pub mod matmul_entries;
pub mod matmul_q8;
pub mod matmul_q8_entries;
mod matmul_q8_products;
mod matmul_q8_rows;
mod matmul_stages;
pub mod matvec;
pub mod matvec_entries;
mod matvec_input;
mod matvec_rows;
mod matvec_tiles;
pub mod norm;
mod order;
pub mod q8_rows;
pub mod rope_kv;
pub mod router;
pub mod sample;
mod sample_block;
mod sample_few;
mod sample_kept;
mod sample_tokens;
pub mod soft_cap;
pub mod weights;

/// Declares entry points as instances of a generic body:
///
/// ```text
/// entry_points! {
///     /// f32 to f16.
///     RMS_NORM_F16 = rms_norm_f16(RmsNormParams), max_threads = NORM_MAX_THREADS => rms_norm::<F16>;
/// }
/// ```
///
/// Each row makes the kernel `rms_norm_f16` of the PTX module and the constant `RMS_NORM_F16`, the
/// [`KernelDef`](crate::abi::KernelDef) through which the host launches it. `max_threads` (and
/// `min_blocks` after it, where given) bound the registers that ptxas may use.
macro_rules! entry_points {
    ($(
        $(#[$doc:meta])*
        $def:ident = $name:ident($params:ty),
        max_threads = $max_threads:expr $(, min_blocks = $min_blocks:expr)?
        => $body:path;
    )*) => {$(
        $(#[$doc])*
        pub const $def: $crate::abi::KernelDef<$params> =
            $crate::abi::KernelDef::new(stringify!($name), $max_threads);

        $(#[$doc])*
        ///
        /// # Safety
        /// The launch conditions in the module's header.
        #[cuda_std::kernel(max_threads = $max_threads $(, min_blocks = $min_blocks)?)]
        pub unsafe fn $name(p: $params) {
            // SAFETY: the caller's.
            unsafe { $body(p) }
        }
    )*};
}
use entry_points;

/// Declares the instances of a generic body for all weight types, and `kernel(type)`, which gives their
/// [`KernelDef`](crate::abi::KernelDef)s:
///
/// ```text
/// weight_types!(entry_points_by_type embed, EmbedParams, UNPACK_THREADS);
/// ```
///
/// makes the kernels `embed_f32`, `embed_q4_0` and so on of the body `embed`.
macro_rules! entry_points_by_type {
    (
        {$body:ident, $params:ident, $max_threads:expr}
        plain { $($plain:ident = $plain_id:literal, $plain_ggml:literal, $plain_name:ident, $one:literal, $scalar:ty, $plain_weights:ident;)* }
        quantized { $($quantized:ident = $id:literal, $ggml:literal, $name:ident, $elements:ident, $block:ident, $weights:ident;)* }
    ) => {
        $crate::ops::entry_points_by_type! {
            $body, $params, $max_threads;
            $($plain, $plain_name, $plain_weights;)*
            $($quantized, $name, $weights;)*
        }
    };
    (
        $body:ident, $params:ident, $max_threads:expr;
        $($variant:ident, $name:ident, $weights:ident;)*
    ) => {
        pastey::paste! {
            $(
                #[doc = concat!("`", stringify!($body), "` of weights of the type ", stringify!($name), ".")]
                ///
                /// # Safety
                /// The launch conditions in the module's header.
                #[cuda_std::kernel(max_threads = $max_threads)]
                pub unsafe fn [<$body _ $name>](p: $params) {
                    // SAFETY: the caller's.
                    unsafe { $body::<$weights>(p) }
                }
            )*

            /// The instance for a type of weights.
            pub const fn kernel(ty: $crate::abi::WeightType) -> $crate::abi::KernelDef<$params> {
                let name = match ty {
                    $($crate::abi::WeightType::$variant => stringify!([<$body _ $name>]),)*
                };
                $crate::abi::KernelDef::new(name, $max_threads)
            }
        }
    };
}
use entry_points_by_type;
