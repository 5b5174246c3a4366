//! The kernels of a PTX module: names and parameter sizes, and the checks of a launch.
//!
//! Read from the PTX text itself, so that the driver and the simulator refuse the same launches.

use super::error::{DeviceError, Result};
use super::traits::{DeviceInfo, KernelId, Launch};

/// Largest grid in x, y and z (CUDA C Programming Guide, table "Technical Specifications").
const MAX_GRID: [u32; 3] = [i32::MAX as u32, 65_535, 65_535];
/// Largest block in x, y and z, from the same table.
const MAX_BLOCK: [u32; 3] = [1024, 1024, 64];

/// One entry point of a PTX module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The kernel's name.
    pub name: String,
    /// Bytes of its parameters, without padding at the end.
    pub param_bytes: usize,
    /// Their largest alignment.
    pub param_align: usize,
    /// Most threads of a block: what the kernel declares, or what its registers allow.
    pub max_threads: u32,
    /// Static shared memory in bytes.
    pub static_shared: u32,
}

/// The entry points of a module, sorted by name.
#[derive(Debug, Clone, Default)]
pub struct KernelTable {
    entries: Vec<Entry>,
}

impl KernelTable {
    /// Reads the entry points of PTX text. `static_shared` starts at 0, and `max_threads` at what the
    /// kernel declares (`.maxntid`) or 1024.
    ///
    /// # Errors
    /// A parameter list cannot be read.
    pub fn parse(ptx: &str) -> Result<Self> {
        let mut entries = Vec::new();
        let mut rest = ptx;
        while let Some(at) = rest.find(".entry") {
            rest = &rest[at + ".entry".len()..];
            let unreadable = || {
                let line = rest.lines().next().unwrap_or_default();
                DeviceError::Ptx(format!("cannot read the parameters of `.entry{line}`"))
            };
            let end = rest.find(['(', '{', ';']).ok_or_else(unreadable)?;
            let name = rest[..end].trim();
            let params = match rest[end..].strip_prefix('(') {
                Some(list) => &list[..list.find(')').ok_or_else(unreadable)?],
                None => "",
            };
            let (param_bytes, param_align) = params_layout(params).ok_or_else(unreadable)?;
            let body = rest.find('{').unwrap_or(rest.len());
            entries.push(Entry {
                name: name.to_owned(),
                param_bytes,
                param_align,
                max_threads: declared_threads(&rest[..body]).unwrap_or(1024),
                static_shared: 0,
            });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(KernelTable { entries })
    }

    /// The entry points, in the order of their ids.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry points, for the limits that only the loaded module knows.
    pub fn entries_mut(&mut self) -> &mut [Entry] {
        &mut self.entries
    }

    /// Finds a kernel by name.
    pub fn find(&self, name: &str) -> Result<KernelId> {
        match self
            .entries
            .binary_search_by(|entry| entry.name.as_str().cmp(name))
        {
            Ok(index) => Ok(KernelId(index as u32)),
            Err(_) => Err(DeviceError::NoKernel {
                name: name.to_owned(),
                count: self.entries.len(),
            }),
        }
    }

    /// The entry of `id`.
    pub fn get(&self, id: KernelId) -> Result<&Entry> {
        self.entries
            .get(id.0 as usize)
            .ok_or_else(|| DeviceError::NoKernel {
                name: format!("number {}", id.0),
                count: self.entries.len(),
            })
    }
}

impl Entry {
    /// Checks a launch against the limits of this kernel and of the device.
    ///
    /// # Errors
    /// The first limit that it breaks.
    pub fn check(&self, launch: &Launch<'_>, info: &DeviceInfo) -> Result<()> {
        match refusal(self, launch, info) {
            None => Ok(()),
            Some(reason) => Err(DeviceError::Launch {
                kernel: self.name.clone(),
                reason,
            }),
        }
    }
}

fn refusal(entry: &Entry, launch: &Launch<'_>, info: &DeviceInfo) -> Option<String> {
    for (what, size, limit) in [
        ("grid", launch.grid, MAX_GRID),
        ("block", launch.block, MAX_BLOCK),
    ] {
        if size.iter().zip(limit).any(|(&n, max)| n == 0 || n > max) {
            return Some(format!("{what} {size:?} is outside 1 to {limit:?}"));
        }
    }
    let threads: u32 = launch.block.iter().product();
    let max_threads = entry.max_threads.min(info.max_threads_per_block);
    if threads > max_threads {
        return Some(format!(
            "a block of {threads} threads; its registers allow {max_threads} on this device"
        ));
    }
    let shared = u64::from(entry.static_shared) + u64::from(launch.shared_bytes);
    if shared > u64::from(info.max_shared_per_block) {
        return Some(format!(
            "{shared} bytes of shared memory; this device has {} for a block",
            info.max_shared_per_block
        ));
    }
    let padded = entry.param_bytes.next_multiple_of(entry.param_align);
    if launch.params.len() != entry.param_bytes && launch.params.len() != padded {
        return Some(format!(
            "{} bytes of parameters; the kernel takes {}",
            launch.params.len(),
            entry.param_bytes
        ));
    }
    None
}

/// Size and alignment of a PTX parameter list, each parameter at its natural or declared alignment.
fn params_layout(list: &str) -> Option<(usize, usize)> {
    let (mut end, mut most) = (0usize, 1usize);
    for param in list
        .split(',')
        .map(str::trim)
        .filter(|param| !param.is_empty())
    {
        let mut align = None;
        let mut size = None;
        let mut words = param.split_whitespace();
        while let Some(word) = words.next() {
            match word {
                ".param" | ".ptr" | ".global" => {}
                ".align" => align = Some(words.next()?.parse().ok()?),
                _ if word.starts_with('.') => size = Some(type_size(word)?),
                _ => {}
            }
        }
        let size = size?;
        // On a scalar pointer `.align` describes what it points at, not the parameter.
        let is_array = param.contains('[');
        let align: usize = if is_array {
            align.unwrap_or(size)
        } else {
            size
        };
        if !align.is_power_of_two() || align > 128 {
            return None;
        }
        let bytes = if is_array {
            let count: usize = param.split(['[', ']']).nth(1)?.trim().parse().ok()?;
            count.checked_mul(size)?
        } else {
            size
        };
        end = end.checked_next_multiple_of(align)?.checked_add(bytes)?;
        most = most.max(align);
    }
    Some((end, most))
}

/// The product of `.maxntid` or `.reqntid` in the directives before a kernel's body.
fn declared_threads(directives: &str) -> Option<u32> {
    let key = [".maxntid", ".reqntid"]
        .into_iter()
        .find(|key| directives.contains(key))?;
    let (_, list) = directives.split_once(key)?;
    let list = list.split(['.', '\n']).next()?;
    list.split(',').try_fold(1u32, |product, n| {
        product.checked_mul(n.trim().parse().ok()?)
    })
}

fn type_size(word: &str) -> Option<usize> {
    Some(match word {
        ".b8" | ".u8" | ".s8" => 1,
        ".b16" | ".u16" | ".s16" | ".f16" => 2,
        ".b32" | ".u32" | ".s32" | ".f32" => 4,
        ".b64" | ".u64" | ".s64" | ".f64" => 8,
        _ => return None,
    })
}

/// The PTX version that the text declares (`.version 7.8` is `(7, 8)`).
pub fn ptx_version(ptx: &str) -> Option<(u32, u32)> {
    let line = ptx
        .lines()
        .find_map(|line| line.trim().strip_prefix(".version"))?;
    let (major, minor) = line.trim().split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PTX: &str = "
.version 7.8
.target sm_80
.address_size 64
.visible .entry one_struct(
	.param .align 8 .b8 one_struct_param_0[44]
)
{ ret; }
.visible .entry alone
{ ret; }
.visible .entry mixed(.param .u64 .ptr .global .align 16 p, .param .u32 n, .param .f32 a,
 .param .u32 last) .maxntid 128, 1, 1 { ret; }
";

    fn info() -> DeviceInfo {
        DeviceInfo {
            name: "test".into(),
            compute_capability: (8, 0),
            multiprocessors: 1,
            l2_bytes: 0,
            total_memory: 0,
            driver_version: (12, 0),
            max_threads_per_block: 1024,
            is_simulated: false,
            max_shared_per_block: 100 << 10,
        }
    }

    fn check(table: &KernelTable, launch: &Launch<'_>) -> Result<()> {
        table.get(launch.kernel)?.check(launch, &info())
    }

    #[test]
    fn entries_and_sizes_are_read() {
        let table = KernelTable::parse(PTX).unwrap();
        let sizes: Vec<_> = table
            .entries()
            .iter()
            .map(|e| (e.name.as_str(), e.param_bytes, e.param_align))
            .collect();
        assert_eq!(
            sizes,
            [("alone", 0, 1), ("mixed", 20, 8), ("one_struct", 44, 8)]
        );
        assert_eq!(table.find("mixed").unwrap(), KernelId(1));
        let threads: Vec<_> = table.entries().iter().map(|e| e.max_threads).collect();
        assert_eq!(threads, [1024, 128, 1024]);
        assert!(table.find("absent").is_err());
        assert_eq!(ptx_version(PTX), Some((7, 8)));
        assert!(KernelTable::parse(".entry broken(.param .u64 x").is_err());
        assert!(KernelTable::parse(".entry broken(.param .u128 x)").is_err());
        assert!(KernelTable::parse(".entry").is_err());
    }

    #[test]
    fn launches_outside_the_limits_are_refused() {
        let mut table = KernelTable::parse(PTX).unwrap();
        table.entries_mut()[2].max_threads = 256;
        table.entries_mut()[2].static_shared = 1024;
        let params = [0u8; 48];
        let good = Launch {
            kernel: table.find("one_struct").unwrap(),
            grid: [1, 1, 1],
            block: [256, 1, 1],
            shared_bytes: 0,
            params: &params[..44],
            dependent: false,
        };
        assert!(check(&table, &good).is_ok());
        assert!(
            check(
                &table,
                &Launch {
                    params: &params,
                    ..good
                }
            )
            .is_ok()
        );
        for (bad, part) in [
            (
                Launch {
                    grid: [0, 1, 1],
                    ..good
                },
                "grid",
            ),
            (
                Launch {
                    grid: [1, 65_536, 1],
                    ..good
                },
                "grid",
            ),
            (
                Launch {
                    block: [1, 1, 65],
                    ..good
                },
                "block",
            ),
            (
                Launch {
                    block: [1024, 1024, 64],
                    ..good
                },
                "threads",
            ),
            (
                Launch {
                    block: [257, 1, 1],
                    ..good
                },
                "257 threads",
            ),
            (
                Launch {
                    shared_bytes: 100 << 10,
                    ..good
                },
                "shared memory",
            ),
            (
                Launch {
                    shared_bytes: u32::MAX,
                    ..good
                },
                "shared memory",
            ),
            (
                Launch {
                    params: &params[..43],
                    ..good
                },
                "takes 44",
            ),
            (
                Launch {
                    kernel: KernelId(9),
                    ..good
                },
                "number 9",
            ),
        ] {
            let text = check(&table, &bad).unwrap_err().to_string();
            assert!(text.contains(part), "{text}");
        }
    }
}
