//! Whether the suite covers the table of kernels: runs the other tests in a process that records what they
//! launch. On the simulator that process takes the kernels for compute capability 9.0, which an H100 runs, with
//! checks of what they do before they wait for earlier launches; so the suite runs on both images.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use hyperion::ptx;

use crate::device::{RECORD, SIM_90};

/// Cases that each kernel needs: a minimal one, a typical one, and what is ragged in several ways.
const CASES: usize = 5;

#[test]
fn every_kernel_runs_in_five_cases() {
    let folder = tempfile::tempdir().expect("a folder");
    let record = folder.path().join("launches");
    let this = std::env::current_exe().expect("this binary");
    let device = std::env::var("HYPERION_TEST_DEVICE").unwrap_or_else(|_| SIM_90.into());
    let run = Command::new(this)
        .args(["--skip", "coverage::", "--skip", "seeded_bugs::"])
        .env(RECORD, &record)
        .env("HYPERION_TEST_DEVICE", &device)
        .output()
        .expect("this binary runs");
    let text = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success(),
        "the other tests fail on {device}:\n{text}"
    );

    let record = std::fs::read_to_string(record).expect("launches");
    let mut cases: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in record.lines() {
        let (kernel, case) = line.split_once('\t').expect("a kernel and a case");
        cases.entry(kernel).or_default().insert(case);
    }
    let shipped = ptx::modules().iter().flat_map(|module| module.kernels);
    let names: BTreeSet<&str> = shipped.map(|kernel| kernel.name).collect();
    let count = |name: &&str| cases.get(name).map_or(0, BTreeSet::len);
    let too_few = names.iter().filter(|name| count(name) < CASES);
    let too_few: Vec<String> = too_few
        .map(|name| format!("{name}: {}", count(name)))
        .collect();
    assert!(
        too_few.is_empty(),
        "kernels with fewer than {CASES} cases: {too_few:#?}"
    );
}
