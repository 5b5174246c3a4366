//! What identifies a file's content on the Hub.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use model_cache::{Error as CacheError, verify_file};
use sha1::{Digest as _, Sha1};

/// The digest of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Digest {
    /// SHA-256 of the content, of files that Git LFS or Xet keeps. 64 digits, lower-case hexadecimal.
    Sha256(String),
    /// The object name of files in Git itself: SHA-1 of `blob SIZE`, a zero byte and the content.
    /// 40 digits, lower-case hexadecimal.
    GitBlob(String),
}

impl Digest {
    /// From what a server says; `None` where that is no digest.
    pub fn sha256(text: &str) -> Option<Self> {
        is_hex(text, 64).then(|| Self::Sha256(text.to_ascii_lowercase()))
    }

    /// From what a server says; `None` where that is no object name.
    pub fn git_blob(text: &str) -> Option<Self> {
        is_hex(text, 40).then(|| Self::GitBlob(text.to_ascii_lowercase()))
    }

    /// Its digits, which can be part of a file's name.
    pub fn digits(&self) -> &str {
        match self {
            Self::Sha256(digits) | Self::GitBlob(digits) => digits,
        }
    }

    /// Checks that the file at `path` has this digest and `size` bytes.
    ///
    /// # Errors
    /// It has another content, said of `name`, or cannot be read.
    pub fn verify(&self, name: &str, path: &Path, size: u64) -> Result<(), CacheError> {
        let Self::GitBlob(expected) = self else {
            return verify_file(name, path, size, Some(self.digits()));
        };
        verify_file(name, path, size, None)?;
        let failed = |source| CacheError::io("read", path, source);
        let mut hash = Hashing(Sha1::new_with_prefix(format!("blob {size}\0")));
        let mut file = File::open(path).map_err(failed)?;
        io::copy(&mut file, &mut hash).map_err(failed)?;
        let digits = hash.0.finalize();
        let found: String = digits.iter().map(|byte| format!("{byte:02x}")).collect();
        if found == *expected {
            return Ok(());
        }
        Err(CacheError::Mismatch {
            name: name.to_owned(),
            expected: format!("git blob {expected}"),
            found,
        })
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

struct Hashing(Sha1);

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_names_content_by_sha1() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "what is up, doc?").unwrap();
        // The example of the book "Pro Git", section "Git Objects".
        let name = "bd9dbf5aae1a3862dd1526723246b20206e5fc37";
        let digest = Digest::git_blob(name).unwrap();
        digest.verify("file", &path, 16).unwrap();
        std::fs::write(&path, "what is up, dog?").unwrap();
        let message = digest.verify("file", &path, 16).unwrap_err().to_string();
        assert!(message.contains(name), "{message}");
    }

    #[test]
    fn only_digits_are_digests() {
        let outside = format!("../{}", "a".repeat(61));
        for bad in ["", "c0ffee", &outside, &"g".repeat(64), &"a".repeat(65)] {
            assert_eq!(Digest::sha256(bad), None, "{bad}");
            assert_eq!(Digest::git_blob(bad), None, "{bad}");
        }
        let digest = Digest::sha256(&"AB".repeat(32)).unwrap();
        assert_eq!(digest.digits(), "ab".repeat(32));
    }
}
