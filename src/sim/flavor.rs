//! The eight stacks that the simulator can be taken for.

use std::fmt;
use std::str::FromStr;

use super::MODEL_VERSION;
use super::options::{SimError, nearest};

/// A `{method}-{engine}` whose wire protocol the simulator speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flavor {
    HfVllm,
    HfSglang,
    HfTrtllm,
    TritonVllm,
    TritonPython,
    TritonTrtllm,
    NimVllm,
    UnimVllm,
}

/// Which requests a flavor understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// OpenAI's completions and chat completions.
    Openai(Openai),
    /// Triton's generate extension.
    Triton(Triton),
}

/// Whose reading of OpenAI's API: they differ in errors, strictness and side endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Openai {
    Vllm,
    Sglang,
    Trtllm,
    /// vLLM behind NIM's proxy.
    Nim,
}

/// Which model runs inside Triton: they differ in the names and the meaning of inputs and outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Triton {
    Vllm,
    Python,
    Trtllm,
}

/// What a client sees before the engine is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhileLoading {
    /// The port is taken, but nothing listens: connection refused.
    Refused,
    /// Every path answers 503.
    Unavailable,
    /// A proxy in front is live; the engine behind it answers 502, readiness 503.
    Proxy,
}

impl Flavor {
    pub const ALL: [Flavor; 8] = [
        Flavor::HfVllm,
        Flavor::HfSglang,
        Flavor::HfTrtllm,
        Flavor::TritonVllm,
        Flavor::TritonPython,
        Flavor::TritonTrtllm,
        Flavor::NimVllm,
        Flavor::UnimVllm,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Flavor::HfVllm => "hf-vllm",
            Flavor::HfSglang => "hf-sglang",
            Flavor::HfTrtllm => "hf-trtllm",
            Flavor::TritonVllm => "triton-vllm",
            Flavor::TritonPython => "triton-python",
            Flavor::TritonTrtllm => "triton-trtllm",
            Flavor::NimVllm => "nim-vllm",
            Flavor::UnimVllm => "unim-vllm",
        }
    }

    pub fn family(self) -> Family {
        match self {
            Flavor::HfVllm => Family::Openai(Openai::Vllm),
            Flavor::HfSglang => Family::Openai(Openai::Sglang),
            Flavor::HfTrtllm => Family::Openai(Openai::Trtllm),
            Flavor::NimVllm | Flavor::UnimVllm => Family::Openai(Openai::Nim),
            Flavor::TritonVllm => Family::Triton(Triton::Vllm),
            Flavor::TritonPython => Family::Triton(Triton::Python),
            Flavor::TritonTrtllm => Family::Triton(Triton::Trtllm),
        }
    }

    /// How the stack answers before its model is loaded.
    pub fn while_loading(self) -> WhileLoading {
        match self.family() {
            Family::Openai(Openai::Sglang) => WhileLoading::Unavailable,
            Family::Openai(Openai::Nim) => WhileLoading::Proxy,
            Family::Openai(Openai::Vllm | Openai::Trtllm) | Family::Triton(_) => WhileLoading::Refused,
        }
    }

    /// The version that the server reports: that of the release whose behaviour is copied, marked as simulated.
    pub fn version(self) -> String {
        let release = match self {
            Flavor::HfVllm => "0.33.0",
            Flavor::HfSglang => "0.5.23",
            Flavor::HfTrtllm => "1.2.1",
            Flavor::TritonVllm | Flavor::TritonPython | Flavor::TritonTrtllm => "2.71.0",
            Flavor::NimVllm | Flavor::UnimVllm => "2.1.5",
        };
        format!("{release}+sim.{MODEL_VERSION}")
    }

    /// What the `server` header says.
    pub(super) fn server_header(self) -> Option<&'static str> {
        match self.family() {
            Family::Openai(Openai::Nim) => Some("nginx"),
            Family::Openai(_) => Some("uvicorn"),
            Family::Triton(_) => None,
        }
    }
}

impl fmt::Display for Flavor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Flavor {
    type Err = SimError;

    fn from_str(text: &str) -> Result<Self, SimError> {
        Flavor::ALL.into_iter().find(|f| f.as_str() == text).ok_or_else(|| SimError::UnknownFlavor {
            given: text.chars().take(60).collect(),
            suggestion: nearest(text, Flavor::ALL.iter().map(|f| f.as_str())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_typos_get_a_suggestion() {
        for f in Flavor::ALL {
            assert_eq!(f.to_string().parse::<Flavor>().unwrap(), f);
        }
        let e = "hf-vlm".parse::<Flavor>().unwrap_err().to_string();
        assert!(e.contains("did you mean `hf-vllm`?") && e.contains("triton-trtllm"), "{e}");
    }
}
