//! Opening a model for text: file, tokenizer, template, backend, scheduler.

use std::io::{self, IsTerminal};
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow, ensure};

use super::device::{Room, backend_on, fits, open_device};
use super::run_args::{RunArgs, start_threads};
use super::speculate_args::SpeculateArgs;
use super::warnings;
use crate::backend::PAGE_TOKENS;
use crate::chat::{ChatTemplate, Message, Variables};
use crate::device::Device;
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

/// Requests at a time that a session has room for, and how they share its steps.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Most requests at a time; `None` for what the device is good for.
    pub parallel: Option<usize>,
    /// Tokens of the KV cache; `None` for as many as these requests can take, as far as there is memory.
    pub kv_tokens: Option<usize>,
    /// Tokens of a step in which others write; `None` for as many as of any step.
    pub mixed_chunk: Option<usize>,
    /// How their texts are guessed.
    pub speculate: SpeculateArgs,
}

impl Sizes {
    /// One request at a time.
    pub fn one(speculate: SpeculateArgs) -> Sizes {
        Sizes {
            parallel: Some(1),
            kv_tokens: None,
            mixed_chunk: None,
            speculate,
        }
    }

    /// The room for them on `device`, with a context of `context` tokens each.
    fn room(
        &self,
        device: Option<&dyn Device>,
        model: &Model,
        args: &RunArgs,
        context: usize,
    ) -> anyhow::Result<Room> {
        /// Beyond that, steps get longer about as fast as they hold more.
        const GPU_PARALLEL: usize = 64;
        const CPU_PARALLEL: usize = 8;
        let default = if device.is_some() {
            GPU_PARALLEL
        } else {
            CPU_PARALLEL
        };
        let room = Room {
            drafts: self.speculate.most(),
            ..Room::new(context, self.parallel.unwrap_or(default))
        };
        if let Some(tokens) = self.kv_tokens {
            ensure!(
                tokens >= context,
                "a KV cache of {tokens} tokens does not hold one sequence of {context}; --kv-tokens must be at \
                 least the context (--ctx)"
            );
            let n_pages = tokens.div_ceil(PAGE_TOKENS);
            return Ok(Room { n_pages, ..room });
        }
        match device {
            Some(device) => largest_room(room, self.parallel.is_some(), |room| {
                fits(device, model, args, room)
            }),
            // Pages cost memory there only when they are used.
            None => Ok(room),
        }
    }
}

/// The largest of `room` that `fits`, with fewer pages if need be, and with fewer sequences unless their number
/// `is_fixed`. If none fits, the smallest: opening it says what is missing.
fn largest_room(
    room: Room,
    is_fixed: bool,
    fits: impl Fn(Room) -> anyhow::Result<bool>,
) -> anyhow::Result<Room> {
    let mut room = room;
    let least = |room: Room| Room {
        n_pages: room.n_pages / room.sequences,
        ..room
    };
    while room.sequences > 1 && !fits(least(room))? {
        if is_fixed {
            return Ok(least(room));
        }
        room = Room {
            drafts: room.drafts,
            ..Room::new(room.context, room.sequences / 2)
        };
    }
    if room.sequences == 1 || fits(room)? {
        return Ok(room);
    }
    let (mut low, mut high) = (least(room).n_pages, room.n_pages);
    while high - low > 1 {
        let n_pages = low + (high - low) / 2;
        match fits(Room { n_pages, ..room })? {
            true => low = n_pages,
            false => high = n_pages,
        }
    }
    Ok(Room {
        n_pages: low,
        ..room
    })
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
    pub fn open(model: &str, args: &RunArgs, speculate: SpeculateArgs) -> anyhow::Result<Session> {
        let gguf = Gguf::open(&model_cache::resolve(model)?)?;
        Session::open_for(&gguf, args, Sizes::one(speculate))
    }

    /// Opens the model of a file for as many requests as `sizes` say.
    pub fn open_for(gguf: &Gguf, args: &RunArgs, sizes: Sizes) -> anyhow::Result<Session> {
        start_threads(args)?;
        // A driver takes as long to start as a large vocabulary takes to read.
        let (contents, device) = std::thread::scope(|scope| {
            let device = scope.spawn(|| open_device(args));
            let contents = read(gguf).map_err(|error| of_file(gguf.path(), error));
            let device = device.join().unwrap_or_else(|panic| resume_unwind(panic));
            (contents, device)
        });
        let (tokenizer, template, model) = contents?;
        warnings::about_vocabulary(&tokenizer);
        let context = context(args, model.config.context_length);
        let device = device?;
        let room = sizes.room(device.as_deref(), &model, args, context)?;
        let backend = backend_on(device, model, args, room)?;
        let chunk = args.chunk(&*backend);
        let options = Options {
            context,
            chunk,
            mixed_chunk: sizes.mixed_chunk.unwrap_or(chunk),
            max_running: room.sequences,
        };
        let tokenizer = Arc::new(tokenizer);
        let mut scheduler = Scheduler::new(backend, tokenizer.clone(), options);
        sizes.speculate.apply(&mut scheduler);
        if room.sequences > 1 && scheduler.backend().overlaps() {
            scheduler.warm_up().context("warming up")?;
        }
        Ok(Session {
            scheduler,
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

    /// What runs requests and what lays out conversations.
    ///
    /// # Errors
    /// In the template's place, if that is broken.
    pub fn parts(&mut self) -> (&mut Scheduler, anyhow::Result<&ChatTemplate>) {
        let template = self.template.as_ref().map_err(|error| anyhow!("{error:#}"));
        (&mut self.scheduler, template)
    }

    /// What [`parts`](Self::parts) lends, for good.
    pub fn into_parts(self) -> (Scheduler, anyhow::Result<ChatTemplate>) {
        (self.scheduler, self.template)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn largest(sequences: usize, is_fixed: bool, memory: usize) -> Room {
        let room = Room::new(10 * PAGE_TOKENS, sequences);
        // A sequence costs 3 and a page 1.
        let fits = |room: Room| Ok(3 * room.sequences + room.n_pages <= memory);
        largest_room(room, is_fixed, fits).expect("a room")
    }

    #[test]
    fn pages_give_way_before_sequences() {
        let sizes = |room: Room| (room.sequences, room.n_pages);
        assert_eq!(sizes(largest(64, false, 10_000)), (64, 640));
        assert_eq!(sizes(largest(64, false, 64 * 3 + 50)), (64, 50));
        assert_eq!(sizes(largest(64, false, 64 * 3 + 10)), (64, 10));
        assert_eq!(sizes(largest(64, false, 64 * 3 + 9)), (32, 105));
        assert_eq!(sizes(largest(64, false, 13)), (1, 10));
        // Where nothing fits, the error is about the least there could be.
        assert_eq!(sizes(largest(64, false, 0)), (1, 10));
        assert_eq!(sizes(largest(64, true, 100)), (64, 10));
        assert_eq!(sizes(largest(1, true, 0)), (1, 10));
    }
}
