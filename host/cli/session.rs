//! Opening a model for text: file, tokenizer, template, backend, scheduler.

use std::io::{self, IsTerminal};
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;

use anyhow::anyhow;

use super::device::{Room, backend_on, open_device};
use super::run_args::{RunArgs, start_threads};
use super::warnings;
use crate::chat::{ChatTemplate, Message, Variables};
use crate::engine::{Options, Scheduler};
use crate::gguf::Gguf;
use crate::model::Model;
use crate::tokenizer::Tokenizer;

/// Context without `--ctx`, unless the model was trained with less. Longer ones cost memory that
/// few sessions use.
const DEFAULT_CONTEXT: usize = 4096;

/// What a file has for text. The model comes first: of a file that holds none, its vocabulary is no matter.
/// The template may be a broken one, which only a chat needs.
fn read(gguf: &Gguf) -> anyhow::Result<(Tokenizer, anyhow::Result<ChatTemplate>, Arc<Model>)> {
    let model = Arc::new(Model::from_gguf(gguf)?);
    let tokenizer = Tokenizer::from_gguf(gguf)?;
    let template = ChatTemplate::from_gguf(gguf, &tokenizer);
    let template = template.map_err(|error| of_file(gguf.path(), error));
    Ok((tokenizer, template, model))
}

/// `error` with the file's name, unless it tells that itself.
pub fn of_file(path: &Path, error: impl Into<anyhow::Error>) -> anyhow::Error {
    let (path, error) = (path.display().to_string(), error.into());
    match format!("{error:#}").contains(&path) {
        true => error,
        false => error.context(format!("reading {path}")),
    }
}

/// The context that `args` ask for, of a model that was `trained` with so many tokens.
fn context(args: &RunArgs, trained: usize) -> usize {
    match args.ctx {
        None => trained.min(DEFAULT_CONTEXT),
        Some(0) => trained,
        Some(context) => {
            let context = context as usize;
            if context > trained {
                anstream::eprintln!(
                    "warning: the model was trained with {trained} tokens; beyond them, which --ctx {context} \
                     allows, its text may be nonsense"
                );
            }
            context
        }
    }
}

/// A model that is ready to write.
pub struct Session {
    /// Runs requests on it.
    pub scheduler: Scheduler,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// The file's chat template, or the fallback; an error where it is broken.
    template: anyhow::Result<ChatTemplate>,
}

impl Session {
    /// Opens `model`, a path or a short name, for one request at a time.
    pub fn open(model: &str, args: &RunArgs) -> anyhow::Result<Session> {
        start_threads(args)?;
        let path = model_cache::resolve(model)?;
        let gguf = Gguf::open(&path)?;
        // A driver takes as long to start as a large vocabulary takes to read.
        let (contents, device) = std::thread::scope(|scope| {
            let device = scope.spawn(|| open_device(args));
            let contents = read(&gguf).map_err(|error| of_file(&path, error));
            let device = device.join().unwrap_or_else(|panic| resume_unwind(panic));
            (contents, device)
        });
        let (tokenizer, template, model) = contents?;
        warnings::about_vocabulary(&tokenizer);
        let context = context(args, model.config.context_length);
        let backend = backend_on(device?, model, args, Room::new(context, 1))?;
        let chunk = args.chunk(&*backend);
        let options = Options {
            context,
            chunk,
            mixed_chunk: chunk,
            max_running: 1,
        };
        let tokenizer = Arc::new(tokenizer);
        Ok(Session {
            scheduler: Scheduler::new(backend, tokenizer.clone(), options),
            tokenizer,
            template,
        })
    }

    /// The file's chat template, or the fallback.
    ///
    /// # Errors
    /// It is broken.
    pub fn template(&self) -> anyhow::Result<&ChatTemplate> {
        self.template
            .as_ref()
            .map_err(|error| anyhow!("{error:#}; `hyperion generate --raw` does without it"))
    }

    /// The tokens of a conversation, up to where the assistant's answer begins.
    pub fn chat_tokens(&self, messages: &[Message]) -> anyhow::Result<Vec<u32>> {
        let tokens = self
            .template()?
            .encode(&self.tokenizer, messages, true, &Variables::new())?;
        warnings::about_template(self.template()?);
        warnings::about_prompt(&self.tokenizer, &tokens);
        Ok(tokens)
    }
}

/// Shows on a terminal how far a prompt of several chunks has got, and wipes it out at the end; nothing where `is_quiet`.
pub fn show_progress(is_quiet: bool) -> Box<dyn FnMut(usize, usize)> {
    const WIPE_LINE: &str = "\r\x1b[K";
    if is_quiet || !io::stderr().is_terminal() {
        return Box::new(|_, _| {});
    }
    Box::new(|done, total| {
        if done < total {
            eprint!("{WIPE_LINE}prompt: {done} of {total} tokens");
        } else {
            eprint!("{WIPE_LINE}");
        }
    })
}
