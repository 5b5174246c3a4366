//! Which of a repository's files to fetch.

use std::path::{Component, Path};

use serde::Deserialize;

use super::{HubError, RepoSpec};

/// The part of the Hub's model description that we use (`/api/models/REPO/revision/main?blobs=true`).
#[derive(Debug, Deserialize)]
pub(super) struct RepoInfo {
    pub siblings: Vec<RemoteFile>,
}

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct RemoteFile {
    /// Path in the repository.
    #[serde(rename = "rfilename")]
    pub path: String,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Set for the large files, which the Hub stores by content.
    pub lfs: Option<Lfs>,
}

/// Content of a large file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Lfs {
    /// Lower-case hexadecimal.
    pub sha256: Option<String>,
}

impl RemoteFile {
    /// The last part of the path.
    pub fn file_name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    pub fn sha256(&self) -> Option<&str> {
        self.lfs.as_ref()?.sha256.as_deref()
    }

    fn is_gguf(&self) -> bool {
        // The path becomes part of paths on this machine.
        let plain = Path::new(&self.path)
            .components()
            .all(|c| matches!(c, Component::Normal(_)));
        plain && self.path.to_ascii_lowercase().ends_with(".gguf")
    }

    /// A part of a model in several files, `NAME-00001-of-00003.gguf`.
    fn is_split(&self) -> bool {
        let stem = &self.path[..self.path.len() - ".gguf".len()];
        let is_number = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
        stem.rsplit_once("-of-").is_some_and(|(head, total)| {
            is_number(total) && head.rsplit('-').next().is_some_and(is_number)
        })
    }

    /// Part of a multimodal model that is no language model.
    fn is_projector(&self) -> bool {
        self.file_name().to_ascii_lowercase().starts_with("mmproj")
    }

    fn contains(&self, text: &str) -> bool {
        self.path
            .to_ascii_lowercase()
            .contains(&text.to_ascii_lowercase())
    }
}

/// The file that the user means: the named one, else the only one, else the only Q4_K_M.
///
/// # Errors
/// There is none or there are several; then the error lists them.
pub(super) fn choose(spec: &RepoSpec, files: Vec<RemoteFile>) -> Result<RemoteFile, HubError> {
    let files: Vec<_> = files.into_iter().filter(RemoteFile::is_gguf).collect();
    if files.is_empty() {
        return Err(HubError::NoGguf {
            repo: spec.repo.clone(),
        });
    }
    let chosen = match &spec.file {
        Some(name) => files.iter().find(|file| file.path == *name).map_or_else(
            || only(files.iter().filter(|file| file.contains(name))),
            Found::One,
        ),
        None => {
            let models = || {
                files
                    .iter()
                    .filter(|file| !file.is_split() && !file.is_projector())
            };
            match only(models()) {
                Found::Several => only(models().filter(|file| file.contains("q4_k_m"))),
                found => found,
            }
        }
    };
    let problem = match (chosen, &spec.file) {
        (Found::One(file), _) if file.is_split() => {
            return Err(HubError::Split {
                file: file.path.clone(),
            });
        }
        (Found::One(file), _) => return Ok(file.clone()),
        (Found::None, Some(name)) => format!("no GGUF file is named like {name:?}"),
        (Found::Several, Some(name)) => format!("several files are named like {name:?}"),
        (_, None) => "no file is the obvious one".to_owned(),
    };
    let choices = files.into_iter().map(|file| file.path).collect();
    Err(HubError::Choose {
        repo: spec.repo.clone(),
        problem,
        choices,
    })
}

enum Found<'a> {
    None,
    One(&'a RemoteFile),
    Several,
}

fn only<'a>(mut files: impl Iterator<Item = &'a RemoteFile>) -> Found<'a> {
    match (files.next(), files.next()) {
        (None, _) => Found::None,
        (Some(file), None) => Found::One(file),
        (Some(_), Some(_)) => Found::Several,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(spec: &str, paths: &[&str]) -> Result<String, HubError> {
        let file = |path: &&str| RemoteFile {
            path: (*path).to_owned(),
            size: None,
            lfs: None,
        };
        choose(&spec.parse()?, paths.iter().map(file).collect()).map(|file| file.path)
    }

    #[test]
    fn the_obvious_file_is_taken() {
        assert_eq!(chosen("a/b", &["README.md", "m.gguf"]).unwrap(), "m.gguf");
        let quants = [
            "m-Q8_0.gguf",
            "m-q4_k_m.gguf",
            "m-Q4_K_S.gguf",
            "mmproj-q4_k_m.gguf",
        ];
        assert_eq!(chosen("a/b", &quants).unwrap(), "m-q4_k_m.gguf");
        assert_eq!(chosen("a/b:q8", &quants).unwrap(), "m-Q8_0.gguf");
        assert_eq!(
            chosen("a/b:m-Q4_K_S.gguf", &quants).unwrap(),
            "m-Q4_K_S.gguf"
        );
        assert_eq!(
            chosen("a/b:m.gguf", &["x-m.gguf", "m.gguf"]).unwrap(),
            "m.gguf"
        );
    }

    #[test]
    fn what_is_not_obvious_is_listed() {
        let quants = ["m-Q8_0.gguf", "m-Q4_K_S.gguf"];
        for spec in ["a/b", "a/b:Q", "a/b:F16"] {
            let message = chosen(spec, &quants).unwrap_err().to_string();
            assert!(
                message.ends_with("\n  hyperion pull a/b:m-Q4_K_S.gguf"),
                "{message}"
            );
        }
        assert!(matches!(
            chosen("a/b", &["x.bin"]),
            Err(HubError::NoGguf { .. })
        ));
        let outside = ["../m.gguf", "/m.gguf", "x/../m.gguf"];
        assert!(matches!(
            chosen("a/b", &outside),
            Err(HubError::NoGguf { .. })
        ));
    }

    #[test]
    fn split_models_are_refused() {
        let parts = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"];
        assert!(matches!(
            chosen("a/b", &parts),
            Err(HubError::Choose { .. })
        ));
        assert!(matches!(
            chosen("a/b:00002-of", &parts),
            Err(HubError::Split { .. })
        ));
    }
}
