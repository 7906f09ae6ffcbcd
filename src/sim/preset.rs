//! What a step of the engine costs: a roofline in four numbers, derived from the size that stands in a model's name, the
//! number of GPUs, the bits of the weights and a factor per engine. The numbers are those of an 80 GB H100, rounded.

use super::flavor::{Family, Flavor, Openai, Triton};
use super::options::SimOptions;

/// Billions of parameters that a name without a size stands for.
const FALLBACK_BILLIONS: f64 = 8.0;
/// Memory per GPU that weights and KV cache share, in GB.
const USABLE_GB: f64 = 72.0;

/// The cost of one step, in seconds: `base + per_seq · decoding + per_kv · context + prefilled / prefill_rate`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costs {
    /// Reading the weights once, launching the kernels.
    pub base: f64,
    /// One more sequence in the batch.
    pub per_seq: f64,
    /// One more token of context that attention reads.
    pub per_kv: f64,
    /// Prompt tokens per second.
    pub prefill_rate: f64,
    /// Tokens that the KV cache holds.
    pub kv_tokens: u64,
}

impl Costs {
    /// The costs that the options imply, already divided by `speed`.
    pub fn of(options: &SimOptions) -> Costs {
        let billions = billions(options.sized_by()).unwrap_or(FALLBACK_BILLIONS);
        let bytes = bytes_per_weight(options.quantization.as_deref().unwrap_or(""));
        let gpus = f64::from(options.tensor_parallel);
        // Every doubling of the group loses a tenth to communication.
        let scale = gpus * 0.9f64.powf(gpus.log2());
        let (factor, overhead) = engine_factor(options.flavor);
        let prefill_rate = 200_000.0 / billions * (2.0 / bytes).sqrt() * scale / factor;
        let kv_bytes = 131e3 * (billions / 8.0).powf(0.45);
        let free_gb = USABLE_GB * gpus - billions * bytes;
        let kv_tokens = (free_gb * 1e9 / kv_bytes).max(0.0) as u64;
        Costs {
            base: (overhead + billions * bytes * 0.4e-3 / scale * factor) / options.speed,
            per_seq: (10e-6 + 1.0 / prefill_rate) * factor / options.speed,
            per_kv: 52e-9 * (billions / 8.0).powf(0.45) / scale * factor / options.speed,
            prefill_rate: prefill_rate * options.speed,
            kv_tokens: options.kv_tokens.unwrap_or(kv_tokens.max(u64::from(options.max_model_len))),
        }
    }
}

/// How much slower than the fastest an engine's step is, and what it adds to each, in seconds.
fn engine_factor(flavor: Flavor) -> (f64, f64) {
    match flavor.family() {
        Family::Openai(Openai::Trtllm) => (1.0, 0.4e-3),
        Family::Openai(Openai::Sglang) => (1.04, 0.5e-3),
        Family::Openai(Openai::Vllm | Openai::Nim) => (1.08, 0.6e-3),
        Family::Triton(Triton::Trtllm) => (1.0, 0.6e-3),
        Family::Triton(Triton::Vllm) => (1.08, 0.9e-3),
        // Eager kernels, a Python loop per token.
        Family::Triton(Triton::Python) => (1.6, 18e-3),
    }
}

/// The parameters in billions that a name tells: `8B`, `0.5b`, `8x7B`, `135M`. The largest wins, so that `405B-8B-draft`
/// is a large model, and so does the whole of a mixture.
pub fn billions(name: &str) -> Option<f64> {
    let bytes = name.as_bytes();
    let mut best: Option<f64> = None;
    let mut at = 0;
    while at < bytes.len() {
        if !bytes[at].is_ascii_digit() {
            at += 1;
            continue;
        }
        let (size, next) = size_at(name, at);
        // `v1.5b` or `A3B` glued to a word is a size only at the start of a part of the name.
        let starts = at == 0 || !bytes[at - 1].is_ascii_alphanumeric() && bytes[at - 1] != b'.';
        if let Some(size) = size.filter(|_| starts) {
            best = Some(best.map_or(size, |b| b.max(size)));
        }
        at = next;
    }
    best
}

/// Reads `NUMBER[xNUMBER]{B,M}` at `at`; gives the size, if it is one, and where to go on.
fn size_at(name: &str, at: usize) -> (Option<f64>, usize) {
    let number_end =
        |from: usize| name[from..].find(|c: char| !c.is_ascii_digit() && c != '.').map_or(name.len(), |n| from + n);
    let mut end = number_end(at);
    let Ok(mut number) = name[at..end].parse::<f64>() else { return (None, end) };
    let bytes = name.as_bytes();
    if bytes.get(end) == Some(&b'x') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
        let second = number_end(end + 1);
        number *= name[end + 1..second].parse::<f64>().unwrap_or(1.0);
        end = second;
    }
    let unit = match bytes.get(end) {
        Some(b'b' | b'B') => 1.0,
        Some(b'm' | b'M') => 1e-3,
        _ => return (None, end),
    };
    let whole = !bytes.get(end + 1).is_some_and(u8::is_ascii_alphanumeric);
    (Some(number * unit).filter(|n| whole && *n > 0.0), end + 1)
}

fn bytes_per_weight(quantization: &str) -> f64 {
    let q = quantization.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|w| q.contains(w));
    if has(&["fp4", "int4", "w4", "awq", "gptq", "bnb", "q4"]) {
        0.55
    } else if has(&["fp8", "int8", "w8", "q8"]) {
        1.0
    } else {
        2.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_from_names() {
        for (name, expected) in [
            ("meta-llama/Llama-3.1-8B-Instruct", Some(8.0)),
            ("Qwen/Qwen2.5-0.5B", Some(0.5)),
            ("meta-llama/Llama-3.1-70b", Some(70.0)),
            ("mistralai/Mixtral-8x7B-v0.1", Some(56.0)),
            ("Qwen/Qwen3-30B-A3B", Some(30.0)),
            ("HuggingFaceTB/SmolLM2-135M", Some(0.135)),
            ("70B", Some(70.0)),
            ("openai-community/gpt2", None),
            ("x/model-v1.5", None),
            ("x/7Beta", None),
            ("", None),
        ] {
            assert_eq!(billions(name), expected, "{name}");
        }
    }

    #[test]
    fn costs_order_as_one_expects() {
        let of = |model: &str, change: &dyn Fn(&mut SimOptions)| {
            let mut o = SimOptions::new(Flavor::HfVllm, model);
            change(&mut o);
            Costs::of(&o)
        };
        let small = of("m-8B", &|_| {});
        let large = of("m-70B", &|_| {});
        assert!(large.base > 5.0 * small.base && large.prefill_rate < small.prefill_rate);
        assert!((5e-3..9e-3).contains(&small.base), "{}", small.base);
        let fp8 = of("m-8B", &|o| o.quantization = Some("fp8".into()));
        assert!(fp8.base < small.base && fp8.kv_tokens > small.kv_tokens);
        let two = of("m-8B", &|o| o.tensor_parallel = 2);
        assert!(two.base < small.base && two.base > small.base / 2.0);
        let fast = of("m-8B", &|o| o.speed = 10.0);
        assert!((fast.base * 10.0 - small.base).abs() < 1e-12);
        assert_eq!(fast.prefill_rate, small.prefill_rate * 10.0);
        assert_eq!(large.kv_tokens, 32_768, "weights beyond one GPU leave room for one request");
    }
}
