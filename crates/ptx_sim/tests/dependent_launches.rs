//! Launches that may begin before those ahead of them have ended: what is allowed before the wait.

mod common;

use common::{kernel, params, simulator};
use ptx_sim::{BeforeWait, FaultKind, Launch, Memory, Module};

const WAIT: &str = "griddepcontrol.wait;";
/// One word of the input to the output.
const COPY: &str = "ld.global.u32 %r1, [%a]; st.global.u32 [%d], %r1;";

/// Words at three places, each of which a kernel may read or write.
struct Words {
    memory: Memory,
    places: [u64; 3],
}

impl Words {
    fn new() -> Words {
        let mut memory = Memory::new();
        let places = ["weights", "middle", "out"].map(|label| {
            let place = memory.alloc(128, label).unwrap();
            memory.write(place, &[1; 128]).unwrap();
            place
        });
        Words { memory, places }
    }

    /// Launches a body from one place to another.
    fn run(&self, body: &str, from: usize, to: usize, dependent: bool) -> Result<(), FaultKind> {
        let module = Module::parse(&kernel(body)).unwrap();
        let params = params(&[self.places[from], self.places[to]]);
        let launch = Launch {
            grid: [1; 3],
            block: [32, 1, 1],
            dynamic_shared: 0,
            params: &params,
            dependent,
        };
        let ran = simulator().launch(&self.memory, &module, "test", &launch);
        ran.map(drop).map_err(|fault| fault.kind)
    }
}

#[test]
fn what_earlier_launches_write_is_read_after_the_wait() {
    let waits_first = format!("{WAIT} {COPY}");
    let loads_first = format!("ld.global.u32 %r1, [%a]; {WAIT} st.global.u32 [%d], %r1;");
    for first_is_dependent in [false, true] {
        let words = Words::new();
        // What no launch wrote may be read early.
        words.run(&loads_first, 0, 1, first_is_dependent).unwrap();
        words.run(&waits_first, 1, 2, true).unwrap();
        words.run(&loads_first, 0, 1, first_is_dependent).unwrap();
        assert_eq!(
            words.run(&loads_first, 1, 2, true),
            Err(FaultKind::EarlyRead)
        );
        // A launch between that lets others begin before it has waited.
        let hasty = format!("griddepcontrol.launch_dependents; {waits_first}");
        words.run(&loads_first, 0, 1, true).unwrap();
        words.run(&hasty, 0, 2, true).unwrap();
        assert_eq!(
            words.run(&loads_first, 1, 2, true),
            Err(FaultKind::EarlyRead)
        );
        // One between that has waited.
        words.run(&loads_first, 0, 1, true).unwrap();
        words.run(&waits_first, 0, 2, true).unwrap();
        words.run(&loads_first, 1, 2, true).unwrap();
        words.run(&loads_first, 0, 1, true).unwrap();
        let asynchronous = format!(
            "mov.u32 %r2, 1024; cp.async.ca.shared.global [%r2], [%a], 4; {WAIT} cp.async.wait_all;"
        );
        let asynchronous = format!(".shared .b32 tile; {asynchronous}").replace("1024", "tile");
        assert_eq!(
            words.run(&asynchronous, 1, 2, true),
            Err(FaultKind::EarlyRead)
        );
        // A launch that is not dependent begins when all have ended.
        words.run(&loads_first, 1, 2, false).unwrap();
    }
}

#[test]
fn nothing_is_written_before_the_wait() {
    for write in [
        "st.global.u32 [%d], 1;",
        "red.global.add.u32 [%d], 1;",
        "atom.global.exch.b32 %r1, [%d], 1;",
        "st.u32 [%d], 1;",
    ] {
        let words = Words::new();
        let early = format!("{write} {WAIT}");
        assert_eq!(
            words.run(&early, 0, 2, true),
            Err(FaultKind::EarlyWrite),
            "{write}"
        );
        // Also where the module has no wait at all.
        assert_eq!(
            Words::new().run(write, 0, 2, true),
            Err(FaultKind::EarlyWrite)
        );
        words.run(&early, 0, 2, false).unwrap();
        words.run(&format!("{WAIT} {write}"), 0, 2, true).unwrap();
    }
    // The wait of another thread is not one's own.
    let words = Words::new();
    let one_waits = format!("setp.eq.u32 %p1, %t, 0; @%p1 {WAIT} st.global.u32 [%d], 1;");
    assert_eq!(
        words.run(&one_waits, 0, 2, true),
        Err(FaultKind::EarlyWrite)
    );
}

/// A launch whose predecessor waited before it let others begin overlaps that one only.
#[test]
fn two_launches_beside_each_other_use_places_of_their_own() {
    const LET: &str = "griddepcontrol.launch_dependents;";
    let first = format!("{WAIT} {LET} {COPY}");
    let beside = format!("{COPY} {WAIT}");
    let words = Words::new();
    words.run(&first, 0, 1, true).unwrap();
    words.run(&beside, 0, 2, true).unwrap();
    // Writes what the first one writes, or reads.
    words.run(&first, 0, 1, true).unwrap();
    assert_eq!(words.run(&beside, 0, 1, true), Err(FaultKind::EarlyWrite));
    words.run(&first, 0, 1, true).unwrap();
    assert_eq!(words.run(&beside, 2, 0, true), Err(FaultKind::EarlyWrite));
    // Reads what the first one writes.
    words.run(&first, 0, 1, true).unwrap();
    assert_eq!(words.run(&beside, 1, 2, true), Err(FaultKind::EarlyRead));
    // The first one let others begin before it had waited, so that its predecessors may run too.
    let hasty = format!("{LET} {WAIT} {COPY}");
    words.run(&first, 0, 2, true).unwrap();
    words.run(&hasty, 0, 1, true).unwrap();
    assert_eq!(words.run(&beside, 0, 2, true), Err(FaultKind::EarlyWrite));
    // As behind a kernel of which only the results are known.
    let piece = (words.places[1], vec![3; 8]);
    words.memory.write_as_launch(&[piece]).unwrap();
    assert_eq!(words.run(&beside, 0, 2, true), Err(FaultKind::EarlyWrite));
}

#[test]
fn every_block_waits() {
    let words = Words::new();
    let nothing = "griddepcontrol.launch_dependents;";
    assert_eq!(words.run(nothing, 0, 2, true), Err(FaultKind::NoGridWait));
    words.run(nothing, 0, 2, false).unwrap();
    let one_waits = format!("setp.eq.u32 %p1, %t, 0; @%p1 {WAIT}");
    words.run(&one_waits, 0, 2, true).unwrap();
}

#[test]
fn copies_and_graphs_lie_between_launches() {
    let loads_first = format!("ld.global.u32 %r1, [%a]; {WAIT} st.global.u32 [%d], %r1;");
    let words = Words::new();
    words.run(&loads_first, 0, 1, true).unwrap();
    words.memory.write(words.places[0], &[2; 4]).unwrap();
    words.run(&loads_first, 1, 2, true).unwrap();
    words.run(&loads_first, 0, 1, true).unwrap();
    words.memory.order();
    words.run(&loads_first, 1, 2, true).unwrap();
    // What a kernel elsewhere wrote is a launch's.
    let piece = (words.places[1] + 8, vec![3; 8]);
    words.memory.write_as_launch(&[piece]).unwrap();
    assert_eq!(
        words.run(&loads_first, 1, 2, true),
        Err(FaultKind::EarlyRead)
    );
}

#[test]
fn paths_to_the_first_wait_are_followed() {
    let before = |body: &str| {
        let module = Module::parse(&kernel(body)).unwrap();
        module.kernel("test").unwrap().before_wait()
    };
    let lines = |found: BeforeWait| [found.reads, found.writes, found.ends].map(|at| at.len());
    assert_eq!(lines(before(&format!("{WAIT}\n{COPY}"))), [0, 0, 0]);
    assert_eq!(lines(before(&format!("{COPY}\n{WAIT}"))), [1, 1, 0]);
    assert_eq!(lines(before(COPY)), [1, 1, 1]);
    // Behind a branch around the wait, behind a guarded wait, and in a loop that waits later.
    let branch =
        format!("setp.eq.u32 %p1, %t, 0;\n@%p1 bra skip;\n{WAIT}\nskip:\nst.global.u32 [%d], 1;");
    assert_eq!(lines(before(&branch)), [0, 1, 1]);
    let guarded = format!("setp.eq.u32 %p1, %t, 0;\n@%p1 {WAIT}\nred.global.add.u32 [%d], 1;");
    assert_eq!(lines(before(&guarded)), [0, 1, 1]);
    let both = format!(
        "setp.eq.u32 %p1, %t, 0;\n@%p1 bra other;\n{WAIT}\nst.global.u32 [%d], 1;\nret;\n\
         other:\nld.global.u32 %r1, [%a];\n{WAIT}\nst.global.u32 [%d], 1;"
    );
    assert_eq!(lines(before(&both)), [1, 0, 0]);
}
