//! The results row: one per sample or failed attempt. One table says which columns there are, in which order, in which
//! unit, and where each value comes from; CSV, JSON and docs are made from it.

use std::sync::LazyLock;

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::record::{AttemptRecord, Provenance, SampleRecord, UnitFacts};
use crate::digest::{DeployId, UnitId};
use crate::event::FailureClass;
use crate::stats::{Dist, Sanity, Summary};

/// What a row is made from.
#[derive(Clone, Copy, Debug)]
pub struct RowSource<'a> {
    /// `None` for a measurement outside of any experiment.
    pub unit_id: Option<UnitId>,
    pub deploy_id: Option<DeployId>,
    pub facts: &'a UnitFacts,
    pub measured: Measured<'a>,
}

/// What came of one repeat.
#[derive(Clone, Copy, Debug)]
pub enum Measured<'a> {
    Sample(&'a SampleRecord),
    Attempt(&'a AttemptRecord),
}

/// One value of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Field {
    /// Not measured, or not applicable.
    Empty,
    Bool(bool),
    Int(u64),
    Float(f64),
    Text(String),
}

/// A column of the results.
pub struct Column {
    pub name: &'static str,
    /// `""` where there is none.
    pub unit: &'static str,
    pub doc: &'static str,
    get: fn(&RowSource<'_>) -> Field,
}

/// What the values of a column are, where there are any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Flag,
    Count,
    Number,
    /// RFC 3339 with milliseconds, UTC.
    Time,
    Text,
}

impl Column {
    /// What a typed format keeps the column as.
    pub fn kind(&self) -> Kind {
        match self.name {
            "valid" | "simulated" | "steady_reached" | "prefetching" | "warm_caches" => Kind::Flag,
            "sanity_logprob" => Kind::Number,
            "started_at" => Kind::Time,
            name if COUNTS.contains(&name) => Kind::Count,
            _ if self.unit.is_empty() => Kind::Text,
            _ => Kind::Number,
        }
    }
}

/// Columns of whole numbers. Whatever else has a unit is a number with decimals.
const COUNTS: &[&str] = &[
    "sample",
    "gpus",
    "tensor_parallel",
    "pipeline_parallel",
    "data_parallel",
    "isl",
    "osl",
    "concurrency",
    "requests",
    "seed",
    "n_sent",
    "n_ok",
    "n_error",
    "n_cancelled",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "attempt",
    "engine_start",
    "kv_cache_tokens",
];

/// The values of one row, in the order of [`columns`].
#[derive(Clone, Debug, PartialEq)]
pub struct Row(Vec<Field>);

/// All columns, in file order.
pub fn columns() -> &'static [Column] {
    static COLUMNS: LazyLock<Vec<Column>> = LazyLock::new(table);
    &COLUMNS
}

impl Row {
    pub fn new(source: &RowSource<'_>) -> Row {
        Row(columns().iter().map(|c| (c.get)(source)).collect())
    }

    /// Values in column order.
    pub fn fields(&self) -> &[Field] {
        &self.0
    }

    /// The value of a column; `None` when there is no such column.
    pub fn get(&self, column: &str) -> Option<&Field> {
        columns().iter().position(|c| c.name == column).map(|i| &self.0[i])
    }

    /// The row as CSV texts. No text holds a control character, so a row is one line.
    pub fn texts(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(Field::text)
    }
}

/// A JSON object whose keys are the columns; an empty value is null.
impl Serialize for Row {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(self.0.len()))?;
        for (column, field) in columns().iter().zip(&self.0) {
            match field {
                Field::Empty => map.serialize_entry(column.name, &())?,
                Field::Bool(b) => map.serialize_entry(column.name, b)?,
                Field::Int(i) => map.serialize_entry(column.name, i)?,
                Field::Float(f) => map.serialize_entry(column.name, f)?,
                Field::Text(t) => map.serialize_entry(column.name, t)?,
            }
        }
        map.end()
    }
}

impl Field {
    fn text(&self) -> String {
        match self {
            Field::Empty => String::new(),
            Field::Bool(b) => b.to_string(),
            Field::Int(i) => i.to_string(),
            // The shortest decimal text that reads back as the same float.
            Field::Float(f) => f.to_string(),
            Field::Text(t) => t.replace(|c: char| c.is_control(), " "),
        }
    }
}

impl From<bool> for Field {
    fn from(b: bool) -> Self {
        Field::Bool(b)
    }
}

impl From<u64> for Field {
    fn from(i: u64) -> Self {
        Field::Int(i)
    }
}

impl From<u32> for Field {
    fn from(i: u32) -> Self {
        Field::Int(i.into())
    }
}

impl From<f64> for Field {
    fn from(f: f64) -> Self {
        if f.is_finite() { Field::Float(f) } else { Field::Empty }
    }
}

impl From<&str> for Field {
    fn from(s: &str) -> Self {
        Field::Text(s.to_string())
    }
}

impl From<&String> for Field {
    fn from(s: &String) -> Self {
        Field::Text(s.clone())
    }
}

impl<T: Into<Field>> From<Option<T>> for Field {
    fn from(v: Option<T>) -> Self {
        v.map_or(Field::Empty, Into::into)
    }
}

impl<'a> RowSource<'a> {
    pub(super) fn sample(&self) -> Option<&'a SampleRecord> {
        match self.measured {
            Measured::Sample(s) => Some(s),
            Measured::Attempt(_) => None,
        }
    }

    fn failure(&self) -> Option<&'a AttemptRecord> {
        match self.measured {
            Measured::Sample(_) => None,
            Measured::Attempt(a) => Some(a),
        }
    }

    fn summary(&self) -> Option<&'a Summary> {
        self.sample().map(|s| &s.summary)
    }

    fn provenance(&self) -> &'a Provenance {
        match self.measured {
            Measured::Sample(s) => &s.provenance,
            Measured::Attempt(a) => &a.provenance,
        }
    }

    fn either<T>(&self, sample: fn(&'a SampleRecord) -> T, attempt: fn(&'a AttemptRecord) -> T) -> T {
        match self.measured {
            Measured::Sample(s) => sample(s),
            Measured::Attempt(a) => attempt(a),
        }
    }

    fn status(&self) -> &'static str {
        match self.measured {
            Measured::Sample(s) if s.valid => "measured",
            Measured::Sample(_) => "invalid",
            Measured::Attempt(a) if a.class == FailureClass::Invalid => "invalid",
            Measured::Attempt(a) if a.blocked => "blocked",
            Measured::Attempt(_) => "failed",
        }
    }

    /// Cell parameters that have no column of their own.
    fn parameters(&self) -> Field {
        let shown = self.facts.cell.iter().filter(|(name, _)| !COLUMN_PARAMETERS.contains(&name.as_str()));
        let texts: Vec<String> = shown.map(|(name, value)| format!("{name}={value}")).collect();
        joined(texts)
    }
}

/// Parameters whose value a column of its own shows.
const COLUMN_PARAMETERS: &[&str] = &[
    "model",
    "revision",
    "method",
    "engine",
    "image",
    "hardware",
    "gpus",
    "tensor_parallel",
    "pipeline_parallel",
    "data_parallel",
    "dtype",
    "quantization",
    "api",
    "tokens.input",
    "tokens.output",
    "concurrency",
    "rate",
    "arrival",
    "requests",
    "seed",
];

fn joined(texts: Vec<String>) -> Field {
    if texts.is_empty() { Field::Empty } else { Field::Text(texts.join(";")) }
}

pub(super) const fn col(
    name: &'static str,
    unit: &'static str,
    doc: &'static str,
    get: fn(&RowSource<'_>) -> Field,
) -> Column {
    Column { name, unit, doc, get }
}

/// The table. Its order is the order of the file.
fn table() -> Vec<Column> {
    let mut columns = identity_columns();
    columns.extend(count_columns());
    columns.extend(metric_columns());
    columns.extend(resource_columns());
    columns.extend(health_columns());
    columns.extend(coordinate_columns());
    columns.extend(server_columns());
    columns.extend(sanity_columns());
    columns.extend(job_columns());
    columns.extend(super::row_telemetry::columns());
    columns
}

fn identity_columns() -> Vec<Column> {
    vec![
        col("unit_id", "", "Content hash of everything that decides what is measured.", |r| {
            r.unit_id.map(|id| Field::Text(id.to_string())).unwrap_or(Field::Empty)
        }),
        col("deploy_id", "", "Content hash of everything that decides what one engine start is.", |r| {
            r.deploy_id.map(|id| Field::Text(id.to_string())).unwrap_or(Field::Empty)
        }),
        col("sample", "", "Number of the sample within the unit; for a failure, the number it would have had.", |r| {
            r.either(|s| s.sample, |a| a.sample).into()
        }),
        col("experiment", "", "Name of the experiment.", |r| r.facts.experiment.as_str().into()),
        col("run", "", "Run that measured it: `{timestamp}-{experiment}`.", |r| {
            r.either(|s| s.run.as_str(), |a| a.run.as_str()).into()
        }),
        col("started_at", "", "Start of the sample, warm-up included; UTC.", |r| {
            r.either(|s| s.started_at.as_str(), |a| a.started_at.as_str()).into()
        }),
        col("model", "", "Model as written in the experiment.", |r| r.facts.model.as_str().into()),
        col("revision", "", "Branch, tag or commit as written; the resolved commit where none was.", |r| {
            r.facts.revision.as_ref().or(r.provenance().model_commit.as_ref()).into()
        }),
        col("method", "", "How the model is served.", |r| r.facts.method.as_str().into()),
        col("engine", "", "What serves it.", |r| r.facts.engine.as_str().into()),
        col("engine_version", "", "As the engine reports itself.", |r| r.provenance().engine_version.as_ref().into()),
        col("image", "", "Container image as written.", |r| r.facts.image.as_ref().into()),
        col("image_digest", "", "Digest of the image that ran.", |r| r.provenance().image_digest.as_ref().into()),
        col("hardware", "", "Hardware class.", |r| r.facts.hardware.as_str().into()),
        col("gpus", "", "GPUs of the deployment.", |r| r.facts.gpus.into()),
        col("tensor_parallel", "", "Tensor parallel size.", |r| r.facts.tensor_parallel.into()),
        col("pipeline_parallel", "", "Pipeline parallel size.", |r| r.facts.pipeline_parallel.into()),
        col("data_parallel", "", "Data parallel size.", |r| r.facts.data_parallel.into()),
        col("dtype", "", "Type of activations and unquantized weights.", |r| r.facts.dtype.as_ref().into()),
        col("quantization", "", "What the served weights are.", |r| r.facts.quantization.as_ref().into()),
        col("api", "", "API it was measured over.", |r| r.facts.api.as_ref().into()),
        col("isl", "tokens", "Input length asked for, mean.", |r| r.facts.isl.into()),
        col("osl", "tokens", "Output length asked for, mean.", |r| r.facts.osl.into()),
        col("concurrency", "requests", "Requests in flight; with a rate, a cap.", |r| r.facts.concurrency.into()),
        col("request_rate", "1/s", "Requests per second; empty for a closed loop.", |r| r.facts.request_rate.into()),
        col("arrival", "", "Arrival process of an open loop.", |r| r.facts.arrival.as_ref().into()),
        col("requests", "", "Measured requests asked for.", |r| r.facts.requests.into()),
        col("seed", "", "Seed of prompts and arrivals.", |r| r.facts.seed.into()),
        col("tool_version", "", "Version of llmatrix.", |r| match r.provenance().tool_version.as_str() {
            "" => Field::Empty,
            version => version.into(),
        }),
    ]
}

fn count_columns() -> Vec<Column> {
    vec![
        col("n_sent", "requests", "Requests sent, warm-up excluded.", |r| r.summary().map(|s| s.n_sent).into()),
        col("n_ok", "requests", "Requests that completed.", |r| r.summary().map(|s| s.n_ok).into()),
        col("n_error", "requests", "Requests that failed.", |r| r.summary().map(|s| s.n_error).into()),
        col(
            "n_cancelled",
            "requests",
            "Requests cut off by the end of the measurement, or given up by the client (`cancel_rate`).",
            |r| r.summary().map(|s| s.n_cancelled).into(),
        ),
        col("error_rate", "ratio", "Failed requests over requests sent.", |r| r.summary().map(|s| s.error_rate).into()),
        col("input_tokens", "tokens", "Input tokens of completed requests.", |r| {
            r.summary().map(|s| s.input_tokens).into()
        }),
        col("output_tokens", "tokens", "Output tokens of completed requests.", |r| {
            r.summary().map(|s| s.output_tokens).into()
        }),
        col("isl_actual_mean", "tokens", "Input length as counted, mean.", |r| {
            r.summary().and_then(|s| s.isl_actual_mean).into()
        }),
        col("osl_actual_mean", "tokens", "Output length as counted, mean.", |r| {
            r.summary().and_then(|s| s.osl_actual_mean).into()
        }),
        col("output_tokens_source", "", "Who counted: `usage` (the server), `tokenizer` or `events`.", |r| {
            let source = r.summary().and_then(|s| s.output_tokens_source);
            source
                .map(|s| match s {
                    crate::stats::TokenSource::Usage => "usage",
                    crate::stats::TokenSource::Tokenizer => "tokenizer",
                    crate::stats::TokenSource::Events => "events",
                })
                .into()
        }),
        col("cached_input_tokens", "tokens", "Input tokens that the server says came from its prefix cache.", |r| {
            r.summary().and_then(|s| s.cached_input_tokens).into()
        }),
    ]
}

/// The columns of one statistic over the four latency distributions.
macro_rules! latencies {
    ($columns:ident, $stat:ident, $words:literal) => {
        $columns.push(col(
            concat!(stringify!($stat), "_ttft_ms"),
            "ms",
            concat!($words, " time to first token, over requests."),
            |r| distribution(r, |s| &s.ttft, |d| d.$stat),
        ));
        $columns.push(col(
            concat!(stringify!($stat), "_tpot_ms"),
            "ms",
            concat!($words, " time per output token, over requests."),
            |r| distribution(r, |s| &s.tpot, |d| d.$stat),
        ));
        $columns.push(col(
            concat!(stringify!($stat), "_itl_ms"),
            "ms",
            concat!($words, " inter-token latency, over the gaps of all requests."),
            |r| distribution(r, |s| &s.itl, |d| d.$stat),
        ));
        $columns.push(col(
            concat!(stringify!($stat), "_e2el_ms"),
            "ms",
            concat!($words, " end-to-end latency, over requests."),
            |r| distribution(r, |s| &s.e2el, |d| d.$stat),
        ));
    };
}

fn distribution(r: &RowSource<'_>, of: fn(&Summary) -> &Dist, stat: fn(&Dist) -> Option<f64>) -> Field {
    r.summary().and_then(|s| stat(of(s))).into()
}

fn metric_columns() -> Vec<Column> {
    let mut columns = vec![
        col("duration_s", "s", "First start to last token of the measured requests.", |r| {
            r.summary().map(|s| s.duration_s).into()
        }),
        col("request_throughput", "1/s", "Completed requests per second.", |r| {
            r.summary().and_then(|s| s.request_throughput).into()
        }),
        col("output_throughput", "tokens/s", "Output tokens per second.", |r| {
            r.summary().and_then(|s| s.output_throughput).into()
        }),
        col("total_token_throughput", "tokens/s", "Input and output tokens per second.", |r| {
            r.summary().and_then(|s| s.total_token_throughput).into()
        }),
        col("output_throughput_steady", "tokens/s", "Output tokens per second in the steady state.", |r| {
            r.summary().and_then(|s| s.output_throughput_steady).into()
        }),
        col("steady_reached", "", "There was a steady state.", |r| r.summary().map(|s| s.steady_reached).into()),
    ];
    latencies!(columns, mean, "Mean");
    latencies!(columns, std, "Standard deviation of the");
    latencies!(columns, p50, "Median");
    latencies!(columns, p90, "90th percentile of the");
    latencies!(columns, p95, "95th percentile of the");
    latencies!(columns, p99, "99th percentile of the");
    columns.extend([
        col("request_goodput", "1/s", "Requests per second that met every SLO of the run.", |r| {
            r.summary().and_then(|s| s.request_goodput).into()
        }),
        col("output_throughput_per_gpu", "tokens/s", "Output tokens per second and GPU.", |r| {
            r.summary().and_then(|s| s.output_throughput_per_gpu).into()
        }),
        col("output_tokens_per_user", "tokens/s", "Mean over requests of 1 / TPOT.", |r| {
            r.summary().and_then(|s| s.output_tokens_per_user).into()
        }),
    ]);
    columns
}

fn resource_columns() -> Vec<Column> {
    vec![
        col("gpu_power_mean_w", "W", "Mean power of the deployment's GPUs together.", |r| {
            r.sample().and_then(|s| s.resources.gpu_power_mean_w).into()
        }),
        col("energy_j", "J", "Energy of the deployment's GPUs in the window.", |r| {
            r.sample().and_then(|s| s.resources.energy_j).into()
        }),
        col("j_per_output_token", "J", "Energy per output token.", |r| {
            r.sample().and_then(|s| Some(s.resources.energy_j? / positive(s.summary.output_tokens)?)).into()
        }),
        col("gpu_memory_peak_mib", "MiB", "Largest memory use of a GPU.", |r| {
            r.sample().and_then(|s| s.resources.gpu_memory_peak_mib).into()
        }),
        col("kv_cache_usage_peak", "ratio", "Largest share of the KV cache in use.", |r| {
            r.sample().and_then(|s| s.resources.kv_cache_usage_peak).into()
        }),
        col("cost_usd", "USD", "Price of the window at the run's `[cost]`.", |r| {
            r.sample().and_then(|s| s.cost_usd).into()
        }),
        col("usd_per_1m_output_tokens", "USD", "Price of a million output tokens.", |r| {
            r.sample().and_then(|s| Some(s.cost_usd? / positive(s.summary.output_tokens)? * 1e6)).into()
        }),
    ]
}

pub(super) fn positive(n: u64) -> Option<f64> {
    (n > 0).then_some(n as f64)
}

fn health_columns() -> Vec<Column> {
    vec![
        col("queue_delay_p99_ms", "ms", "99th percentile of start − intended start.", |r| {
            r.summary().and_then(|s| s.queue_delay_p99_ms).into()
        }),
        col("recv_lag_p99_ms", "ms", "99th percentile of the time from bytes being there to their stamp.", |r| {
            r.summary().and_then(|s| s.recv_lag_p99_ms).into()
        }),
        col("client_cpu_fraction", "ratio", "CPU time of the client over the CPU time it could have had.", |r| {
            r.summary().and_then(|s| s.client_cpu_fraction).into()
        }),
        col("client_error_ttft_ms", "ms", "The client's own error in TTFT on this host, from its calibration.", |r| {
            r.sample().and_then(|s| s.client_error_ttft_ms).into()
        }),
        col("client_error_itl_ms", "ms", "The client's own error in ITL on this host, from its calibration.", |r| {
            r.sample().and_then(|s| s.client_error_itl_ms).into()
        }),
        col("valid", "", "The row may be compared.", |r| r.either(|s| s.valid, |_| false).into()),
        col("invalid_reason", "", "Why it may not.", |r| {
            r.either(|s| s.invalid_reason.as_ref(), |a| Some(&a.cause)).into()
        }),
    ]
}

fn coordinate_columns() -> Vec<Column> {
    vec![
        col("simulated", "", "Measured on the simulated engine in place of the real one.", |r| {
            r.either(|s| s.simulated, |a| a.simulated).into()
        }),
        col("labels", "", "Labelled axes: `axis=label;…`.", |r| {
            joined(r.facts.labels.iter().map(|(axis, label)| format!("{axis}={label}")).collect())
        }),
        col("parameters", "", "Parameters that were set and have no column of their own: `name=value;…`.", |r| {
            r.parameters()
        }),
        col("status", "", "`measured`, `invalid`, `failed`, or `blocked` by its deployment.", |r| r.status().into()),
        col("attempt", "", "Try within the run, from 1.", |r| r.either(|s| s.attempt, |a| a.attempt).into()),
        col("engine_start", "", "Engine start within the run, from 1.", |r| r.either(|s| s.start, |a| a.start).into()),
        col("failure_stage", "", "Where a failed attempt was.", |r| r.failure().map(|a| a.stage.as_str()).into()),
        col("failure_class", "", "`infrastructure`, `deterministic` or `invalid`.", |r| {
            r.failure().map(|a| a.class.as_str()).into()
        }),
    ]
}

fn server_columns() -> Vec<Column> {
    vec![
        col("server_ttft_mean_ms", "ms", "Mean time to first token as the server measured it in the window.", |r| {
            r.sample().and_then(|s| s.server.server_ttft_mean_ms).into()
        }),
        col("server_itl_mean_ms", "ms", "Mean inter-token latency as the server measured it.", |r| {
            r.sample().and_then(|s| s.server.server_itl_mean_ms).into()
        }),
        col("server_e2el_mean_ms", "ms", "Mean end-to-end latency as the server measured it.", |r| {
            r.sample().and_then(|s| s.server.server_e2el_mean_ms).into()
        }),
    ]
}

fn job_columns() -> Vec<Column> {
    vec![col("makespan_s", "s", "A batch: from the submission of the job to its last answer.", |r| {
        r.summary().and_then(|s| s.makespan_s).into()
    })]
}

fn sanity_columns() -> Vec<Column> {
    vec![
        col(
            "sanity",
            "",
            "What the engine's answer to a fixed question is worth: `ok`, `empty` or `repetition`.",
            |r| r.sample().and_then(|s| s.sanity.as_ref()).map(|s| s.sense.as_str()).into(),
        ),
        col("sanity_text", "", "The beginning of that answer.", |r| {
            r.sample().and_then(|s| s.sanity.as_ref()).map(|s| &s.text).into()
        }),
        col("sanity_logprob", "", "Mean log probability of that answer's tokens, where the engine tells it.", |r| {
            r.sample().and_then(|s| s.sanity.as_ref()).and_then(Sanity::mean_logprob).into()
        }),
        col("prefetching", "", "Something for a later deployment was downloaded at the same time.", |r| {
            r.sample().map(|s| s.prefetching).into()
        }),
    ]
}
