//! `hyperion tokenize`.

use std::io::{self, BufWriter, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;

use super::warnings;
use crate::chat::{ChatTemplate, Message, Variables};
use crate::gguf::Gguf;
use crate::hub;
use crate::tokenizer::{EncodeOptions, Tokenizer};

const EXAMPLES: &str = "\
Examples:
  hyperion tokenize smollm2 'Hello, world!'
  hyperion tokenize --json smollm2 -- '<|im_start|>user'
  hyperion tokenize smollm2 < letter.txt | wc -l
  hyperion tokenize smollm2 --chat --system 'Be brief.' 'Hello!'
  hyperion tokenize smollm2 --messages talk.json";

/// Arguments of `hyperion tokenize`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct TokenizeArgs {
    /// A GGUF file, or the short name of a model in the cache; a file with a vocabulary and no
    /// tensors will do
    model: String,
    /// The text; stdin where it is left out. Control tokens in it are read as such
    text: Option<String>,
    /// Print a JSON list of {"id", "text"}; with --chat an object with "prompt" and "tokens"
    #[arg(long)]
    json: bool,
    /// Leave out the tokens that the file asks to add, such as BOS
    #[arg(long, conflicts_with_all = ["chat", "messages"])]
    no_bos: bool,
    /// Take the text as a user's message: print the prompt that the chat template makes of it, and
    /// then its tokens
    #[arg(long)]
    chat: bool,
    /// The system message of the chat
    #[arg(
        long,
        value_name = "TEXT",
        requires = "chat",
        allow_hyphen_values = true
    )]
    system: Option<String>,
    /// The same of a whole conversation: a JSON list of messages as `/save` in `hyperion chat` writes
    /// it, or an object with "messages" and the template's variables, such as "tools"; - for stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["text", "chat"])]
    messages: Option<PathBuf>,
    /// Leave out what opens the assistant's answer
    #[arg(long)]
    no_generation_prompt: bool,
}

/// A token as scripts read it.
#[derive(Debug, Serialize)]
struct Row {
    id: u32,
    text: String,
}

/// A conversation for the template.
struct Conversation {
    messages: Vec<serde_json::Value>,
    variables: Variables,
}

/// Prints the tokens of a text, one a line, or of a chat and its prompt.
///
/// # Errors
/// There is no such model, or its vocabulary or template cannot be used.
pub fn run(args: &TokenizeArgs) -> anyhow::Result<ExitCode> {
    let path = hub::resolve(&args.model)?;
    let gguf = Gguf::open(&path)?;
    let tokenizer = Tokenizer::from_gguf(&gguf)
        .with_context(|| format!("{}: no usable vocabulary", path.display()))?;
    warnings::about_vocabulary(&tokenizer);
    let (prompt, ids) = match conversation(args)? {
        Some(conversation) => {
            let template = ChatTemplate::from_gguf(&gguf, &tokenizer)?;
            warnings::about_template(&template);
            let Conversation {
                messages,
                variables,
            } = conversation;
            let prompt = template.prompt(&messages, !args.no_generation_prompt, &variables)?;
            let ids = tokenizer.encode_prompt(&prompt)?;
            (Some(prompt.text), ids)
        }
        None => {
            let options = EncodeOptions {
                add_special: !args.no_bos,
                parse_special: true,
            };
            (None, tokenizer.encode(&text(args)?, options)?)
        }
    };
    warnings::about_prompt(&tokenizer, &ids);
    let rows: Vec<Row> = ids
        .into_iter()
        .map(|id| Row {
            id,
            text: tokenizer.token_text(id),
        })
        .collect();

    let mut out = BufWriter::new(io::stdout().lock());
    match (prompt, args.json) {
        (Some(prompt), true) => {
            let value = serde_json::json!({"prompt": prompt, "tokens": rows});
            writeln!(out, "{value}")?;
        }
        (None, true) => {
            serde_json::to_writer(&mut out, &rows).map_err(io::Error::from)?;
            writeln!(out)?;
        }
        (prompt, false) => {
            if let Some(prompt) = prompt {
                write_visibly(&mut out, &prompt)?;
            }
            for row in rows {
                writeln!(out, "{:>6}  {:?}", row.id, row.text)?;
            }
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// The prompt and an empty line, with control characters other than line ends made visible.
fn write_visibly(out: &mut impl Write, prompt: &str) -> io::Result<()> {
    for c in prompt.chars() {
        match c {
            '\n' | '\t' => write!(out, "{c}")?,
            c if c.is_control() => write!(out, "{}", c.escape_debug())?,
            c => write!(out, "{c}")?,
        }
    }
    let end = if prompt.ends_with('\n') { "\n" } else { "\n\n" };
    write!(out, "{end}")
}

/// The text to be tokenized.
fn text(args: &TokenizeArgs) -> anyhow::Result<String> {
    match &args.text {
        Some(text) => Ok(text.clone()),
        None => read_stdin(),
    }
}

fn read_stdin() -> anyhow::Result<String> {
    let mut text = String::new();
    io::stdin()
        .read_to_string(&mut text)
        .context("cannot read the text from stdin")?;
    Ok(text)
}

/// What `--chat` or `--messages` asks for.
fn conversation(args: &TokenizeArgs) -> anyhow::Result<Option<Conversation>> {
    if args.chat {
        // As `generate` reads it: a file's last line end is no part of the message.
        let text = match &args.text {
            Some(text) => text.clone(),
            None => {
                let text = read_stdin()?;
                text.strip_suffix('\n').unwrap_or(&text).to_owned()
            }
        };
        let system = args.system.iter().map(|text| Message::new("system", text));
        let messages = system.chain([Message::new("user", text)]);
        return Ok(Some(Conversation {
            messages: messages.map(|message| message.to_json()).collect(),
            variables: Variables::new(),
        }));
    }
    let Some(file) = &args.messages else {
        return Ok(None);
    };
    let in_file = || format!("reading the messages from {}", file.display());
    let text = match file.as_os_str() == "-" {
        true => read_stdin()?,
        false => std::fs::read_to_string(file).with_context(in_file)?,
    };
    let (messages, variables) = match serde_json::from_str(&text).with_context(in_file)? {
        serde_json::Value::Object(mut object) => (object.remove("messages"), object),
        list => (Some(list), Variables::new()),
    };
    match messages {
        Some(serde_json::Value::Array(messages)) => Ok(Some(Conversation {
            messages,
            variables,
        })),
        _ => bail!(
            "{}: neither a list of messages nor an object with one",
            file.display()
        ),
    }
}
