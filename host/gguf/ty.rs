//! The element types of tensors.

use std::fmt;

use kernels_gpu::abi::WeightType;
use kernels_gpu::quant::*;
use kernels_gpu::weight_types;

/// The types of weights, and those of other tensors, which only `inspect` shows.
macro_rules! ggml_types {
    (
        {}
        plain { $($plain:ident = $plain_id:literal, $plain_ggml:literal, $plain_name:ident, $one:literal, $scalar:ty, $_p:ident;)* }
        quantized { $($quantized:ident = $id:literal, $ggml:literal, $name:ident, $elements:ident, $block:ident, $_q:ident;)* }
    ) => {
        define_ggml_type! {
            $($plain = $plain_id, $plain_ggml, $one, size_of::<$scalar>();)*
            $($quantized = $id, $ggml, $elements, size_of::<$block>();)*
            I8 = 24, "I8", 1, 1;
            I16 = 25, "I16", 1, 2;
            I32 = 26, "I32", 1, 4;
            I64 = 27, "I64", 1, 8;
            F64 = 28, "F64", 1, 8;
        }

        impl From<WeightType> for GgmlType {
            fn from(ty: WeightType) -> GgmlType {
                match ty {
                    $(WeightType::$plain => GgmlType::$plain,)*
                    $(WeightType::$quantized => GgmlType::$quantized,)*
                }
            }
        }
    };
}

/// One row per type: name in Rust, id in the file, name in ggml, elements and bytes of a block.
macro_rules! define_ggml_type {
    ($($variant:ident = $id:literal, $name:literal, $elements:expr, $bytes:expr;)*) => {
        /// The type of a tensor's elements: ggml's numbers and names.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs)] // the variants are ggml's names
        pub enum GgmlType {
            $($variant,)*
        }

        impl GgmlType {
            /// Every type that can be read.
            pub const ALL: &[GgmlType] = &[$(GgmlType::$variant,)*];

            /// The type with ggml's number `id`; `None` where it is not one that can be read.
            pub fn from_id(id: u32) -> Option<GgmlType> {
                match id {
                    $($id => Some(GgmlType::$variant),)*
                    _ => None,
                }
            }

            /// ggml's number of the type.
            pub const fn id(self) -> u32 {
                match self {
                    $(GgmlType::$variant => $id,)*
                }
            }

            /// ggml's name of the type, such as `Q4_K`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(GgmlType::$variant => $name,)*
                }
            }

            /// Elements in a block; 1 for the plain types.
            pub const fn block_elements(self) -> usize {
                match self {
                    $(GgmlType::$variant => $elements,)*
                }
            }

            /// Bytes of a block.
            pub const fn block_bytes(self) -> usize {
                match self {
                    $(GgmlType::$variant => $bytes,)*
                }
            }
        }
    };
}

weight_types!(ggml_types);

impl GgmlType {
    /// The kernels' name for the type; `None` where no kernel reads it.
    pub const fn weight_type(self) -> Option<WeightType> {
        WeightType::from_id(self.id())
    }

    /// Bytes of `elements` elements; `None` where they are not whole blocks or do not fit a `usize`.
    pub fn bytes_of(self, elements: usize) -> Option<usize> {
        if !elements.is_multiple_of(self.block_elements()) {
            return None;
        }
        (elements / self.block_elements()).checked_mul(self.block_bytes())
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// ggml's name of a type that files may hold and this reader does not unpack, for error messages.
pub(super) fn name_of_unread(id: u32) -> &'static str {
    match id {
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        21 => "IQ3_S",
        22 => "IQ2_S",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        40 => "NVFP4",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_lead_back_to_their_types() {
        for &ty in GgmlType::ALL {
            assert_eq!(GgmlType::from_id(ty.id()), Some(ty));
        }
        assert_eq!(GgmlType::from_id(16), None);
    }

    #[test]
    fn bytes_count_whole_blocks_only() {
        assert_eq!(GgmlType::Q4K.bytes_of(512), Some(288));
        assert_eq!(GgmlType::Q4K.bytes_of(500), None);
        assert_eq!(GgmlType::F32.bytes_of(usize::MAX), None);
    }
}
