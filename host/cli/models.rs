//! `hyperion models`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use indicatif::DecimalBytes;
use serde::Serialize;

use crate::escape::escape;
use crate::hub::{Cache, KNOWN_MODELS};

/// Arguments of `hyperion models`.
#[derive(Debug, Args)]
pub struct ModelsArgs {
    /// Print a JSON list instead of a table
    #[arg(long)]
    json: bool,
}

/// A model that can be named on the command line.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    /// Bytes of the file.
    size: u64,
    /// Where it lies; `None` when it has yet to be fetched.
    path: Option<PathBuf>,
    /// Licence or terms, where they are known.
    license: Option<&'static str>,
}

/// Lists cached models, then the known ones that can be fetched.
///
/// # Errors
/// The cache cannot be read, or stdout cannot be written.
pub fn run(args: &ModelsArgs) -> anyhow::Result<ExitCode> {
    let cache = Cache::from_env()?;
    let rows = rows(&cache)?;
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &rows).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        write_table(&mut out, &rows)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn rows(cache: &Cache) -> anyhow::Result<Vec<Row>> {
    let license = |name: &str| {
        KNOWN_MODELS
            .iter()
            .find(|m| m.name == name)
            .map(|m| m.license)
    };
    let cached = cache.list()?.into_iter().map(|model| Row {
        license: license(&model.name),
        name: model.name,
        size: model.size,
        path: Some(model.path),
    });
    let missing = KNOWN_MODELS
        .iter()
        .filter(|model| !cache.holds(model))
        .map(|model| Row {
            name: model.name.to_owned(),
            size: model.size,
            path: None,
            license: Some(model.license),
        });
    Ok(cached.chain(missing).collect())
}

fn write_table(out: &mut impl Write, rows: &[Row]) -> io::Result<()> {
    let width = rows
        .iter()
        .map(|row| escape(&row.name).chars().count())
        .max()
        .unwrap_or(0)
        .max(4);
    writeln!(out, "{:width$}  {:>10}  FILE", "NAME", "SIZE")?;
    for Row {
        name, size, path, ..
    } in rows
    {
        let (name, size) = (escape(name), DecimalBytes(*size).to_string());
        match path {
            Some(path) => {
                let path = path.to_string_lossy();
                writeln!(out, "{name:width$}  {size:>10}  {}", escape(&path))?;
            }
            None => writeln!(
                out,
                "{name:width$}  {size:>10}  to fetch: hyperion pull {name}"
            )?,
        }
    }
    Ok(())
}
