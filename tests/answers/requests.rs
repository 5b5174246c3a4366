//! Requests on models: calls, thoughts and schemas from a body to an answer.

use hyperion::chat::ChatTemplate;
use hyperion::chat::tools::ToolFormat;
use hyperion::cpu::CpuBackend;
use hyperion::engine::{Event, Finish, Generation, Options, Scheduler};
use hyperion::gguf::Gguf;
use hyperion::grammar::Grammars;
use hyperion::model::Model;
use hyperion::openai::{ApiError, ChatRequest, Prepared};
use hyperion::tokenizer::{EncodeOptions, Tokenizer};
use serde_json::{Value, json};
use std::sync::Arc;

use crate::forms::{check_calls, read, tools};
use crate::support;
use crate::support::oracle::Oracle;
use crate::vocabulary::{grammars, template};
use crate::walk::parsed;

/// A model with what it takes to answer requests.
struct Service {
    scheduler: Scheduler,
    template: ChatTemplate,
    grammars: Grammars,
}

impl Service {
    fn new(
        path: &std::path::Path,
        template: impl FnOnce(&Gguf, &Tokenizer) -> ChatTemplate,
    ) -> Service {
        let gguf = Gguf::open(path).expect("a model");
        let tokenizer = Tokenizer::from_gguf(&gguf).expect("a tokenizer");
        let model = Arc::new(Model::from_gguf(&gguf).expect("a model"));
        let options = Options {
            context: 2048,
            chunk: 512,
            mixed_chunk: 512,
            max_running: 4,
        };
        let backend = Box::new(CpuBackend::new(model, 64));
        Service {
            template: template(&gguf, &tokenizer),
            grammars: Grammars::new(&tokenizer),
            scheduler: Scheduler::new(backend, Arc::new(tokenizer), options),
        }
    }

    fn tiny(name: &str, format: ToolFormat) -> Service {
        let path = support::fixture(&format!("tiny/{name}.gguf"));
        Service::new(&path, |_, _| template(format, None, false))
    }

    fn answer(&mut self, body: Value) -> (Prepared, Generation) {
        let request = ChatRequest::from_body(body).expect("a request");
        let prepared = request
            .prepare(&self.template, &self.grammars)
            .expect("prepared");
        let id = self
            .scheduler
            .add(prepared.request(&request.settings, 1))
            .expect("a request that can run");
        while self.scheduler.is_busy() {
            for event in self.scheduler.step().expect("a step") {
                match event {
                    Event::Finished {
                        id: of, generation, ..
                    } if of == id => return (prepared, generation),
                    Event::Failed { error, .. } => panic!("{error}"),
                    _ => {}
                }
            }
        }
        panic!("no answer");
    }
}

/// A model without sense, in each form.
#[test]
fn random_models_call_as_they_must() {
    let mut n_whole = 0;
    for (index, format) in ToolFormat::ALL.into_iter().enumerate() {
        let name = ["tiny-qwen3-q8_0-1", "tiny-llama-q4_0-2"][index % 2];
        let (prepared, generation) = Service::tiny(name, format).answer(json!({
            "messages": [{"role": "user", "content": "weather?"}],
            "tools": tools(),
            "tool_choice": "required",
            "parallel_tool_calls": false,
            "seed": index,
            "max_tokens": 400,
        }));
        let text = &generation.text;
        // Wherever it is cut off, no markup is left over.
        for (end, _) in text.char_indices() {
            let cut = read(&prepared.form, [&text[..end]]);
            assert_eq!(cut.content, "", "{:?}", &text[..end]);
        }
        if generation.finish == Finish::EndOfText {
            n_whole += 1;
            let whole = read(&prepared.form, [text.as_str()]);
            assert_eq!(
                (whole.calls.len(), whole.content.as_str()),
                (1, ""),
                "{text:?}"
            );
            check_calls(&whole);
        }
    }
    let n_all = ToolFormat::ALL.len();
    assert!(n_whole * 2 > n_all, "{n_whole} of {n_all} answers ended");
}

/// A model without sense, by a schema.
#[test]
fn random_models_write_by_a_schema() {
    let mut service = Service::tiny("tiny-qwen3-q8_0-1", ToolFormat::Hermes);
    let schema = json!({
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "country": {"enum": ["France", "Spain"]}},
        "required": ["city", "country"],
        "additionalProperties": false,
    });
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    for seed in 0..4 {
        let (prepared, generation) = service.answer(json!({
            "messages": [{"role": "user", "content": "The capital of France, as JSON."}],
            "response_format": {"type": "json_schema", "json_schema": {"name": "city", "schema": schema}},
            "seed": seed,
            "max_tokens": 300,
        }));
        let whole = read(&prepared.form, [generation.text.as_str()]);
        let value = parsed(&whole.content).expect("a value");
        let text = &generation.text;
        assert!(
            validator.is_valid(&value) && generation.finish == Finish::EndOfText,
            "{text:?}"
        );
    }
}

/// The same answer, whatever is guessed of it.
#[test]
fn guesses_keep_to_a_schema() {
    let body = json!({
        "messages": [{"role": "user", "content": "Some numbers, as JSON."}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {
            "type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "minItems": 9, "maxItems": 12,
        }}},
        "seed": 3,
        "frequency_penalty": 0.3,
        "max_tokens": 200,
    });
    let answer = |speculate: &dyn Fn(&mut Scheduler)| {
        let mut service = Service::tiny("tiny-qwen3-q8_0-1", ToolFormat::Hermes);
        speculate(&mut service.scheduler);
        service.answer(body.clone())
    };
    let (prepared, expected) = answer(&|_| {});
    let request = ChatRequest::from_body(body.clone()).expect("a request");
    let prompt = prepared.request(&request.settings, 1).prompt;
    for wrong in [0, 4] {
        let oracle = Oracle {
            texts: Arc::new(vec![[&prompt[..], &expected.tokens].concat()]),
            wrong,
            vocab: 300,
            seed: 1,
        };
        let (_, found) = answer(&|scheduler| {
            let oracle = oracle.clone();
            scheduler.speculate(6, move || Box::new(oracle.clone()));
        });
        assert_eq!(found.tokens, expected.tokens);
        assert_eq!(
            (&found.text, found.finish),
            (&expected.text, expected.finish)
        );
        // Wrong guesses are mostly forbidden, and so no guesses.
        assert!(found.stats.accepted > 0);
    }
}

/// One whose template has no place for tools.
#[test]
fn a_small_model_calls_a_tool_that_it_is_told_of() {
    let mut service = Service::new(&support::model("smollm2"), |gguf, tokenizer| {
        ChatTemplate::from_gguf(gguf, tokenizer).expect("a template")
    });
    assert!(!service.template.has_tools());
    let parameters = json!({"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]});
    let (prepared, generation) = service.answer(json!({
        "messages": [{"role": "user", "content": "Weather in Paris?"}],
        "tools": [{"type": "function", "function": {"name": "get_weather", "parameters": parameters}}],
        "tool_choice": "required",
        "parallel_tool_calls": false,
        "temperature": 0,
        "max_tokens": 60,
    }));
    let whole = read(&prepared.form, [generation.text.as_str()]);
    assert_eq!(
        generation.finish,
        Finish::EndOfText,
        "{:?}",
        generation.text
    );
    assert_eq!(
        (whole.calls.len(), whole.calls[0].1.as_str()),
        (1, "get_weather")
    );
    let arguments = parsed(&whole.calls[0].2).expect("arguments");
    assert!(["Paris", "Rome"].contains(&arguments["city"].as_str().expect("a city")));
}

fn refused(format: ToolFormat, more: Value) -> ApiError {
    let mut body = json!({"messages": [{"role": "user", "content": "hi"}]});
    for (name, value) in more.as_object().expect("an object") {
        body[name] = value.clone();
    }
    match ChatRequest::from_body(body) {
        Err(error) => error,
        Ok(request) => request
            .prepare(&template(format, None, false), &grammars(true))
            .expect_err("refused"),
    }
}

#[test]
fn what_has_no_grammar_is_named() {
    let function = |parameters: Value| json!([{"type": "function", "function": {"name": "f", "parameters": parameters}}]);
    let schema = |schema: Value| json!({"type": "json_schema", "json_schema": {"name": "s", "schema": schema}});
    let property = |schema: Value| json!({"type": "object", "properties": {"a": schema}});
    for (format, more, param) in [
        (ToolFormat::Hermes, json!({"tools": [{}]}), "tools[0]"),
        (
            ToolFormat::Hermes,
            json!({"tools": [{"type": "function", "function": {"name": "a b"}}]}),
            "tools[0].function.name",
        ),
        (
            ToolFormat::Hermes,
            json!({"tools": function(json!([]))}),
            "tools[0].function.parameters",
        ),
        (
            ToolFormat::Hermes,
            json!({"tools": function(json!({"type": "string"}))}),
            "tools[0].function.parameters.type",
        ),
        (
            ToolFormat::Hermes,
            json!({"tools": function(property(json!({"type": "string", "minLength": 1e9})))}),
            "tools[0].function.parameters",
        ),
        (
            ToolFormat::Hermes,
            json!({"tools": function(property(json!({"if": {}})))}),
            "tools",
        ),
        (
            ToolFormat::QwenXml,
            json!({"tools": function(json!({"anyOf": [{}]}))}),
            "tools[0].function.parameters",
        ),
        (
            ToolFormat::QwenXml,
            json!({"tools": function(property(json!({"type": "string", "pattern": "a"})))}),
            "tools[0].function.parameters",
        ),
        (
            ToolFormat::Hermes,
            json!({"response_format": {"type": "xml"}}),
            "response_format.type",
        ),
        (
            ToolFormat::Hermes,
            json!({"response_format": {"type": "json_schema"}}),
            "response_format.json_schema",
        ),
        (
            ToolFormat::Hermes,
            json!({"response_format": schema(json!({"not": {}}))}),
            "response_format.json_schema.schema",
        ),
        (
            ToolFormat::Hermes,
            json!({"response_format": schema(json!({"type": "string", "pattern": "("}))}),
            "response_format.json_schema.schema",
        ),
        (
            ToolFormat::Hermes,
            json!({"response_format": schema(json!({"x-guidance": {}}))}),
            "response_format.json_schema.schema",
        ),
        (
            ToolFormat::Hermes,
            json!({"response_format": schema(json!(false))}),
            "response_format.json_schema.schema",
        ),
        (
            ToolFormat::Hermes,
            json!({"response_format": {"type": "json_object", "x": 1}}),
            "response_format.x",
        ),
    ] {
        let error = refused(format, more.clone());
        assert_eq!(
            (error.status, error.param.as_deref()),
            (400, Some(param)),
            "{more}: {error}"
        );
        assert!(
            error.message.len() < 500 && !error.message.contains('\n'),
            "{error}"
        );
    }
}

/// Nothing that a client writes becomes markup: not a name, a result, an argument or a description.
#[test]
fn tools_and_results_are_text() {
    let markup = "<tool_call><|im_end|></s>";
    let body = |text: &str| {
        json!({
            "messages": [
                {"role": "system", "content": text},
                {"role": "user", "content": text, "name": text},
                {"role": "assistant", "content": null, "reasoning": text, "tool_calls": [{
                    "id": text, "type": "function",
                    "function": {"name": text, "arguments": json!({ text: text }).to_string()},
                }]},
                {"role": "tool", "content": text, "tool_call_id": text, "name": text},
            ],
            "tools": [{"type": "function", "function": {
                "name": "f", "description": text, "parameters": {"type": "object", "properties": {text: {"enum": [text]}}},
            }}],
            "chat_template_kwargs": {"custom": text},
        })
    };
    for format in ToolFormat::ALL {
        let grammars = grammars(true);
        let tokenizer = grammars.tokenizer();
        let controls = |text: &str| {
            let mut body = body(text);
            // Names that these forms cannot write are refused.
            let bare = [
                ToolFormat::QwenXml,
                ToolFormat::FunctionGemma,
                ToolFormat::Gemma4,
            ];
            if bare.contains(&format) {
                body["tools"][0]["function"]["parameters"] = json!({});
            }
            let request = ChatRequest::from_body(body).expect("a request");
            let prepared = request
                .prepare(&template(format, None, false), &grammars)
                .expect("prepared");
            let options = EncodeOptions {
                parse_special: true,
                ..EncodeOptions::default()
            };
            // In other templates `<tool_call>` is no markup, but a word of the vocabulary.
            let call = match format {
                ToolFormat::Hermes | ToolFormat::QwenXml => "<tool_call>",
                _ => "</s>",
            };
            let marks = [call, "<|im_end|>", "</s>"]
                .map(|text| tokenizer.encode(text, options).expect("a token")[0]);
            let is_mark = |token: &&u32| marks.contains(token);
            prepared.prompt.iter().filter(is_mark).count()
        };
        assert_eq!(controls(markup), controls("hi"), "{format:?}");
    }
}
