//! GPT-2's spelling of bytes as characters, in which byte-level BPE keeps its tokens.
//!
//! Printable Latin-1 bytes stand for themselves; the other 68 are numbered from U+0100 in order,
//! so that every byte has a visible, non-space character (a space is `Ġ`).

use std::sync::LazyLock;

static CHARS: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut next = 0x100u32..;
    std::array::from_fn(|byte| match byte as u8 {
        b @ (0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) => char::from(b),
        _ => next
            .next()
            .and_then(char::from_u32)
            .expect("68 code points"),
    })
});

/// `CHARS` in reverse, for the code points below U+0144.
static BYTES: LazyLock<[Option<u8>; 0x144]> = LazyLock::new(|| {
    let mut bytes = [None; 0x144];
    for (byte, &c) in (0..=255).zip(CHARS.iter()) {
        bytes[c as usize] = Some(byte);
    }
    bytes
});

/// Appends the characters of `bytes` to `out`.
pub(super) fn encode(bytes: &[u8], out: &mut String) {
    out.extend(bytes.iter().map(|&byte| CHARS[usize::from(byte)]));
}

/// The bytes that a token's `text` stands for. A character that spells no byte, which a
/// well-formed vocabulary does not contain, stands for itself.
pub(super) fn decode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for c in text.chars() {
        match BYTES.get(c as usize).copied().flatten() {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        let mut text = String::new();
        encode(&all, &mut text);
        assert_eq!(text.chars().count(), 256);
        assert_eq!(decode(&text), all);
    }

    #[test]
    fn known_spellings() {
        let mut text = String::new();
        encode(" a\n".as_bytes(), &mut text);
        assert_eq!(text, "ĠaĊ");
        assert_eq!(decode("日"), "日".as_bytes());
    }
}
