//! Models in several files, `NAME-00001-of-00003.gguf` and so on, as llama.cpp's `gguf-split` writes them.
//!
//! Each file is a valid GGUF file and says under `split.no` and `split.count` which part it is. The first has
//! the metadata; each has tensors of its own.

use std::path::{Path, PathBuf};

use model_cache::SplitName;

use super::Problem;
use super::header::Header;

const NUMBER: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";

/// All parts of the model of which the file at `path` is one, in order; `None` where it is whole.
pub(super) fn others(path: &Path, header: &Header) -> Result<Option<Vec<PathBuf>>, Problem> {
    let count = header.integer(COUNT).unwrap_or(1);
    if count <= 1 {
        return Ok(None);
    }
    let number = header.integer(NUMBER).unwrap_or(-1) + 1;
    let name = path.file_name().and_then(|name| name.to_str());
    let split = name
        .and_then(SplitName::parse)
        .filter(|split| i128::from(split.count()) == count && i128::from(split.number()) == number);
    let Some(split) = split else {
        return Err(Problem::Part(format!(
            "is part {number} of {count} of a model, which its name has to say, as \
             NAME-{number:05}-of-{count:05}.gguf does: the others are found by it"
        )));
    };
    let paths: Vec<PathBuf> = split
        .names()
        .map(|name| path.with_file_name(name))
        .collect();
    match paths.iter().find(|part| !part.exists()) {
        Some(missing) => Err(Problem::MissingPart {
            missing: missing.display().to_string(),
            count: split.count(),
        }),
        None => Ok(Some(paths)),
    }
}

/// Checks that `header` is that of the part at `index` of `count`.
pub(super) fn check(header: &Header, index: usize, count: usize) -> Result<(), Problem> {
    let found = (header.integer(NUMBER), header.integer(COUNT));
    if found == (Some(index as i128), Some(count as i128)) {
        return Ok(());
    }
    let said = match found {
        (Some(number), Some(count)) => format!("part {} of {count}", number + 1),
        _ => "no part of a model".to_owned(),
    };
    Err(Problem::Part(format!(
        "says that it is {said}, where part {} of {count} is expected by its name",
        index + 1
    )))
}

/// Checks the number of tensors of all parts against what the first one says.
pub(super) fn check_total(first: &Header, n_tensors: usize) -> Result<(), Problem> {
    match first.integer(TENSORS) {
        Some(said) if said != n_tensors as i128 => Err(Problem::Part(format!(
            "metadata {TENSORS} is {said}, but the parts have {n_tensors} tensors: they are not of one model"
        ))),
        _ => Ok(()),
    }
}
