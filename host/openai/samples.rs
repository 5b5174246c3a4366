//! What the tests of all APIs share.

use proptest::prelude::*;
use serde_json::Value;

use super::{Ending, Head, Spent};
use crate::chat::Piece;
use crate::engine::Finish;

/// The pieces of any answer, cut in any way.
pub fn any_pieces() -> impl Strategy<Value = Vec<Piece>> {
    let text = prop_oneof!["", "[a-z ]{1,6}", "ä|\\\\|\"|\n"];
    let one = (0..4_u8, text);
    prop::collection::vec(one, 0..24).prop_map(|choices| {
        let mut n_calls = 0;
        let mut pieces = Vec::new();
        for (kind, text) in choices {
            pieces.push(match kind {
                0 => Piece::Reasoning(text),
                1 => Piece::Content(text),
                2 => {
                    n_calls += 1;
                    Piece::ToolCall {
                        index: n_calls - 1,
                        id: format!("call_{n_calls}"),
                        name: format!("f{n_calls}"),
                    }
                }
                _ => Piece::Arguments {
                    index: n_calls.saturating_sub(1),
                    text,
                },
            });
        }
        pieces
    })
}

/// A head, the same each time.
pub fn head() -> Head {
    Head {
        id: "1".to_owned(),
        model: "m".to_owned(),
        created: 5,
        seed: 7,
    }
}

/// An end, whose numbers are all different.
pub fn ending(finish: Finish) -> Ending {
    Ending {
        finish,
        stop: (finish == Finish::StopString).then(|| "END".to_owned()),
        spent: Spent {
            prompt: 10,
            cached: 4,
            answer: 3,
            reasoning: 1,
        },
    }
}

/// Any JSON whose texts are often of `words`, and whose fields have `names`; both are regular expressions.
pub fn any_json(words: &'static str, names: &'static str) -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2_i64..3000).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        words.prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((names, inner), 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}
