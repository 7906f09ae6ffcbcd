//! One vocabulary for what engines tell of themselves, and the names that each of them has for it. Where a name has changed
//! between versions both are here, the newer one first. Names: the engines' own metrics documentation and sources.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use super::prometheus::{self, FormatError, Sample};

/// What is asked of every engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Requests in the batch.
    Running,
    /// Requests that wait for a place in it.
    Waiting,
    /// Share of the KV cache in use, 0 to 1.
    KvCacheUsage,
    /// Share of prompt tokens that came from the prefix cache, as a gauge of the engine's own.
    PrefixHitRate,
    /// Counters from here on.
    Preemptions,
    PrefixHits,
    PrefixQueries,
    PromptTokens,
    GenerationTokens,
    /// Seconds, and the requests that they were of.
    QueueSum,
    QueueCount,
    PrefillSum,
    PrefillCount,
    DecodeSum,
    DecodeCount,
}

use Metric::{
    DecodeCount, DecodeSum, GenerationTokens, KvCacheUsage, Preemptions, PrefillCount, PrefillSum, PrefixHitRate,
    PrefixHits, PrefixQueries, PromptTokens, QueueCount, QueueSum, Running, Waiting,
};

/// All of it, with the names it has in files.
pub const METRICS: [(Metric, &str); 15] = [
    (Running, "running"),
    (Waiting, "waiting"),
    (KvCacheUsage, "kv_cache_usage"),
    (PrefixHitRate, "prefix_hit_rate"),
    (Preemptions, "preemptions_total"),
    (PrefixHits, "prefix_hit_tokens_total"),
    (PrefixQueries, "prefix_query_tokens_total"),
    (PromptTokens, "prompt_tokens_total"),
    (GenerationTokens, "generation_tokens_total"),
    (QueueSum, "queue_seconds_sum"),
    (QueueCount, "queue_seconds_count"),
    (PrefillSum, "prefill_seconds_sum"),
    (PrefillCount, "prefill_seconds_count"),
    (DecodeSum, "decode_seconds_sum"),
    (DecodeCount, "decode_seconds_count"),
];

/// What becomes of several label sets of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fold {
    /// Parts of a whole: data-parallel engines, models.
    Sum,
    /// Shares: that of the fullest.
    Max,
    /// Views of the same from the ranks of a data-parallel engine, whose engines are parts: the largest of each, added up.
    Ranks,
}

/// A name that an engine has for a metric.
struct Source {
    metric: Metric,
    name: &'static str,
    /// What must stand among the labels.
    label: &'static str,
    fold: Fold,
    scale: f64,
}

const fn sum(metric: Metric, name: &'static str) -> Source {
    Source { metric, name, label: "", fold: Fold::Sum, scale: 1.0 }
}

const fn max(metric: Metric, name: &'static str) -> Source {
    Source { metric, name, label: "", fold: Fold::Max, scale: 1.0 }
}

const fn ranks(metric: Metric, name: &'static str) -> Source {
    Source { metric, name, label: "", fold: Fold::Ranks, scale: 1.0 }
}

const fn labelled(metric: Metric, name: &'static str, label: &'static str, fold: Fold) -> Source {
    Source { metric, name, label, fold, scale: 1.0 }
}

const fn micros(metric: Metric, name: &'static str) -> Source {
    Source { metric, name, label: "", fold: Fold::Sum, scale: 1e-6 }
}

/// Of several names for one metric, the first that an engine has counts. In an order that keeps sums and counts of one
/// engine together.
const SOURCES: &[Source] = &[
    // vLLM, NIM 2.x, and Triton's vLLM backend as far as it hands them on.
    sum(Running, "vllm:num_requests_running"),
    sum(Waiting, "vllm:num_requests_waiting"),
    max(KvCacheUsage, "vllm:kv_cache_usage_perc"),
    max(KvCacheUsage, "vllm:gpu_cache_usage_perc"),
    max(PrefixHitRate, "vllm:gpu_prefix_cache_hit_rate"),
    sum(Preemptions, "vllm:num_preemptions_total"),
    sum(Preemptions, "vllm:num_preemptions"),
    sum(PrefixHits, "vllm:prefix_cache_hits_total"),
    sum(PrefixHits, "vllm:prefix_cache_hits"),
    sum(PrefixHits, "vllm:gpu_prefix_cache_hits_total"),
    sum(PrefixHits, "vllm:gpu_prefix_cache_hits"),
    sum(PrefixQueries, "vllm:prefix_cache_queries_total"),
    sum(PrefixQueries, "vllm:prefix_cache_queries"),
    sum(PrefixQueries, "vllm:gpu_prefix_cache_queries_total"),
    sum(PrefixQueries, "vllm:gpu_prefix_cache_queries"),
    sum(PromptTokens, "vllm:prompt_tokens_total"),
    sum(PromptTokens, "vllm:prompt_tokens"),
    sum(GenerationTokens, "vllm:generation_tokens_total"),
    sum(GenerationTokens, "vllm:generation_tokens"),
    sum(QueueSum, "vllm:request_queue_time_seconds_sum"),
    sum(QueueCount, "vllm:request_queue_time_seconds_count"),
    sum(QueueSum, "vllm:time_in_queue_requests_sum"),
    sum(QueueCount, "vllm:time_in_queue_requests_count"),
    sum(PrefillSum, "vllm:request_prefill_time_seconds_sum"),
    sum(PrefillCount, "vllm:request_prefill_time_seconds_count"),
    sum(DecodeSum, "vllm:request_decode_time_seconds_sum"),
    sum(DecodeCount, "vllm:request_decode_time_seconds_count"),
    // SGLang: each rank of an engine may tell the same, and some versions split by priority beside the total.
    ranks(Running, "sglang:num_running_reqs"),
    ranks(Waiting, "sglang:num_queue_reqs"),
    max(KvCacheUsage, "sglang:token_usage"),
    max(PrefixHitRate, "sglang:cache_hit_rate"),
    ranks(Preemptions, "sglang:num_retracted_requests_total"),
    sum(PrefixHits, "sglang:cached_tokens_total"),
    sum(PrefixQueries, "sglang:prompt_tokens_total"),
    sum(PromptTokens, "sglang:prompt_tokens_total"),
    sum(GenerationTokens, "sglang:generation_tokens_total"),
    sum(QueueSum, "sglang:queue_time_seconds_sum"),
    sum(QueueCount, "sglang:queue_time_seconds_count"),
    // trtllm-serve.
    sum(Running, "trtllm_num_requests_running"),
    sum(Waiting, "trtllm_num_requests_waiting"),
    max(KvCacheUsage, "trtllm_kv_cache_utilization"),
    max(PrefixHitRate, "trtllm_kv_cache_hit_rate"),
    sum(PromptTokens, "trtllm_prompt_tokens_total"),
    sum(GenerationTokens, "trtllm_generation_tokens_total"),
    sum(QueueSum, "trtllm_request_queue_time_seconds_sum"),
    sum(QueueCount, "trtllm_request_queue_time_seconds_count"),
    // NIM 1.x.
    sum(Running, "num_requests_running"),
    sum(Waiting, "num_requests_waiting"),
    max(KvCacheUsage, "gpu_cache_usage_perc"),
    sum(PromptTokens, "prompt_tokens_total"),
    sum(GenerationTokens, "generation_tokens_total"),
    // Triton: the TensorRT-LLM backend's, then the server's own.
    labelled(Running, "nv_trt_llm_request_metrics", "request_type=\"scheduled\"", Fold::Sum),
    labelled(Waiting, "nv_trt_llm_request_metrics", "request_type=\"waiting\"", Fold::Sum),
    labelled(KvCacheUsage, "nv_trt_llm_kv_cache_block_metrics", "kv_cache_block_type=\"fraction\"", Fold::Max),
    sum(Waiting, "nv_inference_pending_request_count"),
    micros(QueueSum, "nv_inference_queue_duration_us"),
    sum(QueueCount, "nv_inference_request_success"),
];

/// Sources by name.
static INDEX: LazyLock<HashMap<&'static str, Vec<usize>>> = LazyLock::new(|| {
    let mut index: HashMap<_, Vec<usize>> = HashMap::new();
    for (i, source) in SOURCES.iter().enumerate() {
        index.entry(source.name).or_default().push(i);
    }
    index
});

/// What an engine told at one look, by [`METRICS`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Values([Option<f64>; METRICS.len()]);

impl Values {
    pub fn get(&self, metric: Metric) -> Option<f64> {
        self.0[metric as usize]
    }

    pub fn set(&mut self, metric: Metric, value: f64) {
        self.0[metric as usize] = Some(value);
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

/// Takes down what is known among the samples of a text.
pub struct Reader {
    folded: Vec<Option<f64>>,
    /// The largest by source and data-parallel engine.
    by_engine: BTreeMap<(usize, String), f64>,
}

impl Default for Reader {
    fn default() -> Self {
        Reader { folded: vec![None; SOURCES.len()], by_engine: BTreeMap::new() }
    }
}

impl Reader {
    pub fn take(&mut self, sample: &Sample<'_>) {
        let Some(sources) = INDEX.get(sample.name) else { return };
        for i in sources.iter().copied().filter(|i| sample.labels.contains(SOURCES[*i].label)) {
            let value = sample.value * SOURCES[i].scale;
            match SOURCES[i].fold {
                Fold::Sum => self.folded[i] = Some(self.folded[i].unwrap_or(0.0) + value),
                Fold::Max => self.folded[i] = Some(self.folded[i].map_or(value, |before| before.max(value))),
                Fold::Ranks => {
                    let engine = sample.label("dp_rank").unwrap_or_default().to_string();
                    let largest = self.by_engine.entry((i, engine)).or_insert(value);
                    *largest = largest.max(value);
                }
            }
        }
    }

    pub fn finish(mut self) -> Values {
        for ((i, _), largest) in self.by_engine {
            *self.folded[i].get_or_insert(0.0) += largest;
        }
        let mut values = Values::default();
        for (source, value) in SOURCES.iter().zip(self.folded) {
            if let Some(value) = value.filter(|v| v.is_finite())
                && values.get(source.metric).is_none()
            {
                values.set(source.metric, value);
            }
        }
        values
    }
}

/// What a metrics text says.
pub fn read(text: &str) -> Result<Values, FormatError> {
    let mut reader = Reader::default();
    prometheus::samples(text, |sample| reader.take(sample))?;
    Ok(reader.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str, metric: Metric) -> Option<f64> {
        read(text).unwrap().get(metric)
    }

    #[test]
    fn the_table_of_names_is_in_the_order_of_the_metrics() {
        for (i, (metric, _)) in METRICS.iter().enumerate() {
            assert_eq!(*metric as usize, i);
        }
    }

    #[test]
    fn old_and_new_names_mean_the_same() {
        for (text, metric, value) in [
            ("vllm:kv_cache_usage_perc{engine=\"0\"} 0.25\n", KvCacheUsage, 0.25),
            ("vllm:gpu_cache_usage_perc 0.5\n", KvCacheUsage, 0.5),
            ("vllm:gpu_cache_usage_perc 0.5\nvllm:kv_cache_usage_perc 0.25\n", KvCacheUsage, 0.25),
            ("gpu_cache_usage_perc 0.5\n", KvCacheUsage, 0.5),
            ("sglang:token_usage 0.5\n", KvCacheUsage, 0.5),
            ("trtllm_kv_cache_utilization 0.5\n", KvCacheUsage, 0.5),
            ("vllm:gpu_prefix_cache_hits_total 7\n", PrefixHits, 7.0),
            ("vllm:prefix_cache_hits_total 8\nvllm:gpu_prefix_cache_hits_total 7\n", PrefixHits, 8.0),
            ("vllm:time_in_queue_requests_sum 3\n", QueueSum, 3.0),
            ("num_requests_running 4\n", Running, 4.0),
            ("nv_inference_pending_request_count{model=\"m\",version=\"1\"} 2\n", Waiting, 2.0),
            ("nv_inference_queue_duration_us 2500000\n", QueueSum, 2.5),
        ] {
            assert_eq!(one(text, metric), Some(value), "{text}");
        }
        assert!(read("up 1\nprocess_cpu_seconds_total 3\n").unwrap().is_empty());
        assert!(read("<html>").is_err());
    }

    #[test]
    fn parts_are_added_up_and_views_are_not() {
        let text = "vllm:num_requests_running{engine=\"0\"} 3\nvllm:num_requests_running{engine=\"1\"} 4\n\
            vllm:kv_cache_usage_perc{engine=\"0\"} 0.1\nvllm:kv_cache_usage_perc{engine=\"1\"} 0.3\n";
        assert_eq!((one(text, Running), one(text, KvCacheUsage)), (Some(7.0), Some(0.3)));
        let ranks = "sglang:num_running_reqs{tp_rank=\"0\",priority=\"\"} 3\nsglang:num_running_reqs{tp_rank=\"1\",priority=\"\"} 3\n\
            sglang:num_running_reqs{tp_rank=\"0\",priority=\"1\"} 2\n";
        assert_eq!(one(ranks, Running), Some(3.0));
        let parallel = "sglang:num_running_reqs{dp_rank=\"0\",tp_rank=\"0\"} 3\nsglang:num_running_reqs{dp_rank=\"0\",tp_rank=\"1\"} 3\n\
            sglang:num_running_reqs{dp_rank=\"1\",tp_rank=\"0\"} 4\n";
        assert_eq!(one(parallel, Running), Some(7.0));
    }

    #[test]
    fn labels_tell_the_tensorrt_llm_backends_metrics_apart() {
        let text = "nv_trt_llm_request_metrics{model=\"m\",request_type=\"scheduled\",version=\"1\"} 5\n\
            nv_trt_llm_request_metrics{model=\"m\",request_type=\"waiting\",version=\"1\"} 2\n\
            nv_trt_llm_request_metrics{model=\"m\",request_type=\"max\",version=\"1\"} 512\n\
            nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"fraction\",model=\"m\",version=\"1\"} 0.5\n\
            nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"max\",model=\"m\",version=\"1\"} 4096\n";
        assert_eq!(
            (one(text, Running), one(text, Waiting), one(text, KvCacheUsage)),
            (Some(5.0), Some(2.0), Some(0.5))
        );
    }
}
