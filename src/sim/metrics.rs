//! The metrics endpoints: the ledger in each engine's own names, as Prometheus text or as trtllm-serve's JSON.

use std::fmt::Write;

use super::engine::{Histogram, Ledger};
use super::flavor::{Family, Flavor, Openai, Triton};

/// Prometheus text under construction. Labels are the inside of the braces.
struct Text<'a> {
    out: String,
    labels: &'a str,
}

impl Text<'_> {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, extra: &str, value: f64) {
        let comma = if extra.is_empty() { "" } else { "," };
        let _ = writeln!(self.out, "{name}{{{}{comma}{extra}}} {value}", self.labels);
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, "gauge", help);
        self.sample(name, "", value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help);
        self.sample(name, "", value as f64);
    }

    /// `scale` turns seconds into the metric's unit.
    fn histogram(&mut self, name: &str, help: &str, h: &Histogram, scale: f64) {
        self.family(name, "histogram", help);
        let mut below = 0;
        for (bound, count) in h.bounds.iter().zip(&h.counts) {
            below += count;
            self.sample(&format!("{name}_bucket"), &format!("le=\"{:?}\"", bound * scale), below as f64);
        }
        self.sample(&format!("{name}_bucket"), "le=\"+Inf\"", h.count() as f64);
        self.sample(&format!("{name}_sum"), "", h.sum * scale);
        self.sample(&format!("{name}_count"), "", h.count() as f64);
    }
}

fn escape(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The Prometheus text of a flavor.
pub fn prometheus(flavor: Flavor, model: &str, l: &Ledger) -> String {
    let model = escape(model);
    match flavor.family() {
        Family::Openai(Openai::Vllm | Openai::Nim) => vllm(&format!("model_name=\"{model}\",engine=\"0\""), l),
        Family::Openai(Openai::Sglang) => {
            sglang(&format!("engine_type=\"unified\",model_name=\"{model}\",pp_rank=\"0\",tp_rank=\"0\""), l)
        }
        Family::Openai(Openai::Trtllm) => trtllm(&format!("engine_type=\"undefined\",model_name=\"{model}\""), l),
        Family::Triton(backend) => triton(backend, &format!("model=\"{model}\",version=\"1\""), l),
    }
}

fn vllm(labels: &str, l: &Ledger) -> String {
    let t = &mut Text { out: String::new(), labels };
    t.gauge("vllm:num_requests_running", "Number of requests in model execution batches.", l.running as f64);
    t.gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed.", l.waiting as f64);
    t.family("vllm:num_requests_waiting_by_reason", "gauge", "Number of waiting requests by reason.");
    t.sample("vllm:num_requests_waiting_by_reason", "reason=\"capacity\"", l.waiting as f64);
    t.sample("vllm:num_requests_waiting_by_reason", "reason=\"deferred\"", 0.0);
    let used = share(l.kv_used, l.kv_capacity);
    t.gauge("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", used);
    t.counter("vllm:prefix_cache_queries_total", "Tokens looked up in the prefix cache.", l.prefix_queries);
    t.counter("vllm:prefix_cache_hits_total", "Tokens found in the prefix cache.", l.cached_tokens);
    t.counter("vllm:num_preemptions_total", "Cumulative number of preemptions.", l.preemptions);
    t.counter("vllm:prompt_tokens_total", "Number of prefill tokens processed.", l.prompt_tokens);
    t.counter("vllm:prompt_tokens_cached_total", "Number of prompt tokens from cache.", l.cached_tokens);
    t.counter("vllm:generation_tokens_total", "Number of generation tokens processed.", l.generation_tokens);
    t.family("vllm:request_success_total", "counter", "Count of successfully processed requests.");
    for (reason, n) in [("stop", l.finished_stop), ("length", l.finished_length), ("abort", l.aborted)] {
        t.sample("vllm:request_success_total", &format!("finished_reason=\"{reason}\""), n as f64);
    }
    for (name, h) in [
        ("vllm:time_to_first_token_seconds", &l.ttft),
        ("vllm:inter_token_latency_seconds", &l.itl),
        ("vllm:request_time_per_output_token_seconds", &l.tpot),
        ("vllm:e2e_request_latency_seconds", &l.e2e),
        ("vllm:request_queue_time_seconds", &l.queue),
        ("vllm:request_prefill_time_seconds", &l.prefill),
        ("vllm:request_decode_time_seconds", &l.decode),
        ("vllm:request_prompt_tokens", &l.prompt_length),
        ("vllm:request_generation_tokens", &l.output_length),
        ("vllm:iteration_tokens_total", &l.step_tokens),
    ] {
        t.histogram(name, "Simulated.", h, 1.0);
    }
    t.family("vllm:cache_config_info", "gauge", "Information of the LLMEngine CacheConfig");
    let blocks = l.kv_capacity / u64::from(super::engine::BLOCK);
    t.sample("vllm:cache_config_info", &format!("block_size=\"16\",num_gpu_blocks=\"{blocks}\""), 1.0);
    std::mem::take(&mut t.out)
}

fn sglang(labels: &str, l: &Ledger) -> String {
    let t = &mut Text { out: String::new(), labels };
    t.gauge("sglang:num_running_reqs", "The number of running requests.", l.running as f64);
    t.gauge("sglang:num_queue_reqs", "The number of requests in the waiting queue.", l.waiting as f64);
    t.gauge("sglang:num_used_tokens", "The number of used tokens.", l.kv_used as f64);
    t.gauge("sglang:token_usage", "The token usage.", share(l.kv_used, l.kv_capacity));
    t.gauge(
        "sglang:max_total_num_tokens",
        "Maximum total number of tokens in the KV cache pool.",
        l.kv_capacity as f64,
    );
    t.gauge("sglang:cache_hit_rate", "The prefix cache hit rate.", share(l.cached_tokens, l.prefix_queries));
    // Of the last batch alone.
    t.gauge("sglang:num_retracted_reqs", "The number of retracted requests.", 0.0);
    t.counter("sglang:num_retracted_requests_total", "Total number of retracted requests.", l.preemptions);
    t.counter("sglang:prompt_tokens_total", "Number of prefill tokens processed.", l.prompt_tokens);
    t.counter("sglang:generation_tokens_total", "Number of generation tokens processed.", l.generation_tokens);
    t.counter("sglang:cached_tokens_total", "Number of cached prompt tokens.", l.cached_tokens);
    t.counter("sglang:num_requests_total", "Number of requests processed.", l.finished());
    t.counter("sglang:num_aborted_requests_total", "Number of requests aborted.", l.aborted);
    for (name, h) in [
        ("sglang:time_to_first_token_seconds", &l.ttft),
        ("sglang:inter_token_latency_seconds", &l.itl),
        ("sglang:request_time_per_output_token_seconds", &l.tpot),
        ("sglang:e2e_request_latency_seconds", &l.e2e),
        ("sglang:queue_time_seconds", &l.queue),
    ] {
        t.histogram(name, "Simulated.", h, 1.0);
    }
    std::mem::take(&mut t.out)
}

fn trtllm(labels: &str, l: &Ledger) -> String {
    let t = &mut Text { out: String::new(), labels };
    t.gauge("trtllm_num_requests_running", "Number of requests currently running.", l.running as f64);
    t.gauge("trtllm_num_requests_waiting", "Number of requests waiting.", l.waiting as f64);
    t.gauge("trtllm_kv_cache_utilization", "KV cache utilization.", share(l.kv_used, l.kv_capacity));
    t.gauge("trtllm_kv_cache_hit_rate", "KV cache hit rate.", share(l.cached_tokens, l.prefix_queries));
    t.counter("trtllm_prompt_tokens_total", "Number of prompt tokens.", l.prompt_tokens);
    t.counter("trtllm_generation_tokens_total", "Number of generated tokens.", l.generation_tokens);
    t.family("trtllm_request_success_total", "counter", "Count of successfully processed requests.");
    for (reason, n) in [("stop", l.finished_stop), ("length", l.finished_length)] {
        t.sample("trtllm_request_success_total", &format!("finished_reason=\"{reason}\""), n as f64);
    }
    for (name, h) in [
        ("trtllm_time_to_first_token_seconds", &l.ttft),
        ("trtllm_time_per_output_token_seconds", &l.tpot),
        ("trtllm_e2e_request_latency_seconds", &l.e2e),
        ("trtllm_request_queue_time_seconds", &l.queue),
    ] {
        t.histogram(name, "Simulated.", h, 1.0);
    }
    std::mem::take(&mut t.out)
}

fn triton(backend: Triton, labels: &str, l: &Ledger) -> String {
    let t = &mut Text { out: String::new(), labels };
    let micros = |seconds: f64| (seconds * 1e6) as u64;
    t.counter("nv_inference_request_success", "Number of successful inference requests.", l.finished());
    t.family("nv_inference_request_failure", "counter", "Number of failed inference requests.");
    for (reason, n) in [("REJECTED", 0), ("CANCELED", l.aborted), ("BACKEND", l.failed), ("OTHER", 0)] {
        t.sample("nv_inference_request_failure", &format!("reason=\"{reason}\""), n as f64);
    }
    t.counter("nv_inference_count", "Number of inferences performed.", l.finished());
    t.counter("nv_inference_exec_count", "Number of model executions performed.", l.finished());
    t.counter("nv_inference_request_duration_us", "Cumulative request duration.", micros(l.e2e.sum));
    t.counter("nv_inference_queue_duration_us", "Cumulative queuing duration.", micros(l.queue.sum));
    t.counter("nv_inference_compute_input_duration_us", "Cumulative compute input duration.", 0);
    let infer = micros(l.prefill.sum + l.decode.sum);
    t.counter("nv_inference_compute_infer_duration_us", "Cumulative compute inference duration.", infer);
    t.counter("nv_inference_compute_output_duration_us", "Cumulative compute output duration.", 0);
    t.gauge("nv_inference_pending_request_count", "Requests awaiting execution.", l.waiting as f64);
    t.histogram("nv_inference_first_response_histogram_ms", "Time to the first response.", &l.ttft, 1e3);
    if backend == Triton::Vllm {
        t.counter("vllm:prompt_tokens_total", "Number of prefill tokens processed.", l.prompt_tokens);
        t.counter("vllm:generation_tokens_total", "Number of generation tokens processed.", l.generation_tokens);
        t.histogram("vllm:time_to_first_token_seconds", "Simulated.", &l.ttft, 1.0);
        t.histogram("vllm:time_per_output_token_seconds", "Simulated.", &l.itl, 1.0);
        t.histogram("vllm:e2e_request_latency_seconds", "Simulated.", &l.e2e, 1.0);
        t.histogram("vllm:request_prompt_tokens", "Simulated.", &l.prompt_length, 1.0);
        t.histogram("vllm:request_generation_tokens", "Simulated.", &l.output_length, 1.0);
    }
    std::mem::take(&mut t.out)
}

/// trtllm-serve's `/metrics`: the iterations since the last call, which forgets them.
pub fn drain_iterations(l: &mut Ledger) -> String {
    let hit_rate = share(l.cached_tokens, l.prefix_queries);
    let list: Vec<_> = l
        .iterations
        .drain(..)
        .map(|i| {
            serde_json::json!({
                "iter": i.index,
                "iterLatencyMS": i.latency as f64 / 1e6,
                "numActiveRequests": i.active,
                "kvCacheStats": {
                    "usedNumBlocks": i.used_blocks,
                    "maxNumBlocks": i.max_blocks,
                    "freeNumBlocks": i.max_blocks.saturating_sub(i.used_blocks),
                    "tokensPerBlock": super::engine::BLOCK,
                    "cacheHitRate": hit_rate,
                },
            })
        })
        .collect();
    serde_json::Value::Array(list).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flavor_has_its_own_names_and_valid_lines() {
        let mut l = Ledger::new(1600);
        (l.running, l.waiting, l.kv_used) = (3, 2, 400);
        l.ttft.observe(0.03);
        for (flavor, expected) in [
            (Flavor::HfVllm, "vllm:kv_cache_usage_perc{model_name=\"a\\\"b\",engine=\"0\"} 0.25"),
            (Flavor::NimVllm, "vllm:num_requests_running{model_name=\"a\\\"b\",engine=\"0\"} 3"),
            (Flavor::HfSglang, "sglang:num_queue_reqs{"),
            (Flavor::HfTrtllm, "trtllm_kv_cache_utilization{"),
            (
                Flavor::TritonVllm,
                "vllm:time_per_output_token_seconds_bucket{model=\"a\\\"b\",version=\"1\",le=\"+Inf\"} 0",
            ),
            (Flavor::TritonPython, "nv_inference_pending_request_count{model=\"a\\\"b\",version=\"1\"} 2"),
        ] {
            let text = prometheus(flavor, "a\"b", &l);
            assert!(text.contains(expected), "{flavor}: {text}");
            for line in text.lines().filter(|l| !l.starts_with('#')) {
                let value = line.rsplit_once(' ').unwrap().1;
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
        let text = prometheus(Flavor::HfVllm, "m", &l);
        assert!(text.contains("time_to_first_token_seconds_bucket{model_name=\"m\",engine=\"0\",le=\"0.02\"} 0"));
        assert!(text.contains("time_to_first_token_seconds_bucket{model_name=\"m\",engine=\"0\",le=\"0.04\"} 1"));
        assert!(!prometheus(Flavor::TritonPython, "m", &l).contains("vllm:"));
    }
}
