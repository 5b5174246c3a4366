//! Sizes and SHA-256 digests.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::Error;

/// Passes bytes on and computes their number and SHA-256 on the way.
pub struct HashingWriter<W> {
    inner: W,
    hasher: Sha256,
    written: u64,
}

impl<W: Write> HashingWriter<W> {
    /// Starts at zero bytes.
    pub fn new(inner: W) -> Self {
        Self {
            inner,
            hasher: Sha256::new(),
            written: 0,
        }
    }

    /// The inner writer, the number of bytes and their digest in lower-case hexadecimal.
    pub fn finish(self) -> (W, u64, String) {
        let digest = self.hasher.finalize();
        let hex = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        (self.inner, self.written, hex)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Checks a file's size and, where one is known, its SHA-256.
///
/// # Errors
/// [`Error::Mismatch`] that names `model`, or the file cannot be read.
pub fn verify_file(model: &str, path: &Path, size: u64, sha256: Option<&str>) -> Result<(), Error> {
    let failed = |source| Error::io("read", path, source);
    let mut file = File::open(path).map_err(failed)?;
    let found = file.metadata().map_err(failed)?.len();
    check_size(model, size, found)?;
    let Some(expected) = sha256 else {
        return Ok(());
    };
    let mut sink = HashingWriter::new(io::sink());
    io::copy(&mut file, &mut sink).map_err(failed)?;
    check_digest(model, expected, sink.finish().2)
}

pub(crate) fn check_size(model: &str, expected: u64, found: u64) -> Result<(), Error> {
    if found == expected {
        return Ok(());
    }
    let [expected, found] = [expected, found].map(|bytes| format!("{bytes} bytes"));
    Err(Error::Mismatch {
        name: model.to_owned(),
        expected,
        found,
    })
}

pub(crate) fn check_digest(model: &str, expected: &str, found: String) -> Result<(), Error> {
    if found == expected {
        return Ok(());
    }
    let expected = format!("sha256 {expected}");
    Err(Error::Mismatch {
        name: model.to_owned(),
        expected,
        found,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of "abc", FIPS 180-4's first example.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_file_must_match() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        verify_file("m", &path, 3, Some(ABC)).unwrap();
        verify_file("m", &path, 3, None).unwrap();
        assert!(matches!(
            verify_file("m", &path, 4, None),
            Err(Error::Mismatch { .. })
        ));
        std::fs::write(&path, "abd").unwrap();
        let message = verify_file("m", &path, 3, Some(ABC))
            .unwrap_err()
            .to_string();
        assert!(
            message.contains(ABC) && message.contains("try again"),
            "{message}"
        );
    }
}
