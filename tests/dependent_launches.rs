//! Every kernel that an H100 runs waits for the launches ahead of it before it writes anything, and before it
//! ends; what the kernels load before is weights and older tokens, which no launch of a step writes, or what a launch
//! has written for whose end the one ahead has waited. The simulator checks the same on what really runs (`kernels`, `gpu_engine`).

use hyperion::ptx;
use ptx_sim::Module;

/// Kernels that load before they wait, by a part of their names, and what.
const LOAD_EARLY: [(&str, &str); 6] = [
    (
        "attention_decode_",
        "positions, page tables and older tokens: there before the step began",
    ),
    ("dequantize_", "weights"),
    (
        "expert_matvec_",
        "weights, and the choice of experts where the launch ahead has waited for it",
    ),
    ("matmul_", "weights"),
    ("matvec_", "weights, biases"),
    ("router_scores", "weights"),
];
/// Kernels that can be told to wait only in the end, and when they are; which path a launch takes is not followed.
const WAIT_LAST: [(&str, &str); 2] = [("matvec_", BESIDE), ("_q8_t", BESIDE)];
const BESIDE: &str =
    "beside a launch that has waited, with results of its own (`MatvecOrder::Beside`)";

#[test]
fn kernels_wait_before_they_write() {
    let dependent = ptx::modules()
        .iter()
        .filter(|module| module.compute_capability >= 90);
    let mut checked = 0;
    for image in dependent {
        let module = Module::parse(image.ptx()).expect("the simulator reads it");
        for kernel in module.kernels() {
            checked += 1;
            let found = kernel.before_wait();
            let line = |line: &u32| module.source_line(*line).unwrap_or_default().trim();
            let lines = |lines: &[u32]| lines.iter().map(line).collect::<Vec<_>>();
            let is_one_of = |families: &[(&str, &str)]| {
                families
                    .iter()
                    .any(|(family, _)| kernel.name().contains(family))
            };
            assert!(
                found.writes.is_empty() || is_one_of(&WAIT_LAST),
                "{} writes before it waits: {:#?}",
                kernel.name(),
                lines(&found.writes)
            );
            assert!(
                found.ends.is_empty() || is_one_of(&WAIT_LAST),
                "{} may end without a wait: {:#?}",
                kernel.name(),
                lines(&found.ends)
            );
            assert!(
                found.reads.is_empty() || is_one_of(&LOAD_EARLY),
                "{} loads before it waits: {:#?}",
                kernel.name(),
                lines(&found.reads)
            );
        }
    }
    assert!(checked > 100, "{checked} kernels for dependent launches");
}
