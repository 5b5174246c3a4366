//! GGUF files: a mapped, validated reader.
