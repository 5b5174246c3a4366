//! `hyperion tokenize`.

use std::io::{self, BufWriter, Read, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use crate::gguf::Gguf;
use crate::hub;
use crate::tokenizer::{EncodeOptions, Tokenizer};

const EXAMPLES: &str = "\
Examples:
  hyperion tokenize smollm2 'Hello, world!'
  hyperion tokenize --json smollm2 -- '<|im_start|>user'
  hyperion tokenize smollm2 < letter.txt | wc -l";

/// Arguments of `hyperion tokenize`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct TokenizeArgs {
    /// A GGUF file, or the short name of a model in the cache; a file with a vocabulary and no
    /// tensors will do
    model: String,
    /// The text; stdin where it is left out. Control tokens in it are read as such
    text: Option<String>,
    /// Print a JSON list of {"id", "text"}
    #[arg(long)]
    json: bool,
    /// Leave out the tokens that the file asks to add, such as BOS
    #[arg(long)]
    no_bos: bool,
}

/// A token as scripts read it.
#[derive(Debug, Serialize)]
struct Row {
    id: u32,
    text: String,
}

/// Prints the tokens of a text, one a line.
///
/// # Errors
/// There is no such model, or its vocabulary cannot be used.
pub fn run(args: &TokenizeArgs) -> anyhow::Result<ExitCode> {
    let path = hub::resolve(&args.model)?;
    let tokenizer = Tokenizer::from_gguf(&Gguf::open(&path)?)
        .with_context(|| format!("{}: no usable vocabulary", path.display()))?;
    for warning in tokenizer.warnings() {
        anstream::eprintln!("warning: {warning}");
    }
    let text = match &args.text {
        Some(text) => text.clone(),
        None => {
            let mut text = String::new();
            io::stdin()
                .read_to_string(&mut text)
                .context("cannot read the text from stdin")?;
            text
        }
    };
    let options = EncodeOptions {
        add_special: !args.no_bos,
        parse_special: true,
    };
    let ids = tokenizer.encode(&text, options)?;
    let rows = ids.into_iter().map(|id| Row {
        id,
        text: tokenizer.token_text(id),
    });

    let mut out = BufWriter::new(io::stdout().lock());
    if args.json {
        let rows: Vec<Row> = rows.collect();
        serde_json::to_writer(&mut out, &rows).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        for row in rows {
            writeln!(out, "{:>6}  {:?}", row.id, row.text)?;
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
