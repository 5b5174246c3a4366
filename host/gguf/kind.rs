//! What a file is that is no GGUF file, by its first bytes.

/// Beginnings of files that people take for models, and what they are.
const KINDS: &[(&[u8], &str)] = &[
    (
        b"version https://git-lfs.github.com/",
        "a Git LFS pointer: the repository was cloned without its large files; `git lfs pull` fetches them",
    ),
    (
        b"PK\x03\x04",
        "a ZIP archive, perhaps PyTorch weights; convert them to GGUF",
    ),
    (b"\x1f\x8b", "a gzip archive; unpack it"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive; unpack it"),
    (b"\xfd7zXZ\0", "an xz archive; unpack it"),
    (
        b"lmgg",
        "a ggml file older than GGUF; convert it or fetch a newer one",
    ),
    (
        b"fmgg",
        "a ggml file older than GGUF; convert it or fetch a newer one",
    ),
    (
        b"tjgg",
        "a ggml file older than GGUF; convert it or fetch a newer one",
    ),
];

/// Beginnings of texts, in lower case.
const TEXTS: &[(&str, &str)] = &[
    (
        "<!doctype",
        "a web page: the address leads to a page about the file; use its download link",
    ),
    (
        "<html",
        "a web page: the address leads to a page about the file; use its download link",
    ),
    (
        "<?xml",
        "an XML text, perhaps a server's error message; fetch the file again",
    ),
    (
        "{",
        "a JSON text, perhaps a server's error message; fetch the file again",
    ),
];

/// Where a safetensors file has its header's opening brace: behind the header's length in 64 bits.
const SAFETENSORS_BRACE: usize = 8;

/// What the file that begins with `bytes` is, if it is something known.
pub(super) fn recognize(bytes: &[u8]) -> Option<&'static str> {
    let kind = KINDS.iter().find(|(magic, _)| bytes.starts_with(magic));
    if let Some((_, kind)) = kind {
        return Some(kind);
    }
    if bytes.get(SAFETENSORS_BRACE) == Some(&b'{') && bytes[..SAFETENSORS_BRACE].ends_with(&[0, 0])
    {
        return Some("a safetensors file; convert it to GGUF");
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = bytes[..bytes.len().min(256)].trim_ascii_start();
    let text = text.to_ascii_lowercase();
    let known = TEXTS
        .iter()
        .find(|(start, _)| text.starts_with(start.as_bytes()));
    known.map(|(_, kind)| *kind)
}
