//! What must hold of the PTX that ships, whatever the kernels compute; `hyperion ptx` shows the same facts.

use std::process::{Command, Output};

use hyperion::ptx::facts::{KernelFacts, facts};
use hyperion::ptx::modules;

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
        assert_eq!(module.kernels, modules()[0].kernels, "sm_{arch}");
        for (kernel, entry) in facts.iter().zip(module.kernels) {
            assert_eq!(kernel.param_bytes as usize, entry.param_bytes);
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

/// Weights come by asynchronous copies of 16 bytes: more bytes under way than loads into registers allow.
#[test]
fn weights_are_copied_by_16_bytes() {
    let mut products = 0;
    for (arch, kernels) in all() {
        let of_weights = [
            "matvec_",
            "matmul_",
            "dequantize_",
            "expert_matvec_",
            "expert_matmul_",
        ];
        for kernel in kernels {
            if of_weights.iter().any(|name| kernel.name.starts_with(name)) {
                assert_eq!(kernel.widest_copy, 16, "sm_{arch}, {}", kernel.name);
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
            let of_many = ["matmul_", "expert_matmul_", "attention_"];
            let expected = of_many.iter().any(|name| kernel.name.starts_with(name));
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

#[cfg(not(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
#[test]
fn compiled_kernels() {
    test_skips::report("NVIDIA's tools are not fetched for this machine");
}

/// The tools are fetched for Linux on these processors only.
#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod compiled {
    use std::path::Path;
    use std::process::Command;

    use hyperion::ptx::modules;
    use hyperion::ptx::occupancy::ARCHITECTURES;
    use hyperion::ptx::ptxas::{Resources, resources};

    use super::hyperion;

    #[test]
    fn every_gpu_compiles_every_kernel_without_spills() {
        let names: Vec<&str> = modules()[0]
            .kernels
            .iter()
            .map(|kernel| kernel.name)
            .collect();
        let mut wrong = Vec::new();
        for architecture in &ARCHITECTURES {
            let sm = architecture.number;
            let compiled =
                resources(&names, architecture).unwrap_or_else(|e| panic!("sm_{sm}: {e}"));
            for (name, kernel) in names.iter().zip(compiled) {
                if let Some(complaint) = complaint(&kernel) {
                    wrong.push(format!("sm_{sm}, {name}: {complaint}"));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    fn complaint(kernel: &Resources) -> Option<String> {
        let Resources {
            stack_bytes,
            spill_store_bytes,
            spill_load_bytes,
            ..
        } = *kernel;
        if kernel.resident_warps == 0 {
            return Some("no block of the largest size fits on a multiprocessor".to_owned());
        }
        (stack_bytes + spill_store_bytes + spill_load_bytes > 0).then(|| {
            format!(
                "{stack_bytes} bytes of stack, {spill_store_bytes} spilled, {spill_load_bytes} loaded again"
            )
        })
    }

    /// One block of a vector's product starts while the one before ends.
    #[test]
    fn two_blocks_of_one_vectors_product_fit() {
        let hopper = ARCHITECTURES
            .iter()
            .find(|arch| arch.number == 90)
            .expect("Hopper");
        let kernels = modules()[0].kernels.iter();
        let one_vector =
            kernels.filter(|k| k.name.starts_with("matvec_") && k.name.ends_with("_n1"));
        let one_vector: Vec<_> = one_vector.collect();
        let names: Vec<&str> = one_vector.iter().map(|kernel| kernel.name).collect();
        let compiled = resources(&names, hopper).expect("ptxas compiles them");
        assert!(!compiled.is_empty());
        for (kernel, resources) in one_vector.iter().zip(compiled) {
            let block = kernel.max_threads / 32;
            assert!(
                resources.resident_warps >= 2 * block,
                "{}: {resources:?}",
                kernel.name
            );
        }
    }

    #[test]
    fn the_command_shows_what_a_gpu_makes_of_a_kernel() {
        let output = hyperion(&["ptx", "--resources", "90,sm_120", "argmax"]);
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(
            text.contains("sm_90  regs") && text.contains("sm_120 regs"),
            "{text}"
        );

        let output = hyperion(&["ptx", "--json", "--resources", "sm_86", "argmax"]);
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let resources = &json[0]["resources"][0];
        assert_eq!(resources["architecture"], 86);
        assert_eq!(resources["spill_store_bytes"], 0);
        assert!(resources["registers"].as_u64() > Some(8), "{json}");
        // Dynamic shared memory, which each module declares, begins after it at a multiple of 128.
        let declared = json[0]["static_shared_bytes"].as_u64().expect("a number");
        assert_eq!(
            resources["static_shared_bytes"],
            declared.next_multiple_of(128)
        );

        let output = hyperion(&["ptx", "--kernel", "argmax", "--sass", "90"]);
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(text.contains("argmax:") && text.contains("EXIT"), "{text}");
        assert_eq!(
            hyperion(&["ptx", "--resources", "70"]).status.code(),
            Some(2)
        );
    }

    #[test]
    fn a_missing_tool_is_one_line_that_says_how_to_get_it() {
        let output = Command::new(env!("CARGO_BIN_EXE_hyperion"))
            .args(["ptx", "--resources", "90", "argmax"])
            .env("HYPERION_CACHE", "/nowhere")
            .env("PATH", "/nowhere")
            .env_remove("CUDA_HOME")
            .env_remove("CUDA_PATH")
            .output()
            .expect("hyperion starts");
        // A toolkit in its usual place is found without any variable.
        if ["/usr/local/cuda/bin/ptxas", "/opt/cuda/bin/ptxas"]
            .iter()
            .any(|path| Path::new(path).exists())
        {
            assert!(output.status.success());
            return test_skips::report("a CUDA toolkit in its usual place: no tool is missing");
        }
        let error = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1));
        assert!(error.contains("cargo xtask setup"), "{error}");
        assert_eq!(error.trim_end().lines().count(), 1, "{error}");
    }
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

#[test]
fn a_pattern_without_a_kernel_is_told_what_is_near() {
    for (pattern, near) in [
        ("q4k", "_q4_k"),
        ("atention", "attention_"),
        ("zz", "lists all"),
    ] {
        let output = hyperion(&["ptx", "argmax", pattern]);
        let error = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1));
        assert!(error.contains(pattern) && error.contains(near), "{error}");
    }
}
