//! The templates that are part of the binary.

use super::TemplateText;

macro_rules! builtin {
    ($($name:literal),* $(,)?) => {
        /// `METHOD/ENGINE` and the text.
        const TEXTS: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../templates/", $name, ".toml.j2")))),*];
    };
}

builtin!(
    "hf/vllm",
    "hf/sglang",
    "hf/trtllm",
    "triton/vllm",
    "triton/python",
    "triton/trtllm",
    "nim/vllm",
    "unim/vllm",
    "sim/vllm",
    "sim/sglang",
    "sim/trtllm",
    "sim/python",
    "external/openai",
    "external/vllm",
    "external/sglang",
    "external/trtllm",
    "external/python",
);

/// All built-in templates.
pub fn all() -> impl Iterator<Item = TemplateText> {
    TEXTS.iter().map(|(name, text)| TemplateText {
        name: (*name).to_string(),
        origin: format!("built-in templates/{name}.toml.j2"),
        text: (*text).to_string(),
    })
}
