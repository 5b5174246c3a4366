//! Pre-tokenizers: the regular expressions that cut a text into the words within which BPE
//! merges, chosen by `tokenizer.ggml.pre`.
//!
//! The expressions are those of the models' own `tokenizer.json` files, as llama.cpp applies
//! them: one after the other, each to the pieces that the one before left, and both what matches
//! and what lies between matches becomes a piece.

use regex_automata::Input;
use regex_automata::meta::Regex;

use super::TokenizerError;
use super::pretokenizer_table::{PRE_TOKENIZERS, THOUSANDS};

/// How the pre-tokenizer of some models works.
#[derive(Debug)]
pub(super) struct PreTokenizer {
    /// The values of `tokenizer.ggml.pre` that mean it.
    pub names: &'static [&'static str],
    pub patterns: &'static [&'static str],
    /// A word that is itself a token stays whole, whatever the merges would make of it.
    pub ignore_merges: bool,
    /// A BOS token is added unless the file says otherwise.
    pub add_bos: bool,
}

/// The pre-tokenizer that a file names.
pub(super) fn find(name: &str) -> Result<&'static PreTokenizer, TokenizerError> {
    PRE_TOKENIZERS
        .iter()
        .find(|pre| pre.names.contains(&name))
        .ok_or_else(|| TokenizerError::UnknownPreTokenizer {
            name: name.to_owned(),
            known: PRE_TOKENIZERS
                .iter()
                .flat_map(|pre| pre.names)
                .copied()
                .collect::<Vec<_>>()
                .join(", "),
        })
}

impl PreTokenizer {
    /// Compiles the expressions.
    pub fn splitter(&self) -> Result<Splitter, TokenizerError> {
        let stages = self.patterns.iter().map(|pattern| Stage::new(pattern));
        Ok(Splitter {
            stages: stages.collect::<Result<_, _>>()?,
        })
    }
}

/// A pre-tokenizer ready to cut texts.
#[derive(Debug)]
pub(super) struct Splitter {
    stages: Vec<Stage>,
}

impl Splitter {
    /// The words of `text`, which together are the text.
    pub fn split<'t>(&self, text: &'t str) -> Vec<&'t str> {
        let mut pieces = vec![text];
        for stage in &self.stages {
            let mut finer = Vec::with_capacity(pieces.len());
            for piece in pieces {
                stage.split(piece, &mut finer);
            }
            pieces = finer;
        }
        pieces
    }
}

/// One expression. The look-ahead `\s+(?!\S)`, the only construct in use that is not regular, is
/// taken out of the expression and done by hand, and so is [`THOUSANDS`]: so an automaton finds the matches, in linear time
/// whatever the text is. (The crate `tokenizers` runs these expressions in a backtracking engine
/// and, where that gives up, leaves the rest of the text unsplit.)
#[derive(Debug)]
enum Stage {
    Expression(Regex),
    /// [`THOUSANDS`]
    Thousands,
}

/// The index of `\s+` among a stage's patterns, where it is one of them.
const WHITESPACE: usize = 1;

impl Stage {
    fn new(pattern: &str) -> Result<Stage, TokenizerError> {
        if pattern == THOUSANDS {
            return Ok(Stage::Thousands);
        }
        let look_ahead = [r"|\s+(?!\S)|\s+", r"|\s+(?!\S)"];
        let regex = match look_ahead.iter().find_map(|end| pattern.strip_suffix(end)) {
            Some(before) => Regex::new_many(&[before, r"\s+"]),
            None => Regex::new(pattern),
        };
        let regex = regex.map_err(|error| TokenizerError::Backend {
            what: "the pre-tokenizer's regular expression",
            reason: error.to_string(),
        })?;
        Ok(Stage::Expression(regex))
    }

    fn split<'t>(&self, piece: &'t str, out: &mut Vec<&'t str>) {
        let Stage::Expression(regex) = self else {
            return split_thousands(piece, out);
        };
        let mut at = 0;
        while let Some(found) = regex.find(Input::new(piece).range(at..)) {
            let mut end = found.end();
            // `\s+(?!\S)`: a run of spaces leaves its last one to the word that follows.
            if found.pattern().as_usize() == WHITESPACE && end < piece.len() {
                let run = &piece[found.range()];
                let last = run.chars().next_back().map_or(0, char::len_utf8);
                if last < run.len() {
                    end -= last;
                }
            }
            if at < found.start() {
                out.push(&piece[at..found.start()]);
            }
            out.push(&piece[found.start()..end]);
            at = end;
        }
        if at < piece.len() {
            out.push(&piece[at..]);
        }
    }
}

/// Cuts runs of digits into groups of three, counted from their ends.
fn split_thousands<'t>(piece: &'t str, out: &mut Vec<&'t str>) {
    let bytes = piece.as_bytes();
    let mut start = 0;
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes[at..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let end = at + digits;
        for cut in (at + digits % 3..end).step_by(3) {
            if cut > start {
                out.push(&piece[start..cut]);
                start = cut;
            }
        }
        at = end + 1;
    }
    if start < piece.len() {
        out.push(&piece[start..]);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    fn split<'t>(name: &str, text: &'t str) -> Vec<&'t str> {
        find(name).unwrap().splitter().unwrap().split(text)
    }

    #[test]
    fn every_expression_compiles() {
        for pre in PRE_TOKENIZERS {
            pre.splitter().unwrap();
        }
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = find("grok-9").unwrap_err().to_string();
        assert!(
            error.contains("grok-9") && error.contains("llama-bpe"),
            "{error}"
        );
    }

    /// Granite's names, SmolLM3's, Phi 3's and 4's, OLMo 2's.
    #[test]
    fn names_of_dense_families_are_known() {
        for name in [
            "refact",
            "granite-docling",
            "starcoder",
            "llama-bpe",
            "smaug-bpe",
            "dbrx",
            "gpt-4o",
            "gpt-2",
            "olmo",
        ] {
            assert!(find(name).is_ok(), "{name}");
        }
        assert_eq!(split("refact", "v 12"), ["v", " ", "1", "2"]);
        assert_eq!(split("dbrx", "12345"), ["123", "45"]);
        assert_eq!(split("olmo", "x 12345"), ["x", " 12345"]);
    }

    #[test]
    fn a_run_of_spaces_leaves_its_last_to_the_word() {
        assert_eq!(split("gpt-2", "a   b  "), ["a", "  ", " b", "  "]);
        assert_eq!(split("gpt-2", "a\n\nb"), ["a", "\n", "\n", "b"]);
        assert_eq!(split("llama-bpe", "a \n\nb"), ["a", " \n\n", "b"]);
        assert_eq!(
            split("llama-bpe", "a\u{3000}\u{3000}1"),
            ["a", "\u{3000}", "\u{3000}", "1"]
        );
    }

    #[test]
    fn digits_group_as_each_model_wants_them() {
        assert_eq!(split("gpt-2", "x 12345"), ["x", " 12345"]);
        assert_eq!(split("llama-bpe", "12345"), ["123", "45"]);
        assert_eq!(split("qwen2", "123"), ["1", "2", "3"]);
        assert_eq!(split("smollm", "v 12"), ["v", " ", "1", "2"]);
        assert_eq!(split("falcon", "12345"), ["123", "45"]);
        assert_eq!(split("default", "x 12345"), ["x", " ", "123", "45"]);
        assert_eq!(split("deepseek-coder", "12"), ["1", "2"]);
        assert_eq!(split("minicpm5", "x12345"), ["x", "123", "45"]);
        assert_eq!(split("seed-coder", "12!\n"), ["1", "2", "!", "\n"]);
        assert_eq!(split("viking", "ab, 12"), ["ab", ",", " ", "1", "2"]);
        assert_eq!(split("poro-chat", "ab 12."), ["ab", " 12", "."]);
        assert_eq!(
            split("superbpe", "a b 1234567 12"),
            ["a b ", "1", "234", "567", " ", "12"]
        );
        assert_eq!(split("kormo", "it's 12"), ["it", "'s", " ", "1", "2"]);
        assert_eq!(split("a.x-4.0", "it's 12"), ["it", "'s", " 12"]);
        assert_eq!(split("deepseek-llm", "12 34"), ["12", " ", "34"]);
    }

    #[test]
    fn words_and_signs() {
        assert_eq!(split("qwen2", "I'M ok"), ["I", "'M", " ok"]);
        assert_eq!(split("gpt-2", "I'M"), ["I", "'", "M"]);
        // Its second stage keeps accented words whole, its third cuts them: the range `:-~` of its
        // signs holds the ASCII letters.
        assert_eq!(
            split("deepseek-llm", "héllo 你好!"),
            ["h", "é", "llo", " ", "你好", "!"]
        );
        assert_eq!(split("deepseek-coder", "a b!\n"), ["a", " b", "!", "\n"]);
        assert_eq!(split("falcon", "a==b"), ["a", "==", "b"]);
        assert_eq!(
            split("gpt-4o", "HelloWorld don't"),
            ["Hello", "World", " don't"]
        );
        // Combining marks belong to the word only where the expression says so.
        assert_eq!(split("qwen2", "e\u{301}a"), ["e", "\u{301}a"]);
        assert_eq!(split("qwen35", "e\u{301}a"), ["e\u{301}a"]);
    }

    proptest::proptest! {
        #[test]
        fn pieces_make_up_the_text(text in "[ \\t\\r\\na-zA-Z0-9'é你.!\u{301}]{0,60}") {
            static ALL: LazyLock<Vec<Splitter>> = LazyLock::new(|| {
                PRE_TOKENIZERS.iter().map(|pre| pre.splitter().unwrap()).collect()
            });
            for splitter in ALL.iter() {
                proptest::prop_assert_eq!(&splitter.split(&text).concat(), &text);
            }
        }
    }

    #[test]
    fn a_long_run_of_spaces_takes_linear_time() {
        let text = format!("{}x", " ".repeat(2_000_000));
        assert_eq!(split("llama-bpe", &text).len(), 2);
    }
}
