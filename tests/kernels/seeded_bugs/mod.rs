//! Thirteen bugs, each planted into the PTX that ships, are found and named by the tests that the kernels
//! have.
//!
//! A bug is one precise change of a kernel's text; where the change does not find the place that it is
//! made for, because the kernel has become another, the test fails. The same case passes with the
//! unchanged text. These tests run on the simulator, also where `HYPERION_TEST_DEVICE` names another
//! device.

mod kernel_text;

use kernels_gpu::abi::{PAGE_TOKENS, WeightType};
use kernels_gpu::ops::elementwise::ADD_F32;
use kernels_gpu::ops::group_pairs::GROUP_PAIRS;
use kernels_gpu::ops::norm::RMS_NORM_F32;

use crate::attention_prefill;
use crate::device::report_on;
use crate::elementwise::check_add;
use crate::harness::Random;
use crate::weights::Matrix;
use crate::{dequantize, expert_products, experts, norm};
use kernel_text::KernelText;

/// Minus infinity and minus zero as PTX writes them.
const LOW: &str = "0fFF800000";
const MINUS_ZERO: &str = "0f80000000";

/// The case passes with the kernel as it ships, and fails with the bug in words that have all of `parts`.
fn assert_caught(with_bug: &KernelText, case: impl Fn(), parts: &[&str]) {
    let shipped = with_bug.unchanged();
    assert_ne!(shipped.text(), with_bug.text(), "there is no bug");
    assert_eq!(report_on(shipped.image(), &case), Ok(()));
    let report = report_on(with_bug.image(), &case).expect_err("the bug is not found");
    for part in parts {
        assert!(report.contains(part), "`{part}` is not in `{report}`");
    }
}

/// A row of Qwen2.5-0.5B's width, by eight warps.
fn rms_norm() {
    let row = norm::rows(1, 1, 896, 0, 256);
    norm::check::<f32>(&RMS_NORM_F32, &row, norm::F32_TOLERANCE);
}

/// Blocks whose eight groups all have their own scales.
fn dequantize_q4_k() {
    let matrix = Matrix::random(WeightType::Q4K, 5, 256, &mut Random::new(7));
    dequantize::check("5 blocks", WeightType::Q4K, &matrix, 1);
}

/// Of [`dequantize_q4_k`].
const DEQUANTIZE: &str = "dequantize_q4_k";
/// Of [`attention_prefill::QWEN`].
const PREFILL: &str = "attention_prefill_64";

#[test]
fn missing_barrier() {
    let mut kernel = KernelText::shipped(PREFILL);
    // The last one before the keys are read publishes them and the queries; the values' matrices are transposed.
    let loads = kernel
        .all(|found| found.opcode.starts_with("ldmatrix") && !found.opcode.contains(".trans."));
    let barriers = kernel.all(|found| found.opcode == "bar.sync");
    let before = barriers.iter().rfind(|&&line| line < loads[0]);
    kernel.remove(*before.expect("a barrier"));
    let parts = [
        &kernel.place(loads[0]),
        "block [0, 0, 0], thread [",
        "race: reads what thread [",
        "wrote, with no barrier between at shared address",
    ];
    assert_caught(&kernel, || attention_prefill::QWEN.run(), &parts);
}

/// Where launches may begin early, a sum could be written over what the launch ahead still reads.
#[test]
fn missing_wait_for_the_launch_ahead() {
    let mut kernel = KernelText::shipped_for(90, ADD_F32.name);
    let wait = kernel.only(|found| found.opcode == "griddepcontrol.wait");
    kernel.remove(wait);
    let stores = kernel.all(|found| found.opcode.starts_with("st.global"));
    let parts = [
        &kernel.place(stores[0]),
        "write before griddepcontrol.wait at global address",
    ];
    assert_caught(&kernel, || check_add(4097, false), &parts);
}

#[test]
fn off_by_one_bound() {
    let mut kernel = KernelText::shipped(ADD_F32.name);
    let bound = kernel.only(|found| found.opcode == "setp.lt.u32");
    kernel.replace(bound, "setp.lt", "setp.le");
    let loads = kernel.all(|found| found.opcode == "ld.global.b32");
    let parts = [
        &kernel.place(loads[0]),
        "block [16, 0, 0], thread [1, 0, 0]: out-of-bounds access of 4 bytes at global address",
        "(byte 16388 of `add_f32, 4097 elements, in place false: ",
    ];
    assert_caught(&kernel, || check_add(4097, false), &parts);
}

#[test]
fn wrong_lane() {
    let mut kernel = KernelText::shipped(RMS_NORM_F32.name);
    let shuffles = kernel.all(|found| found.opcode == "shfl.sync.bfly.b32");
    // The first step of the first sum over a warp.
    let distance = kernel.operand(shuffles[0], 2);
    let distance = kernel.definition(&distance, shuffles[0]);
    kernel.replace(distance, ", 16;", ", 8;");
    let parts = [
        "rms_norm_f32, 1 tokens, 1 heads of 896",
        "`y`: 896 of 896 elements are wrong",
    ];
    assert_caught(&kernel, rms_norm, &parts);
}

#[test]
fn misaligned_vector_load() {
    let mut kernel = KernelText::shipped(RMS_NORM_F32.name);
    let load = kernel.all(|found| found.opcode == "ld.global.v4.u32")[0];
    kernel.replace(load, "];", "+4];");
    let parts = [
        &kernel.place(load),
        "block [0, 0, 0], thread [0, 0, 0]: address not aligned to 16 bytes at global address",
        "(byte 4 of `rms_norm_f32, 1 tokens, 1 heads of 896, gap 0: x`",
    ];
    assert_caught(&kernel, rms_norm, &parts);
}

#[test]
fn uninitialized_shared_memory() {
    let mut kernel = KernelText::shipped(RMS_NORM_F32.name);
    // Each warp's sum.
    kernel.remove(kernel.only(|found| found.opcode.starts_with("st.shared")));
    let load = kernel.only(|found| found.opcode.starts_with("ld.shared"));
    let parts = [
        &kernel.place(load),
        "block [0, 0, 0], thread [0, 0, 0]: read of 4 bytes that were never written",
        "(byte 0 of `shared memory`",
    ];
    assert_caught(&kernel, rms_norm, &parts);
}

#[test]
fn wrong_scale_index() {
    let mut kernel = KernelText::shipped(DEQUANTIZE);
    // Which byte of a word has the group's scale, in bits: groups 1 and 3 take those of 0 and 2.
    let shift = kernel.only(|found| found.opcode == "and.b32" && found.operands[2] == "24");
    kernel.replace(shift, ", 24;", ", 16;");
    assert_caught(
        &kernel,
        dequantize_q4_k,
        &["q4_k, 5 blocks: element 32 is "],
    );
}

#[test]
fn swapped_nibbles() {
    let mut kernel = KernelText::shipped(DEQUANTIZE);
    // A group is the low or the high nibbles (the mask is 0x0f0f0f0f) of eight words, which are shifted by
    // 0 or 4.
    let masks = kernel.all(|found| found.opcode == "and.b32" && found.operands[2] == "252645135");
    assert_eq!(masks.len(), 8);
    let shifts = masks.iter().map(|&mask| {
        let shift = kernel.definition(&kernel.operand(mask, 1), mask);
        kernel.definition(&kernel.operand(shift, 2), shift)
    });
    let mut shifts: Vec<usize> = shifts.collect();
    shifts.dedup();
    let [shift] = shifts[..] else {
        panic!("one shift wanted, not {shifts:?}")
    };
    let amount = kernel.operand(shift, 0);
    kernel.append(shift, &format!(" xor.b32 {amount}, {amount}, 4;"));
    assert_caught(&kernel, dequantize_q4_k, &["q4_k, 5 blocks: element 0 is "]);
}

#[test]
fn wrong_gqa_head() {
    let mut kernel = KernelText::shipped(PREFILL);
    // The place of a KV head's keys in a page; a block has one KV head, and all queries that share it.
    let kv_head = kernel.only(|found| found.operands.get(1) == Some(&"%ctaid.y"));
    let kv_head = kernel.operand(kv_head, 0);
    let place = kernel.only(|found| found.opcode == "mul.wide.u32" && found.operands[1] == kv_head);
    let [offset, bytes] = [0, 2].map(|index| kernel.operand(place, index));
    // As if twice as many queries shared one: those of KV head 1 see the keys and values of head 0.
    kernel.set(
        place,
        &format!("shr.u32 {kv_head}, {kv_head}, 1; mul.wide.u32 {offset}, {kv_head}, {bytes};"),
    );
    let parts = [
        "attention_prefill_64, 14/2 heads, sequences [(0, 17)]",
        "`out`: ",
        " of 15232 elements are wrong",
    ];
    assert_caught(&kernel, || attention_prefill::QWEN.run(), &parts);
}

#[test]
fn missing_mask() {
    let mut kernel = KernelText::shipped(PREFILL);
    let masks = kernel.all(|found| found.opcode == "selp.f32" && found.operands[2] == LOW);
    // A lane has 4 scores of each 8 keys.
    assert_eq!(masks.len(), 4 * PAGE_TOKENS as usize / 8);
    for mask in masks {
        let [score, from] = [0, 1].map(|index| kernel.operand(mask, index));
        kernel.set(mask, &format!("mov.b32 {score}, {from};"));
    }
    let parts = [
        "attention_prefill_64, 14/2 heads, sequences [(0, 17)]",
        "`out`: ",
        " of 15232 elements are wrong",
    ];
    assert_caught(&kernel, || attention_prefill::QWEN.run(), &parts);
}

#[test]
fn overflow_in_softmax() {
    let mut kernel = KernelText::shipped(PREFILL);
    // The negative of what is subtracted: zero for a row that has seen no key, or else its largest score.
    let bases = kernel.all(|found| found.opcode == "selp.f32" && found.operands[1] == MINUS_ZERO);
    // A lane has scores of two rows.
    assert_eq!(bases.len(), 2);
    for line in bases {
        let base = kernel.operand(line, 0);
        kernel.set(line, &format!("mov.b32 {base}, {MINUS_ZERO};"));
    }
    let large = attention_prefill::LARGE_SCORES;
    let parts = [
        "attention_prefill_64, 14/2 heads, sequences [(0, 17)]",
        "`out`: ",
        " of 15232 elements are wrong",
        "NaN instead of ",
    ];
    assert_caught(&kernel, || large.run(), &parts);
}

/// Warps would put pairs where those of other warps belong.
#[test]
fn missing_barrier_between_counts() {
    let mut kernel = KernelText::shipped(GROUP_PAIRS.name);
    let barrier = kernel.only(|found| found.opcode == "bar.sync");
    kernel.remove(barrier);
    let parts = [
        "race: reads what thread [",
        "with no barrier between at shared address",
    ];
    let ids: Vec<u32> = (0..100).map(|pair| pair % 3).collect();
    assert_caught(
        &kernel,
        || experts::check_groups("a barrier", &ids, 3),
        &parts,
    );
}

#[test]
fn wrong_expert() {
    let mut kernel = KernelText::shipped("expert_matvec_q4_0_f16");
    let load = kernel.all(|found| found.opcode == "ld.relaxed.gpu.global.u32")[0];
    let expert = kernel.operand(load, 0);
    kernel.set(load, &format!("mov.b32 {expert}, 1;"));
    let parts = ["pairs, q4_0 f16 5x", "`y`: ", " elements are wrong"];
    assert_caught(&kernel, expert_products::ragged_pairs, &parts);
}
