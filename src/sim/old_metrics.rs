//! The metrics of older versions: the same figures under the names that engines had for them.

use super::flavor::{Family, Flavor, Openai};

/// Today's name, and the one before.
type Renames = &'static [(&'static str, &'static str)];

/// vLLM up to 0.10.
const VLLM: Renames = &[
    ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
    ("vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"),
    ("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total"),
    ("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
];

/// SGLang up to 0.4.
const SGLANG: Renames = &[("sglang:inter_token_latency_seconds", "sglang:time_per_output_token_seconds")];

/// NIM 1.x: vLLM's, without its prefix.
const NIM: Renames = &[
    ("vllm:kv_cache_usage_perc", "gpu_cache_usage_perc"),
    ("vllm:inter_token_latency_seconds", "time_per_output_token_seconds"),
    ("vllm:", ""),
];

/// A text of today's names in older ones.
pub fn rename(flavor: Flavor, text: &str) -> String {
    let renames = match flavor.family() {
        Family::Openai(Openai::Vllm) => VLLM,
        Family::Openai(Openai::Nim) => NIM,
        Family::Openai(Openai::Sglang) => SGLANG,
        Family::Openai(Openai::Trtllm) | Family::Triton(_) => &[],
    };
    renames.iter().fold(text.to_string(), |text, (now, before)| text.replace(now, before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_change_and_figures_do_not() {
        let text = "# TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc{engine=\"0\"} 0.5\nvllm:num_requests_running 3\n";
        let old = rename(Flavor::HfVllm, text);
        assert!(old.contains("\nvllm:gpu_cache_usage_perc{engine=\"0\"} 0.5\nvllm:num_requests_running 3\n"), "{old}");
        let nim = rename(Flavor::NimVllm, text);
        assert!(nim.contains("\ngpu_cache_usage_perc{engine=\"0\"} 0.5\nnum_requests_running 3\n"), "{nim}");
        assert_eq!(rename(Flavor::TritonPython, text), text);
    }
}
