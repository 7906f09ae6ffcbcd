//! Columns of the results row: what the server, the GPUs and the host did meanwhile, how the engine came up, and what it
//! all cost.

use super::record::{Resources, SampleRecord, StartRecord};
use super::row::{Column, Field, RowSource, col, positive};
use crate::stats::{Gauge, ServerLoad};

pub(super) fn columns() -> Vec<Column> {
    let mut columns = server_columns();
    columns.extend(gpu_columns());
    columns.extend(host_columns());
    columns.extend(start_columns());
    columns.extend(price_columns());
    columns
}

fn load<T: Into<Field>>(r: &RowSource<'_>, of: fn(&ServerLoad) -> Option<T>) -> Field {
    r.sample().and_then(|s| of(&s.load)).into()
}

fn mean(gauge: Option<Gauge>) -> Option<f64> {
    gauge.map(|g| g.mean)
}

fn peak(gauge: Option<Gauge>) -> Option<f64> {
    gauge.map(|g| g.peak)
}

fn server_columns() -> Vec<Column> {
    vec![
        col("server_running_mean", "requests", "Requests in the server's batch, mean over looks in the window.", |r| {
            load(r, |l| mean(l.running))
        }),
        col("server_running_peak", "requests", "The most of them at a look.", |r| load(r, |l| peak(l.running))),
        col("server_waiting_mean", "requests", "Requests that waited for a place in it, mean over looks.", |r| {
            load(r, |l| mean(l.waiting))
        }),
        col("server_waiting_peak", "requests", "The most of them at a look.", |r| load(r, |l| peak(l.waiting))),
        col("kv_cache_usage_mean", "ratio", "Share of the KV cache in use, mean over looks.", |r| {
            load(r, |l| mean(l.kv_cache_usage))
        }),
        col("preemptions", "requests", "Requests that the server put back for want of KV cache.", |r| {
            load(r, |l| l.preemptions)
        }),
        col("prefix_hit_rate", "ratio", "Share of prompt tokens that the server found in its prefix cache.", |r| {
            load(r, |l| l.prefix_hit_rate)
        }),
        col("server_queue_mean_ms", "ms", "Mean time in the server's queue.", |r| load(r, |l| l.queue_mean_ms)),
        col("server_prefill_mean_ms", "ms", "Mean time of prefill in the server.", |r| load(r, |l| l.prefill_mean_ms)),
        col("server_decode_mean_ms", "ms", "Mean time of decode in the server.", |r| load(r, |l| l.decode_mean_ms)),
        col("watch_cpu_fraction", "ratio", "Share of a core that looking at server, GPUs and host took.", |r| {
            r.sample().and_then(|s| s.watch.cpu_fraction).into()
        }),
    ]
}

fn used<T: Into<Field>>(r: &RowSource<'_>, of: fn(&Resources) -> Option<T>) -> Field {
    r.sample().and_then(|s| of(&s.resources)).into()
}

/// Of a sample whose energy is known.
fn per_joule(r: &RowSource<'_>, of: fn(&SampleRecord, f64) -> Option<f64>) -> Field {
    r.sample().and_then(|s| of(s, s.resources.energy_j.filter(|j| *j > 0.0)?)).into()
}

fn gpu_columns() -> Vec<Column> {
    vec![
        col("j_per_request", "J", "Energy per completed request.", |r| {
            per_joule(r, |s, j| Some(j / positive(s.summary.n_ok)?))
        }),
        col("output_tokens_per_joule", "1/J", "Output tokens per joule, which is tokens per second and watt.", |r| {
            per_joule(r, |s, j| Some(s.summary.output_tokens as f64 / j))
        }),
        col("gpu_utilization_mean", "ratio", "Share of time in which a kernel ran, mean over GPUs and looks.", |r| {
            used(r, |u| u.gpu_utilization_mean)
        }),
        col("gpu_temperature_peak_c", "°C", "Highest temperature of a GPU.", |r| {
            used(r, |u| u.gpu_temperature_peak_c)
        }),
        col("gpu_sm_clock_mean_mhz", "MHz", "Clock of the multiprocessors, mean over GPUs and looks.", |r| {
            used(r, |u| u.gpu_sm_clock_mean_mhz)
        }),
        col("gpu_power_capped", "ratio", "Share of looks at which the power limit held the clocks down.", |r| {
            used(r, |u| u.gpu_power_capped)
        }),
    ]
}

fn host_columns() -> Vec<Column> {
    vec![
        col("host_cpu_mean", "ratio", "Share of the host's processors in use.", |r| used(r, |u| u.host_cpu_mean)),
        col("host_memory_peak_mib", "MiB", "Largest memory use of the host.", |r| used(r, |u| u.host_memory_peak_mib)),
        col("container_cpu_cores_mean", "cores", "Cores that the container used, mean.", |r| {
            used(r, |u| u.container_cpu_cores_mean)
        }),
        col(
            "container_memory_peak_mib",
            "MiB",
            "Largest memory use of the container, droppable cache left out.",
            |r| used(r, |u| u.container_memory_peak_mib),
        ),
        col("container_throttled_s", "s", "Time for which its CPU limit held the container back.", |r| {
            used(r, |u| u.container_throttled_s)
        }),
    ]
}

fn start<T: Into<Field>>(r: &RowSource<'_>, of: fn(&StartRecord) -> Option<T>) -> Field {
    r.sample().and_then(|s| of(&s.startup)).into()
}

fn start_columns() -> Vec<Column> {
    vec![
        col("prepare_s", "s", "Before the engine's start: image and model got, devices waited for.", |r| {
            start(r, |s| s.prepare_s)
        }),
        col("ready_s", "s", "From the engine's start to its first token.", |r| start(r, |s| s.ready_s)),
        col("weights_s", "s", "Loading of the weights, by the engine's log.", |r| start(r, |s| s.weights_s)),
        col("compile_s", "s", "Compilation, by the engine's log.", |r| start(r, |s| s.compile_s)),
        col("graphs_s", "s", "Capture of graphs, by the engine's log.", |r| start(r, |s| s.graphs_s)),
        col("kv_cache_tokens", "tokens", "Room in the KV cache, by the engine's log.", |r| {
            start(r, |s| s.kv_cache_tokens)
        }),
        col("weights_gib", "GiB", "GPU memory that the weights take, by the engine's log.", |r| {
            start(r, |s| s.weights_gib)
        }),
        col("warm_caches", "", "All caches that the container was given held something.", |r| {
            start(r, |s| s.warm_caches)
        }),
    ]
}

fn price_columns() -> Vec<Column> {
    vec![
        col("usd_per_1m_input_tokens", "USD", "Price of the window by a million of its input tokens.", |r| {
            r.sample().and_then(|s| usd_per_1m(s, s.summary.input_tokens)).into()
        }),
        col("usd_per_1m_tokens", "USD", "Price of the window by a million of its tokens, input and output.", |r| {
            r.sample().and_then(|s| usd_per_1m(s, s.summary.input_tokens + s.summary.output_tokens)).into()
        }),
    ]
}

fn usd_per_1m(s: &SampleRecord, tokens: u64) -> Option<f64> {
    Some(s.cost_usd? / positive(tokens)? * 1e6)
}
