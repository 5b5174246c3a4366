//! Each kind of fault, from a kernel that commits it, with the place it is reported at.

mod common;

use common::{HEAD, launch, params, run, simulator};
use ptx_sim::{Config, Fault, FaultKind, Memory, Module, RaceKind, Simulator, Space};

/// The fault of a body run by so many threads over 64 input and output words.
fn fault(body: &str, threads: u32) -> Fault {
    run(body, threads, &[5; 64], 64).expect_err("the kernel is wrong")
}

#[test]
fn out_of_bounds_names_the_allocation() {
    let found = fault("ld.global.u32 %r1, [%a+192]; st.global.u32 [%d], %r1;", 32);
    assert_eq!(found.kind, FaultKind::OutOfBounds { bytes: 4 });
    assert_eq!((found.block, found.thread), ([0; 3], [16, 0, 0]));
    let near = found.allocation.as_deref().unwrap();
    assert_eq!(
        (near.label.as_str(), near.size, near.offset),
        ("in", 256, 256)
    );
    assert_eq!(
        &*found.text,
        "ld.global.u32 %r1, [%a+192]; st.global.u32 [%d], %r1;"
    );
    assert_eq!(found.line, 10);
    let text = found.to_string();
    for part in [
        "kernel `test`",
        "line 10",
        "thread [16, 0, 0]",
        "byte 256 of `in`, 256 bytes",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn accesses_before_an_allocation_and_through_null() {
    let found = fault("st.global.u32 [%d+-4], %t;", 1);
    assert_eq!(found.kind, FaultKind::OutOfBounds { bytes: 4 });
    let near = found.allocation.unwrap();
    assert_eq!((near.label.as_str(), near.offset), ("out", -4));
    let found = fault("mov.u64 %rd1, 0; ld.u32 %r1, [%rd1];", 1);
    assert_eq!(found.kind, FaultKind::OutOfBounds { bytes: 4 });
    assert_eq!(found.allocation, None);
}

#[test]
fn freed_memory_is_remembered() {
    let text = common::kernel("ld.global.u32 %r1, [%a]; st.global.u32 [%d], %r1;");
    let module = Module::parse(&text).unwrap();
    let mut memory = Memory::new();
    let (a, b) = (
        memory.alloc(64, "weights").unwrap(),
        memory.alloc(64, "out").unwrap(),
    );
    memory.write(a, &[0; 64]).unwrap();
    memory.free(a).unwrap();
    let params = params(&[a, b]);
    let found = simulator()
        .launch(&memory, &module, "test", &launch(1, 1, &params))
        .unwrap_err();
    assert_eq!(found.kind, FaultKind::UseAfterFree { bytes: 4 });
    assert_eq!(found.allocation.unwrap().label, "weights");
}

#[test]
fn misaligned_accesses() {
    let found = fault("ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%a];", 2);
    assert_eq!(found.kind, FaultKind::Misaligned { bytes: 16 });
    assert_eq!(found.thread, [1, 0, 0]);
    let found = fault(
        ".shared .align 8 .b8 s[16]; mov.u32 %r1, s; st.shared.u32 [%r1+2], %t;",
        1,
    );
    assert_eq!(found.kind, FaultKind::Misaligned { bytes: 4 });
    assert_eq!(found.address.unwrap().0, Space::Shared);
}

#[test]
fn reads_of_memory_never_written() {
    let found = fault("ld.global.u32 %r1, [%d]; st.global.u32 [%d], %r1;", 1);
    assert_eq!(found.kind, FaultKind::UninitialisedRead { bytes: 4 });
    assert_eq!(found.allocation.unwrap().label, "out");
    let found = fault(".shared .b32 s[4]; ld.shared.u32 %r1, [s+4];", 1);
    assert_eq!(found.kind, FaultKind::UninitialisedRead { bytes: 4 });
    // Only one byte of the word was written.
    let found = fault(
        ".shared .b32 s; st.shared.u8 [s+1], %t; ld.shared.u32 %r1, [s];",
        1,
    );
    assert_eq!(found.kind, FaultKind::UninitialisedRead { bytes: 4 });
    // Local memory and registers carry their state to where it matters.
    let found = fault(
        ".local .b32 l[2]; ld.local.u32 %r1, [l]; st.global.u32 [%d], %r1;",
        1,
    );
    assert_eq!(
        found.kind,
        FaultKind::UninitialisedRegister {
            register: "%r1".into()
        }
    );
}

#[test]
fn undefined_registers_fault_where_they_matter() {
    let register = |body| match fault(body, 32).kind {
        FaultKind::UninitialisedRegister { register } => register,
        other => panic!("{other}"),
    };
    assert_eq!(
        register("add.u32 %r2, %r1, 1; st.global.u32 [%d], %r2;"),
        "%r2"
    );
    assert_eq!(register("ld.global.u32 %r2, [%rd5];"), "an address");
    assert_eq!(
        register("setp.eq.u32 %p1, %r1, 0; @%p1 bra $x; $x:"),
        "a guard"
    );
    assert_eq!(register("@%p1 add.u32 %r2, %t, 1;"), "a guard");
    // A value that is selected away is not a use.
    let fine = "setp.lt.u32 %p1, %t, 99; selp.u32 %r2, %t, %r1, %p1; st.global.u32 [%d], %r2;";
    assert!(run(fine, 32, &[0], 32).is_ok());
}

const WRITE_TILE: &str = ".shared .align 4 .b32 tile[64];
    mov.u32 %r1, tile; mad.lo.u32 %r2, %t, 4, %r1; xor.b32 %r3, %t, 32; mad.lo.u32 %r4, %r3, 4, %r1;
    st.shared.u32 [%r2], %t;";

#[test]
fn shared_memory_races_between_warps() {
    let read = "ld.shared.u32 %r5, [%r4]; st.global.u32 [%d], %r5;";
    let found = fault(&format!("{WRITE_TILE} {read}"), 64);
    // Warps run one after the other here, so the first reads what the second has not written.
    assert!(
        matches!(
            found.kind,
            FaultKind::UninitialisedRead { .. } | FaultKind::Race { .. }
        ),
        "{found}"
    );
    assert!(run(&format!("{WRITE_TILE} bar.sync 0; {read}"), 64, &[0], 64).is_ok());
    let reuse = |sync: &str| {
        format!(
            "{WRITE_TILE} bar.sync 0; setp.lt.u32 %p1, %t, 32; @%p1 ld.shared.u32 %r5, [%r4]; {sync}
             @!%p1 st.shared.u32 [%r2], 1; st.global.u32 [%d], 0;"
        )
    };
    let found = fault(&reuse(""), 64);
    assert_eq!(
        found.kind,
        FaultKind::Race {
            kind: RaceKind::WriteAfterRead,
            other: [0, 0, 0]
        },
        "{found}"
    );
    assert_eq!(found.thread, [32, 0, 0]);
    assert!(run(&reuse("bar.sync 0;"), 64, &[0], 64).is_ok());
}

#[test]
fn write_write_races_in_shared_memory() {
    let found = fault(".shared .b32 s; st.shared.u32 [s], %t;", 64);
    let kind = RaceKind::WriteAfterWrite;
    assert_eq!(
        found.kind,
        FaultKind::Race {
            kind,
            other: [0, 0, 0]
        }
    );
    assert_eq!(found.thread, [1, 0, 0]);
    // Equal values are no hazard, atomics are none, and neighbouring bytes are different places.
    let equal = ".shared .b32 s; st.shared.u32 [s], 7; st.global.u32 [%d], 7;";
    assert!(run(equal, 64, &[0], 64).is_ok());
    let atomic =
        ".shared .b32 s; st.shared.u32 [s], 7; bar.sync 0; atom.shared.add.u32 %r1, [s], 1;
         st.global.u32 [%d], %t;";
    assert!(run(atomic, 64, &[0], 64).is_ok());
    let bytes = ".shared .b32 s[16]; mov.u32 %r1, s; add.u32 %r1, %r1, %t; st.shared.u8 [%r1], %t;
         st.global.u32 [%d], %t;";
    assert!(run(bytes, 64, &[0], 64).is_ok());
}

#[test]
fn races_inside_a_warp_need_a_warp_barrier() {
    let exchange = |sync: &str| {
        format!(
            ".shared .b32 s[32]; mov.u32 %r1, s; mad.lo.u32 %r2, %t, 4, %r1; xor.b32 %r3, %t, 1;
             mad.lo.u32 %r4, %r3, 4, %r1; st.shared.u32 [%r2], %t; {sync}
             ld.shared.u32 %r5, [%r4]; st.global.u32 [%d], %r5;"
        )
    };
    let found = fault(&exchange(""), 32);
    assert_eq!(
        found.kind,
        FaultKind::Race {
            kind: RaceKind::ReadAfterWrite,
            other: [1, 0, 0]
        }
    );
    assert!(run(&exchange("bar.warp.sync 0xffffffff;"), 32, &[0], 32).is_ok());
    let shuffle = "shfl.sync.idx.b32 %r6, %t, 0, 31, 0xffffffff;";
    assert!(run(&exchange(shuffle), 32, &[0], 32).is_ok());
}

#[test]
fn global_memory_races_inside_a_block() {
    let exchange = |sync: &str| {
        format!(
            "st.global.u32 [%d], %t; {sync} xor.b32 %r1, %t, 32; mad.wide.u32 %rd1, %r1, 4, %out;
             ld.global.u32 %r2, [%rd1]; setp.ne.u32 %p1, %r2, %r1; @%p1 trap;"
        )
    };
    assert!(run(&exchange("bar.sync 0;"), 64, &[0], 64).is_ok());
    // In two launches of the same memory the second finds it written, and so the race.
    let module = Module::parse(&common::kernel(&exchange(""))).unwrap();
    let mut memory = Memory::new();
    let (a, b) = (
        memory.alloc(4, "in").unwrap(),
        memory.alloc(256, "out").unwrap(),
    );
    let values: Vec<u8> = (0..64u32).flat_map(u32::to_le_bytes).collect();
    memory.write(b, &values).unwrap();
    let params = params(&[a, b]);
    let found = simulator()
        .launch(&memory, &module, "test", &launch(1, 64, &params))
        .unwrap_err();
    assert_eq!(
        found.kind,
        FaultKind::Race {
            kind: RaceKind::ReadAfterWrite,
            other: [0, 0, 0]
        }
    );
    assert_eq!(found.thread, [32, 0, 0]);
}

#[test]
fn blocks_that_write_different_values_to_one_place() {
    let text = common::kernel("mov.u32 %r1, %ctaid.x; st.global.u32 [%d], %r1;");
    let module = Module::parse(&text).unwrap();
    let mut memory = Memory::new();
    let out = memory.alloc(128, "out").unwrap();
    let params = params(&[out, out]);
    let found = simulator()
        .launch(&memory, &module, "test", &launch(8, 32, &params))
        .unwrap_err();
    assert!(matches!(found.kind, FaultKind::BlockRace { .. }), "{found}");
    let lenient = Simulator::new(Config {
        block_race_checks: false,
        ..Config::default()
    });
    assert!(
        lenient
            .launch(&memory, &module, "test", &launch(8, 32, &params))
            .is_ok()
    );
}

#[test]
fn non_coherent_loads_of_what_the_launch_writes() {
    let found = fault("st.global.u32 [%d], %t; ld.global.nc.u32 %r1, [%d];", 1);
    assert_eq!(found.kind, FaultKind::StaleRead);
}

#[test]
fn divergent_barriers() {
    let found = fault("setp.lt.u32 %p1, %t, 16; @%p1 bra $x; bar.sync 0; $x:", 32);
    // The lower half has left the kernel, which counts as arrived; wait for it, and it deadlocks.
    assert!(matches!(found.kind, FaultKind::DivergentBarrier), "{found}");
    let found = fault(
        "setp.lt.u32 %p1, %t, 16; @%p1 bra $x; bar.sync 0; bra.uni $y; $x: bar.sync 0; $y:",
        64,
    );
    assert_eq!(found.kind, FaultKind::DivergentBarrier);
    assert!(found.text.contains("bar.sync"));
}

#[test]
fn barriers_that_never_complete() {
    let found = fault(
        "setp.lt.u32 %p1, %t, 32; @%p1 bra $x; bar.sync 1, 128; $x: bar.sync 0;",
        64,
    );
    assert_eq!(found.kind, FaultKind::BarrierDeadlock);
    // Warps that exit are not waited for.
    let early = "st.global.u32 [%d], %t; setp.lt.u32 %p1, %t, 32; @%p1 exit; bar.sync 0;";
    assert!(run(early, 64, &[0], 64).is_ok());
}

#[test]
fn warp_operations_without_their_lanes() {
    let found = fault(
        "setp.lt.u32 %p1, %t, 8; @%p1 bra $x; shfl.sync.bfly.b32 %r1, %t, 1, 31, -1; bra.uni $y;
         $x: vote.sync.any.pred %p2, %p1, -1; $y:",
        32,
    );
    assert!(
        matches!(found.kind, FaultKind::DivergentWarp { .. }),
        "{found}"
    );
    let found = fault("shfl.sync.bfly.b32 %r1, %t, 1, 31, 0xff;", 32);
    assert!(matches!(found.kind, FaultKind::Invalid { .. }), "{found}");
    let found = fault(
        "setp.lt.u32 %p1, %t, 8; @!%p1 bra $x; shfl.sync.idx.b32 %r1, %t, 9, 31, 0xff; $x:",
        32,
    );
    assert!(matches!(found.kind, FaultKind::Invalid { .. }), "{found}");
}

#[test]
fn a_missing_wait_for_an_asynchronous_copy() {
    let copy = |wait: &str| {
        format!(
            ".shared .align 16 .b8 s[16]; cp.async.cg.shared.global [s], [%in], 16;
             cp.async.commit_group; {wait} ld.shared.u32 %r1, [s]; st.global.u32 [%d], %r1;"
        )
    };
    let found = fault(&copy(""), 1);
    assert_eq!(found.kind, FaultKind::AsyncPending { bytes: 4 });
    let found = fault(&copy("cp.async.wait_group 1;"), 1);
    assert_eq!(found.kind, FaultKind::AsyncPending { bytes: 4 });
    assert!(run(&copy("cp.async.wait_group 0;"), 1, &[1; 4], 1).is_ok());
}

#[test]
fn endless_loops_traps_and_read_only_memory() {
    let found = fault("$x: bra $x;", 1);
    assert_eq!(found.kind, FaultKind::BudgetExceeded { budget: 20_000_000 });
    assert_eq!(&*found.text, "$x: bra $x;");
    assert_eq!(
        fault("setp.eq.u32 %p1, %t, 3; @%p1 trap;", 32).kind,
        FaultKind::Trap
    );
    let found = fault(
        "mov.b64 %rd1, in; cvta.param.u64 %rd2, %rd1; st.u32 [%rd2], %t;",
        1,
    );
    assert_eq!(found.kind, FaultKind::ReadOnly);
}

#[test]
fn launches_that_no_device_would_take() {
    let module = Module::parse(&common::kernel("")).unwrap();
    let memory = Memory::new();
    let reason = |kernel: &str, launch| match simulator()
        .launch(&memory, &module, kernel, &launch)
        .unwrap_err()
        .kind
    {
        FaultKind::InvalidLaunch { reason } => reason,
        other => panic!("{other}"),
    };
    let params = params(&[0, 0]);
    assert!(reason("none", launch(1, 1, &params)).contains("no such kernel"));
    assert!(reason("test", launch(1, 1, &[])).contains("16"));
    assert!(reason("test", launch(1, 1025, &params)).contains("1024"));
    assert!(reason("test", launch(0, 1, &params)).contains("grid"));
    let bounded = format!("{HEAD}.entry k() .maxntid 64, 1, 1 {{ ret; }}");
    let bounded = Module::parse(&bounded).unwrap();
    let found = simulator()
        .launch(&memory, &bounded, "k", &launch(1, 65, &[]))
        .unwrap_err();
    assert!(found.to_string().contains(".maxntid"));
}
