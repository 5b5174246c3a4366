//! `hyperion verify` and `hyperion bench` as a person or a script uses them.

mod support;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

fn hyperion(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hyperion"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("a run")
}

fn tiny(name: &str) -> String {
    support::fixture(&format!("tiny/{name}"))
        .display()
        .to_string()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// One line on stderr that contains `message`, behind warnings about the file, nothing on stdout, exit code 1.
fn assert_fails(args: &[&str], message: &str) {
    let output = hyperion(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let lines = stderr.lines().filter(|line| !line.starts_with("warning: "));
    let stderr = lines.map(|line| format!("{line}\n")).collect::<String>();
    support::assert_one_error(&output, &stderr, message);
}

const LLAMA: &str = "tiny-llama-q4_k_m-1";
const CPU: [&str; 2] = ["--device", "cpu"];

fn verify(args: &[&str]) -> Output {
    hyperion(&[&["verify"], args, &CPU].concat())
}

#[test]
fn the_reference_passes_against_itself() {
    let model = tiny("tiny-gemma3-q4_k_m-1.gguf");
    let output = verify(&[&model, "--raw", "-p", "hehe hehe hehe"]);
    assert!(output.status.success());
    let text = stdout(&output);
    assert!(
        text.contains("passed: every operation is within its bound"),
        "{text}"
    );
    assert!(
        text.contains("ffn_geglu") && text.contains("decode"),
        "{text}"
    );

    let report = json(&verify(&[&model, "--json", "--decode", "2"]));
    assert_eq!(report["passed"], true);
    assert_eq!(report["first_fault"], Value::Null);
    let steps = report["report"]["steps"].as_array().expect("steps");
    let kinds: Vec<&str> = steps
        .iter()
        .filter_map(|step| step["kind"].as_str())
        .collect();
    let expected = [&["prefill"; 5][..], &["decode"; 2], &["batch"; 2]].concat();
    assert_eq!(kinds, expected);
    // Nineteen operations in each of seven blocks, and five around them.
    let rows = steps[8]["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 7 * 19 + 5);
    assert!(rows.iter().all(|row| row["passed"] == true));
}

/// The engine for GPUs in steps of some sequences, whose products take 8-bit activations where there are kernels for all
/// matrices and more than f16 is not asked for.
#[test]
fn batches_pass_on_the_simulator() {
    for (name, batch) in [
        (LLAMA, "6"),
        ("tiny-qwen2-f16-1", "20"),
        ("tiny-gemma3-q4_k_m-1", "20"),
    ] {
        for activations in ["f16", "q8"] {
            let model = tiny(&format!("{name}.gguf"));
            let options = ["--raw", "-p", "hello there a long story", "--decode", "2"];
            let device = ["--device", "sim", "--activations", activations];
            let args = ["verify", &model, "--json", "--batch", batch];
            let report = json(&hyperion(&[&args[..], &options, &device].concat()));
            assert_eq!(report["passed"], true, "{name}: {}", report["first_fault"]);
            let steps = report["report"]["steps"].as_array().expect("steps").iter();
            let batches: Vec<&Value> = steps.filter(|step| step["kind"] == "batch").collect();
            assert_eq!(batches.len(), 2);
            for step in batches {
                assert_eq!(step["tokens"].to_string(), batch);
                let rows = step["rows"].as_array().expect("rows");
                let in_8_bits = activations == "q8" && name != "tiny-qwen2-f16-1";
                let (wanted, other) = match in_8_bits {
                    true => ("quantized weights times 8-bit activations", "f16 weights"),
                    false => ("f16 weights times f16 activations", "8-bit"),
                };
                let products = rows.iter().filter(|row| {
                    let why = row["why"].as_str().expect("a reason");
                    assert!(!why.contains(other), "{name}: {row}");
                    why.contains(wanted)
                });
                assert!(products.count() > 8, "{name}: few products were compared");
            }
        }
    }
}

/// The CPU's fast path, operation by operation: its bounds are those of 8-bit activations in every step.
#[test]
fn the_fast_path_passes() {
    for name in support::TINY_MODELS {
        let model = tiny(&format!("{name}.gguf"));
        let options = ["--raw", "-p", "hello there a long story", "--decode", "2"];
        let args = ["verify", &model, "--json", "--activations", "q8"];
        let report = json(&hyperion(&[&args[..], &options, &CPU].concat()));
        assert_eq!(report["passed"], true, "{name}: {}", report["first_fault"]);
        let text = report.to_string();
        let is_plain = name.contains("f16");
        assert_eq!(text.contains("8-bit activations"), !is_plain, "{name}");
    }
}

#[test]
fn traces_of_all_architectures_agree() {
    for name in [
        LLAMA,
        "tiny-llama-q4_0-2",
        "tiny-qwen2-f16-1",
        "tiny-qwen2-q4_k_m-2",
        "tiny-qwen3-q5_k_m-2",
        "tiny-qwen3-q8_0-1",
        "tiny-gemma3-q4_k_m-1",
    ] {
        let (model, trace) = (
            tiny(&format!("{name}.gguf")),
            tiny(&format!("{name}.safetensors")),
        );
        // As in `cpu_reference`: keys rounded to f32 cost tiny-gemma3 6e-5.
        let tolerance = match name.starts_with("tiny-gemma3") {
            true => "1e-4",
            false => "2e-5",
        };
        let output = verify(&[
            &model,
            "--against",
            &trace,
            "--tolerance",
            tolerance,
            "--json",
        ]);
        let report = json(&output);
        assert!(output.status.success(), "{name}: {}", report["first_fault"]);
        let rows = report["report"]["steps"][0]["rows"]
            .as_array()
            .expect("rows");
        assert!(rows.iter().any(|row| row["tensor"] == "logits"), "{name}");
        assert!(
            output.stderr.is_empty(),
            "{name}: a tensor was not compared"
        );
    }
}

/// The trace in `from` with every value of `tensor` times `factor`.
fn spoil(from: &str, to: &Path, tensor: &str, factor: f32) {
    let bytes = std::fs::read(from).expect("a trace");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let mut parts: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    for (name, view) in file.tensors() {
        let mut data = view.data().to_vec();
        if name == tensor {
            for word in data.as_chunks_mut::<4>().0 {
                *word = (f32::from_le_bytes(*word) * factor).to_le_bytes();
            }
        }
        parts.push((name, view.dtype(), view.shape().to_vec(), data));
    }
    let views = parts.iter().map(|(name, dtype, shape, data)| {
        (
            name,
            TensorView::new(*dtype, shape.clone(), data).expect("a tensor"),
        )
    });
    safetensors::serialize_to_file(views, None, to).expect("a file");
}

#[test]
fn a_wrong_trace_is_exit_code_1_and_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let (model, trace) = (
        tiny(&format!("{LLAMA}.gguf")),
        tiny(&format!("{LLAMA}.safetensors")),
    );
    for factor in [1.01, f32::NAN] {
        let spoiled = folder.path().join("spoiled.safetensors");
        spoil(&trace, &spoiled, "l_out-1", factor);
        let spoiled = spoiled.display().to_string();
        let page = folder.path().join("report.html").display().to_string();
        let output = verify(&[&model, "--against", &spoiled, "--html", &page]);
        assert_eq!(output.status.code(), Some(1));
        let text = stdout(&output);
        assert!(
            text.contains("FAILED: the first operation out of bounds is l_out-1"),
            "{text}"
        );
        assert!(text.contains("depends on the residual stream"), "{text}");
        let page = std::fs::read_to_string(page).expect("a page");
        assert_eq!(page.matches("<td class=\"bad first\"").count(), 1);
        assert!(!page.contains("http"), "the page must not need a network");
    }
}

#[test]
fn a_dump_is_read_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let dump = folder.path().join("dump.safetensors").display().to_string();
    let model = tiny("tiny-qwen3-q8_0-1.gguf");
    let written = verify(&[&model, "--raw", "-p", "hello there", "--dump", &dump]);
    assert!(written.status.success());
    let output = verify(&[&model, "--against", &dump, "--tolerance", "0", "--json"]);
    let report = json(&output);
    assert!(output.status.success(), "{}", report["first_fault"]);
    let rows = report["report"]["steps"][0]["rows"]
        .as_array()
        .expect("rows");
    assert!(rows.len() > 30, "only {} tensors", rows.len());
}

#[test]
fn distributions_over_a_text() {
    let text = concat!(env!("CARGO_MANIFEST_DIR"), "/LICENSE-APACHE");
    let model = tiny("tiny-qwen2-q4_k_m-2.gguf");
    let args = [
        &model,
        "--kl",
        text,
        "--kl-tokens",
        "150",
        "--kl-chunk",
        "70",
        "--json",
    ];
    let report = json(&verify(&args));
    assert_eq!(report["passed"], true);
    assert_eq!(report["divergence"]["positions"], 150);
    assert_eq!(report["divergence"]["top1_agreement"], 1.0);
}

#[test]
fn products_by_hand() {
    let model = tiny("tiny-gemma3-q4_k_m-1.gguf");
    let output = verify(&[
        &model, "--gemm", "4", "--raw", "-p", "hello", "--decode", "1", "--batch", "1", "--json",
    ]);
    let report = json(&output);
    assert!(output.status.success());
    let products = report["products"].as_array().expect("products");
    // Seven in each of seven blocks and three steps, and the logits of the last two.
    assert_eq!(products.len(), 3 * 49 + 2);
    assert_eq!(products[0]["tensor"], "blk.0.attn_q.weight");
    let call = products[0]["call"].as_str().expect("a call");
    assert!(
        call.starts_with("op_a=T op_b=N m=512") && call.contains("lda=256"),
        "{call}"
    );
    assert!(products.iter().all(|product| product["passed"] == true));
}

#[test]
fn bad_input_gives_one_line() {
    let model = tiny(&format!("{LLAMA}.gguf"));
    let trace = tiny("tiny-qwen2-f16-1.safetensors");
    assert_fails(&["verify", "/no/such.gguf"], "/no/such.gguf");
    assert_fails(&["verify", &model, "--raw", "-p", ""], "prompt");
    assert_fails(
        &["verify", &model, "--against", "/no/such.file"],
        "/no/such.file",
    );
    assert_fails(
        &["verify", &model, "--against", &model],
        "reading the trace",
    );
    assert_fails(&["verify", &model, "--kl", "/no/such.txt"], "/no/such.txt");
    assert_fails(
        &["verify", &model, "--weights", "--device", "cpu"],
        "no copy",
    );
    assert_fails(
        &[
            "verify",
            &model,
            "--weights",
            "blk.9.nothing",
            "--device",
            "cpu",
        ],
        "blk.9.nothing",
    );
    assert_fails(
        &[
            "verify",
            &model,
            "--html",
            "/no/such/page.html",
            "--device",
            "cpu",
        ],
        "/no/such/page.html",
    );
    assert_fails(
        &["bench", &model, "-p", "0", "-n", "0"],
        "nothing to measure",
    );
    // Another model's trace is no error, but not equal either.
    assert_eq!(
        verify(&[&model, "--against", &trace]).status.code(),
        Some(1)
    );
}

#[test]
fn bench_measures_what_it_is_asked() {
    let model = tiny("tiny-qwen3-q8_0-1.gguf");
    let args = [
        "-p", "16", "-n", "4,0", "-d", "0,70", "-b", "1,3", "-r", "2",
    ];
    let run = |format: &str| {
        let output = hyperion(&[&["bench", &model, "-o", format], &args[..], &CPU].concat());
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        output
    };
    let rows = json(&run("json"));
    let rows = rows.as_array().expect("rows");
    let names: Vec<&str> = rows.iter().filter_map(|row| row["test"].as_str()).collect();
    let expected = [
        "pp16",
        "tg4",
        "tg4 x3",
        "pp16 @ d70",
        "tg4 @ d70",
        "tg4 @ d70 x3",
    ];
    assert_eq!(names, expected);
    for row in rows {
        assert!(row["mean"].as_f64().is_some_and(|mean| mean > 0.0), "{row}");
        assert_eq!(row["seconds"].as_array().map(Vec::len), Some(2));
        let decodes = row["test"]
            .as_str()
            .is_some_and(|name| name.starts_with("tg"));
        assert_eq!(row["gb_per_second"].is_number(), decodes, "{row}");
    }
    let csv = stdout(&run("csv"));
    let rows = csv.lines().count();
    assert_eq!(rows, 7);
    let table = stdout(&run("md"));
    assert!(
        table.lines().count() == 8 && table.contains("| tg4 @ d70 x3"),
        "{table}"
    );
}

#[test]
fn a_profile_accounts_for_the_whole_step() {
    let model = tiny("tiny-qwen3-q8_0-1.gguf");
    let profile = |args: &[&str]| {
        let output = hyperion(&[&["bench", &model, "--profile", "--device", "sim"], args].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        output
    };
    let profiles = json(&profile(&["-n", "3", "-p", "70", "-r", "1", "-o", "json"]));
    let profiles = profiles.as_array().expect("profiles");
    let names: Vec<&str> = profiles.iter().filter_map(|p| p["test"].as_str()).collect();
    assert_eq!(names, ["pp70", "tg3"]);
    for profile in profiles {
        let us = |name: &str| profile[name].as_f64().expect("a time");
        let kernels = profile["kernels"].as_array().expect("kernels");
        let paths = kernels.iter().filter_map(|row| row["path_us"].as_f64());
        // Sums of microseconds in f64, of the same nanoseconds.
        assert!((paths.sum::<f64>() - us("path_us")).abs() < 1e-6 * us("step_us"));
        assert!((us("path_us") + us("between_us") - us("step_us")).abs() < 1e-6 * us("step_us"));
        assert!(us("idle_us") > 0.0 && us("idle_us") < us("path_us"));
    }
    let row = |profile: &Value, kernel: &str, field: &str| -> f64 {
        let rows = profile["kernels"].as_array().expect("kernels").iter();
        let rows = rows.filter(|row| {
            let name = row["kernel"].as_str().expect("a name");
            name.starts_with(kernel)
        });
        rows.map(|row| row[field].as_f64().expect("a number")).sum()
    };
    // Two layers of one attention and four products, and the logits. The middle step's attention reads K and
    // V of 2 tokens, 2 heads and 128 elements in f16.
    let decode = &profiles[1];
    assert_eq!(row(decode, "attention_decode", "calls"), 2.0);
    assert_eq!(row(decode, "matvec", "calls"), 2.0 * 4.0 + 1.0);
    assert_eq!(
        row(decode, "attention_decode", "bytes"),
        f64::from(2 * 2 * 2 * 128 * 2)
    );
    assert_eq!(row(&profiles[0], "gemm", "calls"), 14.0);

    let table = stdout(&profile(&["-n", "2", "-d", "65", "-b", "2"]));
    assert!(
        table.contains("**tg2 @ d65 x2** of tiny-qwen3") && table.contains("| matvec_"),
        "{table}"
    );
    assert_fails(
        &["bench", &model, "--profile", "--device", "cpu"],
        "no kernels to profile",
    );
}

#[test]
fn a_plot_has_a_panel_for_each_way_to_grow() {
    let model = tiny("tiny-llama-q4_k_m-1.gguf");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("plot.svg").display().to_string();
    let lists = [
        "-d", "0,8", "-b", "1,2", "-p", "4,16,70", "-n", "2", "-r", "1",
    ];
    let output = hyperion(
        &[
            &["bench", &model, "--plot", &file, "--device", "sim"],
            &lists[..],
        ]
        .concat(),
    );
    assert!(output.status.success());
    let table = stdout(&output);
    for test in [
        "| tg2 ",
        "| tg2 @ d8 ",
        "| tg2 x2 ",
        "| pp4 ",
        "| pp16 ",
        "| pp70 ",
    ] {
        assert!(table.contains(test), "{test}: {table}");
    }
    let svg = std::fs::read_to_string(&file).expect("an SVG file");
    let points: Vec<usize> = svg
        .split("<g ")
        .skip(1)
        .map(|panel| panel.matches("<circle").count())
        .collect();
    assert_eq!(points, [2, 2, 3]);
    assert!(svg.contains("tiny-llama-q4_k_m-1") && svg.contains("PTX simulator"));
    // Refused before anything is measured.
    let nowhere = folder.path().join("no/plot.svg").display().to_string();
    assert_fails(
        &["bench", &model, "--plot", &nowhere, "--device", "cpu"],
        &nowhere,
    );
}
