//! Which of a repository's files to fetch.

use super::files::RemoteFile;
use super::parts::Part;
use super::{HubError, RepoSpec};

/// The files of the model that the user means, one unless it is split: the named file, else the only model, else
/// the only Q4_K_M. Any part of a split model stands for all of them.
///
/// # Errors
/// There is none or there are several; then the error lists them. A part is missing.
pub(super) fn choose(spec: &RepoSpec, files: Vec<RemoteFile>) -> Result<Vec<RemoteFile>, HubError> {
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
            let models = || files.iter().filter(|file| !file.is_projector());
            match only(models()) {
                Found::Several => only(models().filter(|file| file.contains("q4_k_m"))),
                found => found,
            }
        }
    };
    let problem = match (chosen, &spec.file) {
        (Found::One(file), _) => return with_parts(spec, file, &files),
        (Found::None, Some(name)) => format!("no GGUF file is named like {name:?}"),
        (Found::Several, Some(name)) => format!("several files are named like {name:?}"),
        (_, None) => "no file is the obvious one".to_owned(),
    };
    let firsts = files.iter().filter(|file| {
        let part = Part::of(&file.path);
        part.is_none_or(|part| part.number == 1)
    });
    Err(HubError::Choose {
        repo: spec.repo.clone(),
        problem,
        choices: firsts.map(|file| file.path.clone()).collect(),
    })
}

/// `file`, with its other parts where it is one.
fn with_parts(
    spec: &RepoSpec,
    file: &RemoteFile,
    files: &[RemoteFile],
) -> Result<Vec<RemoteFile>, HubError> {
    let Some(part) = Part::of(&file.path) else {
        return Ok(vec![file.clone()]);
    };
    let parts = part.all().map(|path| {
        let found = files.iter().find(|file| file.path == path);
        found.cloned().ok_or_else(|| HubError::MissingPart {
            repo: spec.repo.clone(),
            file: file.path.clone(),
            missing: path,
        })
    });
    parts.collect()
}

enum Found<'a> {
    None,
    One(&'a RemoteFile),
    Several,
}

/// The one model among `files`. The parts of a model are one.
fn only<'a>(mut files: impl Iterator<Item = &'a RemoteFile>) -> Found<'a> {
    let Some(file) = files.next() else {
        return Found::None;
    };
    let first_part = |file: &RemoteFile| Part::of(&file.path)?.all().next();
    let first = first_part(file);
    match files.any(|other| first.is_none() || first_part(other) != first) {
        true => Found::Several,
        false => Found::One(file),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The paths of the chosen files, a space between them.
    fn chosen(spec: &str, paths: &[&str]) -> Result<String, HubError> {
        let file = |path: &&str| RemoteFile {
            path: (*path).to_owned(),
            ..RemoteFile::default()
        };
        let files = choose(&spec.parse()?, paths.iter().map(file).collect())?;
        let paths: Vec<_> = files.into_iter().map(|file| file.path).collect();
        Ok(paths.join(" "))
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
            let Err(HubError::Choose { choices, .. }) = chosen(spec, &quants) else {
                panic!("{spec} is not obvious");
            };
            assert_eq!(choices, quants);
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
    fn any_part_stands_for_all() {
        let parts = [
            "q/m-Q8_0-00002-of-00002.gguf",
            "q/m-Q8_0-00001-of-00002.gguf",
        ];
        let both = "q/m-Q8_0-00001-of-00002.gguf q/m-Q8_0-00002-of-00002.gguf";
        for spec in [
            "a/b",
            "a/b:q8_0",
            "a/b:00002-of",
            "a/b:q/m-Q8_0-00002-of-00002.gguf",
        ] {
            assert_eq!(chosen(spec, &parts).unwrap(), both, "{spec}");
        }
        let others = [
            parts[0],
            parts[1],
            "m-Q4_K_M.gguf",
            "m-F16-00001-of-00002.gguf",
        ];
        assert_eq!(chosen("a/b", &others).unwrap(), "m-Q4_K_M.gguf");
        assert_eq!(chosen("a/b:q8", &others).unwrap(), both);
        let Err(HubError::Choose { choices, .. }) = chosen("a/b:m", &others) else {
            panic!("several models are named so");
        };
        assert_eq!(
            choices,
            [parts[1], "m-Q4_K_M.gguf", "m-F16-00001-of-00002.gguf"]
        );
        let message = chosen("a/b:F16", &others).unwrap_err().to_string();
        assert!(message.contains("m-F16-00002-of-00002.gguf"), "{message}");
    }
}
