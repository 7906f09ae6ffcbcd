//! Names by convention: containers, artifact directories, and the sanitizing they share.

use crate::digest::Digest;

/// Longest sanitized name, bytes.
const MAX: usize = 96;

/// A model reference as a part of a file or container name: `/` becomes `--`, anything else outside `[A-Za-z0-9._-]`
/// becomes `-`, leading non-alphanumerics go; a local directory counts by its last component. Over 96 characters it is
/// cut, with eight hexadecimal digits of the full name's hash.
pub fn sanitize(name: &str) -> String {
    let name =
        if super::lock::is_local(name) { name.trim_end_matches('/').rsplit('/').next().unwrap_or(name) } else { name };
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '/' => out.push_str("--"),
            c if c.is_ascii_alphanumeric() || "._-".contains(c) => out.push(c),
            _ => out.push('-'),
        }
    }
    let out = out.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    match out.len() {
        0 => format!("model-{}", Digest::of_bytes(name.as_bytes()).short(8)),
        n if n > MAX => format!("{}-{}", &out[..MAX - 9], Digest::of_bytes(name.as_bytes()).short(8)),
        _ => out.to_string(),
    }
}

/// `{model}-{method}-{engine}`.
pub fn container(model: &str, method: &str, engine: &str) -> String {
    format!("{}-{method}-{engine}", sanitize(model))
}

/// `{model}_{method}_{engine}`.
pub fn directory(model: &str, method: &str, engine: &str) -> String {
    format!("{}_{method}_{engine}", sanitize(model))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_convention() {
        assert_eq!(sanitize("meta-llama/Llama-3.1-8B-Instruct"), "meta-llama--Llama-3.1-8B-Instruct");
        assert_eq!(sanitize("./models/tiny llama/"), "tiny-llama");
        assert_eq!(sanitize("../x"), "x");
        assert_eq!(sanitize("a:b@c"), "a-b-c");
        assert_eq!(sanitize(".._x"), "x");
        let long = sanitize(&"m".repeat(200));
        assert_eq!(long.len(), 96);
        assert_ne!(long, sanitize(&"m".repeat(201)));
        assert!(sanitize("模型").starts_with("model-"));
        assert_eq!(directory("org/m", "hf", "vllm"), "org--m_hf_vllm");
    }
}
