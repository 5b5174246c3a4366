//! Where models and tools lie, and how a name becomes a path.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::fetch::has_size;
use crate::{Error, KNOWN_MODELS, KnownModel, KnownTool, SplitName, known_model};

/// The cache folder.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

/// A model file in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedModel {
    /// Short name: that of [`KNOWN_MODELS`], else the file's stem, which of a model in several files is
    /// without the part's number.
    pub name: String,
    /// The file; of several, the first.
    pub path: PathBuf,
    /// Its size in bytes, or that of all parts.
    pub size: u64,
}

/// Path of the model that `name` (a path or a short name) means, in the user's cache.
///
/// # Errors
/// Says what the cache holds and how to fetch a model, see [`Cache::resolve`].
pub fn resolve(name: &str) -> Result<PathBuf, Error> {
    // A path needs no cache, so a machine without a home folder can still open files.
    match Cache::from_env() {
        Ok(cache) => cache.resolve(name),
        Err(_) if Path::new(name).is_file() => Ok(name.into()),
        Err(error) => Err(error),
    }
}

impl Cache {
    /// The user's cache: `$HYPERION_CACHE`, `$XDG_CACHE_HOME/hyperion` or `~/.cache/hyperion`.
    ///
    /// # Errors
    /// [`Error::NoCacheFolder`] where none of the variables is set.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_variables(|name| env::var_os(name)).ok_or(Error::NoCacheFolder)
    }

    fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        let folder = |name| variable(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        // The XDG specification tells to ignore a relative XDG_CACHE_HOME.
        let root = folder("HYPERION_CACHE")
            .or_else(|| {
                let xdg = folder("XDG_CACHE_HOME").filter(|path| path.is_absolute())?;
                Some(xdg.join("hyperion"))
            })
            .or_else(|| Some(folder("HOME")?.join(".cache/hyperion")))?;
        Some(Self { root })
    }

    /// A cache in the given folder, which need not exist yet.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder that holds all the others.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of whole, verified model files.
    pub fn models_dir(&self) -> PathBuf {
        self.root.join("models")
    }

    /// The folder of unfinished downloads. It is on the same file system as the models, so that
    /// a finished file moves there in one atomic rename.
    pub fn staging_dir(&self) -> PathBuf {
        self.root.join("staging")
    }

    /// Where a known model lies, or will lie once it is fetched.
    pub fn path_of(&self, model: &KnownModel) -> PathBuf {
        self.models_dir().join(model.file_name)
    }

    /// Whether the model's file is there with its right size. Its digest was checked before the
    /// file got that name.
    pub fn holds(&self, model: &KnownModel) -> bool {
        has_size(&self.path_of(model), model.size)
    }

    /// The folder of fetched programs.
    pub fn tools_dir(&self) -> PathBuf {
        self.root.join("tools")
    }

    /// Where a known tool lies, or will lie once it is fetched.
    pub fn path_of_tool(&self, tool: &KnownTool) -> PathBuf {
        self.tools_dir().join(tool.name)
    }

    /// Whether the tool is there with its right size, as [`Cache::holds`] says of models.
    pub fn holds_tool(&self, tool: &KnownTool) -> bool {
        has_size(&self.path_of_tool(tool), tool.piece.size)
    }

    /// All models of the cache, sorted by name. One in several files is one model.
    ///
    /// # Errors
    /// The models folder exists and cannot be read.
    pub fn list(&self) -> Result<Vec<CachedModel>, Error> {
        let folder = self.models_dir();
        let failed = |source| Error::io("read the folder", &folder, source);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut models = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            let Some(name) = short_name(&path) else {
                continue;
            };
            // A dangling link, or a file removed since, is no model.
            let Ok(meta) = fs::metadata(&path) else {
                continue;
            };
            if meta.is_file() {
                models.push(CachedModel {
                    name,
                    path,
                    size: meta.len(),
                });
            }
        }
        models.sort_by(|a, b| (&a.name, &a.path).cmp(&(&b.name, &b.path)));
        models.dedup_by(|part, first| {
            let same = are_parts_of_one(&part.path, &first.path);
            first.size += if same { part.size } else { 0 };
            same
        });
        Ok(models)
    }

    /// Path of the model that `name` means: an existing file, a known model, or the short name, the stem or
    /// the file name of one in the cache, in this order.
    ///
    /// # Errors
    /// The model is not there, or `name` is a folder.
    pub fn resolve(&self, name: &str) -> Result<PathBuf, Error> {
        let path = Path::new(name);
        let kind = fs::metadata(path);
        if kind.as_ref().is_ok_and(|meta| !meta.is_dir()) {
            return Ok(path.to_owned());
        }
        if let Some(model) = known_model(name) {
            return if self.holds(model) {
                Ok(self.path_of(model))
            } else {
                Err(Error::NotFetched { name: model.name })
            };
        }
        let cached = self.list()?;
        if let Some(part) = self.part(name) {
            return Ok(part);
        }
        let same = |model: &&CachedModel| {
            model.name == name
                || model.path.file_stem() == Some(path.as_os_str())
                || model.path.file_name() == Some(path.as_os_str())
        };
        if let Some(model) = cached.iter().find(same) {
            return Ok(model.path.clone());
        }
        if kind.is_ok() {
            return Err(Error::IsFolder {
                path: path.to_owned(),
            });
        }
        Err(Error::UnknownModel {
            name: name.to_owned(),
            folder: self.models_dir(),
            cached: cached.into_iter().map(|model| model.name).collect(),
        })
    }
}

impl Cache {
    /// The file in the cache that `name` calls a part of a model in several files, with or without its ending.
    fn part(&self, name: &str) -> Option<PathBuf> {
        let with_ending = format!("{name}.gguf");
        let file_name = [name, &with_ending]
            .into_iter()
            .find(|name| !name.contains(['/', '\\']) && SplitName::parse(name).is_some())?;
        let path = self.models_dir().join(file_name);
        path.is_file().then_some(path)
    }
}

/// The name of a part, where the file is one of a model in several files.
fn split_name(path: &Path) -> Option<SplitName<'_>> {
    SplitName::parse(path.file_name()?.to_str()?)
}

fn are_parts_of_one(a: &Path, b: &Path) -> bool {
    let names = split_name(a).zip(split_name(b));
    names.is_some_and(|(a, b)| a.name(1) == b.name(1))
}

/// Short name of a GGUF file; `None` for other files.
fn short_name(path: &Path) -> Option<String> {
    if !path
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
    {
        return None;
    }
    let file_name = path.file_name()?;
    let known = KNOWN_MODELS
        .iter()
        .find(|model| file_name == model.file_name);
    Some(match known {
        Some(model) => model.name.to_owned(),
        None => match split_name(path) {
            Some(split) => split.prefix().to_owned(),
            None => path.file_stem()?.to_string_lossy().into_owned(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(variables: &[(&str, &str)]) -> Option<PathBuf> {
        let find = |name: &str| variables.iter().find(|v| v.0 == name).map(|v| v.1.into());
        Cache::from_variables(find).map(|cache| cache.root)
    }

    #[test]
    fn the_folder_follows_the_variables() {
        let home = ("HOME", "/home/u");
        assert_eq!(root(&[]), None);
        assert_eq!(root(&[home]), Some("/home/u/.cache/hyperion".into()));
        assert_eq!(
            root(&[home, ("XDG_CACHE_HOME", "/x")]),
            Some("/x/hyperion".into())
        );
        assert_eq!(
            root(&[home, ("XDG_CACHE_HOME", "x")]),
            Some("/home/u/.cache/hyperion".into()),
            "a relative XDG_CACHE_HOME is ignored"
        );
        assert_eq!(root(&[home, ("HYPERION_CACHE", "/h")]), Some("/h".into()));
        assert_eq!(
            root(&[home, ("HYPERION_CACHE", "")]),
            Some("/home/u/.cache/hyperion".into()),
            "an empty variable counts as unset"
        );
    }

    #[test]
    fn names_become_paths() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().join("cache"));
        assert_eq!(cache.list().unwrap(), []);
        assert!(matches!(
            cache.resolve("smollm2"),
            Err(Error::NotFetched { name: "smollm2" })
        ));

        fs::create_dir_all(cache.models_dir()).unwrap();
        let tiny = cache.models_dir().join("tiny.Q8_0.gguf");
        fs::write(&tiny, b"GGUF").unwrap();
        fs::write(cache.models_dir().join("notes.txt"), b"").unwrap();
        assert_eq!(cache.resolve("tiny.Q8_0").unwrap(), tiny);
        assert_eq!(cache.resolve("tiny.Q8_0.gguf").unwrap(), tiny);
        assert_eq!(cache.resolve(tiny.to_str().unwrap()).unwrap(), tiny);
        let names: Vec<_> = cache.list().unwrap().into_iter().map(|m| m.name).collect();
        assert_eq!(names, ["tiny.Q8_0"]);

        let folder_name = folder.path().to_str().unwrap();
        assert!(matches!(
            cache.resolve(folder_name),
            Err(Error::IsFolder { .. })
        ));
        let message = cache.resolve("tiny").unwrap_err().to_string();
        assert!(
            message.contains("\"tiny\"") && message.contains("tiny.Q8_0"),
            "{message}"
        );
        assert!(message.contains("hyperion pull"), "{message}");
    }

    #[test]
    fn a_model_in_several_files_is_one_model() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path());
        fs::create_dir_all(cache.models_dir()).unwrap();
        let part = |number: u32| {
            let name = format!("big-{number:05}-of-00002.gguf");
            cache.models_dir().join(name)
        };
        fs::write(part(1), b"GGUF").unwrap();
        fs::write(part(2), b"GGUF12").unwrap();
        let big = CachedModel {
            name: "big".to_owned(),
            path: part(1),
            size: 10,
        };
        assert_eq!(cache.list().unwrap(), [big]);
        for (name, number) in [
            ("big", 1),
            ("big-00001-of-00002", 1),
            ("big-00002-of-00002.gguf", 2),
        ] {
            assert_eq!(cache.resolve(name).unwrap(), part(number), "{name}");
        }
        assert!(cache.resolve("big-00003-of-00003").is_err());
    }

    #[test]
    fn a_known_file_of_the_wrong_size_is_not_held() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path());
        fs::create_dir_all(cache.models_dir()).unwrap();
        let model = &KNOWN_MODELS[0];
        fs::write(cache.path_of(model), b"half").unwrap();
        assert!(!cache.holds(model));
        let file = fs::File::create(cache.path_of(model)).unwrap();
        file.set_len(model.size).unwrap();
        assert!(cache.holds(model));
        assert_eq!(cache.resolve(model.name).unwrap(), cache.path_of(model));
        assert_eq!(cache.list().unwrap()[0].name, model.name);
    }
}
