//! JSON schemas as clients send them, over the vocabulary of a real model: those that have no grammar are refused by
//! the keyword, instances are taken exactly where they are valid, and whatever is written fits.
//!
//! `HYPERION_TEST_SCHEMAS=FOLDER` takes all files of a folder in the form of the JSON Schema Test Suite in place of the
//! sample, and tells instead of failing; `tests/tools/function_schemas.py` writes such a file.

use std::path::PathBuf;
use std::time::Instant;

use hyperion::chat::ChatTemplate;
use hyperion::chat::tools::ToolFormat;
use hyperion::engine::Constraint;
use hyperion::gguf::Gguf;
use hyperion::grammar::Grammars;
use hyperion::openai::{ApiError, ChatRequest};
use hyperion::tokenizer::Tokenizer;
use serde_json::{Value, json};

use crate::support;
use crate::vocabulary::template;
use crate::walk::{Random, parsed};

const SAMPLE: &str = include_str!("schemas.json");

/// Answers by each schema.
const WALKS: usize = 3;
/// Tokens of one of them at most.
const LONGEST: usize = 400;

struct Suite {
    grammars: Grammars,
    template: ChatTemplate,
    /// Tokens whose text closes something, or goes on where it must, as a mask.
    closing: Vec<u32>,
    random: Random,
    /// Whether each schema says whether it is refused.
    is_sample: bool,
    outcome: Outcome,
}

/// What was seen.
#[derive(Debug, Default)]
struct Outcome {
    schemas: usize,
    refused: usize,
    instances: usize,
    walks: usize,
    whole_walks: usize,
    faults: Vec<String>,
    refusals: Vec<String>,
}

impl Suite {
    fn new(is_sample: bool) -> Suite {
        let gguf = Gguf::open(&support::model("smollm2")).expect("a model");
        let tokenizer = Tokenizer::from_gguf(&gguf).expect("a tokenizer");
        let n_tokens = tokenizer.vocab_size() as u32;
        let mut closing = vec![0; (n_tokens as usize).div_ceil(32)];
        let closes = |token: u32| {
            let bytes = tokenizer.token_bytes(token);
            bytes.iter().all(|byte| b"\"}],:0aeltrufs".contains(byte))
        };
        let tokens = (0..n_tokens).filter(|&token| !tokenizer.is_control(token) && closes(token));
        tokens.for_each(|token| closing[token as usize / 32] |= 1 << (token % 32));
        Suite {
            grammars: Grammars::new(&tokenizer),
            template: template(ToolFormat::Hermes, None, false),
            closing,
            random: Random(1),
            is_sample,
            outcome: Outcome::default(),
        }
    }

    /// The constraint of an answer that a client wants by `schema`.
    fn constraint(&self, schema: &Value) -> Result<Box<dyn Constraint>, ApiError> {
        let format = json!({"type": "json_schema", "json_schema": {"name": "s", "schema": schema}});
        let body =
            json!({"messages": [{"role": "user", "content": "hi"}], "response_format": format});
        let request = ChatRequest::from_body(body)?;
        let prepared = request.prepare(&self.template, &self.grammars)?;
        Ok(prepared.constraint.expect("a constraint"))
    }

    /// A schema with its instances.
    fn try_group(&mut self, place: &str, group: &Value) {
        let schema = &group["schema"];
        self.outcome.schemas += 1;
        let constraint = match self.constraint(schema) {
            Ok(constraint) => constraint,
            Err(error) => return self.note_refusal(place, group, &error),
        };
        if let Some(keyword) = group["refused"].as_str() {
            self.fault(format!("{place}: {keyword} is not refused"));
        }
        let none = Vec::new();
        for test in group["tests"].as_array().unwrap_or(&none) {
            self.outcome.instances += 1;
            let text = test["data"].to_string();
            let is_taken = self.takes(constraint.fork(), &text);
            if json!(is_taken) != test["valid"] {
                let what = if is_taken { "taken" } else { "not taken" };
                self.fault(format!(
                    "{place}: {text} is {what} ({}) by {schema}",
                    test["description"]
                ));
            }
        }
        let Ok(validator) = jsonschema::validator_for(schema) else {
            return self.fault(format!("{place}: no schema, and taken: {schema}"));
        };
        for _ in 0..WALKS {
            self.outcome.walks += 1;
            let Some(text) = self.walk(constraint.fork()) else {
                continue;
            };
            self.outcome.whole_walks += 1;
            if parsed(&text).is_some_and(|value| !validator.is_valid(&value)) {
                self.fault(format!("{place}: {text} was written by {schema}"));
            }
        }
    }

    /// A refusal is the client's error, in one line that names what is at fault.
    fn note_refusal(&mut self, place: &str, group: &Value, error: &ApiError) {
        self.outcome.refused += 1;
        self.outcome
            .refusals
            .push(format!("{place}: {}", error.message));
        let is_clear = error.status == 400
            && error.param.as_deref() == Some("response_format.json_schema.schema")
            && !error.message.contains('\n');
        let is_expected = match group["refused"].as_str() {
            Some(keyword) => error.message.contains(keyword),
            // A suite does not say what has no grammar; what there is, is told.
            None => !self.is_sample,
        };
        if !is_clear || !is_expected {
            self.fault(format!("{place}: {error} for {}", group["schema"]));
        }
    }

    /// Whether an answer may be `text`.
    fn takes(&self, mut constraint: Box<dyn Constraint>, text: &str) -> bool {
        let tokenizer = self.grammars.tokenizer();
        let tokens = tokenizer.encode(text, Default::default()).expect("tokens");
        if !tokens
            .into_iter()
            .all(|token| constraint.take(token).is_ok())
        {
            return false;
        }
        if constraint.is_complete() {
            return true;
        }
        let mask = constraint.mask().expect("a mask").expect("a grammar's");
        let is_allowed = |&end: &u32| mask[end as usize / 32] >> (end % 32) & 1 == 1;
        tokenizer.end_of_generation().iter().any(is_allowed)
    }

    /// The text of an answer at random, where it ended by itself.
    fn walk(&mut self, mut constraint: Box<dyn Constraint>) -> Option<String> {
        let tokenizer = self.grammars.tokenizer();
        let mut tokens = Vec::new();
        while tokens.len() < LONGEST && !constraint.is_complete() {
            let mask = constraint.mask().expect("a mask").expect("a grammar's");
            let prefers_end = self.random.below(4) > 0;
            let preferred: Vec<u32> = mask.iter().zip(&self.closing).map(|(a, b)| a & b).collect();
            let is_any = preferred.iter().any(|&word| word != 0);
            let token = match prefers_end && is_any {
                true => pick(&preferred, &mut self.random),
                false => pick(&mask, &mut self.random),
            };
            if tokenizer.is_end_of_generation(token) {
                return Some(tokenizer.decode(&tokens));
            }
            constraint.take(token).expect("an allowed token");
            tokens.push(token);
        }
        constraint.is_complete().then(|| tokenizer.decode(&tokens))
    }

    fn fault(&mut self, fault: String) {
        self.outcome.faults.push(fault);
    }
}

/// One of the tokens of a mask, all equally probable.
fn pick(mask: &[u32], random: &mut Random) -> u32 {
    let n: u32 = mask.iter().map(|word| word.count_ones()).sum();
    assert!(n > 0, "nothing may follow");
    let mut left = random.below(n as usize) as u32;
    for (index, &word) in mask.iter().enumerate() {
        if left < word.count_ones() {
            let mut bits = (0..32).filter(|bit| word >> bit & 1 == 1);
            return index as u32 * 32 + bits.nth(left as usize).expect("a bit");
        }
        left -= word.count_ones();
    }
    unreachable!("the bits were counted");
}

fn groups(text: &str) -> Vec<Value> {
    serde_json::from_str(text).expect("a list of schemas")
}

fn files(folder: PathBuf) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(files(path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

#[test]
fn schemas_are_refused_by_name_or_kept_to() {
    let folder = std::env::var_os("HYPERION_TEST_SCHEMAS");
    let mut suite = Suite::new(folder.is_none());
    let Some(folder) = folder else {
        for group in groups(SAMPLE) {
            suite.try_group(group["description"].as_str().expect("a name"), &group);
        }
        let Outcome {
            schemas,
            whole_walks,
            walks,
            faults,
            ..
        } = &suite.outcome;
        assert!(faults.is_empty(), "{faults:#?}");
        assert!(
            *schemas >= 30 && whole_walks * 2 > *walks,
            "{whole_walks} of {walks} walks ended"
        );
        return;
    };
    let start = Instant::now();
    suite.grammars.warm_up().expect("a vocabulary");
    println!("what all grammars share took {:?}", start.elapsed());
    for path in files(folder.into()) {
        let text = std::fs::read_to_string(&path).expect("a file");
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        for group in groups(&text) {
            let description = group["description"].as_str().unwrap_or_default();
            suite.try_group(&format!("{name}, {description}"), &group);
        }
    }
    println!("{:#?}", suite.outcome);
}
