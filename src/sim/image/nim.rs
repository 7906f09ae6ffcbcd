//! NIM's images start by themselves and are told everything by their environment: `NIM_…` variables, and from 2.x on
//! arguments of vLLM. The first generation is another product inside; it knows other variables and asks for a key.

use super::flags::{Flags, NIM_BOTH, NIM_FIRST, NIM_LATER};
use super::{Container, Refusal, vllm};
use crate::sim::flavor::Flavor;
use crate::sim::options::SimOptions;

/// Engines that a profile of the multi-LLM NIM may name.
const ENGINES: &[&str] = &["vllm", "sglang", "tensorrt_llm"];

pub fn image(base: SimOptions, words: &[&str], container: &Container) -> Result<SimOptions, Refusal> {
    let first = base.nim_generation == 1;
    known_variables(container, if first { &NIM_FIRST } else { &NIM_LATER })?;
    cache(container)?;
    profile(container, base.flavor, first)?;
    let words = match words {
        ["nim-serve", rest @ ..] if !first => rest,
        [] => words,
        [other, ..] if first || !(other.starts_with("--") || other.contains("://") || other.starts_with('/')) => {
            return Err(Refusal::no_program(other));
        }
        words => words,
    };
    match first {
        true => first_generation(base, container),
        false => later(base, words, container),
    }
}

fn var<'a>(container: &'a Container, name: &str) -> Option<&'a str> {
    container.var(&format!("NIM_{name}"))
}

/// The real one reads what it knows and is silent about the rest.
fn known_variables(container: &Container, generation: &Flags) -> Result<(), Refusal> {
    let names = container.env.keys().filter_map(|n| n.strip_prefix("NIM_"));
    match names.into_iter().find(|n| !NIM_BOTH.contains_key(n) && !generation.contains_key(n)) {
        None => Ok(()),
        Some(name) => Err(Refusal::exception(format!("ValueError: this NIM reads no variable NIM_{name}"))),
    }
}

fn cache(container: &Container) -> Result<(), Refusal> {
    let path = var(container, "CACHE_PATH").unwrap_or("/opt/nim/.cache");
    let probe = container.path(path).join(".probe");
    let written = std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe));
    written.map_err(|e| {
        let (class, text) = match e.kind() {
            std::io::ErrorKind::PermissionDenied => ("PermissionError", "[Errno 13] Permission denied"),
            _ => ("FileNotFoundError", "[Errno 2] No such file or directory"),
        };
        Refusal::exception(format!("{class}: {text}: '{path}/huggingface'"))
    })
}

/// A profile is an id of 64 digits; the multi-LLM NIM's first generation takes an engine's name too.
fn profile(container: &Container, flavor: Flavor, first: bool) -> Result<(), Refusal> {
    let Some(profile) = var(container, "MODEL_PROFILE") else { return Ok(()) };
    let id = profile.len() == 64 && profile.bytes().all(|b| b.is_ascii_hexdigit());
    let engine = first && flavor == Flavor::UnimVllm && ENGINES.contains(&profile);
    match id || engine || profile == "default" {
        true => Ok(()),
        false => Err(Refusal::exception(format!(
            "ValueError: could not find a matching profile for NIM_MODEL_PROFILE '{profile}'"
        ))),
    }
}

fn number(container: &Container, name: &str) -> Result<Option<u64>, Refusal> {
    let text = var(container, name);
    let parsed = text.map(str::parse).transpose();
    parsed.map_err(|_| {
        let text = text.unwrap_or_default();
        Refusal::exception(format!("ValueError: invalid literal for int() with base 10: '{text}' (NIM_{name})"))
    })
}

/// The settings that both generations have as variables, as arguments of vLLM.
fn shared(container: &Container) -> Result<Vec<String>, Refusal> {
    let mut out = Vec::new();
    for (name, flag) in [
        ("TENSOR_PARALLEL_SIZE", "--tensor-parallel-size"),
        ("PIPELINE_PARALLEL_SIZE", "--pipeline-parallel-size"),
        ("MAX_MODEL_LEN", "--max-model-len"),
        ("SERVER_PORT", "--port"),
    ] {
        if let Some(n) = number(container, name)? {
            out.extend([flag.to_string(), n.to_string()]);
        }
    }
    if let Some(name) = var(container, "SERVED_MODEL_NAME") {
        out.extend(["--served-model-name".to_string(), name.to_string()]);
    }
    Ok(out)
}

fn first_generation(base: SimOptions, container: &Container) -> Result<SimOptions, Refusal> {
    if container.var("NGC_API_KEY").is_none() {
        return Err(Refusal::exception(
            "Exception: Authentication Error: NGC_API_KEY is not set; an NGC API key is needed to get the model",
        ));
    }
    let model = match base.flavor {
        Flavor::UnimVllm => var(container, "MODEL_NAME").map(without_scheme).ok_or_else(|| {
            Refusal::exception("ValueError: NIM_MODEL_NAME is not set: the multi-LLM NIM has no model of its own")
        })?,
        _ => base.model.clone(),
    };
    let mut words = shared(container)?;
    let reuse = var(container, "ENABLE_KV_CACHE_REUSE") == Some("1");
    words.push(if reuse { "--enable-prefix-caching" } else { "--no-enable-prefix-caching" }.to_string());
    for (name, flag) in [("MAX_NUM_SEQS", "--max-num-seqs"), ("MAX_BATCH_SIZE", "--max-num-seqs")] {
        if let Some(n) = number(container, name)? {
            words.extend([flag.to_string(), n.to_string()]);
        }
    }
    if let Some(share) = var(container, "KVCACHE_PERCENT") {
        words.extend(["--gpu-memory-utilization".to_string(), share.to_string()]);
    }
    start(base, &model, &words, container)
}

fn later(base: SimOptions, words: &[&str], container: &Container) -> Result<SimOptions, Refusal> {
    let (given, words) = match words {
        [model, rest @ ..] if !model.starts_with("--") => (Some(*model), rest),
        words => (None, words),
    };
    let model = match base.flavor {
        Flavor::UnimVllm => given.or(var(container, "MODEL_PATH")).map(without_scheme).ok_or_else(|| {
            Refusal::exception("ValueError: no model: set NIM_MODEL_PATH, or give a model as the first argument")
        })?,
        _ => base.model.clone(),
    };
    // The later wins: passed through goes before variables, the command line before both.
    let mut all = shared(container)?;
    if let Some(line) = var(container, "PASSTHROUGH_ARGS") {
        let split = split(line);
        all.extend(split.ok_or_else(|| Refusal::exception("ValueError: No closing quotation (NIM_PASSTHROUGH_ARGS)"))?);
    }
    all.extend(words.iter().map(|w| w.to_string()));
    start(base, &model, &all, container)
}

fn start(base: SimOptions, model: &str, words: &[String], container: &Container) -> Result<SimOptions, Refusal> {
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (model, revision) = model.split_once(':').map_or((model, None), |(m, r)| (m, Some(r)));
    if let Some(revision) = revision {
        words.extend(["--revision", revision]);
    }
    vllm::serve(base, Some(model), &words, container)
}

fn without_scheme(source: &str) -> String {
    let rest = source.strip_prefix("hf://").or_else(|| source.strip_prefix("ngc://"));
    rest.unwrap_or(source).to_string()
}

/// Words of a line as Python's `shlex` splits them; none where a quote stays open.
fn split(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        end if end == c => break,
                        '\\' if c == '"' => word.push(chars.next()?),
                        inner => word.push(inner),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(chars.next()?),
            c if c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_as_a_shell_does() {
        assert_eq!(split("a  --b 'c d' \"e \\\" f\" g\\ h ''").unwrap(), ["a", "--b", "c d", "e \" f", "g h", ""]);
        assert_eq!(split("it's"), None);
    }
}
