//! The result files of AIPerf and its predecessor genai-perf: `profile_export_aiperf.json` (schema 1.x; the predecessor
//! wrote no number) and the CSV beside it.
//!
//! JSON: one object per tag, `{unit, avg, p1 … p99, min, max, std, count, sum}`, of which only `unit` and `avg` are always
//! there. Their `inter_token_latency` is our TPOT (one value per request), their `inter_chunk_latency` our ITL (gaps
//! pooled). The CSV has two tables, `Metric,avg,min,max,…` and `Metric,Value`, with two decimals.
//!
//! Source: AIPerf 0.13, `metrics/types/*` and files that it wrote.

use std::collections::BTreeMap;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value as Json;

use super::fields::Fields;
use super::{FormatError, Known, Measurement, ORIGIN, Origin, Subject};
use crate::stats::dist::{moments, percentile};
use crate::stats::{Dist, RequestRecord, Summary};
use crate::store::record::UnitFacts;

const TOOL: &str = "AIPerf";
/// The schema that is written; any 1.x is read.
const SCHEMA: &str = "1.4";

/// Percentiles of the format.
const PERCENTILES: [u8; 9] = [1, 5, 10, 25, 50, 75, 90, 95, 99];

/// One tag: a figure, or a distribution.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metric {
    pub unit: String,
    pub avg: Option<f64>,
    /// By `PERCENTILES`; those that are not known are left out.
    pub percentiles: BTreeMap<u8, f64>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub std: Option<f64>,
    pub count: Option<u64>,
}

/// A result.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AiPerf {
    /// `None` for genai-perf, and for CSV.
    pub schema_version: Option<String>,
    /// Version of the tool; ours is written as `llmatrix X.Y.Z`.
    pub version: Option<String>,
    pub metrics: BTreeMap<String, Metric>,
    pub model: Option<String>,
    /// `chat`, `completions`, …
    pub endpoint_type: Option<String>,
    pub concurrency: Option<u32>,
    pub request_rate: Option<f64>,
    /// Mean lengths asked for.
    pub isl: Option<f64>,
    pub osl: Option<f64>,
    pub requests: Option<u64>,
    pub start_time: String,
    pub end_time: String,
    pub cancelled: bool,
    pub origin: Option<Origin>,
}

impl AiPerf {
    /// A sample of ours. With the requests that it was made of, every percentile of the format is there.
    pub fn of(subject: &Subject<'_>, requests: Option<&[RequestRecord]>) -> AiPerf {
        let Subject { facts, sample, .. } = *subject;
        AiPerf {
            schema_version: Some(SCHEMA.to_string()),
            version: Some(format!("llmatrix {}", sample.provenance.tool_version)),
            metrics: metrics(&sample.summary, requests),
            model: Some(facts.model.clone()),
            endpoint_type: Some(facts.api.clone().unwrap_or_else(|| "completions".into())),
            concurrency: facts.concurrency,
            request_rate: facts.request_rate,
            isl: facts.isl.map(f64::from),
            osl: facts.osl.map(f64::from),
            requests: Some(sample.summary.n_sent),
            start_time: sample.started_at.clone(),
            end_time: sample.finished_at.clone(),
            cancelled: false,
            origin: Some(Origin::of(subject)),
        }
    }

    /// Reads the JSON file.
    pub fn parse(json: &Json) -> Result<AiPerf, FormatError> {
        let f = Fields::of(TOOL, json)?;
        let schema_version = f.text("schema_version")?.map(str::to_string);
        if let Some(found) = schema_version.clone().filter(|v| v != "1" && !v.starts_with("1.")) {
            let of = f.text("aiperf_version")?.map(|v| format!(", of {TOOL} {v}")).unwrap_or_default();
            return Err(FormatError::Version { tool: TOOL, found: format!("{found}{of}"), known: "1.x" });
        }
        let mut metrics = BTreeMap::new();
        for (tag, value) in f.object {
            // A tag that is not a figure is something else that a version may add.
            if value.get("unit").is_some_and(Json::is_string) && value.get("avg").is_some() {
                metrics.insert(tag.clone(), Metric::parse(tag, value)?);
            }
        }
        let missing = |tag: &str| !metrics.contains_key(tag);
        if let Some(tag) = ["request_latency", "request_count"].into_iter().find(|t| missing(t)) {
            return Err(FormatError::Not { tool: TOOL, problem: format!("`{tag}` is missing") });
        }
        let config = f.get("input_config").unwrap_or(&Json::Null);
        let phase = config["phases"].as_array().and_then(|p| p.iter().find(|p| p["kind"] == "profiling").or(p.first()));
        let phase = phase.unwrap_or(&Json::Null);
        // Before there were phases.
        let loadgen = &config["loadgen"];
        let concurrency = phase["concurrency"].as_u64().or(loadgen["concurrency"].as_u64());
        let prompts = &config["datasets"][0]["prompts"];
        Ok(AiPerf {
            schema_version,
            version: f.text("aiperf_version")?.map(str::to_string),
            metrics,
            model: model(config),
            endpoint_type: config["endpoint"]["type"].as_str().map(str::to_string),
            concurrency: concurrency.and_then(|n| n.try_into().ok()),
            request_rate: phase["rate"]
                .as_f64()
                .or(phase["request_rate"].as_f64())
                .or(loadgen["request_rate"].as_f64()),
            isl: prompts["isl"]["mean"].as_f64(),
            osl: prompts["osl"]["mean"].as_f64(),
            requests: phase["requests"].as_u64().or(loadgen["request_count"].as_u64()),
            start_time: f.text("start_time")?.unwrap_or_default().to_string(),
            end_time: f.text("end_time")?.unwrap_or_default().to_string(),
            cancelled: f.typed("was_cancelled", "true or false", Json::as_bool)?.unwrap_or(false),
            origin: origin(&f)?,
        })
    }

    /// Reads the CSV file: the figures only, since it says nothing of what was asked.
    pub fn parse_csv(text: &str) -> Result<AiPerf, FormatError> {
        let not = |problem: String| FormatError::Not { tool: TOOL, problem };
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
        let mut metrics = BTreeMap::new();
        let mut head: Vec<String> = Vec::new();
        for record in reader.records() {
            let record = record.map_err(|e| not(e.to_string()))?;
            match record.get(0) {
                Some("Metric") => head = record.iter().map(str::to_string).collect(),
                Some(title) if !head.is_empty() => {
                    let (tag, unit) = tag_of(title);
                    metrics.insert(tag, Metric::of_row(&unit, &head, &record));
                }
                _ => return Err(not("the first line does not begin with `Metric`".into())),
            }
        }
        if !metrics.contains_key("request_latency") {
            return Err(not("there is no row `Request Latency (ms)`".into()));
        }
        Ok(AiPerf { metrics, ..AiPerf::default() })
    }

    /// The same in our terms.
    pub fn measurement(self) -> Measurement {
        let facts = self.origin.as_ref().map_or_else(|| self.facts(), |o| o.facts.clone());
        let avg = |tag: &str| self.metrics.get(tag).and_then(|m| m.avg);
        let count = |tag: &str| avg(tag).map(|n| n.round().max(0.0) as u64);
        let n_ok = count("request_count").unwrap_or(0);
        let total = |totals: [&str; 2], each: &str| {
            let total = totals.into_iter().find_map(count);
            total.unwrap_or_else(|| (avg(each).unwrap_or(0.0) * n_ok as f64).round() as u64)
        };
        let known = Known {
            n_ok,
            n_error: count("error_request_count").unwrap_or(0),
            n_cancelled: self.origin.as_ref().map_or(0, |o| o.n_cancelled),
            input_tokens: total(["total_isl", "total_input_sequence_length"], "input_sequence_length"),
            output_tokens: total(["total_osl", "total_output_sequence_length"], "output_sequence_length"),
            duration_s: avg("benchmark_duration").unwrap_or(0.0),
            gpus: facts.gpus,
        };
        let counted = known.summary();
        let output_throughput = avg("output_token_throughput").or(counted.output_throughput);
        let summary = Summary {
            request_throughput: avg("request_throughput").or(counted.request_throughput),
            output_throughput,
            total_token_throughput: avg("total_token_throughput").or(counted.total_token_throughput),
            output_throughput_per_gpu: output_throughput.filter(|_| facts.gpus > 0).map(|t| t / f64::from(facts.gpus)),
            request_goodput: avg("goodput"),
            output_tokens_per_user: avg("output_token_throughput_per_user"),
            output_throughput_steady: self.origin.as_ref().and_then(|o| o.output_throughput_steady),
            steady_reached: self.origin.as_ref().is_some_and(|o| o.steady_reached),
            ttft: self.dist("time_to_first_token"),
            ttfo: self.dist("time_to_first_output_token"),
            tpot: self.dist("inter_token_latency"),
            itl: self.dist("inter_chunk_latency"),
            e2el: self.dist("request_latency"),
            ..counted
        };
        let tool = self.version.as_ref().map_or(TOOL.to_string(), |v| format!("{TOOL} {v}"));
        Measurement { tool, facts, summary, started_at: self.start_time, origin: self.origin }
    }

    fn dist(&self, tag: &str) -> Dist {
        let Some(m) = self.metrics.get(tag) else { return Dist::default() };
        let scale = per_ms(&m.unit);
        let ms = |v: Option<f64>| v.map(|v| v * scale);
        let p = |p: u8| ms(m.percentiles.get(&p).copied());
        let requests = self.metrics.get("request_count").and_then(|m| m.avg).map_or(0, |n| n as u64);
        Dist {
            n: m.count.unwrap_or(requests),
            mean: ms(m.avg),
            std: ms(m.std),
            min: ms(m.min),
            max: ms(m.max),
            p50: p(50),
            p90: p(90),
            p95: p(95),
            p99: p(99),
        }
    }

    fn facts(&self) -> UnitFacts {
        let avg = |tag: &str| self.metrics.get(tag).and_then(|m| m.avg);
        let length = |asked: Option<f64>, tag: &str| asked.or(avg(tag)).map(|n| n.round() as u32);
        UnitFacts {
            experiment: TOOL.to_string(),
            model: self.model.clone().unwrap_or_default(),
            method: "external".into(),
            engine: "openai".into(),
            api: self.endpoint_type.clone().filter(|t| ["chat", "completions"].contains(&t.as_str())),
            isl: length(self.isl, "input_sequence_length"),
            osl: length(self.osl, "output_sequence_length"),
            concurrency: self.concurrency,
            request_rate: self.request_rate,
            requests: self.requests,
            ..UnitFacts::default()
        }
    }
}

/// A figure of this unit in milliseconds.
fn per_ms(unit: &str) -> f64 {
    match unit {
        "ns" => 1e-6,
        "us" => 1e-3,
        "s" | "sec" => 1e3,
        _ => 1.0,
    }
}

/// AIPerf lists models as items with names, genai-perf as names.
fn model(config: &Json) -> Option<String> {
    let item = &config["models"]["items"][0]["name"];
    let name = item.as_str().or(config["model"][0].as_str()).or(config["model"].as_str());
    name.or(config["models"][0].as_str())
        .or(config["model_names"][0].as_str())
        .or(config["endpoint"]["model_names"][0].as_str())
        .map(str::to_string)
}

fn origin(f: &Fields<'_>) -> Result<Option<Origin>, FormatError> {
    let Some(value) = f.get(ORIGIN) else { return Ok(None) };
    serde_json::from_value(value.clone()).map(Some).map_err(|e| f.wrong(ORIGIN, e.to_string()))
}

/// `Request Latency (ms)` is `request_latency` in `ms`.
fn tag_of(title: &str) -> (String, String) {
    let (name, unit) = match title.rsplit_once(" (") {
        Some((name, unit)) => (name, unit.trim_end_matches(')')),
        None => (title, ""),
    };
    (name.to_lowercase().replace(' ', "_"), unit.to_string())
}

impl Metric {
    fn figure(unit: &str, avg: f64) -> Metric {
        Metric { unit: unit.to_string(), avg: Some(avg), ..Metric::default() }
    }

    /// What a summary keeps of a distribution.
    fn of_dist(unit: &str, d: &Dist) -> Metric {
        let known = [(50, d.p50), (90, d.p90), (95, d.p95), (99, d.p99)];
        Metric {
            unit: unit.to_string(),
            avg: d.mean,
            percentiles: known.into_iter().filter_map(|(p, v)| Some((p, v?))).collect(),
            min: d.min,
            max: d.max,
            std: d.std,
            count: Some(d.n),
        }
    }

    /// All of a distribution.
    fn of_values(unit: &str, mut values: Vec<f64>) -> Metric {
        values.sort_unstable_by(f64::total_cmp);
        let (count, avg, std) = moments(values.iter().copied());
        let at = |p: u8| Some((p, percentile(&values, f64::from(p) / 100.0)?));
        Metric {
            unit: unit.to_string(),
            avg,
            percentiles: PERCENTILES.into_iter().filter_map(at).collect(),
            min: values.first().copied(),
            max: values.last().copied(),
            std,
            count: Some(count),
        }
    }

    fn parse(tag: &str, value: &Json) -> Result<Metric, FormatError> {
        let f = Fields::of(TOOL, value)?;
        let named = |e| match e {
            FormatError::Field { tool, field, problem } => {
                FormatError::Field { tool, field: format!("{tag}.{field}"), problem }
            }
            e => e,
        };
        let number = |name: &str| f.number(name).map_err(named);
        let mut percentiles = BTreeMap::new();
        for p in PERCENTILES {
            percentiles.extend(number(&format!("p{p}"))?.map(|v| (p, v)));
        }
        Ok(Metric {
            unit: f.text("unit").map_err(named)?.unwrap_or_default().to_string(),
            avg: number("avg")?,
            percentiles,
            min: number("min")?,
            max: number("max")?,
            std: number("std")?,
            count: f.count("count").map_err(named)?,
        })
    }

    fn of_row(unit: &str, head: &[String], record: &csv::StringRecord) -> Metric {
        let get = |name: &str| {
            let at = head.iter().position(|h| h == name)?;
            record.get(at)?.parse::<f64>().ok()
        };
        Metric {
            unit: unit.to_string(),
            avg: get("avg").or(get("Value")),
            percentiles: PERCENTILES.into_iter().filter_map(|p| Some((p, get(&format!("p{p}"))?))).collect(),
            min: get("min"),
            max: get("max"),
            std: get("std"),
            count: None,
        }
    }
}

/// The tags of a sample. Figures that were not measured have none.
fn metrics(s: &Summary, requests: Option<&[RequestRecord]>) -> BTreeMap<String, Metric> {
    let mut out = BTreeMap::new();
    let mut put = |tag: &str, metric: Metric| {
        if metric.avg.is_some() {
            out.insert(tag.to_string(), metric);
        }
    };
    for (tag, unit, value) in [
        ("request_throughput", "requests/sec", s.request_throughput),
        ("output_token_throughput", "tokens/sec", s.output_throughput),
        ("total_token_throughput", "tokens/sec", s.total_token_throughput),
        ("goodput", "requests/sec", s.request_goodput),
        ("request_count", "requests", Some(s.n_ok as f64)),
        ("error_request_count", "requests", Some(s.n_error as f64)),
        ("benchmark_duration", "sec", Some(s.duration_s)),
        ("total_isl", "tokens", Some(s.input_tokens as f64)),
        ("total_osl", "tokens", Some(s.output_tokens as f64)),
        ("output_token_throughput_per_user", "tokens/sec/user", s.output_tokens_per_user),
        ("input_sequence_length", "tokens", s.isl_actual_mean),
        ("output_sequence_length", "tokens", s.osl_actual_mean),
    ] {
        put(tag, Metric { avg: value, ..Metric::figure(unit, 0.0) });
    }
    for (tag, dist) in [
        ("time_to_first_token", &s.ttft),
        ("time_to_first_output_token", &s.ttfo),
        ("inter_token_latency", &s.tpot),
        ("inter_chunk_latency", &s.itl),
        ("request_latency", &s.e2el),
    ] {
        put(tag, Metric::of_dist("ms", dist));
    }
    // What is one value per request can be had in full; gaps are pooled and were not kept.
    for (tag, unit, values) in requests.map(by_request).unwrap_or_default() {
        put(tag, Metric::of_values(unit, values));
    }
    out
}

type PerRequest = Vec<(&'static str, &'static str, Vec<f64>)>;

fn by_request(requests: &[RequestRecord]) -> PerRequest {
    let ok: Vec<&RequestRecord> = requests.iter().filter(|r| r.status == crate::stats::Status::Ok).collect();
    let ms =
        |of: fn(&RequestRecord) -> Option<u64>| ok.iter().filter_map(|r| of(r)).map(|ns| ns as f64 / 1e6).collect();
    let tpot: Vec<f64> = ok.iter().filter_map(|r| r.tpot_ns()).map(|ns| ns / 1e6).collect();
    let input = |r: &&RequestRecord| f64::from(r.input_tokens.or(r.requested_input).unwrap_or(0));
    vec![
        ("time_to_first_token", "ms", ms(RequestRecord::ttft_ns)),
        ("time_to_first_output_token", "ms", ms(RequestRecord::ttfo_ns)),
        ("request_latency", "ms", ms(RequestRecord::e2el_ns)),
        (
            "output_token_throughput_per_user",
            "tokens/sec/user",
            tpot.iter().filter(|ms| **ms > 0.0).map(|ms| 1e3 / ms).collect(),
        ),
        ("inter_token_latency", "ms", tpot),
        ("input_sequence_length", "tokens", ok.iter().map(input).collect()),
        ("output_sequence_length", "tokens", ok.iter().map(|r| r.output() as f64).collect()),
    ]
}

impl Serialize for Metric {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(None)?;
        map.serialize_entry("unit", &self.unit)?;
        map.serialize_entry("avg", &self.avg)?;
        for (p, value) in &self.percentiles {
            map.serialize_entry(&format!("p{p}"), value)?;
        }
        for (name, value) in [("min", self.min), ("max", self.max), ("std", self.std)] {
            if let Some(value) = value {
                map.serialize_entry(name, &value)?;
            }
        }
        if let Some(count) = self.count {
            map.serialize_entry("count", &count)?;
        }
        map.end()
    }
}

impl Serialize for AiPerf {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(None)?;
        map.serialize_entry("schema_version", &self.schema_version)?;
        map.serialize_entry("aiperf_version", &self.version)?;
        for (tag, metric) in &self.metrics {
            map.serialize_entry(tag, metric)?;
        }
        map.serialize_entry("input_config", &self.config())?;
        map.serialize_entry("was_cancelled", &self.cancelled)?;
        map.serialize_entry("error_summary", &[(); 0])?;
        map.serialize_entry("start_time", &self.start_time)?;
        map.serialize_entry("end_time", &self.end_time)?;
        if let Some(origin) = &self.origin {
            map.serialize_entry(ORIGIN, origin)?;
        }
        map.end()
    }
}

impl AiPerf {
    /// The part of the configuration that says what was asked.
    fn config(&self) -> Json {
        let mut phase = serde_json::json!({ "name": "profiling", "kind": "profiling" });
        phase["type"] = if self.request_rate.is_some() { "request_rate" } else { "concurrency" }.into();
        let set = |phase: &mut Json, name: &str, value: Option<Json>| {
            if let Some(value) = value {
                phase[name] = value;
            }
        };
        set(&mut phase, "requests", self.requests.map(Json::from));
        set(&mut phase, "concurrency", self.concurrency.map(Json::from));
        set(&mut phase, "rate", self.request_rate.map(Json::from));
        serde_json::json!({
            "models": { "items": [{ "name": self.model }] },
            "endpoint": { "type": self.endpoint_type, "streaming": true },
            "datasets": [{ "name": "main", "prompts": { "isl": { "mean": self.isl }, "osl": { "mean": self.osl } } }],
            "phases": [phase],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing;
    use super::*;
    use crate::stats::record::tests::request;

    fn written(requests: Option<&[RequestRecord]>) -> (Summary, Json) {
        let report = testing::report();
        let unit = &report.units[0];
        let sample = &unit.samples[0];
        let subject = Subject { unit_id: unit.unit_id, deploy_id: unit.deploy_id, facts: &unit.facts, sample };
        (sample.summary.clone(), serde_json::to_value(AiPerf::of(&subject, requests)).unwrap())
    }

    #[test]
    fn what_is_written_reads_back_as_the_same_measurement() {
        let (summary, json) = written(None);
        assert_eq!(json["inter_token_latency"]["p99"], Json::from(summary.tpot.p99.unwrap()));
        assert_eq!(json["schema_version"], "1.4");
        let read = AiPerf::parse(&json).unwrap().measurement();
        assert_eq!(read.facts.model, "org/m");
        assert_eq!(read.summary, summary);
    }

    #[test]
    fn requests_give_every_percentile() {
        let ms = 1_000_000;
        let requests: Vec<RequestRecord> = (0..5).map(|i| request(i, 0, (10 + i) * ms, 100 * ms, 4)).collect();
        let (_, json) = written(Some(&requests));
        let ttft = &json["time_to_first_token"];
        assert_eq!((&ttft["p25"], &ttft["p50"], &ttft["count"]), (&11.0.into(), &12.0.into(), &5.into()));
        assert_eq!(json["output_sequence_length"]["std"], 0.0);
        assert!(json["inter_chunk_latency"]["p25"].is_null(), "gaps are not among the requests");
    }

    /// Files as the tool wrote them: 4 streams, 16 requests of 200 tokens, TTFT 50 ms, ITL 10 ms.
    #[test]
    fn its_own_files_are_read() {
        let json = serde_json::from_str(include_str!("../../../tests/data/peers/aiperf-0.13.json")).unwrap();
        let csv = include_str!("../../../tests/data/peers/aiperf-0.13.csv");
        let json = AiPerf::parse(&json).unwrap().measurement();
        let csv = AiPerf::parse_csv(csv).unwrap().measurement();
        assert_eq!((json.tool.as_str(), json.facts.model.as_str()), ("AIPerf 0.13.0", "truth"));
        assert_eq!((json.facts.concurrency, json.facts.isl, json.facts.osl), (Some(4), Some(100), Some(200)));
        for read in [&json, &csv] {
            let s = &read.summary;
            assert_eq!((s.n_ok, s.input_tokens, s.output_tokens), (16, 1600, 3200));
            assert!(s.ttft.p50.is_some_and(|ms| (51.9..52.0).contains(&ms)), "{:?}", s.ttft);
            assert!(
                s.tpot.mean.is_some_and(|ms| (10.0..10.02).contains(&ms)),
                "their inter_token_latency: {:?}",
                s.tpot
            );
            assert!(s.itl.p99.is_some_and(|ms| (11.8..12.0).contains(&ms)), "their inter_chunk_latency: {:?}", s.itl);
            assert!(s.output_tokens_per_user.is_some_and(|t| (99.9..99.92).contains(&t)));
        }
    }

    #[test]
    fn another_schema_is_refused_by_its_number() {
        let (_, mut json) = written(None);
        json["schema_version"] = "2.0".into();
        let message = AiPerf::parse(&json).unwrap_err().to_string();
        assert!(message.contains("AIPerf") && message.contains("2.0") && message.contains("1.x"), "{message}");
        assert!(
            AiPerf::parse(&serde_json::json!({"metrics": {}})).unwrap_err().to_string().contains("request_latency")
        );
    }

    #[test]
    fn the_csv_has_the_same_figures_with_fewer_digits() {
        let text = "Metric,avg,min,max,sum,p1,p50,p99,std\nRequest Latency (ms),2.50,1.00,4.00,5.00,1.00,2.00,4.00,1.20\n\n\
                    Metric,Value\nRequest Count,2.00\nTotal Output Sequence Length (tokens),20.00\nBenchmark Duration (sec),8.00\n";
        let read = AiPerf::parse_csv(text).unwrap().measurement();
        assert_eq!((read.summary.n_ok, read.summary.output_tokens), (2, 20));
        assert_eq!(read.summary.e2el.p99, Some(4.0));
        assert_eq!(read.summary.output_throughput, Some(2.5));
        assert!(AiPerf::parse_csv("a,b\n1,2\n").is_err());
    }
}
