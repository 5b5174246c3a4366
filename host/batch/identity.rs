//! What results follow from, and the names and seeds that follow from it.

use std::fmt::Write;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use super::requests::{Line, RequestFile};

/// Hexadecimal digits of a result's name: 128 bits, which no two results share by chance.
const ID_DIGITS: usize = 32;

/// What a run's results follow from: its requests, its model and its options.
#[derive(Debug, Clone)]
pub struct Identity {
    requests: [u8; 32],
    run: [u8; 32],
}

impl Identity {
    /// Of the results of `requests`, made by the model of `fingerprint`, which they call `model`, with `options`: all
    /// else on which they depend.
    pub fn new(
        requests: &RequestFile,
        model: &str,
        fingerprint: &[u8; 32],
        options: &str,
    ) -> Identity {
        let requests = *requests.digest();
        let run = digest(&[&requests, model.as_bytes(), fingerprint, options.as_bytes()]);
        Identity { requests, run }
    }

    /// The name of the result of the request `line`: of another file, model or option it would be another one.
    pub fn id(&self, line: &Line) -> String {
        let digest = named(&self.run, line);
        let mut id = String::with_capacity(ID_DIGITS);
        for byte in &digest[..ID_DIGITS / 2] {
            let _ = write!(id, "{byte:02x}");
        }
        id
    }

    /// The seed of the request `line`, where it names none. It has the 53 bits that every reader of JSON keeps.
    pub fn seed(&self, line: &Line) -> u64 {
        let digest = named(&self.requests, line);
        let bytes = digest.first_chunk().copied().unwrap_or_default();
        u64::from_le_bytes(bytes) >> 11
    }
}

/// SHA-256 of `all` and what `line` is called: its `custom_id`, or else its place.
fn named(all: &[u8; 32], line: &Line) -> [u8; 32] {
    match &line.custom_id {
        Some(custom_id) => digest(&[all, custom_id.as_bytes()]),
        None => digest(&[all, b"line", &line.number.to_le_bytes()]),
    }
}

/// SHA-256 of `parts`, each behind its length, so that no two lists of parts are one text.
fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// Tells model files apart without reading all of them: their sizes, their beginnings, which hold the metadata, and
/// places all over the rest.
///
/// # Errors
/// A file that cannot be read.
pub fn fingerprint(parts: &[PathBuf]) -> io::Result<[u8; 32]> {
    const BEGINNING: u64 = 16 << 20;
    const PLACES: u64 = 256;
    const PLACE: u64 = 4 << 10;
    let mut hasher = Sha256::new();
    let mut buffer = Vec::new();
    for part in parts {
        let mut file = File::open(part)?;
        let size = file.metadata()?.len();
        hasher.update(size.to_le_bytes());
        let mut hash_next = |file: &mut File, n: u64| {
            buffer.clear();
            file.take(n).read_to_end(&mut buffer)?;
            hasher.update(&buffer);
            io::Result::Ok(())
        };
        hash_next(&mut file, BEGINNING)?;
        if size <= BEGINNING {
            continue;
        }
        for place in 0..PLACES {
            let offset =
                u128::from(size - PLACE.min(size)) * u128::from(place) / u128::from(PLACES - 1);
            file.seek(SeekFrom::Start(offset as u64))?;
            hash_next(&mut file, PLACE)?;
        }
    }
    Ok(hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(text: &str) -> RequestFile {
        RequestFile::parse(text.as_bytes().to_vec()).expect("requests")
    }

    #[test]
    fn names_follow_from_everything_and_seeds_from_the_requests() {
        let (one, two) = (
            requests("{\"custom_id\":\"a\"}\n{\"custom_id\":\"b\"}"),
            requests("{\"custom_id\":\"a\"}\n{\"custom_id\":\"b\" }"),
        );
        let (a, b) = (&one.lines()[0], &one.lines()[1]);
        let all = [
            Identity::new(&one, "m", &[1; 32], "x"),
            Identity::new(&two, "m", &[1; 32], "x"),
            Identity::new(&one, "n", &[1; 32], "x"),
            Identity::new(&one, "m", &[2; 32], "x"),
            Identity::new(&one, "m", &[1; 32], "y"),
        ];
        for (index, identity) in all.iter().enumerate() {
            assert_eq!(identity.id(a).len(), ID_DIGITS);
            assert_ne!(identity.id(a), identity.id(b));
            let same = all.iter().filter(|other| other.id(a) == identity.id(a));
            assert_eq!(same.count(), 1, "{index}");
            assert_eq!(identity.seed(a) == all[0].seed(a), index != 1);
            assert_ne!(identity.seed(a), identity.seed(b));
            assert!(identity.seed(a) < 1 << 53);
        }
    }

    #[test]
    fn a_changed_byte_in_the_beginning_is_another_model() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).expect("written");
            path
        };
        let (one, two) = (write("a", &[0; 100]), write("b", &[1; 100]));
        let of = |parts: &[&PathBuf]| {
            let parts: Vec<PathBuf> = parts.iter().map(|&part| part.clone()).collect();
            fingerprint(&parts).expect("read")
        };
        assert_ne!(of(&[&one]), of(&[&two]));
        assert_ne!(of(&[&one]), of(&[&one, &two]));
        assert_eq!(of(&[&one]), of(&[&write("c", &[0; 100])]));
        let large = write("d", &vec![0; (16 << 20) + 5000]);
        let mut bytes = vec![0; (16 << 20) + 5000];
        *bytes.last_mut().expect("a byte") = 1;
        assert_ne!(of(&[&large]), of(&[&write("e", &bytes)]));
    }
}
