//! Requests of all kinds.

use serde_json::{Value, json};

/// Numbers that look random.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: u64) -> u64 {
        // Knuth's MMIX.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// Short requests of all kinds, with errors in between.
pub fn requests(n: u64) -> Vec<Value> {
    let mut random = Random(7);
    let request = |index: u64| {
        let words = (0..1 + random.below(20)).map(|_| format!("w{} ", random.below(99)));
        let text: String = words.collect();
        let mut body = match index % 4 {
            0 => json!({"messages": [{"role": "user", "content": text}]}),
            _ => json!({"prompt": text}),
        };
        body["max_tokens"] = json!(1 + random.below(24));
        if index.is_multiple_of(3) {
            body["seed"] = json!(index);
        }
        if index.is_multiple_of(5) {
            body["stop"] = json!(["e", "<t7"]);
        }
        if index % 4 == 1 {
            body["logprobs"] = json!(index % 6);
        }
        if index.is_multiple_of(8) {
            body["logprobs"] = json!(true);
            body["top_logprobs"] = json!(2);
        }
        if index.is_multiple_of(7) {
            body["repetition_penalty"] = json!(1.3);
        }
        if index.is_multiple_of(9) {
            body["temperature"] = json!(0);
        }
        match index % 25 {
            11 => body["temperature"] = json!(-1),
            17 => body = json!({"prompt": vec![1; 500]}),
            23 => body["unheard_of"] = json!(1),
            _ => {}
        }
        json!({"custom_id": format!("request {index}"), "body": body})
    };
    (0..n).map(request).collect()
}
