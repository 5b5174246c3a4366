//! Python packages that tests run: clients of the server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use crate::{Cache, Error, Pip, StagingLock};

impl Cache {
    /// Where the packages of `requirements`, the text of a file as pip reads it, lie or will lie once they are fetched:
    /// a folder for `PYTHONPATH`. Each list and each version of Python has its own.
    ///
    /// # Errors
    /// `python3` cannot be run.
    pub fn path_of_python(&self, requirements: &str) -> Result<PathBuf, Error> {
        let digest = Sha256::digest(requirements);
        let digest: String = digest
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let name = format!("{}-{digest}", python_version()?);
        Ok(self.root().join("python").join(name))
    }

    /// Makes sure that these packages are in the cache.
    ///
    /// # Errors
    /// pip fails or the cache cannot be written.
    pub fn fetch_python(&self, requirements: &str) -> Result<PathBuf, Error> {
        let target = self.path_of_python(requirements)?;
        let lock = StagingLock::acquire(self, "python")?;
        if !target.is_dir() {
            // A folder of its own needs no virtual environment, which Debian has in a package apart.
            let list = lock.folder().join("requirements.txt");
            fs::write(&list, requirements).map_err(|e| Error::io("write", &list, e))?;
            let unfinished = lock.folder().join("packages");
            Pip::find()?.install(&list, &unfinished)?;
            let parent = self.root().join("python");
            fs::create_dir_all(&parent).map_err(|e| Error::io("create the folder", &parent, e))?;
            fs::rename(&unfinished, &target).map_err(|e| Error::io("rename to", &target, e))?;
        }
        lock.clear()?;
        Ok(target)
    }
}

/// Such as `3.11`: packages with compiled parts are for one of them.
fn python_version() -> Result<String, Error> {
    let code = "import sys; print('%d.%d' % sys.version_info[:2])";
    let output = Command::new("python3")
        .args(["-c", code])
        .stdin(Stdio::null())
        .output();
    let output = output.map_err(|error| Error::io("run", Path::new("python3"), error))?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match version.split_once('.') {
        Some((major, minor)) if [major, minor].iter().all(|n| n.parse::<u8>().is_ok()) => {
            Ok(version)
        }
        _ => Err(Error::NoPip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_list_has_another_folder() {
        let cache = Cache::at("/somewhere");
        let path = |list: &str| cache.path_of_python(list).unwrap();
        assert_eq!(path("a==1\n"), path("a==1\n"));
        assert_ne!(path("a==1\n"), path("a==2\n"));
        assert!(path("a==1\n").starts_with("/somewhere/python"));
    }
}
