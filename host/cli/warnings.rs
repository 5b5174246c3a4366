//! Warnings about models and prompts, each said once.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::chat::ChatTemplate;
use crate::escape::escape;
use crate::tokenizer::Tokenizer;

static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Prints a warning, unless it was printed before.
fn warn(warning: String) {
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if !said.contains(&warning) {
        anstream::eprintln!("warning: {}", escape(&warning));
        said.insert(warning);
    }
}

/// What is odd about a file's vocabulary.
pub fn about_vocabulary(tokenizer: &Tokenizer) {
    tokenizer.warnings().iter().cloned().for_each(warn);
}

/// That a conversation is laid out by the fallback.
pub fn about_template(template: &ChatTemplate) {
    if !template.is_from_file() {
        warn(
            "the file has no chat template; ChatML is used, with which the model may do worse"
                .to_owned(),
        );
    }
}

/// That a prompt is not laid out as a conversation.
pub fn without_template() {
    warn(
        "the file has no chat template; the prompt is the beginning of a text, as with --raw"
            .to_owned(),
    );
}

/// What is odd about the tokens of a prompt.
pub fn about_prompt(tokenizer: &Tokenizer, tokens: &[u32]) {
    tokenizer.prompt_warnings(tokens).into_iter().for_each(warn);
}
