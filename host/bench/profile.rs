//! Where the time of a step goes: its kernels, what they read, and the time between them.
//!
//! Kernels of a step overlap, so that their durations add up to more than the step. What a kernel costs is
//! its part of the critical path: from the end of what ended last before it to its own end. These parts and
//! the time between steps add up to the step exactly.

use std::sync::atomic::AtomicBool;

use serde::Serialize;

use super::{Kind, RandomTokens, Test, prepare};
use crate::backend::{Ask, BackendError, Instrumented, NotedLaunch};
use crate::device::{DeviceError, KernelRun, Profiler};
use crate::engine::{Engine, EngineError};

/// The launches of a kernel that have one shape and move as much. Times are of a step, in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KernelRow {
    /// The kernel's name.
    pub kernel: String,
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y and z.
    pub block: [u32; 3],
    /// Calls in a step, in the mean.
    pub calls: f64,
    /// Mean duration of a call, which may overlap others.
    pub mean_us: f64,
    /// Its part of the critical path, with the time before it.
    pub path_us: f64,
    /// The part of that in which no kernel ran.
    pub idle_us: f64,
    /// Bytes that a call moves; none where nobody counted.
    pub bytes: Option<u64>,
    /// Billions of these bytes per second of the critical path.
    pub gb_per_second: Option<f64>,
    /// Share of the device's copy bandwidth.
    pub share: Option<f64>,
}

/// The mean of the profiled steps of a test: decode steps, or whole prompts. Times in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Profile {
    /// The test's name.
    pub test: String,
    /// Sequences in a step.
    pub batch: usize,
    /// Tokens in the cache before.
    pub depth: usize,
    /// Steps profiled.
    pub steps: usize,
    /// The kernels in the order in which each first ran.
    pub kernels: Vec<KernelRow>,
    /// The kernels' parts of the critical path.
    pub path_us: f64,
    /// The part of that in which no kernel ran.
    pub idle_us: f64,
    /// From a step's last kernel to the next step's first: copies and the host.
    pub between_us: f64,
    /// A whole step.
    pub step_us: f64,
}

/// Profiles `test` with a profiler of the engine's device: the decode steps of one repetition, or
/// `repetitions` prompts.
///
/// # Errors
/// As for [`super::measure`]; steps that differ in their kernels; a device that cannot be profiled.
pub fn profile(
    engine: &mut Engine,
    test: &Test,
    repetitions: usize,
    profiler: &mut dyn Profiler,
    copy: Option<f64>,
    interrupt: &AtomicBool,
) -> Result<Profile, EngineError> {
    let mut tokens = RandomTokens::new(engine.model().vocab());
    let mut sequences = prepare(engine, test, &mut tokens, interrupt)?;
    let steps = match test.kind {
        Kind::Prompt(_) => repetitions,
        Kind::Decode(n) => n,
    };
    let mut step = |engine: &mut Engine, at: usize| match test.kind {
        Kind::Prompt(n) => {
            sequences[0].truncate(test.depth);
            let prompt = tokens.take(n);
            engine
                .prefill(&mut sequences[0], &prompt, Ask::GREEDY, interrupt)
                .map(drop)
        }
        Kind::Decode(_) => {
            sequences
                .iter_mut()
                .for_each(|s| s.truncate(test.depth + at));
            // One by one: a step that is sent ahead would be in two records.
            let newest = &mut tokens.take(test.batch);
            engine.decode_ahead(&mut sequences, newest, Ask::GREEDY, 1, interrupt)
        }
    };
    // Warms up, and records the graphs for all positions.
    (0..steps).try_for_each(|at| step(engine, at))?;
    // In the middle, where attention reads its mean of keys.
    let Some(instrumented) = engine.backend().instrumented() else {
        return Err(device_error(DeviceError::Profile(
            "this backend launches no kernels".to_owned(),
        )));
    };
    instrumented.note_launches();
    let noted = step(engine, steps / 2);
    let launches = engine
        .backend()
        .instrumented()
        .map_or_else(Vec::new, Instrumented::noted_launches);
    noted?;

    profiler.take().map_err(device_error)?;
    // The first one tells when the next one could have begun.
    step(engine, 0)?;
    (0..steps).try_for_each(|at| step(engine, at))?;
    let runs = profiler.take().map_err(device_error)?;
    Profile::new(test, steps, &runs, &launches, copy)
        .map_err(|why| device_error(DeviceError::Profile(why)))
}

fn device_error(error: DeviceError) -> EngineError {
    EngineError::Backend(BackendError::Device(Box::new(error)))
}

impl Profile {
    /// From the kernels of `steps` steps and of one before them; a step launches `launches`.
    ///
    /// # Errors
    /// The steps differ in their kernels.
    fn new(
        test: &Test,
        steps: usize,
        runs: &[KernelRun],
        launches: &[NotedLaunch],
        copy: Option<f64>,
    ) -> Result<Profile, String> {
        let per_step = runs.len() / (steps + 1);
        if per_step == 0 || !runs.len().is_multiple_of(steps + 1) {
            return Err(format!(
                "{} kernels in {} steps: not as many in each",
                runs.len(),
                steps + 1
            ));
        }
        let (before, counted) = runs.split_at(per_step);
        check_alike(before, counted)?;
        let bytes = bytes_of(before, launches);

        let begun = before.iter().map(|run| run.end).max().unwrap_or(0);
        let mut last_end = begun;
        let mut between = 0;
        let mut sums: Vec<Sum<'_>> = Vec::new();
        for (index, run) in counted.iter().enumerate() {
            let place = index % per_step;
            let mut idle = run.start.saturating_sub(last_end);
            if place == 0 {
                between += idle;
                last_end += idle;
                idle = 0;
            }
            let path = run.end.saturating_sub(last_end);
            last_end = last_end.max(run.end);
            let sum = Sum::find(&mut sums, run, bytes[place]);
            sum.calls += 1;
            sum.duration += run.end - run.start;
            sum.path += path;
            sum.idle += idle;
        }
        let mean_us = |nanoseconds: u64| nanoseconds as f64 / 1e3 / steps as f64;
        Ok(Profile {
            test: test.name(),
            batch: test.batch,
            depth: test.depth,
            steps,
            kernels: sums.iter().map(|sum| sum.row(steps, copy)).collect(),
            path_us: mean_us(sums.iter().map(|sum| sum.path).sum()),
            idle_us: mean_us(sums.iter().map(|sum| sum.idle).sum()),
            between_us: mean_us(between),
            step_us: mean_us(last_end - begun),
        })
    }
}

/// Every step of `counted` runs the kernels of `first`, though perhaps in other grids.
fn check_alike(first: &[KernelRun], counted: &[KernelRun]) -> Result<(), String> {
    for (index, run) in counted.iter().enumerate() {
        let expected = &first[index % first.len()];
        if run.name != expected.name {
            return Err(format!(
                "step {} ran `{}` where the step before ran `{}`",
                index / first.len() + 1,
                run.name,
                expected.name
            ));
        }
    }
    Ok(())
}

/// The bytes that each kernel of a step moves, by the launches noted. Kernels of libraries, which nobody
/// notes, lie between them.
fn bytes_of(runs: &[KernelRun], launches: &[NotedLaunch]) -> Vec<Option<u64>> {
    let mut launches = launches.iter().peekable();
    let bytes = runs.iter().map(|run| {
        let launch = launches.next_if(|launch| launch.kernel == run.name)?;
        launch.bytes
    });
    bytes.collect()
}

/// The sums of a row over all steps, in nanoseconds.
struct Sum<'a> {
    run: &'a KernelRun,
    /// What a call moves.
    bytes: Option<u64>,
    calls: u64,
    duration: u64,
    path: u64,
    idle: u64,
}

impl<'a> Sum<'a> {
    fn find<'b>(
        sums: &'b mut Vec<Sum<'a>>,
        run: &'a KernelRun,
        bytes: Option<u64>,
    ) -> &'b mut Sum<'a> {
        let key = |run: &'a KernelRun, bytes| (&run.name, run.grid, run.block, bytes);
        let mut keys = sums.iter().map(|sum| key(sum.run, sum.bytes));
        let at = keys.position(|known| known == key(run, bytes));
        let at = at.unwrap_or_else(|| {
            sums.push(Sum {
                run,
                bytes,
                calls: 0,
                duration: 0,
                path: 0,
                idle: 0,
            });
            sums.len() - 1
        });
        &mut sums[at]
    }

    fn row(&self, steps: usize, copy: Option<f64>) -> KernelRow {
        let mean = |sum: u64, count: f64| sum as f64 / count;
        let (calls, steps) = (self.calls as f64, steps as f64);
        // Bytes per nanosecond are billions per second.
        let speed = self.bytes.filter(|_| self.path > 0);
        let speed = speed.map(|bytes| (bytes * self.calls) as f64 / self.path as f64);
        KernelRow {
            kernel: self.run.name.clone(),
            grid: self.run.grid,
            block: self.run.block,
            calls: calls / steps,
            mean_us: mean(self.duration, calls) / 1e3,
            path_us: mean(self.path, steps) / 1e3,
            idle_us: mean(self.idle, steps) / 1e3,
            bytes: self.bytes,
            gb_per_second: speed,
            share: speed.zip(copy).map(|(speed, copy)| 1e9 * speed / copy),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEST: Test = Test {
        kind: Kind::Decode(2),
        depth: 64,
        batch: 1,
    };

    fn run(name: &str, grid: u32, start: u64, end: u64) -> KernelRun {
        KernelRun {
            name: name.to_owned(),
            grid: [grid, 1, 1],
            block: [128, 1, 1],
            start,
            end,
        }
    }

    fn noted(kernel: &'static str, bytes: Option<u64>) -> NotedLaunch {
        NotedLaunch { kernel, bytes }
    }

    /// A step of kernels that overlap, a library's kernel among them, and a gap.
    fn step(at: u64) -> Vec<KernelRun> {
        vec![
            run("a", 8, at, at + 3000),
            run("b", 4, at + 2000, at + 5000),
            run("gemm", 1, at + 6000, at + 7000),
            run("b", 4, at + 6500, at + 8000),
            run("b", 4, at + 7500, at + 9000),
        ]
    }

    #[test]
    fn the_parts_add_up_to_the_step() {
        // From 9,000 to 20,000 and on to 31,000, each after 1,000 or 3,000 between the steps.
        let runs = [step(0), step(10_000), step(22_000)].concat();
        let launches = [
            noted("a", Some(6000)),
            noted("b", Some(1000)),
            noted("b", Some(1000)),
            noted("b", Some(500)),
        ];
        let profile = Profile::new(&TEST, 2, &runs, &launches, Some(4e9)).unwrap();
        assert_eq!((profile.step_us, profile.between_us), (11.0, 2.0));
        assert_eq!((profile.path_us, profile.idle_us), (9.0, 1.0));
        let rows = &profile.kernels;
        let names: Vec<&str> = rows.iter().map(|row| &*row.kernel).collect();
        assert_eq!(names, ["a", "b", "gemm", "b"]);
        let (a, b, gemm, small) = (&rows[0], &rows[1], &rows[2], &rows[3]);
        assert_eq!(
            (a.calls, a.mean_us, a.path_us, a.idle_us),
            (1.0, 3.0, 3.0, 0.0)
        );
        // 6,000 bytes in 3 µs.
        assert_eq!((a.gb_per_second, a.share), (Some(2.0), Some(0.5)));
        // 2 µs after `a`, and 1 µs after the library's kernel.
        assert_eq!((b.calls, b.mean_us, b.path_us), (2.0, 2.25, 3.0));
        assert_eq!(b.gb_per_second, Some(2000.0 / 3000.0));
        // A launch that moves less is another row.
        assert_eq!(
            (small.calls, small.path_us, small.bytes),
            (1.0, 1.0, Some(500))
        );
        assert_eq!((gemm.path_us, gemm.idle_us, gemm.bytes), (2.0, 1.0, None));
    }

    #[test]
    fn a_kernel_inside_another_costs_nothing() {
        let step = |at| {
            vec![
                run("long", 1, at, at + 5000),
                run("short", 1, at + 1000, at + 2000),
            ]
        };
        let runs = [step(0), step(10_000)].concat();
        let profile = Profile::new(&TEST, 1, &runs, &[noted("long", None)], None).unwrap();
        let short = &profile.kernels[1];
        assert_eq!((short.mean_us, short.path_us), (1.0, 0.0));
        assert_eq!(
            (short.gb_per_second, profile.kernels[0].bytes),
            (None, None)
        );
        assert_eq!(profile.path_us + profile.between_us, profile.step_us);
    }

    #[test]
    fn grids_may_change_from_step_to_step_and_kernels_may_not() {
        let mut runs = [step(0), step(10_000), step(20_000)].concat();
        runs[11].grid = [16, 1, 1];
        let profile = Profile::new(&TEST, 2, &runs, &[], None).unwrap();
        let calls: Vec<f64> = profile.kernels.iter().map(|row| row.calls).collect();
        assert_eq!(calls, [1.0, 2.5, 1.0, 0.5]);
        runs[11].name = "c".to_owned();
        let error = Profile::new(&TEST, 2, &runs, &[], None).unwrap_err();
        assert!(error.contains("step 2 ran `c`"), "{error}");
        runs.pop();
        assert!(Profile::new(&TEST, 2, &runs, &[], None).is_err());
        assert!(Profile::new(&TEST, 2, &[], &[], None).is_err());
    }
}
