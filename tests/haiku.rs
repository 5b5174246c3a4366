//! The whole program, end to end: a model writes about a noun, or with a number, that is known only when the test
//! runs.
//!
//! `HYPERION_TEST_DEVICE` names the device (the CPU without it), `HYPERION_MODEL` another model's
//! file for the noun.

mod support;

use std::collections::HashSet;
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{SystemTime, UNIX_EPOCH};

use hyperion::backend::Ask;
use hyperion::cpu::CpuBackend;
use hyperion::engine::{Engine, Sequence};
use hyperion::gguf::Gguf;
use hyperion::model::Model;
use hyperion::tokenizer::{EncodeOptions, Tokenizer};

const NOUNS: [&str; 29] = [
    "river",
    "moon",
    "owl",
    "garden",
    "lighthouse",
    "mountain",
    "forest",
    "rain",
    "candle",
    "horse",
    "island",
    "bridge",
    "summer",
    "apple",
    "lake",
    "train",
    "window",
    "bread",
    "wolf",
    "desert",
    "ocean",
    "clock",
    "mirror",
    "feather",
    "orchard",
    "sparrow",
    "lantern",
    "thunder",
    "willow",
];

/// Haiku that the test starts each time it runs.
const POEMS: u64 = 2;

/// Logits may differ by this before two right engines choose different tokens: f32 sums on the CPU,
/// rounded activations on a GPU.
const CPU_GAP: f32 = 0.01;
const GPU_GAP: f32 = 0.1;

const MAX_TOKENS: usize = 48;

fn device() -> String {
    env::var("HYPERION_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned())
}

fn model() -> PathBuf {
    env::var_os("HYPERION_MODEL").map_or_else(|| support::model("smollm2"), PathBuf::from)
}

/// The question that this engine's predecessor answered with garbage, in the form that Qwen2.5's template gives it;
/// and then in ways that leave the model less freedom: with half a billion parameters in 4 bits it overlooks a word now
/// and then, and it writes most numbers in the forties as fifties (llama.cpp's texts are the same).
fn questions(word: &str) -> [String; 3] {
    let questions = [
        format!("Write a haiku about GPU computing. Include the word \"{word}\"."),
        format!(
            "Write a haiku about GPU computing. Include the word \"{word}\". Begin with \"{}\".",
            capitalized(word)
        ),
        format!(
            "Write this haiku about GPU computing again, word for word:\n{} GPUs hum,\n\
             their fans sing in the cold night,\nnumbers become words.",
            capitalized(word)
        ),
    ];
    questions.map(|question| {
        format!(
            "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n\
             <|im_start|>user\n{question}<|im_end|>\n\
             <|im_start|>assistant\n"
        )
    })
}

fn capitalized(word: &str) -> String {
    let (first, rest) = word.split_at(1);
    first.to_uppercase() + rest
}

/// A number below 60 in words.
fn in_words(number: u64) -> String {
    const SMALL: [&str; 20] = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
    ];
    const TENS: [&str; 4] = ["twenty", "thirty", "forty", "fifty"];
    let (tens, ones) = (number as usize / 10, number as usize % 10);
    match (number, ones) {
        (..20, _) => SMALL[number as usize].to_owned(),
        (_, 0) => TENS[tens - 2].to_owned(),
        _ => format!("{}-{}", TENS[tens - 2], SMALL[ones]),
    }
}

/// Examples, so that base models understand it as well; the number makes every prompt a new one.
fn prompt(noun: &str, number: u64) -> String {
    format!(
        "Haiku 17, about the frog:\nAn old silent pond,\na frog jumps into the water,\nsplash! \
         Silence again.\n\nHaiku 52, about the snow:\nWhite snow on the roof,\nthe snow falls on the \
         mountain,\nthe village is still.\n\nHaiku {number}, about the {noun}:\n"
    )
}

/// What the program wrote.
struct Written {
    text: String,
    tokens: Vec<u32>,
}

fn write(model: &Path, prompt: &str) -> Written {
    // On the CPU the reference, which is what the texts are held against.
    let activations: &[&str] = match device().as_str() {
        "cpu" => &["--activations", "f16"],
        _ => &[],
    };
    let output = Command::new(env!("CARGO_BIN_EXE_hyperion"))
        .arg("generate")
        .arg(model)
        .args(activations)
        .args(["--device", &device(), "--raw", "-p", prompt, "--temp", "0"])
        .args([
            "--stop",
            "\n\n",
            "-n",
            &MAX_TOKENS.to_string(),
            "--json",
            "-q",
        ])
        .stdin(Stdio::null())
        .output()
        .expect("a run");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let tokens = json["tokens"].as_array().expect("tokens").iter();
    Written {
        text: json["text"].as_str().expect("a text").to_owned(),
        tokens: tokens
            .map(|token| token.as_u64().expect("a token") as u32)
            .collect(),
    }
}

/// The text is a poem and not garbage.
fn assert_readable(text: &str, dictionary: &HashSet<String>) {
    let strange = |c: char| c == char::REPLACEMENT_CHARACTER || (c.is_control() && c != '\n');
    assert!(!text.contains(strange), "not plain text: {text:?}");
    let typographic = |c: char| "‘’“”–—…é".contains(c);
    assert!(
        text.chars().all(|c| c.is_ascii() || typographic(c)),
        "letters of another encoding: {text:?}"
    );
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    assert!(lines.len() >= 3, "fewer than three lines: {text:?}");
    let words = words_of(text);
    for line in &lines[..3] {
        let n = words_of(line).len();
        assert!((1..=16).contains(&n), "a line of {n} words: {line:?}");
    }
    let unknown: Vec<&String> = words
        .iter()
        .filter(|word| !dictionary.contains(*word))
        .collect();
    assert!(
        unknown.len() * 10 <= words.len(),
        "words that are in no dictionary, {unknown:?}: {text:?}"
    );
}

/// Whether the words of `subject` follow each other in `words`, maybe in the plural.
fn mentions(words: &[String], subject: &str) -> bool {
    let same = |(word, wanted): (&String, &String)| {
        word == wanted || word.strip_suffix('s') == Some(wanted.as_str())
    };
    let wanted = words_of(subject);
    let mut places = words.windows(wanted.len());
    places.any(|place| place.iter().zip(&wanted).all(same))
}

/// Lower case, without the genitive.
fn words_of(text: &str) -> Vec<String> {
    let text = text.to_lowercase().replace('’', "'").replace("'s", "");
    text.split(|c: char| !c.is_alphabetic())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

fn dictionary() -> HashSet<String> {
    let words = support::fixture_bytes("words/english.txt");
    let words = String::from_utf8(words).expect("UTF-8");
    let of_prompts = NOUNS.into_iter().chain(["gpu", "gpus"]);
    words.lines().chain(of_prompts).map(str::to_owned).collect()
}

/// The reference reads what was written and finds at each place that no other token would have been
/// more probable by more than `gap`.
fn assert_greedy(reference: &mut Engine, prompt: &[u32], written: &[u32], gap: f32) {
    let before = &[prompt, &written[..written.len() - 1]].concat();
    let run = AtomicBool::new(false);
    let output = reference
        .prefill(&mut Sequence::new(), before, Ask::ALL_LOGITS, &run)
        .expect("a forward");
    let logits = output.logits;
    let vocab = reference.model().vocab();
    let rows = logits.chunks_exact(vocab).skip(prompt.len() - 1);
    assert_eq!(rows.len(), written.len());
    for (index, (logits, &token)) in rows.zip(written).enumerate() {
        let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let behind = best - logits[token as usize];
        // Not `behind > gap`: NaN must fail.
        assert!(
            behind <= gap,
            "token {index} is {token}, which the reference puts {behind} behind its best"
        );
    }
}

/// Numbers that no run had before.
fn fresh_number() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanoseconds = since.expect("a clock after 1970").as_nanos() as u64;
    // Spread over all bits: clocks tick in coarse steps.
    (nanoseconds ^ u64::from(std::process::id()) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
}

/// What is needed to check what the program wrote.
struct Judge {
    model: PathBuf,
    tokenizer: Tokenizer,
    reference: Engine,
    dictionary: HashSet<String>,
    gap: f32,
}

impl Judge {
    fn of(model: PathBuf) -> Judge {
        let gguf = Gguf::open(&model).expect("a GGUF file");
        let reference = Arc::new(Model::from_gguf(&gguf).expect("a model"));
        let context = 512;
        let backend = CpuBackend::new(reference, Engine::pages_for(context, 1));
        Judge {
            tokenizer: Tokenizer::from_gguf(&gguf).expect("a tokenizer"),
            reference: Engine::new(Box::new(backend), context, context),
            dictionary: dictionary(),
            gap: if device() == "cpu" { CPU_GAP } else { GPU_GAP },
            model,
        }
    }

    /// Lets the program continue `prompt`: readably, and with the tokens that the reference finds most probable. Returns
    /// whether it is about `subject`.
    fn assert_haiku(&mut self, prompt: &str, subject: &str) -> bool {
        let written = write(&self.model, prompt);
        println!("{prompt}{}", written.text);
        assert_readable(&written.text, &self.dictionary);
        let options = EncodeOptions {
            add_special: true,
            parse_special: true,
        };
        let tokens = self.tokenizer.encode(prompt, options).expect("tokens");
        assert_greedy(&mut self.reference, &tokens, &written.tokens, self.gap);
        mentions(&words_of(&written.text), subject)
    }
}

#[test]
fn a_haiku_about_a_noun_that_nobody_knew() {
    let mut judge = Judge::of(model());
    let fresh = fresh_number();
    for poem in 0..POEMS {
        let noun = NOUNS[((fresh + poem * 11) % NOUNS.len() as u64) as usize];
        let prompt = prompt(noun, 1000 + (fresh / 32 + poem) % 99_000);
        assert!(judge.assert_haiku(&prompt, noun), "no {noun:?}");
    }
}

/// In the model family in which this engine's predecessor wrote garbage.
#[test]
fn a_haiku_with_the_minute_of_the_hour() {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let minute = in_words(since.expect("a clock after 1970").as_secs() / 60 % 60);
    let mut judge = Judge::of(support::model("qwen2.5-coder-0.5b"));
    let is_there = |question: &String| judge.assert_haiku(question, &minute);
    assert!(
        questions(&minute).iter().any(is_there),
        "no {minute:?}, however it was asked"
    );
}

#[test]
fn numbers_in_words() {
    let words = [0, 9, 10, 19, 20, 39, 40, 59].map(in_words);
    assert_eq!(
        words.each_ref().map(String::as_str),
        [
            "zero",
            "nine",
            "ten",
            "nineteen",
            "twenty",
            "thirty-nine",
            "forty",
            "fifty-nine"
        ]
    );
    let words = words_of("Thirty-nine threads, twenty cores, one stone");
    assert!(mentions(&words, "thirty-nine") && mentions(&words, "thread"));
    assert!(!mentions(&words, "twenty-nine") && !mentions(&words, "ton"));
}

#[test]
fn garbage_is_not_readable() {
    let dictionary = dictionary();
    let poem = "The river flows,\nthe river's water is cold,\nit runs to the sea.";
    assert_readable(poem, &dictionary);
    for garbage in [
        poem.replace("cold", "c\u{fffd}ld"),
        poem.replace("cold", "cÃ¶ld"),
        poem.replace("water is", "wat ercold isthe flo rem"),
        poem.replace('\n', " "),
        String::new(),
    ] {
        let verdict = std::panic::catch_unwind(|| assert_readable(&garbage, &dictionary));
        assert!(verdict.is_err(), "passed: {garbage:?}");
    }
}
