//! What must hold of the PTX that ships, whatever the kernels compute; `hyperion ptx` shows the same facts.

use std::process::{Command, Output};

use hyperion::gpu::facts::{KernelFacts, facts};
use hyperion::gpu::ptx::modules;

fn all() -> Vec<(u32, Vec<KernelFacts>)> {
    let of = |module| facts(module).expect("PTX that can be read");
    let all = modules()
        .iter()
        .map(|module| (module.compute_capability, of(module)));
    all.collect()
}

#[test]
fn every_kernel_of_the_table_has_facts_and_is_in_every_module() {
    let all = all();
    for ((arch, facts), module) in all.iter().zip(modules()) {
        let names: Vec<&str> = facts.iter().map(|kernel| kernel.name.as_str()).collect();
        let table: Vec<&str> = module.kernels.iter().map(|kernel| kernel.name).collect();
        assert_eq!(names, table, "sm_{arch}");
        for (kernel, other) in facts.iter().zip(&all[0].1) {
            assert_eq!(kernel.name, other.name);
            assert_eq!(kernel.param_bytes, other.param_bytes, "{}", kernel.name);
        }
    }
}

#[test]
fn kernels_call_nothing_have_no_doubles_and_keep_arrays_in_registers() {
    for (arch, kernels) in all() {
        for kernel in kernels {
            let what = format!("sm_{arch}, {}", kernel.name);
            assert!(
                kernel.callees.is_empty(),
                "{what} calls {:?}",
                kernel.callees
            );
            assert_eq!(kernel.doubles, 0, "{what}: double precision");
            assert_eq!(kernel.local_bytes, 0, "{what}: local memory");
        }
    }
}

#[test]
fn weights_are_loaded_by_16_bytes() {
    let mut products = 0;
    for (arch, kernels) in all() {
        let of_weights = ["matvec_", "matmul_", "dequantize_"];
        for kernel in kernels {
            if of_weights.iter().any(|name| kernel.name.starts_with(name)) {
                assert_eq!(kernel.widest_load, 16, "sm_{arch}, {}", kernel.name);
                products += 1;
            }
        }
    }
    assert!(products > 100, "{products} kernels");
}

#[test]
fn products_of_many_vectors_run_on_the_tensor_cores() {
    for (arch, kernels) in all() {
        for kernel in kernels {
            let expected =
                kernel.name.starts_with("matmul_") || kernel.name.starts_with("attention_");
            assert_eq!(
                kernel.mix.tensor > 0,
                expected,
                "sm_{arch}, {}",
                kernel.name
            );
        }
    }
}

fn hyperion(args: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_hyperion");
    Command::new(program)
        .args(args)
        .output()
        .expect("hyperion starts")
}

#[test]
fn the_command_lists_kernels() {
    let output = hyperion(&["ptx", "matvec_q4_k"]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.contains("matvec_q4_k_q8_n1 "), "{text}");
    assert!(!text.contains("matvec_q6_k"), "{text}");

    let output = hyperion(&["ptx", "--json", "--arch", "sm_80", "argmax"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json[0]["name"], "argmax");
    assert_eq!(json[0]["widest_load"], 16);
}

#[test]
fn the_command_prints_a_kernel() {
    let output = hyperion(&["ptx", "--kernel", "argmax"]);
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.starts_with(".visible .entry argmax("), "{text}");
    assert_eq!(text.matches(".entry").count(), 1);

    let output = hyperion(&["ptx", "--kernel", "argmaxx"]);
    let error = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("argmax"), "{error}");
    assert_eq!(hyperion(&["ptx", "--arch", "70"]).status.code(), Some(2));
}
