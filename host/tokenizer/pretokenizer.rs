//! Pre-tokenizers: the regular expressions that cut a text into the words within which BPE
//! merges, chosen by `tokenizer.ggml.pre`.
//!
//! The expressions are those of the models' own `tokenizer.json` files, as llama.cpp applies
//! them: one after the other, each to the pieces that the one before left, and both what matches
//! and what lies between matches becomes a piece.

use regex_automata::Input;
use regex_automata::meta::Regex;

use super::TokenizerError;

/// How the pre-tokenizer of some models works.
#[derive(Debug)]
pub(super) struct PreTokenizer {
    /// The values of `tokenizer.ggml.pre` that mean it.
    names: &'static [&'static str],
    patterns: &'static [&'static str],
    /// A word that is itself a token stays whole, whatever the merges would make of it.
    pub ignore_merges: bool,
    /// A BOS token is added unless the file says otherwise.
    pub add_bos: bool,
}

/// GPT-2's expression, the last stage of many others.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";

/// Llama 3's: digits in groups of three, line ends apart, contractions in any case (spelled out:
/// case folding would let `'ſ` through, which is no contraction to the models).
const LLAMA3: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Qwen2's: Llama 3's with single digits.
const QWEN2: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// DeepSeek's ranges of Chinese, and what else its expression happens to span, and Hangul.
const DEEPSEEK_CJK: &str = r"[\x{4E00}-\x{9FA5}\x{0800}-\x{4E00}\x{AC00}-\x{D7FF}]+";

/// The cased letters of an old version of Unicode, which DeepSeek's first models spelled out.
const DEEPSEEK_LETTERS: &str = concat!(
    r"\s?[",
    r"\x{0041}-\x{005A}\x{0061}-\x{007A}\x{00B5}\x{00C0}-\x{00D6}\x{00D8}-\x{00F6}",
    r"\x{00F8}-\x{01BA}\x{01BC}-\x{01BF}\x{01C4}-\x{0293}\x{0295}-\x{02AF}\x{0370}-\x{0373}",
    r"\x{0376}\x{0377}\x{037B}-\x{037D}\x{037F}\x{0386}\x{0388}-\x{038A}\x{038C}",
    r"\x{038E}-\x{03A1}\x{03A3}-\x{03F5}\x{03F7}-\x{0481}\x{048A}-\x{052F}\x{0531}-\x{0556}",
    r"\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}",
    r"\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}",
    r"\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}",
    r"\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}",
    r"\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}",
    r"\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}",
    r"\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}",
    r"\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}",
    r"\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}",
    r"\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}",
    r"\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3}",
    r"\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}",
    r"\x{1E900}-\x{1E943}",
    r"]+"
);

const PRE_TOKENIZERS: &[PreTokenizer] = &[
    PreTokenizer {
        names: &["default"],
        patterns: &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
        ],
        patterns: &[LLAMA3],
        ignore_merges: true,
        add_bos: true,
    },
    PreTokenizer {
        names: &["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"],
        patterns: &[LLAMA3],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &[
            "qwen2",
            "deepseek-r1-qwen",
            "stablelm2",
            "hunyuan",
            "megrez",
            "grok-2",
        ],
        patterns: &[QWEN2],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["qwen35"],
        patterns: &[
            r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &[
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "gigachat",
            "mellum",
            "exaone4",
            "trillion",
            "granite-docling",
        ],
        patterns: &[GPT2],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &[
            "smollm",
            "starcoder",
            "refact",
            "command-r",
            "codeshell",
            "exaone",
            "minerva-7b",
        ],
        patterns: &[r"\p{N}", GPT2],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["falcon"],
        patterns: &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, r"[0-9][0-9][0-9]"],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["deepseek-llm"],
        patterns: &[
            r"[\r\n]",
            DEEPSEEK_LETTERS,
            r"\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+",
            r"\s+$",
            DEEPSEEK_CJK,
            r"\p{N}+",
        ],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["deepseek-coder"],
        patterns: &[
            r"[\r\n]",
            r"\s?\p{L}+",
            r"\s?\p{P}+",
            DEEPSEEK_CJK,
            r"\p{N}",
        ],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["deepseek-v3", "hunyuan-dense"],
        patterns: &[
            r"\p{N}{1,3}",
            r"[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+",
            r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}\~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
        ],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["tekken"],
        patterns: &[
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        ignore_merges: true,
        add_bos: true,
    },
    PreTokenizer {
        names: &["gpt-4o", "llama4"],
        patterns: &[
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        ignore_merges: false,
        add_bos: false,
    },
];

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
/// taken out of the expression and done by hand: so an automaton finds the matches, in linear time
/// whatever the text is. (The crate `tokenizers` runs these expressions in a backtracking engine
/// and, where that gives up, leaves the rest of the text unsplit.)
#[derive(Debug)]
struct Stage {
    regex: Regex,
}

/// The index of `\s+` among a stage's patterns, where it is one of them.
const WHITESPACE: usize = 1;

impl Stage {
    fn new(pattern: &str) -> Result<Stage, TokenizerError> {
        let look_ahead = [r"|\s+(?!\S)|\s+", r"|\s+(?!\S)"];
        let regex = match look_ahead.iter().find_map(|end| pattern.strip_suffix(end)) {
            Some(before) => Regex::new_many(&[before, r"\s+"]),
            None => Regex::new(pattern),
        };
        let regex = regex.map_err(|error| TokenizerError::Backend {
            what: "the pre-tokenizer's regular expression",
            reason: error.to_string(),
        })?;
        Ok(Stage { regex })
    }

    fn split<'t>(&self, piece: &'t str, out: &mut Vec<&'t str>) {
        let mut at = 0;
        while let Some(found) = self.regex.find(Input::new(piece).range(at..)) {
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
