//! The metrics of older `trtllm-serve`: a JSON list of the engine's iterations since the last look, which forgets them.

use serde::Deserialize;

use super::vocabulary::{Metric, Values};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Iteration {
    #[serde(default)]
    num_active_requests: Option<f64>,
    #[serde(default)]
    num_queued_requests: Option<f64>,
    #[serde(default)]
    kv_cache_stats: Option<KvCacheStats>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KvCacheStats {
    #[serde(default)]
    used_num_blocks: Option<f64>,
    #[serde(default)]
    max_num_blocks: Option<f64>,
    #[serde(default)]
    cache_hit_rate: Option<f64>,
}

/// Where the engine stood after its last iteration; of none, nothing is known. `None` where it is not such a list.
pub fn read(text: &str) -> Option<Values> {
    let iterations: Vec<Iteration> = serde_json::from_str(text).ok()?;
    let mut values = Values::default();
    let Some(last) = iterations.last() else { return Some(values) };
    let mut note = |metric, value: Option<f64>| value.into_iter().for_each(|v| values.set(metric, v));
    note(Metric::Running, last.num_active_requests);
    note(Metric::Waiting, last.num_queued_requests);
    if let Some(kv) = &last.kv_cache_stats {
        let share = kv.used_num_blocks.zip(kv.max_num_blocks).filter(|(_, max)| *max > 0.0);
        note(Metric::KvCacheUsage, share.map(|(used, max)| used / max));
        note(Metric::PrefixHitRate, kv.cache_hit_rate);
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_iteration_counts() {
        let text = r#"[{"iter":1,"numActiveRequests":1},{"iter":2,"iterLatencyMS":1.5,"numActiveRequests":3,
            "kvCacheStats":{"usedNumBlocks":25,"maxNumBlocks":100,"freeNumBlocks":75,"cacheHitRate":0.5}}]"#;
        let values = read(text).unwrap();
        let get = |metric| values.get(metric);
        assert_eq!((get(Metric::Running), get(Metric::KvCacheUsage)), (Some(3.0), Some(0.25)));
        assert_eq!((get(Metric::Waiting), get(Metric::PrefixHitRate)), (None, Some(0.5)));
        assert!(read("[]").unwrap().is_empty());
        assert!(read("{\"detail\": \"not found\"}").is_none());
    }
}
