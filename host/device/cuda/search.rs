//! Where NVIDIA's libraries may be: the loader's path, toolkit folders, Python environments.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// A library to be found.
pub(super) struct Wanted {
    /// File names by preference. One that is newer than the driver fails to start, and the next one
    /// is tried.
    pub names: [&'static str; 2],
    /// Its own folder in a toolkit, besides the common ones.
    toolkit_folder: Option<&'static str>,
    /// Its folder in Python packages for CUDA 12; those for CUDA 13 share one.
    python_folder: &'static str,
}

/// Matrix products.
pub(super) const CUBLAS: Wanted = Wanted {
    names: ["libcublas.so.13", "libcublas.so.12"],
    toolkit_folder: None,
    python_folder: "cublas",
};

/// Records of the kernels that run.
pub(super) const CUPTI: Wanted = Wanted {
    names: ["libcupti.so.13", "libcupti.so.12"],
    toolkit_folder: Some("extras/CUPTI/lib64"),
    python_folder: "cuda_cupti",
};

/// Folders that hold installations.
#[derive(Debug, Clone, Default)]
pub(super) struct Roots {
    /// CUDA toolkits, or folders of them (`cuda-12.4` in `/usr/local`).
    pub toolkits: Vec<PathBuf>,
    /// Folders of libraries.
    pub libraries: Vec<PathBuf>,
    /// Prefixes of Python installations: folders with `lib/python3.x`.
    pub pythons: Vec<PathBuf>,
}

impl Roots {
    /// The roots that the environment names, and the usual ones.
    pub fn from_environment(var: impl Fn(&str) -> Option<std::ffi::OsString>) -> Self {
        let paths = |names: &[&str]| -> Vec<PathBuf> {
            let set = names
                .iter()
                .filter_map(|name| var(name))
                .filter(|value| !value.is_empty());
            set.map(PathBuf::from).collect()
        };
        let mut toolkits = paths(&["CUDA_PATH", "CUDA_HOME"]);
        toolkits.extend(["/usr/local/cuda", "/opt/cuda"].map(PathBuf::from));
        toolkits.extend(children(Path::new("/usr/local"), "cuda-"));

        let multiarch = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
        let libraries = [&multiarch, "/usr/lib64", "/usr/lib"]
            .map(PathBuf::from)
            .to_vec();

        let mut pythons = paths(&["VIRTUAL_ENV", "CONDA_PREFIX"]);
        // A Python environment on PATH without being activated: PREFIX/bin/python3.
        for folder in std::env::split_paths(&var("PATH").unwrap_or_default()) {
            if folder.join("python3").exists() {
                pythons.extend(folder.parent().map(Path::to_path_buf));
            }
        }
        pythons.extend(paths(&["HOME"]).into_iter().map(|home| home.join(".local")));
        pythons.extend(["/usr/local", "/usr"].map(PathBuf::from));
        Roots {
            toolkits,
            libraries,
            pythons,
        }
    }

    /// The folders in which `wanted` may lie, in order, each once.
    pub fn folders(&self, wanted: &Wanted) -> Vec<PathBuf> {
        let mut folders = Vec::new();
        for toolkit in &self.toolkits {
            let target = match std::env::consts::ARCH {
                "aarch64" => "targets/sbsa-linux/lib",
                _ => "targets/x86_64-linux/lib",
            };
            let common = ["lib64", target, "lib"];
            let folders_here = wanted.toolkit_folder.into_iter().chain(common);
            folders.extend(folders_here.map(|sub| toolkit.join(sub)));
        }
        folders.extend(self.libraries.iter().cloned());
        for python in &self.pythons {
            for version in children(&python.join("lib"), "python3") {
                for packages in ["site-packages", "dist-packages"] {
                    let nvidia = version.join(packages).join("nvidia");
                    let mut releases = children(&nvidia, "cu1");
                    releases.reverse();
                    releases.push(nvidia.join(wanted.python_folder));
                    folders.extend(releases.iter().map(|release| release.join("lib")));
                }
            }
        }
        let mut unique = Vec::new();
        for folder in folders {
            if !unique.contains(&folder) {
                unique.push(folder);
            }
        }
        unique
    }
}

/// The files of `wanted` that exist in `folders`: all folders for the first name, then for the next.
pub(super) fn candidates(wanted: &Wanted, folders: &[PathBuf]) -> Vec<PathBuf> {
    let paths = wanted
        .names
        .iter()
        .flat_map(|name| folders.iter().map(move |f| f.join(name)));
    paths.filter(|path| path.exists()).collect()
}

/// The folders in `parent` whose name starts with `prefix`, sorted.
fn children(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let starts = |name: &OsStr| name.to_string_lossy().starts_with(prefix);
    let mut found: Vec<_> = entries
        .filter(|entry| starts(&entry.file_name()))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;
    use std::fs;

    fn put(root: &Path, path: &str) -> PathBuf {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
        path
    }

    #[test]
    fn libraries_are_found_in_each_kind_of_place() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let toolkit = put(root, "cuda/lib64/libcublas.so.12");
        let wheel13 = put(
            root,
            "env/lib/python3.12/site-packages/nvidia/cu13/lib/libcublas.so.13",
        );
        let wheel12 = put(
            root,
            "env/lib/python3.12/site-packages/nvidia/cublas/lib/libcublas.so.12",
        );
        put(root, "cuda/lib64/libcublas.so.11");
        let roots = Roots {
            toolkits: vec![root.join("cuda")],
            libraries: vec![root.join("nowhere")],
            pythons: vec![root.join("env"), root.join("env")],
        };
        let folders = roots.folders(&CUBLAS);
        assert_eq!(candidates(&CUBLAS, &folders), [wheel13, toolkit, wheel12]);
        assert!(folders.contains(&root.join("nowhere")));
        assert_eq!(
            folders
                .iter()
                .filter(|f| f.ends_with("nvidia/cu13/lib"))
                .count(),
            1
        );
    }

    #[test]
    fn each_library_has_folders_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let toolkit = put(root, "cuda/extras/CUPTI/lib64/libcupti.so.12");
        let packages = "env/lib/python3.12/site-packages/nvidia";
        let wheel13 = put(root, &format!("{packages}/cu13/lib/libcupti.so.13"));
        let wheel12 = put(root, &format!("{packages}/cuda_cupti/lib/libcupti.so.12"));
        let roots = Roots {
            toolkits: vec![root.join("cuda")],
            libraries: Vec::new(),
            pythons: vec![root.join("env")],
        };
        let found = candidates(&CUPTI, &roots.folders(&CUPTI));
        assert_eq!(found, [wheel13, toolkit, wheel12]);
        assert!(candidates(&CUBLAS, &roots.folders(&CUBLAS)).is_empty());
    }

    #[test]
    fn the_environment_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let python = put(dir.path(), "env/bin/python3");
        let roots = Roots::from_environment(|name| match name {
            "CUDA_PATH" => Some("/some/toolkit".into()),
            "CUDA_HOME" => Some(OsString::new()),
            "VIRTUAL_ENV" => Some("/some/env".into()),
            "PATH" => Some(format!("/usr/sbin:{}", python.parent().unwrap().display()).into()),
            _ => None,
        });
        assert_eq!(roots.toolkits[0], Path::new("/some/toolkit"));
        assert!(
            roots
                .toolkits
                .iter()
                .all(|path| !path.as_os_str().is_empty())
        );
        assert_eq!(roots.pythons[0], Path::new("/some/env"));
        assert!(roots.pythons.contains(&dir.path().join("env")));
        assert_eq!(roots.folders(&CUBLAS)[0], Path::new("/some/toolkit/lib64"));
    }
}
