//! Canonical documents and the ids made from them: what a deployment is, what a unit is.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::lock::{self, Lock, Reference, ReferenceKind};
use super::work::ASSET_ROOT;
use super::{Deployment, PROTOCOL, TlsOptions, names, words};
use crate::digest::{DeployId, Digest};
use crate::spec::params::{DefaultValue, Lookup, PARAMS, Param, Scope, lookup};
use crate::spec::types::insert_nested;
use crate::template::spec::DeploySpec;
use crate::template::{Rendered, TemplateError, Templates};
use crate::value::{Table, Value, write_json_str, write_table};
use crate::wire::Dialect;

/// Version of both documents' shape.
const VERSION: i64 = 1;
/// Where a local model directory is mounted in a container.
pub const MODEL_ROOT: &str = "/llmatrix/models";

/// Parameters that every stack honours without its template: they are handled outside it.
const HANDLED: &[&str] = &[
    "model",
    "served_model",
    "method",
    "engine",
    "hardware",
    "gpus",
    "env",
    "assets",
    "container",
    "endpoint",
    "headers",
    "tls",
];

/// Content of local files, as the planner may ask for it.
pub trait Contents {
    /// BLAKE3 of a file, or of a directory's names and contents. The path is relative to the experiment file.
    fn digest(&self, path: &str) -> Result<Digest, String>;
}

/// What turns deploy parameters into a deployment.
pub struct Resolver<'a> {
    pub templates: &'a Templates,
    pub lock: &'a Lock,
    pub contents: &'a dyn Contents,
    pub detected_hardware: &'a str,
    pub simulate: bool,
    pub sim_version: u32,
    known: Vec<&'static str>,
}

/// Why deploy parameters give no deployment.
#[derive(Clone, Debug)]
pub enum Unresolved {
    /// The stack cannot honour the cell.
    Unsupported(String),
    /// The template, the container table or a file is wrong: (code, message, help).
    Broken(&'static str, String, Option<String>),
}

/// A deployment and what it refers to.
#[derive(Debug)]
pub struct Resolved {
    pub deployment: Deployment,
    /// The API a unit is measured over when its cell does not say.
    pub references: Vec<(Reference, bool)>,
    pub hardware_source: &'static str,
}

/// Set parameters of one scope, sorted by path, with everything that equals its default left out.
pub type Pairs = Vec<(Arc<str>, Value)>;

/// The row of the table that owns a path.
pub fn row(path: &str) -> Option<&'static Param> {
    match lookup(path) {
        Lookup::Param(param) => Some(param),
        _ => None,
    }
}

/// Splits a cell into what is not default: (deploy, unit).
pub fn split(values: &[(Arc<str>, Value)]) -> (Pairs, Pairs) {
    let (mut deploy, mut unit) = (Pairs::new(), Pairs::new());
    for (path, value) in values {
        let Some(param) = row(path) else { continue };
        if param.default.value().as_ref() == Some(value) {
            continue;
        }
        let pairs = if param.scope == Scope::Deploy { &mut deploy } else { &mut unit };
        pairs.push((path.clone(), value.clone()));
    }
    (deploy, unit)
}

/// The value of a path among sorted pairs.
pub fn get<'p>(pairs: &'p [(Arc<str>, Value)], path: &str) -> Option<&'p Value> {
    pairs.binary_search_by(|(p, _)| (**p).cmp(path)).ok().map(|i| &pairs[i].1)
}

/// Canonical bytes of pairs.
pub fn canonical(pairs: &[(Arc<str>, Value)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    write_table(&mut out, pairs.iter().map(|(k, v)| (&**k, v)));
    out
}

/// Canonical bytes of a unit's document.
pub fn unit_document(deploy: &DeployId, unit: &[(Arc<str>, Value)], dataset: Option<&Digest>) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    out.push(b'{');
    if let Some(digest) = dataset {
        out.extend_from_slice(b"\"dataset\":");
        write_json_str(&mut out, &digest.to_string());
        out.push(b',');
    }
    out.extend_from_slice(b"\"deploy\":");
    write_json_str(&mut out, &deploy.to_string());
    out.extend_from_slice(b",\"params\":");
    write_table(&mut out, unit.iter().map(|(k, v)| (&**k, v)));
    out.extend_from_slice(format!(",\"protocol\":{PROTOCOL},\"version\":{VERSION}}}").as_bytes());
    out
}

/// GPUs that the parallel sizes need.
pub fn derived_gpus(pairs: &[(Arc<str>, Value)]) -> i64 {
    let size = |name: &str| get(pairs, name).and_then(Value::as_i64).unwrap_or(1);
    let inside = get(pairs, "dp_attention").and_then(Value::as_bool).unwrap_or(false);
    let data = if inside { 1 } else { size("data_parallel") };
    size("tensor_parallel").saturating_mul(size("pipeline_parallel")).saturating_mul(data)
}

impl<'a> Resolver<'a> {
    pub fn new(
        templates: &'a Templates,
        lock: &'a Lock,
        contents: &'a dyn Contents,
        detected_hardware: &'a str,
        simulate: bool,
        sim_version: u32,
    ) -> Resolver<'a> {
        let mut known: Vec<&'static str> = PARAMS
            .iter()
            .filter(|p| p.scope == Scope::Deploy)
            .map(|p| p.name.split('.').next().unwrap_or(p.name))
            .collect();
        known.dedup();
        Resolver { templates, lock, contents, detected_hardware, simulate, sim_version, known }
    }

    /// Renders and identifies one deployment. `pairs` must hold `model`, `method` and `engine`.
    pub fn resolve(&self, pairs: &Pairs) -> Result<Resolved, Unresolved> {
        let text = |name: &str| get(pairs, name).and_then(Value::as_str).unwrap_or_default().to_string();
        let (model, method, engine) = (text("model"), text("method"), text("engine"));
        let name = format!("{method}/{engine}");
        if !self.templates.contains(&method, &engine) {
            return Err(Unresolved::Unsupported(format!(
                "there is no template `templates/{name}.toml.j2`: {method} does not serve {engine}"
            )));
        }
        let rendered = self.render(&name, pairs)?;
        self.honoured(&name, pairs, &rendered.spec)?;
        let ignored = |p: &str| rendered.spec.ignores.iter().any(|i| i == "*" || i == p);
        if self.templates.is_builtin(&name) && !ignored("quantization") {
            words::honoured(&engine, &name.replace('/', " × "), pairs).map_err(Unresolved::Unsupported)?;
        }
        let (mut document, mut spec) = merged(rendered, pairs)?;
        let flavor = self.flavor(&method, &engine, &spec);
        let (locked, references) = self.locked(pairs, &spec, &method)?;
        if let Some(started) = self.at_locked_commit(&name, pairs, &locked) {
            spec = started;
        }
        let (hardware, hardware_source) = self.hardware(pairs, &method);
        if self.simulate && spec.sim.is_none() {
            spec.sim = Some(rehearsal(&flavor, &model, spec.served_model.as_deref(), pairs));
        }
        observational(&mut document);
        // A file that says `cpu` asks for no GPU; a host that only turns out to have none lacks them.
        let none = hardware_source == "file" && hardware == "cpu";
        let gpus = get(pairs, "gpus").and_then(Value::as_i64);
        let gpus = gpus.unwrap_or_else(|| if none { 0 } else { derived_gpus(pairs) });
        let simulated = self.simulate || spec.sim.is_some();
        let document = self.document(pairs, &hardware, document, locked, simulated.then_some(&flavor));
        let gpus = u32::try_from(gpus).unwrap_or(u32::MAX);
        let flavor = simulated.then_some(flavor);
        let deployment = deployment(pairs, document, spec, hardware, gpus, flavor);
        Ok(Resolved { deployment, references, hardware_source })
    }

    /// Ids for a cell that no stack can honour: from its parameters alone.
    pub fn unsupported_id(pairs: &Pairs) -> DeployId {
        DeployId::of_canonical(&canonical(pairs))
    }

    fn render(&self, name: &str, pairs: &Pairs) -> Result<Rendered, Unresolved> {
        let mut context = Table::new();
        for param in PARAMS.iter().filter(|p| p.scope == Scope::Deploy) {
            if let Some(value) = param.default.value() {
                insert_nested(&mut context, param.name, value);
            }
            if param.is_open() {
                context.insert(param.name.into(), Value::map(Table::new()));
            }
        }
        for (path, value) in pairs {
            let value = match &**path {
                "model" => in_container(value),
                p if p.starts_with("assets.") => format!("{ASSET_ROOT}/{}", &p["assets.".len()..]).into(),
                _ => value.clone(),
            };
            insert_nested(&mut context, path, value);
        }
        self.templates.render(name, &context, &self.known).map_err(|e| match e {
            TemplateError::Unsupported(reason) => Unresolved::Unsupported(reason),
            TemplateError::Failed { .. } => {
                let message = e.to_string();
                let undefined = message.split('`').nth(1).filter(|_| message.contains("undefined"));
                let help = undefined.and_then(|u| crate::diag::did_you_mean(u, self.known.iter().copied()));
                let help = help.or_else(|| {
                    undefined.map(|_| "a template sees the deploy parameters and its own `set` variables only".into())
                });
                Unresolved::Broken("template_error", message, help)
            }
        })
    }

    /// What is started where the lock knows the model's commit: the same, with that commit as its revision. The branch
    /// may have moved since; the document keeps what the experiment says.
    fn at_locked_commit(&self, name: &str, pairs: &Pairs, locked: &Table) -> Option<DeploySpec> {
        let commit = locked.get("model").and_then(Value::as_str)?;
        let local = get(pairs, "model").and_then(Value::as_str).is_none_or(lock::is_local);
        if local || self.simulate || !self.templates.mentions(name, "revision") {
            return None;
        }
        let mut pinned = pairs.clone();
        match pinned.binary_search_by(|(path, _)| (**path).cmp("revision")) {
            Ok(at) => pinned[at].1 = commit.into(),
            Err(at) => pinned.insert(at, ("revision".into(), commit.into())),
        }
        // A stack that refuses a revision gets its model in another way.
        let rendered = self.render(name, &pinned).ok()?;
        merged(rendered, &pinned).ok().map(|(_, spec)| spec)
    }

    /// A parameter that the template never looks at would be ignored silently.
    fn honoured(&self, name: &str, pairs: &Pairs, spec: &DeploySpec) -> Result<(), Unresolved> {
        if spec.ignores.iter().any(|i| i == "*") {
            return Ok(());
        }
        for (path, _) in pairs {
            let head = path.split('.').next().unwrap_or(path);
            let ignored = spec.ignores.iter().any(|i| i == head || i == &**path);
            if !HANDLED.contains(&head) && !ignored && !self.templates.mentions(name, head) {
                let stack = name.replace('/', " × ");
                return Err(Unresolved::Unsupported(format!(
                    "{stack} cannot honour `{head}`: its template does not use it"
                )));
            }
        }
        Ok(())
    }

    fn hardware(&self, pairs: &Pairs, method: &str) -> (String, &'static str) {
        if let Some(class) = get(pairs, "hardware").and_then(Value::as_str) {
            return (class.to_string(), "file");
        }
        match method {
            "sim" => ("sim".into(), "method"),
            "external" if !self.simulate => ("external".into(), "method"),
            _ => match &self.lock.hardware {
                Some(class) => (class.clone(), "lock"),
                None if self.simulate => ("sim".into(), "simulated"),
                None => (self.detected_hardware.to_string(), "detected"),
            },
        }
    }

    /// The impersonated stack; one without a flavour of its own is impersonated by its dialect.
    fn flavor(&self, method: &str, engine: &str, spec: &DeploySpec) -> String {
        if let Some(flavor) = spec.sim.as_ref().and_then(|t| t.get("flavor")).and_then(Value::as_str) {
            return flavor.to_string();
        }
        let own = format!("{method}-{engine}");
        let known = [
            "hf-vllm",
            "hf-sglang",
            "hf-trtllm",
            "triton-vllm",
            "triton-python",
            "triton-trtllm",
            "nim-vllm",
            "unim-vllm",
        ];
        match (spec.api.dialect, engine) {
            _ if known.contains(&own.as_str()) => own,
            (Dialect::Openai, "sglang") => "hf-sglang".into(),
            (Dialect::Openai, "trtllm") => "hf-trtllm".into(),
            (Dialect::Openai, _) => "hf-vllm".into(),
            (Dialect::TritonVllm, _) => "triton-vllm".into(),
            (Dialect::TritonPython, _) => "triton-python".into(),
            (Dialect::TritonTrtllm, _) => "triton-trtllm".into(),
        }
    }

    /// What references mean: locked digests, commits and contents, and every reference with whether it is locked.
    fn locked(
        &self,
        pairs: &Pairs,
        spec: &DeploySpec,
        method: &str,
    ) -> Result<(Table, Vec<(Reference, bool)>), Unresolved> {
        let mut table = Table::new();
        let mut references = Vec::new();
        let mut refer = |kind, name: String, known: bool| references.push((Reference { kind, name }, known));
        if let Some(container) = &spec.container {
            let image = &container.image;
            let digest = self.lock.images.get(image).map(|i| i.digest.clone());
            table.extend(digest.iter().map(|d| ("image".into(), Value::str(d))));
            refer(ReferenceKind::Image, image.clone(), digest.is_some() || image.contains("@sha256:"));
        }
        let model = get(pairs, "model").and_then(Value::as_str).unwrap_or_default();
        if lock::is_local(model) {
            // What is there counts; the lock stands for it where it is not.
            let there = self.contents.digest(model).ok().map(|d| d.to_string());
            let content = there.or_else(|| self.lock.models.get(model).and_then(|m| m.content.clone()));
            table.extend(content.iter().map(|c| ("model".into(), Value::str(c))));
            refer(ReferenceKind::Model, model.to_string(), content.is_some());
        } else if spec.container.is_some() && !matches!(method, "sim" | "external") {
            let key = lock::model_key(model, get(pairs, "revision").and_then(Value::as_str));
            let locked = self.lock.models.get(&key).and_then(|m| m.commit.clone());
            table.extend(locked.iter().map(|c| ("model".into(), Value::str(c))));
            refer(ReferenceKind::Model, key, locked.is_some());
        }
        let tokenizer = get(pairs, "tokenizer").and_then(Value::as_str).filter(|t| lock::is_local(t));
        if let Some(tokenizer) = tokenizer {
            // Prompts are made with it, so its content is part of what is measured.
            let content = self.contents.digest(tokenizer).map_err(|e| {
                Unresolved::Broken("unreadable_file", format!("the tokenizer `{tokenizer}` cannot be read: {e}"), None)
            })?;
            table.insert("tokenizer".into(), content.to_string().into());
        }
        let mut assets = Table::new();
        for (name, value) in below(pairs, "assets.") {
            let reference = value.as_str().unwrap_or_default();
            let locked = self.lock.assets.get(reference).map(|a| a.content.clone());
            let content = if reference.contains("://") {
                locked
            } else {
                match (self.contents.digest(reference), locked) {
                    (Ok(there), _) => Some(there.to_string()),
                    (Err(_), Some(locked)) => Some(locked),
                    (Err(e), None) => {
                        let message = format!("the asset `{name}` cannot be read: {e}");
                        return Err(Unresolved::Broken("unreadable_file", message, None));
                    }
                }
            };
            assets.insert(name.into(), content.clone().unwrap_or_else(|| reference.to_string()).into());
            refer(ReferenceKind::Asset, reference.to_string(), content.is_some());
        }
        if !assets.is_empty() {
            table.insert("assets".into(), Value::map(assets));
        }
        Ok((table, references))
    }

    fn document(&self, pairs: &Pairs, hardware: &str, spec: Value, locked: Table, flavor: Option<&String>) -> Value {
        let mut params = Table::new();
        for (path, value) in pairs {
            let derived = &**path == "gpus" && value.as_i64() == Some(derived_gpus(pairs));
            match &**path {
                "hardware" => {}
                "gpus" if derived => {}
                "container" => {}
                p if p.starts_with("assets.") || p.starts_with("container.mounts") => {}
                "model" => {
                    let model = value.as_str().unwrap_or_default();
                    let local = lock::is_local(model);
                    let name = if local { names::sanitize(model) } else { model.to_string() };
                    params.insert(path.clone(), name.into());
                }
                _ => {
                    params.insert(path.clone(), value.clone());
                }
            }
        }
        let mut document: Table = BTreeMap::from([
            ("version".into(), Value::Int(VERSION)),
            ("params".into(), Value::map(params)),
            ("hardware".into(), Value::str(hardware)),
            ("spec".into(), spec),
        ]);
        if !locked.is_empty() {
            document.insert("locked".into(), Value::map(locked));
        }
        if let Some(flavor) = flavor {
            let version = Value::Int(i64::from(self.sim_version));
            let simulated = Table::from([("model_version".into(), version), ("flavor".into(), Value::str(flavor))]);
            // A cell of method `sim` is a simulation by its own right, not a rehearsal of something else.
            let key = if self.simulate { "simulated" } else { "simulator" };
            document.insert(key.into(), Value::map(simulated));
        }
        Value::map(document)
    }
}

/// The deployment of these parameters, with what was made of them: the document, the specification and what follows from
/// the host. `pairs` may hold unit parameters too.
pub fn deployment(
    pairs: &[(Arc<str>, Value)],
    document: Value,
    spec: DeploySpec,
    hardware: String,
    gpus: u32,
    flavor: Option<String>,
) -> Deployment {
    let text = |name: &str| get(pairs, name).and_then(Value::as_str).map(str::to_string);
    let needed = |name: &str| text(name).unwrap_or_default();
    let (model, method, engine) = (needed("model"), needed("method"), needed("engine"));
    Deployment {
        id: DeployId::of(&document),
        container: names::container(&model, &method, &engine),
        directory: names::directory(&model, &method, &engine),
        document,
        served_model: text("served_model").or_else(|| spec.served_model.clone()),
        spec,
        model,
        method,
        engine,
        hardware,
        gpus,
        assets: below(pairs, "assets.")
            .filter_map(|(name, value)| Some((name.to_string(), value.as_str()?.to_string())))
            .collect(),
        endpoint: text("endpoint"),
        headers: below(pairs, "headers.").map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        tls: tls(pairs),
        flavor,
    }
}

/// The rendered text with the experiment's `container` and `env` merged over it.
fn merged(rendered: Rendered, pairs: &Pairs) -> Result<(Value, DeploySpec), Unresolved> {
    let mut over = Table::new();
    for (path, value) in below(pairs, "container.") {
        insert_nested(&mut over, path, value.clone());
    }
    let env: Table = below(pairs, "env.").map(|(k, v)| (k.into(), v.clone())).collect();
    if !env.is_empty() {
        over.insert("env".into(), Value::map(env));
    }
    if over.is_empty() || rendered.spec.container.is_none() {
        return Ok((rendered.document, rendered.spec));
    }
    let over = Value::map(Table::from([("container".into(), Value::map(over))]));
    let document = merge(&rendered.document, &over);
    let json = serde_json::to_value(&document).expect("a value has a JSON form");
    let spec = serde_json::from_value(json).map_err(|e| {
        let help = "`container` merges over the template's [container] table and has the same keys";
        Unresolved::Broken("bad_container", format!("`container`: {e}"), Some(help.into()))
    })?;
    Ok((document, spec))
}

/// Tables merge in depth, everything else replaces.
fn merge(base: &Value, over: &Value) -> Value {
    match (base, over) {
        (Value::Map(base), Value::Map(over)) => {
            let mut out = (**base).clone();
            for (key, value) in over.iter() {
                let merged = out.get(key).map_or_else(|| value.clone(), |b| merge(b, value));
                out.insert(key.clone(), merged);
            }
            Value::map(out)
        }
        (_, over) => over.clone(),
    }
}

/// Takes out what is watched but changes nothing, and where host directories lie.
fn observational(document: &mut Value) {
    let Value::Map(table) = document else { return };
    let table = Arc::make_mut(table);
    table.remove("milestones");
    table.remove("ignores");
    let Some(Value::Map(container)) = table.get_mut("container") else { return };
    let Some(Value::List(mounts)) = container.get("mounts") else { return };
    let symbolic = |m: &Value| {
        let mut mount = m.as_map().cloned().unwrap_or_default();
        if !mount.get("source").and_then(Value::as_str).is_some_and(|s| s.starts_with("cache:")) {
            mount.insert("source".into(), "host".into());
        }
        Value::map(mount)
    };
    let mounts = mounts.iter().map(symbolic).collect();
    Arc::make_mut(container).insert("mounts".into(), Value::list(mounts));
}

/// Options of the simulated engine that stands in for a real one.
fn rehearsal(flavor: &str, model: &str, rendered: Option<&str>, pairs: &Pairs) -> Table {
    // The name that the template's paths and requests use; the model itself says how large it is.
    let served = get(pairs, "served_model").cloned().or_else(|| rendered.map(Value::str));
    let served = served.unwrap_or_else(|| model.into());
    let mut table =
        Table::from([("flavor".into(), flavor.into()), ("model".into(), served), ("preset".into(), model.into())]);
    for name in ["max_model_len", "max_num_seqs", "prefix_caching", "tensor_parallel", "quantization"] {
        table.extend(get(pairs, name).map(|v| (Arc::from(name), v.clone())));
    }
    table
}

fn in_container(model: &Value) -> Value {
    match model.as_str() {
        Some(m) if lock::is_local(m) => format!("{MODEL_ROOT}/{}", names::sanitize(m)).into(),
        _ => model.clone(),
    }
}

fn below<'p>(pairs: &'p [(Arc<str>, Value)], prefix: &'static str) -> impl Iterator<Item = (&'p str, &'p Value)> {
    pairs.iter().filter_map(move |(k, v)| Some((k.strip_prefix(prefix)?, v)))
}

fn tls(pairs: &[(Arc<str>, Value)]) -> TlsOptions {
    let text = |name: &str| get(pairs, name).and_then(Value::as_str).map(str::to_string);
    TlsOptions {
        ca: text("tls.ca"),
        cert: text("tls.cert"),
        key: text("tls.key"),
        insecure: get(pairs, "tls.insecure").and_then(Value::as_bool).unwrap_or(false),
    }
}

/// A parameter's fixed default.
pub fn default_of(name: &str) -> Option<Value> {
    row(name).map_or(DefaultValue::Unset, |p| p.default).value()
}
