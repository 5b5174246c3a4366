//! The table of weight types: a row a type, from which ids, names, block sizes, implementations and entry points follow on
//! both sides.

/// Calls `callback! { {context} plain { rows } quantized { rows } }`, with whatever tokens follow the callback's name as
/// its context.
///
/// A row is `Variant = id, "NAME", name, elements, Block, Implementation;`: the variant of
/// [`WeightType`](crate::abi::WeightType), ggml's number and name (`enum ggml_type` in `ggml.h`), the same name as kernel
/// names have it, the elements of a block, its layout, and what unpacks it in `ops::weights`. The host's side is
/// its implementation of `Block` for the layout, or of `Scalar` for a plain type.
#[macro_export]
macro_rules! weight_types {
    ($callback:ident $($context:tt)*) => {
        $callback! {
            {$($context)*}
            plain {
                F32 = 0, "F32", f32, 1, [u8; 4], F32Weights;
                F16 = 1, "F16", f16, 1, [u8; 2], F16Weights;
                BF16 = 30, "BF16", bf16, 1, [u8; 2], Bf16Weights;
            }
            quantized {
                Q4_0 = 2, "Q4_0", q4_0, SMALL_BLOCK, BlockQ40, Q4_0;
                Q4_1 = 3, "Q4_1", q4_1, SMALL_BLOCK, BlockQ41, Q4_1;
                Q5_0 = 6, "Q5_0", q5_0, SMALL_BLOCK, BlockQ50, Q5_0;
                Q5_1 = 7, "Q5_1", q5_1, SMALL_BLOCK, BlockQ51, Q5_1;
                Q8_0 = 8, "Q8_0", q8_0, SMALL_BLOCK, BlockQ80, Q8_0;
                Q2K = 10, "Q2_K", q2_k, SUPER_BLOCK, BlockQ2K, Q2K;
                Q3K = 11, "Q3_K", q3_k, SUPER_BLOCK, BlockQ3K, Q3K;
                Q4K = 12, "Q4_K", q4_k, SUPER_BLOCK, BlockQ4K, Q4K;
                Q5K = 13, "Q5_K", q5_k, SUPER_BLOCK, BlockQ5K, Q5K;
                Q6K = 14, "Q6_K", q6_k, SUPER_BLOCK, BlockQ6K, Q6K;
                IQ4NL = 20, "IQ4_NL", iq4_nl, SMALL_BLOCK, BlockIq4Nl, Iq4Nl;
                IQ4XS = 23, "IQ4_XS", iq4_xs, SUPER_BLOCK, BlockIq4Xs, Iq4Xs;
                MXFP4 = 39, "MXFP4", mxfp4, SMALL_BLOCK, BlockMxfp4, Mxfp4;
            }
        }
    };
}
