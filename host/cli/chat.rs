//! `hyperion chat`: a conversation in the terminal.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use model_cache::Cache;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::count::count_or_all;
use super::generate::{shown, summary, token_limit};
use super::interrupt;
use super::run_args::RunArgs;
use super::sampling_args::SamplingArgs;
use super::session::{Session, show_progress};
use super::speculate_args::SpeculateArgs;
use crate::chat::Message;
use crate::engine::{EngineError, Finish, Limits, Request};
use crate::sampling::{CheckedParams, SamplingParams};

const COMMANDS: &str = "\
/reset         forget the conversation
/system TEXT   start over with this system message (none: without one)
/save FILE     write the conversation as JSON messages
//TEXT         say /TEXT, which is no command
/help          show this
/quit          leave (so does Ctrl-D)";

/// Earlier turns stay in the KV cache. Ctrl-C ends an answer, Ctrl-D the conversation.
#[derive(Debug, Args)]
#[command(after_help = format!("Inside the conversation:\n{COMMANDS}"))]
pub struct ChatArgs {
    /// A GGUF file, or the short name of a model in the cache (see `hyperion models`)
    pub model: String,
    /// The system message
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub system: Option<String>,
    /// Most tokens of an answer; -1 goes on until the model or the context ends [default: -1]
    #[arg(long, short = 'n', value_name = "N", value_parser = count_or_all())]
    pub max_tokens: Option<i64>,
    /// Leave out the figures after each answer
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
pub fn run(args: &ChatArgs) -> anyhow::Result<ExitCode> {
    let session = Session::open(&args.model, &args.run, args.speculate)?;
    session.template()?;
    let mut conversation = Conversation::new(session, args)?;
    let mut editor = DefaultEditor::new().context("starting the line editor")?;
    let history = history_file();
    if let Some(history) = history.as_deref().filter(|path| path.exists())
        && let Err(error) = editor.load_history(history)
    {
        eprintln!("no history: reading {}: {error}", history.display());
    }
    eprintln!(
        "{} on {}; /help lists the commands",
        args.model,
        conversation.session.scheduler.backend().description()
    );
    loop {
        match editor.readline("> ") {
            Ok(line) if line.trim().is_empty() => {}
            Ok(line) => {
                editor.add_history_entry(&line)?;
                if conversation.take(line.trim())? == Next::Leave {
                    break;
                }
            }
            Err(ReadlineError::Interrupted) => eprintln!("(Ctrl-D leaves)"),
            Err(ReadlineError::Eof) => break,
            Err(error) => bail!("reading the line: {error}"),
        }
    }
    if let Some(history) = history
        && let Err(error) = save_history(&mut editor, &history)
    {
        eprintln!("the history is not kept: {error:#}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the lines typed are remembered; lines that come through a pipe are not.
fn history_file() -> Option<PathBuf> {
    let cache = Cache::from_env().ok()?;
    let typed = io::stdin().is_terminal();
    typed.then(|| cache.root().join("chat_history"))
}

fn save_history(editor: &mut DefaultEditor, path: &Path) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("creating {}", folder.display()))?;
    }
    editor
        .save_history(path)
        .with_context(|| format!("writing {}", path.display()))
}

#[derive(PartialEq, Eq)]
enum Next {
    Continue,
    Leave,
}

struct Conversation<'a> {
    session: Session,
    args: &'a ChatArgs,
    sampling: SamplingParams,
    messages: Vec<Message>,
}

impl<'a> Conversation<'a> {
    fn new(session: Session, args: &'a ChatArgs) -> anyhow::Result<Conversation<'a>> {
        let messages = args
            .system
            .iter()
            .map(|text| Message::new("system", text))
            .collect();
        let sampling = args.sampling.params();
        // What is wrong with the flags is said before the first line is typed.
        CheckedParams::new(sampling.clone(), session.scheduler.model().vocab())?;
        Ok(Conversation {
            session,
            args,
            sampling,
            messages,
        })
    }

    /// Obeys a line that starts with a slash, answers any other.
    fn take(&mut self, line: &str) -> anyhow::Result<Next> {
        let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match command {
            "/quit" | "/exit" => return Ok(Next::Leave),
            "/help" => eprintln!("{COMMANDS}"),
            "/reset" => {
                self.messages.retain(|message| message.role == "system");
                eprintln!("(the conversation is forgotten)");
            }
            "/system" => {
                self.messages.clear();
                match rest {
                    "" => eprintln!("(a new conversation without a system message)"),
                    text => {
                        self.messages.push(Message::new("system", text));
                        eprintln!("(a new conversation with this system message)");
                    }
                }
            }
            "/save" => match self.save(rest) {
                Ok(path) => eprintln!("saved to {}", path.display()),
                Err(error) => eprintln!("error: {error:#}"),
            },
            _ if command.starts_with("//") => self.answer(&line[1..])?,
            _ if command.starts_with('/') => eprintln!("unknown command {command}; see /help"),
            _ => self.answer(line)?,
        }
        Ok(Next::Continue)
    }

    fn answer(&mut self, line: &str) -> anyhow::Result<()> {
        self.messages.push(Message::new("user", line));
        let tokens = match self.session.chat_tokens(&self.messages) {
            Ok(tokens) => tokens,
            // Templates refuse what their model was not trained for, such as system messages.
            Err(error) => {
                self.messages.pop();
                eprintln!("error: {error:#}");
                return Ok(());
            }
        };
        let request = Request {
            prompt: tokens,
            sampling: self.sampling.clone(),
            limits: Limits {
                max_tokens: self.args.max_tokens.and_then(token_limit),
                ..Limits::default()
            },
            logprobs: None,
            ..Request::default()
        };
        // Each turn draws on; with one seed the same conversation gives the same answers.
        let draw = &mut self.sampling.draw;
        draw.seed = draw.seed.wrapping_add(1);
        let mut emit = |piece: &str| {
            let mut stdout = io::stdout();
            let piece = shown(piece, stdout.is_terminal());
            stdout
                .write_all(piece.as_bytes())
                .and_then(|()| stdout.flush())
        };
        let progress = &mut *show_progress(self.args.quiet);
        let scheduler = &mut self.session.scheduler;
        let answer = scheduler.generate(request, interrupt::flag()?, progress, &mut emit);
        interrupt::reset();
        match answer {
            Ok(answer) => {
                writeln!(io::stdout())?;
                if !self.args.quiet {
                    eprintln!("{}", summary(&answer.stats, answer.finish));
                }
                if answer.finish == Finish::Context {
                    eprintln!("the context is full: /reset, or start again with a larger --ctx");
                }
                self.messages.push(Message::new("assistant", answer.text));
            }
            Err(error @ (EngineError::Context { .. } | EngineError::CacheFull { .. })) => {
                self.messages.pop();
                eprintln!("error: {error}; /reset forgets the conversation");
            }
            Err(error) => return Err(error).context("generating"),
        }
        Ok(())
    }

    fn save(&self, file: &str) -> anyhow::Result<PathBuf> {
        anyhow::ensure!(!file.is_empty(), "/save needs a file name");
        let path = PathBuf::from(file);
        let messages = serde_json::to_vec_pretty(&self.messages)?;
        std::fs::write(&path, messages).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}
