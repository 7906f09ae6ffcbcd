//! What would make a verdict better: each change is judged like the deployment itself.

use super::ask::Ask;
use super::{Fit, Verdict};

/// Doublings of a parallel size that are tried.
const DOUBLINGS: u32 = 4;
/// Most GPUs that are proposed for one copy: those of one host.
const MOST_GPUS: u64 = 16;

/// The verdict of what is asked, with the changes that make it better.
pub(super) fn with_remedies(ask: &Ask) -> Fit {
    let mut fit = ask.judge();
    if fit.verdict != Verdict::Fits {
        fit.remedies = remedies(ask, &fit);
    }
    fit
}

fn remedies(ask: &Ask, fit: &Fit) -> Vec<String> {
    let better = |change: &dyn Fn(&mut Ask)| {
        let mut other = ask.clone();
        change(&mut other);
        other.judge().verdict < fit.verdict
    };
    let mut out = Vec::new();
    if !ask.dp_attention {
        let (name, now) = match ask.engine.as_str() {
            "python" => ("pipeline_parallel", ask.pipeline),
            _ => ("tensor_parallel", ask.tensor),
        };
        let widened = |ask: &mut Ask, size| match name {
            "pipeline_parallel" => ask.pipeline = size,
            _ => ask.tensor = size,
        };
        let sizes = (1..=DOUBLINGS).map(|d| now << d).filter(|s| s * (ask.pipeline * ask.tensor / now) <= MOST_GPUS);
        out.extend(sizes.into_iter().find(|s| better(&|a| widened(a, *s))).map(|s| format!("{name} = {s}")));
    }
    let plain = ask.quantization.as_deref().is_none_or(|q| q == "none") && !ask.quantized() && ask.quantizes();
    if plain && better(&|a| a.quantization = Some("fp8".into())) {
        out.push("quantization = \"fp8\"".into());
    }
    if ask.kv_dtype.is_none() && ask.engine != "python" && better(&|a| a.kv_dtype = Some("fp8".into())) {
        out.push("kv_cache_dtype = \"fp8\"".into());
    }
    out.extend(shorter(ask, fit));
    out.extend(fewer(ask, fit));
    out
}

/// A limit of the length that has room and still holds what the units ask.
fn shorter(ask: &Ask, fit: &Fit) -> Option<String> {
    if fit.verdict != Verdict::DoesNotFit || fit.room <= 0.0 {
        return None;
    }
    let rounded = fit.kv.as_ref()?.tokens / 1024 * 1024;
    let needed = ask.load.longest.unwrap_or(1024);
    (rounded >= needed.max(1024)).then(|| format!("max_model_len = {rounded}"))
}

/// As many requests as have room at the same time.
fn fewer(ask: &Ask, fit: &Fit) -> Option<String> {
    let largest = fit.kv.as_ref()?.largest.as_ref().filter(|n| n.bytes > fit.room)?;
    let fitting = (fit.room / (largest.bytes / largest.sequences as f64)) as u64 * ask.groups().1;
    (fit.verdict == Verdict::Tight && fitting > 0).then(|| format!("concurrency up to {fitting}"))
}
