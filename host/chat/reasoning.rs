//! What a model thinks before it answers: how templates mark it, and where it begins.

use crate::grammar::Tags;
use crate::tokenizer::Prompt;

/// The marks of all models that have such.
const KNOWN: [Tags; 3] = [
    Tags {
        open: "<think>",
        close: "</think>",
        label: "",
    },
    Tags {
        open: "[THINK]",
        close: "[/THINK]",
        label: "",
    },
    // Gemma 4's only channel.
    Tags {
        open: "<|channel>",
        close: "<channel|>",
        label: "thought",
    },
];

/// The marks that a template with the source `source` knows.
pub fn of_template(source: &str) -> Option<Tags> {
    KNOWN.into_iter().find(|tags| source.contains(tags.close))
}

/// Whether an answer to `prompt` begins within thoughts: the template has opened them (`Some(true)`), leaves that to
/// the model (`Some(false)`), or has closed them, so that there are none.
pub fn at_end_of(prompt: &Prompt, tags: Tags) -> Option<bool> {
    let text = prompt.text.trim_end();
    let labelled = [tags.open, tags.label].concat();
    let is_own = |tag: &str| {
        text.ends_with(tag)
            && prompt
                .foreign
                .last()
                .is_none_or(|range| range.end <= text.len() - tag.len())
    };
    if is_own(tags.open) || is_own(&labelled) {
        return Some(true);
    }
    match is_own(tags.close) {
        true => None,
        false => Some(false),
    }
}

// Ranges of a text that a user wrote, of which there may be several.
#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_template_wrote_opens_thoughts() {
        let tags = of_template("... '</think>' ...").expect("tags");
        let at_end = |text: &str, foreign: &[std::ops::Range<usize>]| {
            let prompt = Prompt {
                text: text.to_owned(),
                foreign: foreign.to_vec(),
                literals: Vec::new(),
            };
            at_end_of(&prompt, tags)
        };
        assert_eq!(at_end("a<think>\n", &[0..1]), Some(true));
        assert_eq!(at_end("a<think>\n\n</think>\n\n", &[0..1]), None);
        assert_eq!(at_end("assistant\n", &[]), Some(false));
        let labelled = of_template("'<channel|>'").expect("tags");
        let prompt = |text: &str| Prompt {
            text: text.to_owned(),
            foreign: Vec::new(),
            literals: Vec::new(),
        };
        for (text, expected) in [
            ("<|turn>model\n<|channel>thought\n", Some(true)),
            ("<|turn>model\n<|channel>thought\n<channel|>", None),
            ("<|turn>model\n", Some(false)),
        ] {
            assert_eq!(at_end_of(&prompt(text), labelled), expected, "{text}");
        }
        // A message that spells it.
        assert_eq!(at_end("<think>", &[0..7]), Some(false));
        assert_eq!(at_end("</think>", &[3..8]), Some(false));
    }
}
