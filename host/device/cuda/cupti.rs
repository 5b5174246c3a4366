//! The kernels that ran and when, from CUPTI's activity records.
//!
//! Nothing else sees the kernels of a replayed graph one by one without stopping them from overlapping.
//! CUPTI is loaded at run time, only when somebody profiles, through declarations of our own
//! (`cupti_activity.h` of CUDA 12 and 13).

use super::super::codes::{CallError, Library as Origin};
use super::super::driver::loader_text;
use super::super::error::{DeviceError, Result};
use super::super::traits::{KernelRun, Profiler};
use super::api::Handle;
use super::context::Shared;
use super::quiet::outside_captures;
use super::search::{CUPTI, Roots, candidates};
use libloading::Library;
use std::alloc::{Layout, alloc, dealloc};
use std::ffi::{CStr, c_char};
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// `CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL`: kernels, without keeping them from overlapping.
const CONCURRENT_KERNEL: u32 = 10;
/// `CUPTI_ACTIVITY_FLAG_FLUSH_FORCED`: buffers that are not full, too.
const FLUSH_FORCED: u32 = 1;
/// `CUPTI_ERROR_MAX_LIMIT_REACHED`: the buffer has no more records.
const NO_MORE_RECORDS: u32 = 12;

/// Bytes of a buffer for records, each of which has about 200: NVIDIA advises 1 to 10 MB.
const BUFFER_BYTES: usize = 4 << 20;
/// `ACTIVITY_RECORD_ALIGNMENT`.
const BUFFER_ALIGN: usize = 8;

type RequestBuffer = extern "C" fn(*mut *mut u8, *mut usize, *mut usize);
type CompleteBuffer = extern "C" fn(Handle, u32, *mut u8, usize, usize);
type NextRecord = unsafe extern "C" fn(*mut u8, usize, *mut *const ActivityKernel) -> u32;

/// The beginning of `CUpti_ActivityKernel9` (CUDA 12) and `CUpti_ActivityKernel10` (CUDA 13): in the
/// headers of both, and since `CUpti_ActivityKernel3`, these fields have the same places. The originals are
/// packed, which moves none of them.
#[repr(C)]
#[derive(Clone, Copy)]
struct ActivityKernel {
    kind: u32,
    cache_and_registers: [u32; 3],
    start: u64,
    end: u64,
    completed: u64,
    device: u32,
    context: u32,
    stream: u32,
    grid: [i32; 3],
    block: [i32; 3],
    static_shared: i32,
    dynamic_shared: i32,
    local_memory: [u32; 2],
    correlation: u32,
    grid_id: i64,
    name: *const c_char,
}

const _: () = assert!(
    offset_of!(ActivityKernel, start) == 16
        && offset_of!(ActivityKernel, end) == 24
        && offset_of!(ActivityKernel, grid) == 52
        && offset_of!(ActivityKernel, block) == 64
        && offset_of!(ActivityKernel, dynamic_shared) == 80
        && offset_of!(ActivityKernel, name) == 104
);

/// CUPTI's functions. The library stays loaded: its threads may call back at any time.
#[derive(Clone, Copy)]
struct Api {
    enable: unsafe extern "C" fn(u32) -> u32,
    disable: unsafe extern "C" fn(u32) -> u32,
    flush_all: unsafe extern "C" fn(u32) -> u32,
    dropped: unsafe extern "C" fn(Handle, u32, *mut usize) -> u32,
}

/// What the callbacks, which know nothing of a profiler, fill. Never locked while CUPTI is called, since
/// it may call back on the same thread.
struct Collected {
    /// The functions, once CUPTI has started.
    api: Option<Api>,
    /// How the buffers of the library in use are read.
    next_record: Option<NextRecord>,
    runs: Vec<KernelRun>,
    /// Records that could not be read, or have no times.
    broken: usize,
}

static COLLECTED: Mutex<Collected> = Mutex::new(Collected {
    api: None,
    next_record: None,
    runs: Vec::new(),
    broken: 0,
});

/// Whether there is a profiler: CUPTI records for the whole process.
static IN_USE: AtomicBool = AtomicBool::new(false);

fn collected() -> MutexGuard<'static, Collected> {
    COLLECTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Records the kernels of this process until it is dropped.
pub(super) struct CuptiProfiler {
    api: Api,
    shared: Arc<Shared>,
    _claim: Claim,
}

/// The right to be the process's only profiler.
struct Claim;

impl Claim {
    fn new() -> Result<Claim> {
        match IN_USE.swap(true, Ordering::AcqRel) {
            true => Err(DeviceError::Profile("another profiler is at work".into())),
            false => Ok(Claim),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        IN_USE.store(false, Ordering::Release);
    }
}

impl CuptiProfiler {
    /// Finds CUPTI if it is the first time, and begins to record.
    ///
    /// # Errors
    /// [`DeviceError::NoCupti`] with the places searched and why each library found was no good; another
    /// profiler in this process.
    pub fn new(shared: &Arc<Shared>) -> Result<Self> {
        let claim = Claim::new()?;
        shared.enter()?;
        // CUPTI may allocate and wait when it starts, ends and flushes.
        let _quiet = outside_captures();
        let known = collected().api;
        let api = match known {
            Some(api) => {
                // SAFETY: takes any number.
                status("cuptiActivityEnable", unsafe {
                    (api.enable)(CONCURRENT_KERNEL)
                })?;
                api
            }
            None => find()?,
        };
        collected().api = Some(api);
        Ok(CuptiProfiler {
            api,
            shared: shared.clone(),
            _claim: claim,
        })
    }
}

impl Profiler for CuptiProfiler {
    fn take(&mut self) -> Result<Vec<KernelRun>> {
        self.shared.enter_outside_capture("profiling")?;
        // Flushing does not wait for the device.
        self.shared.stream.wait()?;
        let _quiet = outside_captures();
        let mut dropped = 0;
        // SAFETY: a valid place for the answer; a null context stands for all of them.
        unsafe {
            status("cuptiActivityFlushAll", (self.api.flush_all)(FLUSH_FORCED))?;
            let code = (self.api.dropped)(std::ptr::null_mut(), 0, &mut dropped);
            status("cuptiActivityGetNumDroppedRecords", code)?;
        }
        let mut collected = collected();
        let broken = std::mem::take(&mut collected.broken);
        let mut runs = std::mem::take(&mut collected.runs);
        drop(collected);
        if broken + dropped > 0 {
            return Err(DeviceError::Profile(format!(
                "CUPTI dropped {dropped} records and gave {broken} without times, beside {} good ones",
                runs.len()
            )));
        }
        runs.sort_by_key(|run| (run.start, run.end));
        Ok(runs)
    }
}

impl Drop for CuptiProfiler {
    fn drop(&mut self) {
        let _ = self.shared.enter();
        let _quiet = outside_captures();
        // SAFETY: takes any number. What a failure leaves on costs time and harms nothing.
        unsafe {
            (self.api.disable)(CONCURRENT_KERNEL);
            (self.api.flush_all)(FLUSH_FORCED);
        }
        let mut collected = collected();
        collected.runs = Vec::new();
        collected.broken = 0;
    }
}

/// Finds a CUPTI that starts, and starts it.
fn find() -> Result<Api> {
    let searched = Roots::from_environment(|name| std::env::var_os(name)).folders(&CUPTI);
    let mut failures = Vec::new();
    let on_loader_path = CUPTI.names.iter().map(PathBuf::from);
    for path in on_loader_path.chain(candidates(&CUPTI, &searched)) {
        let started = match load(&path) {
            Ok(library) => start(library),
            // A bare name that the loader does not know is no finding.
            Err(_) if path.components().count() == 1 => continue,
            Err(why) => Err(why),
        };
        match started {
            Ok(api) => return Ok(api),
            Err(why) => failures.push(format!("{}: {why}", path.display())),
        }
    }
    Err(DeviceError::NoCupti { searched, failures })
}

fn load(path: &Path) -> Result<&'static Library, String> {
    // SAFETY: CUPTI's initializers may run at any time.
    let library = unsafe { Library::new(path) }.map_err(|error| loader_text(&error))?;
    // Never unloaded, even if it refuses to start: it may have threads by then.
    Ok(Box::leak(Box::new(library)))
}

/// Registers the callbacks and begins to record.
fn start(library: &'static Library) -> Result<Api, String> {
    let text = |error: libloading::Error| loader_text(&error);
    // SAFETY: the signatures are those of `cupti_activity.h`; the callbacks live as long as the process.
    unsafe {
        let register: unsafe extern "C" fn(RequestBuffer, CompleteBuffer) -> u32 = *library
            .get("cuptiActivityRegisterCallbacks")
            .map_err(text)?;
        let next_record = *library.get("cuptiActivityGetNextRecord").map_err(text)?;
        let api = Api {
            enable: *library.get("cuptiActivityEnable").map_err(text)?,
            disable: *library.get("cuptiActivityDisable").map_err(text)?,
            flush_all: *library.get("cuptiActivityFlushAll").map_err(text)?,
            dropped: *library
                .get("cuptiActivityGetNumDroppedRecords")
                .map_err(text)?,
        };
        collected().next_record = Some(next_record);
        let registered = register(request_buffer, complete_buffer);
        status("cuptiActivityRegisterCallbacks", registered).map_err(|e| e.to_string())?;
        let enabled = (api.enable)(CONCURRENT_KERNEL);
        status("cuptiActivityEnable", enabled).map_err(|e| e.to_string())?;
        Ok(api)
    }
}

fn status(call: &'static str, code: u32) -> Result<(), CallError> {
    match code {
        0 => Ok(()),
        code => Err(CallError::new(Origin::Cupti, call, code)),
    }
}

fn buffer_layout(bytes: usize) -> Option<Layout> {
    Layout::from_size_align(bytes, BUFFER_ALIGN).ok()
}

/// Gives CUPTI an empty buffer. A null one, when there is no memory, makes it drop and count records.
extern "C" fn request_buffer(buffer: *mut *mut u8, size: *mut usize, max_records: *mut usize) {
    let memory = match buffer_layout(BUFFER_BYTES) {
        // SAFETY: the layout is not empty.
        Some(layout) => unsafe { alloc(layout) },
        None => std::ptr::null_mut(),
    };
    // SAFETY: CUPTI passes places for its answers. 0 records: as many as fit.
    unsafe {
        *buffer = memory;
        *size = BUFFER_BYTES;
        *max_records = 0;
    }
}

/// Takes a buffer of records back.
extern "C" fn complete_buffer(_: Handle, _: u32, buffer: *mut u8, size: usize, valid: usize) {
    if buffer.is_null() {
        return;
    }
    let mut collected = collected();
    if let (Some(next_record), true) = (collected.next_record, valid > 0) {
        // SAFETY: CUPTI has put `valid` bytes of records there.
        unsafe { read_records(next_record, buffer, valid, &mut collected) };
    }
    drop(collected);
    if let Some(layout) = buffer_layout(size) {
        // SAFETY: from `request_buffer`, with this size; CUPTI no longer uses it.
        unsafe { dealloc(buffer, layout) };
    }
}

/// # Safety
/// `buffer` has `valid` bytes of records that `next_record` can read.
unsafe fn read_records(
    next_record: NextRecord,
    buffer: *mut u8,
    valid: usize,
    collected: &mut Collected,
) {
    let mut record = std::ptr::null();
    loop {
        // SAFETY: the caller's promise; `record` is the one before, or null.
        match unsafe { next_record(buffer, valid, &mut record) } {
            0 => {}
            NO_MORE_RECORDS => return,
            _ => {
                collected.broken += 1;
                return;
            }
        }
        // SAFETY: every record begins with its kind.
        let kind = unsafe { record.cast::<u32>().read() };
        if kind != CONCURRENT_KERNEL {
            continue;
        }
        // SAFETY: a record of this kind begins as declared above.
        let kernel = unsafe { record.read_unaligned() };
        if kernel.start == 0 || kernel.end < kernel.start {
            collected.broken += 1;
            continue;
        }
        let name = match kernel.name.is_null() {
            true => String::from("(no name)"),
            // SAFETY: not null, so a string that CUPTI keeps.
            false => unsafe { CStr::from_ptr(kernel.name) }
                .to_string_lossy()
                .into_owned(),
        };
        collected.runs.push(KernelRun {
            name,
            grid: kernel.grid.map(|blocks| blocks as u32),
            block: kernel.block.map(|threads| threads as u32),
            start: kernel.start,
            end: kernel.end,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stands for CUPTI: hands out the records of a buffer that holds nothing else, one by one.
    unsafe extern "C" fn one_by_one(
        buffer: *mut u8,
        valid: usize,
        record: *mut *const ActivityKernel,
    ) -> u32 {
        let first = buffer.cast_const().cast::<ActivityKernel>();
        // SAFETY: the test passes a valid place, and records in one piece.
        unsafe {
            let next = match (*record).is_null() {
                true => first,
                false => (*record).add(1),
            };
            if next.byte_offset_from(first) as usize >= valid {
                return NO_MORE_RECORDS;
            }
            *record = next;
        }
        0
    }

    fn record(kind: u32, name: &CStr, start: u64, end: u64) -> ActivityKernel {
        ActivityKernel {
            kind,
            cache_and_registers: [0; 3],
            start,
            end,
            completed: 0,
            device: 0,
            context: 1,
            stream: 7,
            grid: [4, 2, 1],
            block: [128, 1, 1],
            static_shared: 0,
            dynamic_shared: 1024,
            local_memory: [0; 2],
            correlation: 9,
            grid_id: 3,
            name: name.as_ptr(),
        }
    }

    #[test]
    fn records_of_kernels_are_read_and_others_counted_or_left_out() {
        let mut records = [
            record(CONCURRENT_KERNEL, c"one", 100, 250),
            record(1, c"a copy", 1, 2),
            record(CONCURRENT_KERNEL, c"without times", 0, 0),
            record(CONCURRENT_KERNEL, c"two", 240, 300),
        ];
        let mut collected = Collected {
            api: None,
            next_record: None,
            runs: Vec::new(),
            broken: 0,
        };
        let valid = size_of_val(&records);
        // SAFETY: the buffer holds records, which `one_by_one` reads.
        unsafe {
            let buffer = records.as_mut_ptr().cast();
            read_records(one_by_one, buffer, valid, &mut collected);
        }
        let names: Vec<&str> = collected.runs.iter().map(|run| &*run.name).collect();
        assert_eq!((names, collected.broken), (vec!["one", "two"], 1));
        let run = &collected.runs[0];
        assert_eq!((run.start, run.end), (100, 250));
        assert_eq!((run.grid, run.block), ([4, 2, 1], [128, 1, 1]));
    }

    #[test]
    fn buffers_are_given_and_taken_back() {
        let (mut buffer, mut size, mut most) = (std::ptr::null_mut(), 0, 7);
        request_buffer(&mut buffer, &mut size, &mut most);
        assert!(!buffer.is_null() && buffer.addr().is_multiple_of(BUFFER_ALIGN));
        assert_eq!((size, most), (BUFFER_BYTES, 0));
        complete_buffer(std::ptr::null_mut(), 0, buffer, size, 0);
    }
}
