//! Masks against brute force: a token is allowed exactly where its text can be continued to an answer.

use hyperion::engine::Constraint;
use hyperion::grammar::Grammars;
use hyperion::grammar::lark::{self, Space};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::vocabulary::grammars;
use crate::walk::{Random, allowed, parsed, walk};

fn schemas() -> Vec<Value> {
    vec![
        json!({"type": "object"}),
        json!({"enum": ["ab", "a\"b", 3, null, [true]]}),
        json!({"type": "array", "items": {"type": "integer", "minimum": -5, "maximum": 120}, "maxItems": 3}),
        json!({"type": "string", "pattern": "^a+b?$", "maxLength": 4}),
        json!({
            "type": "object",
            "properties": {"name": {"type": "string", "maxLength": 3}, "n": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}},
            "required": ["name"],
            "additionalProperties": false,
        }),
    ]
}

fn value_grammar(grammars: &Grammars, schema: &Value) -> Box<dyn Constraint> {
    let lark = format!("start: {}", lark::json(schema, Space::Single));
    Box::new(grammars.compile(lark).expect("a grammar"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_token_is_allowed_where_it_can_go_on(
        schema in prop::sample::select(schemas()),
        n in 0_usize..12,
        seed in any::<u64>(),
    ) {
        let grammars = grammars(true);
        let tokenizer = grammars.tokenizer();
        let validator = jsonschema::validator_for(&schema).expect("a schema");
        let mut random = Random(seed);
        let mut constraint = value_grammar(&grammars, &schema);
        let beginning = walk(&mut *constraint, tokenizer, &[], &mut random, n);
        if beginning.is_whole {
            return Ok(());
        }
        let mask = constraint.mask().expect("a mask");
        let allowed = allowed(mask.as_deref(), tokenizer);
        for token in 0..tokenizer.vocab_size() as u32 {
            let is_allowed = allowed.binary_search(&token).is_ok();
            if tokenizer.is_end_of_generation(token) {
                let text = tokenizer.decode(&beginning.tokens);
                let value: Option<Value> = serde_json::from_str(&text).ok();
                // A number may go on where it could also end.
                prop_assert!(!is_allowed || value.is_some_and(|value| validator.is_valid(&value)), "{:?}", text);
                continue;
            }
            let mut next = constraint.fork();
            let is_taken = next.take(token).is_ok();
            prop_assert_eq!(is_taken, is_allowed, "{:?} behind {:?}", tokenizer.token_text(token), tokenizer.decode(&beginning.tokens));
            if is_allowed && random.below(8) == 0 {
                let end = walk(&mut *next, tokenizer, &[], &mut random, 2000);
                let all = [&beginning.tokens[..], &[token], &end.tokens].concat();
                if end.is_whole {
                    let text = tokenizer.decode(&all);
                    let is_valid = parsed(&text).is_none_or(|value| validator.is_valid(&value));
                    prop_assert!(is_valid, "{}", text);
                }
            }
        }
    }
}

#[test]
fn control_tokens_are_no_text_of_a_grammar() {
    let grammars = grammars(true);
    let mut constraint = value_grammar(&grammars, &json!({"type": "string"}));
    let quote = grammars
        .tokenizer()
        .encode("\"", Default::default())
        .expect("a token")[0];
    constraint.take(quote).expect("a quote");
    let mask = constraint.mask().expect("a mask");
    let tokenizer = grammars.tokenizer();
    let allowed = allowed(mask.as_deref(), tokenizer);
    assert!(allowed.len() > 100 && allowed.iter().all(|&token| !tokenizer.is_control(token)));
}

/// Small schemas that ask for much: refused, or compiled in a short time.
#[test]
fn bombs_take_no_time() {
    let mut nested = json!({"type": "string"});
    for _ in 0..200 {
        nested = json!({"type": "array", "items": nested});
    }
    let any_of = |n: usize| -> Value {
        let options: Vec<Value> = (0..n)
            .map(|i| json!({"properties": {format!("p{i}"): {"minimum": i}}}))
            .collect();
        json!({ "anyOf": options })
    };
    let all_of: Vec<Value> = (0..12).map(|_| any_of(12)).collect();
    let mut doubling = serde_json::Map::new();
    for i in 0..40 {
        let next = json!({"$ref": format!("#/$defs/d{}", i + 1)});
        doubling.insert(
            format!("d{i}"),
            json!({"allOf": [next, next], "type": "object"}),
        );
    }
    doubling.insert("d40".to_owned(), json!({"type": "object"}));
    let bombs = [
        nested,
        json!({"allOf": all_of}),
        json!({"$ref": "#/$defs/d0", "$defs": doubling}),
        json!({"type": "string", "pattern": "((((a{1,99}){1,99}){1,99}){1,99}){1,99}"}),
        json!({"type": "string", "pattern": "^(.*a.{400})+(.*b.{400})+$"}),
        json!({"type": "array", "minItems": 1_000_000_000}),
        json!({"type": "array", "items": {"type": "array", "items": {"type": "string", "minLength": 9999}, "minItems": 9999}, "minItems": 9999}),
        json!({"type": "number", "multipleOf": 1e-300}),
        json!({"type": "integer", "minimum": -1e308, "maximum": 1e308}),
        json!({"$ref": "#"}),
        json!({"allOf": [{"$ref": "#"}]}),
        json!({"$ref": "http://example.com/x.json"}),
        json!({"enum": (0..19_000).collect::<Vec<_>>()}),
    ];
    let grammars = grammars(true);
    for (index, schema) in bombs.iter().enumerate() {
        let start = std::time::Instant::now();
        if hyperion::grammar::schema::checked(schema.clone()).is_ok() {
            let lark = format!("start: {}", lark::json(schema, Space::Single));
            if let Ok(mut grammar) = grammars.compile(lark) {
                let _ = grammar.mask();
            }
        }
        assert!(
            start.elapsed().as_secs() < 5,
            "bomb {index} took {:?}",
            start.elapsed()
        );
    }
}
