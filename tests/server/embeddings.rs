//! Vectors that stand for texts.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::server::Server;

fn vector(value: &Value) -> Vec<f32> {
    serde_json::from_value(value.clone()).expect("numbers")
}

fn vectors(server: &Server, input: Value) -> Vec<Vec<f32>> {
    let reply = server
        .post("/v1/embeddings", &json!({ "input": input }))
        .ok();
    assert_eq!(
        (&reply["object"], &reply["model"]),
        (&json!("list"), &json!("served"))
    );
    let data = reply["data"]
        .as_array()
        .expect("vectors")
        .iter()
        .enumerate();
    data.map(|(index, item)| {
        assert_eq!(
            (&item["object"], &item["index"]),
            (&json!("embedding"), &json!(index))
        );
        vector(&item["embedding"])
    })
    .collect()
}

fn assert_close(one: &[f32], two: &[f32]) {
    assert_eq!(one.len(), two.len());
    for (one, two) in one.iter().zip(two) {
        assert!((one - two).abs() < 1e-5, "{one} {two}");
    }
}

#[test]
fn vectors_have_length_one_and_do_not_depend_on_what_runs_beside() {
    for pooling in ["last", "mean"] {
        let server = Server::start(&["--pooling", pooling]);
        let texts: Vec<String> = (0..40)
            .map(|n| format!("text {n}").repeat(1 + n % 3))
            .collect();
        let together = vectors(&server, json!(texts));
        assert_eq!(together.len(), 40);
        for (text, together) in texts.iter().zip(&together).take(5) {
            let length: f32 = together.iter().map(|value| value * value).sum();
            assert!((length - 1.0).abs() < 1e-4, "{length}");
            assert_eq!(&vectors(&server, json!(text))[0], together);
        }
        assert_ne!(together[0], together[1]);
    }
}

/// A prompt of several steps, of which the last one alone is not the text; and one that is in the cache.
#[test]
fn a_long_text_has_the_same_vector_in_any_number_of_steps() {
    let text: Vec<u32> = (1..200).map(|n| n % 90).collect();
    for pooling in ["last", "mean"] {
        let whole = Server::start(&["--pooling", pooling]);
        let cut = Server::start(&["--pooling", pooling, "--chunk", "7", "--budget", "7"]);
        let one = vectors(&whole, json!(text)).remove(0);
        assert_close(&one, &vectors(&cut, json!(text))[0]);
        assert_close(&one, &vectors(&cut, json!(text))[0]);
        assert_close(&one, &vectors(&whole, json!([text, text]))[1]);
    }
}

#[test]
fn the_mean_is_another_vector_than_the_last() {
    let of = |pooling| vectors(&Server::start(&["--pooling", pooling]), json!([5, 6, 7])).remove(0);
    assert_ne!(of("mean"), of("last"));
}

#[test]
fn base64_has_the_same_numbers() {
    let server = Server::start(&[]);
    let asked = json!({"input": [[1, 2]], "encoding_format": "base64", "model": "any"});
    let reply = server.post("/v1/embeddings", &asked).ok();
    let text = reply["data"][0]["embedding"].as_str().expect("a text");
    let bytes = STANDARD.decode(text).expect("base64");
    let numbers = bytes
        .chunks(4)
        .map(|bytes| f32::from_le_bytes(bytes.try_into().expect("four")));
    assert_eq!(
        numbers.collect::<Vec<_>>(),
        vectors(&server, json!([1, 2]))[0]
    );
    assert_eq!(
        reply["usage"],
        json!({"prompt_tokens": 2, "total_tokens": 2})
    );
}

#[test]
fn what_cannot_be_embedded_is_refused() {
    let server = Server::start(&[]);
    for (body, param) in [
        (json!({}), json!("input")),
        (json!({"input": []}), json!("input")),
        (json!({"input": "x", "dimensions": 5}), json!("dimensions")),
        (json!({"input": [1_000_000]}), json!("input")),
        (json!({"input": [[1], []]}), json!("input")),
    ] {
        assert_eq!(
            server.post("/v1/embeddings", &body).error(400)["param"],
            param,
            "{body}"
        );
    }
}
