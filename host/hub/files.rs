//! The files of a repository as the Hub describes them.

use std::path::{Component, Path};

use serde::Deserialize;

use super::digest::Digest;

/// The part of the Hub's model description that we use (`/api/models/REPO/revision/main?blobs=true`).
#[derive(Debug, Deserialize)]
pub(super) struct RepoInfo {
    pub siblings: Vec<RemoteFile>,
}

/// A file of a repository. All of it is the server's word.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct RemoteFile {
    /// Path in the repository.
    #[serde(rename = "rfilename")]
    pub path: String,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Object name in Git.
    #[serde(rename = "blobId")]
    pub blob_id: Option<String>,
    /// Set for the large files, which the Hub stores by content.
    pub lfs: Option<Lfs>,
}

/// Content of a large file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Lfs {
    /// Hexadecimal.
    pub sha256: Option<String>,
    /// The same under the name that lists of folders use.
    pub oid: Option<String>,
    /// Size in bytes.
    pub size: Option<u64>,
}

impl RemoteFile {
    /// The last part of the path.
    pub fn file_name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// Size in bytes and digest; `None` where the server leaves one out, or what it says is no digest.
    pub fn content(&self) -> Option<(u64, Digest)> {
        let Some(lfs) = &self.lfs else {
            // Without `lfs` the file lies in Git itself.
            return Some((self.size?, Digest::git_blob(self.blob_id.as_deref()?)?));
        };
        let size = lfs.size.or(self.size)?;
        let sha256 = lfs.sha256.as_deref().or(lfs.oid.as_deref())?;
        Some((size, Digest::sha256(sha256)?))
    }

    /// Whether it is a GGUF file whose name can be one on this machine.
    pub fn is_gguf(&self) -> bool {
        let segments_are_plain = self.path.split('/').all(is_plain_name);
        segments_are_plain && self.path.to_ascii_lowercase().ends_with(".gguf")
    }

    /// Part of a multimodal model that is no language model.
    pub fn is_projector(&self) -> bool {
        self.file_name().to_ascii_lowercase().starts_with("mmproj")
    }

    /// Whether `text` occurs in the path, in whichever case.
    pub fn contains(&self, text: &str) -> bool {
        let path = self.path.to_ascii_lowercase();
        path.contains(&text.to_ascii_lowercase())
    }
}

/// Whether `name` names a file in a folder, on every system: no separator, no drive, no way up, nothing that
/// a terminal would obey.
fn is_plain_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let is_one = matches!(
        (components.next(), components.next()),
        (Some(Component::Normal(only)), None) if only == name
    );
    let is_foreign = |c: char| cfg!(windows) && r#"<>:"\|?*"#.contains(c);
    is_one && !name.chars().any(|c| c.is_control() || is_foreign(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(json: &str) -> RemoteFile {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn content_is_what_the_hub_says_in_its_forms() {
        let sha256 = "ab".repeat(32);
        let oid = "cd".repeat(20);
        let expected = Some((7, Digest::Sha256(sha256.clone())));
        for lfs in [
            format!(r#"{{"size": 7, "lfs": {{"sha256": "{sha256}"}}}}"#),
            format!(r#"{{"lfs": {{"oid": "{sha256}", "size": 7, "pointerSize": 130}}}}"#),
        ] {
            assert_eq!(file(&lfs).content(), expected, "{lfs}");
        }
        let small = format!(r#"{{"rfilename": "x", "size": 7, "blobId": "{oid}"}}"#);
        assert_eq!(file(&small).content(), Some((7, Digest::GitBlob(oid))));
        for unknown in [
            r#"{"size": 7}"#,
            r#"{"size": 7, "lfs": {}}"#,
            r#"{"size": 7, "lfs": {"sha256": "../../x"}}"#,
            r#"{"size": 7, "blobId": "../../x"}"#,
        ] {
            assert_eq!(file(unknown).content(), None, "{unknown}");
        }
    }

    #[test]
    fn only_plain_names_become_paths() {
        let is_gguf = |path: &str| {
            let file = RemoteFile {
                path: path.to_owned(),
                ..RemoteFile::default()
            };
            file.is_gguf()
        };
        for path in ["m.gguf", "sub/m.GGUF", "#?%41 ü.gguf", "..m.gguf", "~.gguf"] {
            assert!(is_gguf(path), "{path}");
        }
        for path in [
            "",
            "m.bin",
            "../m.gguf",
            "/m.gguf",
            "a//m.gguf",
            "./m.gguf",
            "a/../m.gguf",
            "m.gguf/",
            "a\nb.gguf",
            "\x1b[2J.gguf",
            "a\0.gguf",
        ] {
            assert!(!is_gguf(path), "{path}");
        }
    }
}
