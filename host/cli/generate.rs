//! `hyperion generate`: text from one prompt.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;

use super::count::count_or_all;
use super::interrupt;
use super::run_args::RunArgs;
use super::sampling_args::SamplingArgs;
use super::session::{Session, show_progress};
use super::speculate_args::SpeculateArgs;
use super::warnings;
use crate::chat::Message;
use crate::engine::{Finish, Generation, Limits, Request, Stats};
use crate::escape::escape_generated;
use crate::tokenizer::EncodeOptions;

/// The prompt is a user's message when the model has a chat template, and the beginning of a text
/// otherwise or with --raw. The text goes to standard output, the figures to standard error.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hyperion generate smollm2 -p 'Write a haiku about the sea.'
  hyperion generate model.gguf --raw -p 'Once upon a time' -n 100 --temp 0
  echo 'Summarize: ...' | hyperion generate smollm2 --json")]
pub struct GenerateArgs {
    /// A GGUF file, or the short name of a model in the cache (see `hyperion models`)
    pub model: String,
    /// The prompt
    #[arg(
        long,
        short,
        value_name = "TEXT",
        conflicts_with = "file",
        allow_hyphen_values = true
    )]
    pub prompt: Option<String>,
    /// Read the prompt from a file, or from standard input without -p and -f; one newline at its end
    /// is dropped, as llama.cpp does
    #[arg(long, short, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Most tokens to generate; 0 computes the prompt alone, -1 goes on until the model or the context
    /// ends [default: -1]
    #[arg(long, short = 'n', value_name = "N", value_parser = count_or_all())]
    pub max_tokens: Option<i64>,
    /// Take the prompt as it is, control tokens included, instead of as a chat message
    #[arg(long)]
    pub raw: bool,
    /// The system message of a chat prompt
    #[arg(
        long,
        value_name = "TEXT",
        conflicts_with = "raw",
        allow_hyphen_values = true
    )]
    pub system: Option<String>,
    /// End when the model writes TEXT; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub stop: Vec<String>,
    /// Go on past end-of-text tokens
    #[arg(long)]
    pub ignore_eos: bool,
    /// Print one JSON object with text, tokens and figures instead of streaming the text
    #[arg(long)]
    pub json: bool,
    /// Leave out progress and figures
    #[arg(long, short)]
    pub quiet: bool,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    speculate: SpeculateArgs,
}

/// Runs the command.
pub fn run(args: &GenerateArgs) -> anyhow::Result<ExitCode> {
    let prompt = read_prompt(args)?;
    let interrupt = interrupt::flag()?;
    let mut session = Session::open(&args.model, &args.run, args.speculate)?;
    let request = Request {
        prompt: prompt_tokens(args, &session, &prompt)?,
        sampling: args.sampling.params(),
        limits: Limits {
            max_tokens: args.max_tokens.and_then(token_limit),
            stop: args.stop.clone(),
            ignore_end: args.ignore_eos,
        },
        logprobs: None,
        ..Request::default()
    };
    let mut stdout = io::stdout().lock();
    let is_terminal = stdout.is_terminal();
    let mut emit = |piece: &str| match args.json {
        true => Ok(()),
        false => stdout
            .write_all(shown(piece, is_terminal).as_bytes())
            .and_then(|()| stdout.flush()),
    };
    let progress = &mut *show_progress(args.quiet);
    let generation = (session.scheduler)
        .generate(request, interrupt, progress, &mut emit)
        .context("generating")?;
    match args.json {
        true => print_json(&generation),
        false => writeln!(stdout).or_else(ignore_broken_pipe),
    }
    .context("writing to standard output")?;
    if !args.quiet {
        eprintln!("{}", summary(&generation.stats, generation.finish));
    }
    Ok(match generation.finish {
        Finish::Interrupted if interrupt::requested() => ExitCode::from(super::INTERRUPTED),
        _ => ExitCode::SUCCESS,
    })
}

fn read_prompt(args: &GenerateArgs) -> anyhow::Result<String> {
    let prompt = match (&args.prompt, &args.file) {
        (Some(prompt), _) => return Ok(prompt.clone()),
        (None, Some(file)) => std::fs::read_to_string(file)
            .with_context(|| format!("reading the prompt from {}", file.display()))?,
        (None, None) if io::stdin().is_terminal() => {
            bail!("no prompt: give one with -p TEXT or -f FILE, or pipe it in")
        }
        (None, None) => {
            let mut prompt = String::new();
            io::stdin()
                .read_to_string(&mut prompt)
                .context("reading the prompt from stdin")?;
            prompt
        }
    };
    // A text file ends in a newline that is no part of the prompt.
    let prompt = prompt.strip_suffix('\n').unwrap_or(&prompt);
    Ok(prompt.to_owned())
}

fn prompt_tokens(args: &GenerateArgs, session: &Session, prompt: &str) -> anyhow::Result<Vec<u32>> {
    let chat = !args.raw && (args.system.is_some() || session.template()?.is_from_file());
    if chat && prompt.trim().is_empty() {
        bail!("the prompt is empty");
    }
    let tokens = if chat {
        let system = args.system.iter().map(|text| Message::new("system", text));
        let messages: Vec<Message> = system.chain([Message::new("user", prompt)]).collect();
        session.chat_tokens(&messages)?
    } else {
        let options = EncodeOptions {
            add_special: true,
            parse_special: true,
        };
        session.tokenizer.encode(prompt, options)?
    };
    if tokens.is_empty() {
        bail!("the prompt is empty");
    }
    if !chat && !args.raw {
        warnings::without_template();
    }
    warnings::about_prompt(&session.tokenizer, &tokens);
    Ok(tokens)
}

/// The number of tokens that `-n` allows; below 0 it is no limit, as in llama.cpp.
pub fn token_limit(n: i64) -> Option<usize> {
    usize::try_from(n).ok()
}

/// Generated text as it is written: on a terminal its control characters become visible, so that no model can
/// move the cursor or type. Files and pipes get it as it is.
pub fn shown(piece: &str, is_terminal: bool) -> Cow<'_, str> {
    match is_terminal {
        true => escape_generated(piece),
        false => Cow::Borrowed(piece),
    }
}

fn ignore_broken_pipe(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Ok(())
    } else {
        Err(error)
    }
}

/// The closing line: what was computed, and how fast.
pub fn summary(stats: &Stats, finish: Finish) -> String {
    let cached = match stats.cached_tokens {
        0 => String::new(),
        cached => format!(" (+{cached} cached)"),
    };
    let end = match finish {
        Finish::EndOfText => "",
        Finish::StopString => " · stop string",
        Finish::Length => " · token limit",
        Finish::Context => " · context full",
        Finish::Interrupted => " · interrupted",
    };
    let first = match stats.generated_tokens {
        0 => String::new(),
        _ => format!(" · first token {:.2} s", stats.first_token.as_secs_f64()),
    };
    let guessed = match stats.drafted {
        0 => String::new(),
        drafted => format!(" · {} of {drafted} guesses right", stats.accepted),
    };
    format!(
        "prompt {}{cached} tokens, {:.1} tok/s · generated {} tokens, {:.1} tok/s{guessed}{first}{end}",
        stats.prompt_tokens,
        stats.prefill_rate(),
        stats.generated_tokens,
        stats.decode_rate(),
    )
}

fn print_json(generation: &Generation) -> io::Result<()> {
    let stats = &generation.stats;
    let finish = match generation.finish {
        Finish::EndOfText => "end_of_text",
        Finish::StopString => "stop_string",
        Finish::Length => "length",
        Finish::Context => "context",
        Finish::Interrupted => "interrupted",
    };
    let value = serde_json::json!({
        "text": generation.text,
        "tokens": generation.tokens,
        "finish": finish,
        "prompt_tokens": stats.prompt_tokens,
        "cached_tokens": stats.cached_tokens,
        "prefill_seconds": stats.prefill.as_secs_f64(),
        "prefill_tokens_per_second": stats.prefill_rate(),
        "generated_tokens": stats.generated_tokens,
        "decode_seconds": stats.decode.as_secs_f64(),
        "decode_tokens_per_second": stats.decode_rate(),
        "drafted_tokens": stats.drafted,
        "accepted_tokens": stats.accepted,
        "first_token_seconds": stats.first_token.as_secs_f64(),
    });
    let mut stdout = io::stdout().lock();
    serde_json::to_writer_pretty(&mut stdout, &value)
        .map_err(io::Error::from)
        .or_else(ignore_broken_pipe)?;
    writeln!(stdout).or_else(ignore_broken_pipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_not_obeyed_and_a_pipe_gets_every_byte() {
        let piece = "a\x1b[2J\r\n\tb";
        assert_eq!(shown(piece, true), "a\\x1b[2J\\r\n\tb");
        assert_eq!(shown(piece, false), piece);
    }
}
