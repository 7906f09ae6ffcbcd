//! From a path to everything a plan is made from: the experiment's text, its lock, its templates, its settings.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::args::{Global, RunFlags, SelectionArgs};
use super::contents::LocalContents;
use super::failure::Failure;
use super::git::{Revision, RevisionContents};
use super::selection::{self, Selection};
use crate::diag::{Diagnostic, SourceText};
use crate::plan::Plan;
use crate::plan::build::{self, PlanRequest};
use crate::plan::lock::Lock;
use crate::settings::{Layered, Layers, Settings, upwards};
use crate::spec::params::{BUILTIN_ENGINES, BUILTIN_METHODS};
use crate::spec::types::Vocabulary;
use crate::spec::{Spec, read};
use crate::template::{TemplateText, Templates};

/// An experiment, read and validated.
pub struct Prepared {
    pub path: PathBuf,
    /// Directory of the file: relative paths start here.
    pub dir: PathBuf,
    pub spec: Spec,
    pub words: Vocabulary,
    pub templates: Templates,
    pub lock: Lock,
    pub lock_path: PathBuf,
}

/// The experiment files that paths name: files as they are, directories by their `*.toml`, sorted.
pub fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut out = Vec::new();
    for path in paths {
        let meta = fs::metadata(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Failure::Usage(format!("there is no file or directory {}", path.display())),
            _ => Failure::io("read", path, &e),
        })?;
        if !meta.is_dir() {
            out.push(path.clone());
            continue;
        }
        let entries = fs::read_dir(path).map_err(|e| Failure::io("read", path, &e))?;
        let mut found: Vec<PathBuf> =
            entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| is_experiment(p)).collect();
        if found.is_empty() {
            return Err(Failure::Nothing(format!("{} holds no experiment: no *.toml file", path.display())));
        }
        found.sort();
        out.extend(found);
    }
    Ok(out)
}

fn is_experiment(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".toml") && !name.starts_with('.') && name != "llmatrix.toml" && name != "Cargo.toml"
}

/// Reads and validates one experiment file.
pub fn prepare(path: &Path) -> Result<Prepared, Failure> {
    let bytes = read_text(path)?;
    let (dir, lock_path) = places(path);
    let overrides = template_dir(&dir).map_or(Ok(Vec::new()), |d| read_templates(&d))?;
    let lock = match lock_path.exists() {
        true => read_lock(&lock_path, read_text(&lock_path)?)?,
        false => Lock::new(),
    };
    assemble(path, bytes, overrides, lock)
}

/// Reads a file of a size that a person writes; something that does not end is not waited for.
fn read_text(path: &Path) -> Result<Vec<u8>, Failure> {
    use std::io::Read;
    let limit = read::MAX_FILE as u64;
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|e| Failure::io("read", path, &e))?;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|e| Failure::io("read", path, &e))?;
    if bytes.len() as u64 > limit {
        let message = format!("{} has more than {limit} bytes, which is the limit", path.display());
        return Err(Failure::Invalid(vec![Diagnostic::new("too_large", message)]));
    }
    Ok(bytes)
}

/// An experiment that is not in a file: what flags describe. `path` is its name in messages; templates and settings are
/// those of its directory.
pub fn from_text(path: &Path, text: String) -> Result<Prepared, Failure> {
    let (dir, _) = places(path);
    let overrides = template_dir(&dir).map_or(Ok(Vec::new()), |d| read_templates(&d))?;
    assemble(path, text.into_bytes(), overrides, Lock::new())
}

/// The same from a git revision.
pub fn prepare_at(path: &Path, revision: &Revision) -> Result<Option<Prepared>, Failure> {
    let Some(bytes) = revision.read(path) else { return Ok(None) };
    let (dir, lock_path) = places(path);
    let mut overrides = Vec::new();
    if let Some(templates) = template_dir(&dir) {
        for file in revision.list(&templates) {
            let text = revision.read(&file).unwrap_or_default();
            overrides.extend(template_text(&templates, &file, text)?);
        }
    }
    let lock = revision.read(&lock_path).map_or(Ok(Lock::new()), |b| read_lock(&lock_path, b))?;
    assemble(path, bytes, overrides, lock).map(Some)
}

fn assemble(path: &Path, bytes: Vec<u8>, overrides: Vec<TemplateText>, lock: Lock) -> Result<Prepared, Failure> {
    let text = utf8(path, bytes)?;
    let (dir, lock_path) = places(path);
    let templates = Templates::new(overrides);
    let words = vocabulary(&templates);
    let source = Arc::new(SourceText { name: path.display().to_string(), text });
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let spec = read::read(&source, &stem, &words)?;
    Ok(Prepared { path: path.to_path_buf(), dir, spec, words, templates, lock, lock_path })
}

fn places(path: &Path) -> (PathBuf, PathBuf) {
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf();
    (dir, path.with_extension("lock"))
}

fn utf8(path: &Path, bytes: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let message = format!("{} is not UTF-8 text: byte {at} cannot be read", path.display());
        Failure::Invalid(vec![Diagnostic::new("invalid_toml", message).help("save the file as UTF-8")])
    })
}

fn read_lock(path: &Path, bytes: Vec<u8>) -> Result<Lock, Failure> {
    let text = utf8(path, bytes)?;
    Lock::parse(&text).map_err(|e| {
        let span = e.span().unwrap_or(0..0);
        let source = Arc::new(SourceText { name: path.display().to_string(), text: text.clone() });
        let problem = Diagnostic::new("bad_lock", e.message().to_string()).at(&source, span);
        Failure::Invalid(vec![problem.help("`llmatrix lock --update` writes it anew")])
    })
}

/// `templates/` beside the experiment, or above it within the same git repository.
fn template_dir(dir: &Path) -> Option<PathBuf> {
    beside_or_above(dir, "templates").filter(|d| d.is_dir())
}

/// A name beside the experiments; in a git checkout, up to its root; elsewhere, one directory up.
fn beside_or_above(dir: &Path, name: &str) -> Option<PathBuf> {
    let dir = dir.canonicalize().ok()?;
    if upwards(&dir, ".git").is_some() {
        return upwards(&dir, name);
    }
    [Some(dir.as_path()), dir.parent()].into_iter().flatten().map(|d| d.join(name)).find(|p| p.exists())
}

fn read_templates(dir: &Path) -> Result<Vec<TemplateText>, Failure> {
    let mut out = Vec::new();
    let list = |d: &Path| -> Result<Vec<PathBuf>, Failure> {
        let entries = fs::read_dir(d).map_err(|e| Failure::io("read", d, &e))?;
        let mut paths: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
        paths.sort();
        Ok(paths)
    };
    for method in list(dir)?.into_iter().filter(|p| p.is_dir()) {
        for file in list(&method)? {
            if file.to_string_lossy().ends_with(SUFFIX) {
                within(dir, &file)?;
                let bytes = read_text(&file)?;
                out.extend(template_text(dir, &file, bytes)?);
            }
        }
    }
    Ok(out)
}

/// Templates are files of their own directory: a link that leads out of it would bring in any file of the host.
fn within(dir: &Path, file: &Path) -> Result<(), Failure> {
    let real = |path: &Path| path.canonicalize().map_err(|e| Failure::io("read", path, &e));
    if real(file)?.starts_with(real(dir)?) {
        return Ok(());
    }
    let message = format!("{} is a link that leads out of {}", file.display(), dir.display());
    Err(Failure::Invalid(vec![Diagnostic::new("template_outside", message).help("put the template itself there")]))
}

const SUFFIX: &str = ".toml.j2";

fn template_text(dir: &Path, file: &Path, bytes: Vec<u8>) -> Result<Option<TemplateText>, Failure> {
    let Ok(relative) = file.strip_prefix(dir) else { return Ok(None) };
    let Some(name) = relative.to_str().and_then(|r| r.strip_suffix(SUFFIX)) else { return Ok(None) };
    if name.matches('/').count() != 1 {
        return Ok(None);
    }
    let origin =
        std::env::current_dir().ok().and_then(|cwd| file.strip_prefix(cwd).ok()).unwrap_or(file).display().to_string();
    Ok(Some(TemplateText { name: name.to_string(), origin, text: utf8(file, bytes)? }))
}

fn vocabulary(templates: &Templates) -> Vocabulary {
    let mut methods: BTreeSet<String> = BUILTIN_METHODS.iter().map(ToString::to_string).collect();
    let mut engines: BTreeSet<String> = BUILTIN_ENGINES.iter().map(ToString::to_string).collect();
    for (method, engine) in templates.names().filter_map(|n| n.split_once('/')) {
        methods.insert(method.to_string());
        engines.insert(engine.to_string());
    }
    Vocabulary { methods: methods.into_iter().collect(), engines: engines.into_iter().collect() }
}

/// The settings that hold for experiments in `dir`.
pub fn settings(dir: &Path, global: &Global) -> Result<Layered, Failure> {
    let home = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".config")));
    let known = |key: &str| crate::settings::KEYS.iter().any(|(k, _)| *k == key);
    let environment = std::env::vars()
        .filter_map(|(k, v)| Some((k.strip_prefix("LLMATRIX_")?.to_lowercase(), v)))
        .filter(|(k, _)| known(k))
        .collect();
    let given = |path: &Option<PathBuf>| path.clone().filter(|p| !p.as_os_str().is_empty());
    let flag = |name: &str, path: &Option<PathBuf>| given(path).map(|p| (name.to_string(), p.display().to_string()));
    let layers = Layers {
        user: home.map(|h| h.join("llmatrix/config.toml")).filter(|p| p.exists()),
        project: beside_or_above(dir, "llmatrix.toml"),
        environment,
        flags: [flag("artifacts", &global.artifacts), flag("cache", &global.cache)].into_iter().flatten().collect(),
    };
    layers.merge().map_err(|e| Failure::Invalid(vec![Diagnostic::new("bad_settings", e.to_string())]))
}

impl Prepared {
    /// Settings, and the plan without statuses. Only the `sim_version` and hardware class are the machine's.
    pub fn plan(&self, selection: &SelectionArgs, flags: &RunFlags, settings: &Settings) -> Result<Plan, Failure> {
        self.plan_with(selection, flags, &self.contents(settings))
    }

    /// How the server of a stack is spoken to.
    pub fn api_of(&self, method: &str, engine: &str) -> Result<crate::wire::ApiSpec, Failure> {
        let pairs = [("engine", engine), ("method", method), ("model", "unset")]
            .map(|(k, v)| (Arc::from(k), v.into()))
            .to_vec();
        let contents = LocalContents::new(self.dir.clone(), None);
        let resolver = crate::plan::identity::Resolver::new(
            &self.templates,
            &self.lock,
            &contents,
            "cpu",
            false,
            crate::sim::MODEL_VERSION,
        );
        use crate::plan::identity::Unresolved;
        match resolver.resolve(&pairs) {
            Ok(resolved) => Ok(resolved.deployment.spec.api),
            Err(Unresolved::Unsupported(reason)) => Err(Failure::Usage(reason)),
            Err(Unresolved::Broken(_, message, _)) => Err(Failure::Usage(message)),
        }
    }

    /// The files that the experiment refers to.
    pub fn contents(&self, settings: &Settings) -> LocalContents {
        LocalContents::new(self.dir.clone(), Some(settings.cache.join("digests.json")))
    }

    pub fn plan_at(&self, selection: &SelectionArgs, flags: &RunFlags, revision: &Revision) -> Result<Plan, Failure> {
        self.plan_with(selection, flags, &RevisionContents { revision, dir: self.dir.clone() })
    }

    fn plan_with(
        &self,
        selection: &SelectionArgs,
        flags: &RunFlags,
        contents: &dyn crate::plan::identity::Contents,
    ) -> Result<Plan, Failure> {
        let Selection { set, only } = Selection::read(selection, &self.spec, &self.words)?;
        let settings = selection::settings(flags)?;
        let mut policy = self.spec.run.clone();
        settings.iter().for_each(|s| s.apply(&mut policy));
        let request = PlanRequest {
            spec: &self.spec,
            words: &self.words,
            templates: &self.templates,
            lock: &self.lock,
            contents,
            detected_hardware: &crate::host::hardware::hardware_class(&crate::host::detect()),
            set: &set,
            only: &only,
            settings: &settings,
            simulate: policy.simulate,
            sim_version: crate::sim::MODEL_VERSION,
        };
        Ok(build::build(&request)?)
    }
}
