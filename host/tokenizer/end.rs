//! Which tokens end a generation.
//!
//! GGUF files name an end-of-text token and sometimes an end-of-turn token, but rarely all of
//! them; llama.cpp therefore recognizes the others by their text, and so does this. Some of the texts
//! have another meaning elsewhere (in Qwen's vocabularies `</s>` is the ordinary text that closes
//! struck-out HTML): they count where the file types them as control tokens.

use std::collections::{BTreeSet, HashMap};

use super::vocab::TokenKind;

const END_TEXTS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<｜end▁of▁sentence｜>",
];

/// End markers that are also ordinary text, or too rare to be sure.
const CONTROL_END_TEXTS: &[&str] = &[
    "</s>",
    "<|eos|>",
    "<|EOT|>",
    "<|eot|>",
    "<turn|>",
    "[e~[",
    "<|end_of_turn|>",
    "<|endofturn|>",
    "[|endofturn|]",
    "<|END_OF_TURN_TOKEN|>",
    "<|end_of_sentence|>",
];

/// Padding, repository and file separators of fill-in-the-middle models: past one of these a
/// model writes an unrelated file. The first that exists of each list counts.
const FILL_IN_TEXTS: [&[&str]; 3] = [
    &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"],
    &[
        "<|fim_repo|>",
        "<|repo_name|>",
        "<fim-repo>",
        "<REPO>",
        "<reponame>",
    ],
    &["<|file_sep|>"],
];

/// The sorted ids: those the file `named` (end of sequence, turn and message, then padding,
/// repository and file separators, in this order) and those whose texts are known.
pub(super) fn end_of_generation(
    ids: &HashMap<&str, u32>,
    kinds: &[TokenKind],
    named: [Option<u32>; 6],
) -> Vec<u32> {
    let mut ends: BTreeSet<u32> = named.into_iter().flatten().collect();
    ends.extend(END_TEXTS.iter().filter_map(|text| ids.get(text)));
    let control = |id: &&u32| kinds[**id as usize] == TokenKind::Control;
    ends.extend(
        CONTROL_END_TEXTS
            .iter()
            .filter_map(|text| ids.get(text).filter(control)),
    );
    for (texts, named) in FILL_IN_TEXTS.iter().zip(&named[3..]) {
        if named.is_none() {
            ends.extend(texts.iter().find_map(|text| ids.get(text)));
        }
    }

    // In the harmony format `<|end|>` closes a message, after which the same turn goes on.
    let has = |text| ids.contains_key(text);
    let harmony = has("<|call|>") && has("<|return|>");
    let solar = has("<|calls|>") && has("<|flush|>");
    if harmony || solar {
        ids.get("<|end|>").map(|id| ends.remove(id));
    }
    ends.into_iter().collect()
}
