//! A checked walk through the header's bytes.

use std::borrow::Cow;
use std::fmt::Display;

use super::Problem;
use super::damage::Damage;

/// Longest string: a chat template has some 10 kB; ggml's own limit is 1 GiB.
const MAX_STRING: u64 = 64 << 20;

/// A position in a file. Each read names its field, for the error where the file is too short; the
/// name is put together only then.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub(super) fn offset(&self) -> u64 {
        self.at as u64
    }

    /// Bytes up to the file's end.
    pub(super) fn left(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    /// The next `len` bytes.
    pub(super) fn take(&mut self, len: u64, field: &dyn Display) -> Result<&'a [u8], Problem> {
        if len > self.left() {
            return Err(Problem::CutOff {
                field: field.to_string(),
                offset: self.offset(),
                needed: len,
                left: self.left(),
            });
        }
        let bytes = &self.bytes[self.at..][..len as usize];
        self.at += bytes.len();
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, field: &dyn Display) -> Result<[u8; N], Problem> {
        let bytes = self.take(N as u64, field)?;
        Ok(bytes.try_into().expect("as many bytes as asked for"))
    }

    pub(super) fn u8(&mut self, field: &dyn Display) -> Result<u8, Problem> {
        self.array(field).map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self, field: &dyn Display) -> Result<u16, Problem> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self, field: &dyn Display) -> Result<u32, Problem> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, field: &dyn Display) -> Result<u64, Problem> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// A string: its length in 64 bits, then its UTF-8 bytes. What is not UTF-8 is replaced by U+FFFD, and
    /// the first such string is noted in `damage`.
    pub(super) fn string(
        &mut self,
        field: &dyn Display,
        damage: &mut Option<Damage>,
    ) -> Result<Cow<'a, str>, Problem> {
        let start = self.offset();
        let len = self.u64(field)?;
        if len > MAX_STRING {
            let reason = format!("a string of {len} bytes; at most {MAX_STRING} are allowed");
            return Err(Problem::Field {
                field: field.to_string(),
                offset: start,
                reason,
            });
        }
        let bytes = self.take(len, field)?;
        if let Err(error) = std::str::from_utf8(bytes) {
            damage.get_or_insert_with(|| Damage {
                field: field.to_string(),
                offset: start,
                error,
            });
        }
        Ok(String::from_utf8_lossy(bytes))
    }
}
