//! A stack in a container as commands of `docker`: what a run asks the container engine for, word by word.

use std::path::Path;

use super::super::shell::{with_variables, word, write_file};
use super::{Host, Recipe, Step, lines};
use crate::cli::failure::Failure;
use crate::deploy::docker::{self, Bind, HUB_CACHE, cache_dir, handed_tokens};
use crate::hub::image::pinned;
use crate::hub::model::{ENDPOINT_VARIABLE, OFFLINE_VARIABLE};
use crate::plan::lock::is_local;
use crate::plan::{ASSET_ROOT, MODEL_ROOT, names};
use crate::template::spec::{ContainerSpec, Mount};
use crate::units::parse_bytes;

pub fn steps(recipe: &Recipe, spec: &ContainerSpec, host: &Host) -> Result<Vec<Step>, Failure> {
    let mut steps = vec![beginning(recipe, spec)];
    steps.extend(files(spec));
    steps.extend(caches(recipe, spec, host));
    steps.extend(image(recipe, spec));
    steps.push(Step {
        says: "In a run, requests go to the container's own address; here to a port of this host",
        command: format!(
            "{}\nendpoint=http://$(docker port \"$name\" {}/tcp | head -n 1)",
            run(recipe, spec, host)?,
            spec.port
        ),
    });
    let alive = "[ \"$(docker inspect --format '{{.State.Running}}' \"$name\")\" = true ]";
    steps.push(recipe.wait(alive, "docker logs --tail 50 \"$name\" >&2")?);
    Ok(steps)
}

/// A name of its own: a container of a run may have the conventional one.
fn beginning(recipe: &Recipe, spec: &ContainerSpec) -> Step {
    let mut command = format!("name={}-rerun-$$\n", word(&recipe.deployment.container));
    let mut end = "docker rm --force --volumes \"$name\" > /dev/null 2>&1 || true".to_string();
    if !spec.files.is_empty() {
        command.push_str("scratch=$(mktemp -d)\n");
        end.push_str("; rm -rf \"$scratch\"");
    }
    command.push_str(&format!("trap '{end}' EXIT"));
    Step { says: "What is started here ends with the script", command }
}

/// Their places in the container are not their places here, as in a run.
fn files(spec: &ContainerSpec) -> Option<Step> {
    let written = scratch_files(spec).map(|(name, _, content)| {
        let path = format!("\"$scratch\"/{name}");
        format!("{}\nchmod 0644 {path}", write_file(&path, content))
    });
    let command = written.collect::<Vec<_>>().join("\n");
    (!command.is_empty()).then_some(Step { says: "Files that the template renders", command })
}

/// Name under the scratch directory, place in the container, content.
fn scratch_files(spec: &ContainerSpec) -> impl Iterator<Item = (String, &str, &str)> {
    spec.files.iter().enumerate().map(|(i, (target, content))| {
        let name = names::sanitize(target.rsplit('/').next().unwrap_or_default());
        (format!("{i}-{name}"), target.as_str(), content.as_str())
    })
}

/// The directories that are kept between runs. An empty one is open to whatever user the container has.
fn caches(recipe: &Recipe, spec: &ContainerSpec, host: &Host) -> Option<Step> {
    let made = spec.mounts.iter().filter_map(|mount| {
        let dir = word(&cache(recipe, mount, host)?);
        Some(format!("mkdir -p {dir}\n[ -n \"$(ls -A {dir})\" ] || chmod 0777 {dir}"))
    });
    let command = made.collect::<Vec<_>>().join("\n");
    let says = "Caches, shared with runs; a model that is not there is downloaded by the engine";
    (!command.is_empty()).then_some(Step { says, command })
}

/// The directory that a mount of `cache:NAME` means.
fn cache(recipe: &Recipe, mount: &Mount, host: &Host) -> Option<String> {
    let name = mount.source.strip_prefix("cache:")?;
    Some(absolute(&cache_dir(host.cache, &recipe.deployment.method, name, host.hub)))
}

fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()).display().to_string()
}

/// An image that was built here is known by its id, any other by the digest of its repository.
fn image(recipe: &Recipe, spec: &ContainerSpec) -> Option<Step> {
    let digest = recipe.image.as_ref().filter(|_| !spec.image.contains("@sha256:"))?;
    let command = format!(
        "image={digest}\ndocker image inspect \"$image\" > /dev/null 2>&1 || image={}",
        word(&pinned(&spec.image, digest)),
        digest = word(digest)
    );
    Some(Step { says: "The image that is meant, by what it is and not by its tag", command })
}

fn run(recipe: &Recipe, spec: &ContainerSpec, host: &Host) -> Result<String, Failure> {
    let Environment { before, flags } = environment(recipe, spec);
    let mut groups = vec![format!("{before}docker run --detach --init --no-healthcheck --name \"$name\"")];
    groups.push(format!("--publish 127.0.0.1::{}", spec.port));
    groups.push("--log-driver json-file --log-opt max-size=100m --log-opt max-file=2".into());
    groups.extend(gpus(recipe));
    groups.extend(resources(spec)?);
    groups.extend(flags);
    groups.extend(mounts(recipe, spec, host)?.into_iter().map(|m| format!("--mount {m}")));
    let (entrypoint, rest) = entrypoint(spec);
    groups.extend(entrypoint.map(|e| format!("--entrypoint {}", word(e))));
    groups.push(if image(recipe, spec).is_some() { "\"$image\"".to_string() } else { word(&spec.image) });
    let words: Vec<String> = rest.iter().chain(&spec.command).map(|w| word(w)).collect();
    if !words.is_empty() {
        groups.push(words.join(" "));
    }
    // It prints the id, which nobody needs.
    Ok(format!("{} > /dev/null", lines(&groups)))
}

/// What is run in place of the image's own program, and its first arguments. An empty list takes the image's away.
fn entrypoint(spec: &ContainerSpec) -> (Option<&str>, &[String]) {
    match spec.entrypoint.as_deref() {
        None => (None, &[]),
        Some([]) => (Some(""), &[]),
        Some([first, rest @ ..]) => (Some(first), rest),
    }
}

/// A run takes GPUs that are free; here they are the first ones, unless `GPUS` says otherwise.
fn gpus(recipe: &Recipe) -> Option<String> {
    let n = recipe.deployment.gpus;
    if n == 0 {
        return None;
    }
    let class = &recipe.deployment.hardware;
    // ROCm's devices are files, shared by all who may open them.
    if class.strip_prefix("mi").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())) {
        return Some("--device /dev/kfd --device /dev/dri --group-add video --security-opt seccomp=unconfined".into());
    }
    let first = (0..n).map(|i| i.to_string()).collect::<Vec<_>>().join(",");
    Some(format!("--gpus \"\\\"device=${{GPUS:-{first}}}\\\"\""))
}

fn resources(spec: &ContainerSpec) -> Result<Vec<String>, Failure> {
    let size = |key: &str, text: &Option<String>| {
        let bytes = text.as_deref().map(parse_bytes).transpose();
        bytes.map_err(|e| Failure::Usage(format!("`container.{key}`: {e}")))
    };
    let mut out = Vec::new();
    out.extend(size("shm_size", &spec.shm_size)?.map(|bytes| format!("--shm-size {bytes}")));
    out.extend(size("memory", &spec.memory)?.map(|bytes| format!("--memory {bytes} --memory-swap {bytes}")));
    out.extend(spec.ipc.as_ref().map(|ipc| format!("--ipc {}", word(ipc))));
    out.extend(spec.ulimits.iter().map(|(name, n)| format!("--ulimit {}", word(&format!("{name}={n}:{n}")))));
    out.extend(spec.devices.iter().map(|device| format!("--device {}", word(device))));
    out.extend(spec.user.as_ref().map(|user| format!("--user {}", word(user))));
    out.extend(spec.workdir.as_ref().map(|dir| format!("--workdir {}", word(dir))));
    Ok(out)
}

/// How a container's environment is handed over.
struct Environment {
    /// Assignments in front of the command: what other variables go into is not to be seen among its arguments.
    before: String,
    flags: Vec<String>,
}

/// Values that come from the environment stand nowhere in the script.
fn environment(recipe: &Recipe, spec: &ContainerSpec) -> Environment {
    let mut out = Environment { before: String::new(), flags: Vec::new() };
    for (name, text) in &spec.env {
        if !text.contains("${") {
            out.flags.push(format!("--env {}", word(&format!("{name}={text}"))));
            continue;
        }
        if *text != format!("${{{name}}}") {
            out.before.push_str(&format!("{name}={} ", with_variables(text)));
        }
        out.flags.push(format!("--env {}", word(name)));
    }
    let mut handed: Vec<&str> = handed_tokens(&recipe.deployment.method).collect();
    // An engine that looks for its model asks the hub that we ask, or none.
    if spec.mounts.iter().any(|m| m.source.strip_prefix("cache:") == Some(HUB_CACHE)) {
        handed.extend([OFFLINE_VARIABLE, ENDPOINT_VARIABLE]);
    }
    handed.retain(|name| !spec.env.contains_key(*name));
    out.flags.extend(handed.into_iter().map(|name| format!("${{{name}:+--env {name}}}")));
    out
}

/// Everything that is mounted, each as the word behind `--mount`.
fn mounts(recipe: &Recipe, spec: &ContainerSpec, host: &Host) -> Result<Vec<String>, Failure> {
    let d = &recipe.deployment;
    let mut out = Vec::new();
    for mount in &spec.mounts {
        let source = cache(recipe, mount, host).unwrap_or_else(|| absolute(&recipe.base.join(&mount.source)));
        out.push(bind("", &source, &mount.target, mount.read_only));
    }
    if is_local(&d.model) {
        out.extend(tree(&recipe.base.join(&d.model), &format!("{MODEL_ROOT}/{}", names::sanitize(&d.model))));
    }
    let remote = docker::wanted(d, host.cache, host.hub).map_err(|f| Failure::Usage(f.cause))?;
    for (name, reference) in &d.assets {
        let target = format!("{ASSET_ROOT}/{name}");
        match remote.iter().find(|w| w.asset.as_ref() == Some(name)) {
            None => out.extend(tree(&recipe.base.join(reference), &target)),
            Some(wanted) => match wanted.cache.present(&wanted.repo()) {
                Some((_, dir)) => out.extend(tree(&dir, &target)),
                None => return Err(not_here(name, reference)),
            },
        }
    }
    out.extend(scratch_files(spec).map(|(name, target, _)| bind("\"$scratch\"/", &name, target, true)));
    Ok(out)
}

fn not_here(name: &str, reference: &str) -> Failure {
    Failure::Environment(format!(
        "the asset `{name}` ({reference}) is not on this host: a run downloads it, and a script cannot. Download it, or run \
         the experiment once"
    ))
}

/// A directory or file, where it is here as a run would mount it: links led to what they mean.
fn tree(source: &Path, target: &str) -> Vec<String> {
    let whole = || vec![Bind { source: source.to_path_buf(), target: target.to_string(), read_only: true }];
    let binds = docker::tree(source, target).unwrap_or_else(|_| whole());
    binds.into_iter().map(|b| bind("", &absolute(&b.source), &b.target, b.read_only)).collect()
}

/// `prefix` is a part of the source that the shell fills in. The fields are separated as in a CSV file.
fn bind(prefix: &str, source: &str, target: &str, read_only: bool) -> String {
    let field = |text: String| match text.contains([',', '"', '\n']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    };
    let rest = format!(",{}{}", field(format!("target={target}")), if read_only { ",readonly" } else { "" });
    match prefix {
        "" => word(&format!("type=bind,{}{rest}", field(format!("source={source}")))),
        _ => format!("type=bind,source={prefix}{}", word(&format!("{source}{rest}"))),
    }
}
