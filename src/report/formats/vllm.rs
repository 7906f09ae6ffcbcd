//! The result file of `vllm bench serve`, of the same tool in SGLang's and other forks, and of its Rust client.
//!
//! One JSON object per benchmark. Latencies are milliseconds under `{mean,median,std,pXX}_{ttft,tpot,itl,e2el}_ms`,
//! `duration` is seconds, `request_rate` is a number or `"inf"` for a closed loop. With details, arrays by request:
//! `input_lens`, `output_lens` (tokens), `ttfts`, `start_times` (seconds), `errors` (empty where there was none). The
//! gaps of single requests (`itls`) are not kept by llmatrix, so its exports have none.
//!
//! Source: `vllm/benchmarks/serve.py` of vLLM 0.32, and files that it and the Rust client wrote.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value as Json;

use super::fields::Fields;
use super::{FormatError, Known, Measurement, ORIGIN, Origin, Subject};
use crate::stats::{Dist, RequestRecord, Summary};
use crate::store::record::UnitFacts;

const TOOL: &str = "vllm bench";

/// A result.
#[derive(Clone, Debug, PartialEq)]
pub struct VllmBench {
    /// `20261124-072448` in local time; RFC 3339 from the Rust client.
    pub date: String,
    /// `openai`, `openai-chat`, `vllm`, …: how the server was asked.
    pub backend: Option<String>,
    pub label: Option<String>,
    pub model_id: String,
    pub tokenizer_id: Option<String>,
    pub num_prompts: u64,
    /// Requests per second; `None` is a closed loop (`"inf"`).
    pub request_rate: Option<f64>,
    pub burstiness: Option<f64>,
    pub max_concurrency: Option<u32>,
    /// Seconds.
    pub duration: f64,
    pub completed: u64,
    pub failed: u64,
    pub total_input_tokens: u64,
    pub total_output_tokens: u64,
    pub request_throughput: Option<f64>,
    pub request_goodput: Option<f64>,
    pub output_throughput: Option<f64>,
    pub total_token_throughput: Option<f64>,
    /// Of the Rust client: while all streams were busy.
    pub output_throughput_steady: Option<f64>,
    pub ttft: Dist,
    pub tpot: Dist,
    pub itl: Dist,
    pub e2el: Dist,
    pub details: Option<Details>,
    pub origin: Option<Origin>,
}

/// One entry per request, in the order in which they were sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    pub input_lens: Vec<u64>,
    pub output_lens: Vec<u64>,
    /// Seconds; 0 for a request without a token.
    pub ttfts: Vec<f64>,
    /// Seconds after the start of the sample.
    pub start_times: Vec<f64>,
    pub errors: Vec<String>,
}

impl VllmBench {
    /// A sample of ours. With the requests that it was made of, details are written.
    pub fn of(subject: &Subject<'_>, requests: Option<&[RequestRecord]>) -> VllmBench {
        let Subject { facts, sample, .. } = *subject;
        let s = &sample.summary;
        VllmBench {
            date: date(&sample.started_at),
            backend: Some(backend(facts.api.as_deref()).to_string()),
            label: Some(format!("{}-{}", facts.method, facts.engine)),
            model_id: facts.model.clone(),
            tokenizer_id: facts.cell.get("tokenizer").map(ToString::to_string),
            num_prompts: s.n_sent,
            request_rate: facts.request_rate,
            burstiness: facts.cell.get("burstiness").and_then(crate::value::Value::as_f64),
            max_concurrency: facts.concurrency,
            duration: s.duration_s,
            completed: s.n_ok,
            failed: s.n_error,
            total_input_tokens: s.input_tokens,
            total_output_tokens: s.output_tokens,
            request_throughput: s.request_throughput,
            request_goodput: s.request_goodput,
            output_throughput: s.output_throughput,
            total_token_throughput: s.total_token_throughput,
            output_throughput_steady: s.output_throughput_steady,
            ttft: s.ttft.clone(),
            tpot: s.tpot.clone(),
            itl: s.itl.clone(),
            e2el: s.e2el.clone(),
            details: requests.map(details),
            origin: Some(Origin::of(subject)),
        }
    }

    /// Reads one result.
    pub fn parse(json: &Json) -> Result<VllmBench, FormatError> {
        let f = Fields::of(TOOL, json)?;
        let completed = f.required("completed", f.count("completed")?)?;
        let num_prompts = f.count("num_prompts")?;
        Ok(VllmBench {
            date: f.text("date")?.unwrap_or_default().to_string(),
            backend: f.text("backend")?.map(str::to_string),
            label: f.text("label")?.map(str::to_string),
            model_id: f.required("model_id", f.text("model_id")?)?.to_string(),
            tokenizer_id: f.text("tokenizer_id")?.map(str::to_string),
            num_prompts: num_prompts.unwrap_or(completed),
            request_rate: rate(&f)?,
            burstiness: f.number("burstiness")?,
            max_concurrency: f.typed("max_concurrency", "a whole number", |v| v.as_u64()?.try_into().ok())?,
            duration: f.required("duration", f.number("duration")?)?,
            completed,
            // Before 0.10 the failed were those that are missing.
            failed: f.count("failed")?.unwrap_or_else(|| num_prompts.unwrap_or(completed).saturating_sub(completed)),
            total_input_tokens: f.required("total_input_tokens", f.count("total_input_tokens")?)?,
            total_output_tokens: f.required("total_output_tokens", f.count("total_output_tokens")?)?,
            request_throughput: f.number("request_throughput")?,
            // With a colon in the name until 0.9.
            request_goodput: f.number("request_goodput")?.or(f.number("request_goodput:")?),
            output_throughput: f.number("output_throughput")?,
            // SGLang's name.
            total_token_throughput: f.number("total_token_throughput")?.or(f.number("total_throughput")?),
            output_throughput_steady: steady(&f)?,
            ttft: dist(&f, "ttft", completed)?,
            tpot: dist(&f, "tpot", completed)?,
            itl: dist(&f, "itl", completed)?,
            e2el: dist(&f, "e2el", completed)?,
            details: None,
            origin: origin(&f)?,
        })
    }

    /// The same in our terms. Rates that the file states are taken as they stand.
    pub fn measurement(self) -> Measurement {
        let facts = self.origin.as_ref().map_or_else(|| self.facts(), |o| o.facts.clone());
        let known = Known {
            n_ok: self.completed,
            n_error: self.failed,
            n_cancelled: self.origin.as_ref().map_or(0, |o| o.n_cancelled),
            input_tokens: self.total_input_tokens,
            output_tokens: self.total_output_tokens,
            duration_s: self.duration,
            gpus: facts.gpus,
        };
        let counted = known.summary();
        let output_throughput = self.output_throughput.or(counted.output_throughput);
        let summary = Summary {
            request_throughput: self.request_throughput.or(counted.request_throughput),
            output_throughput,
            total_token_throughput: self.total_token_throughput.or(counted.total_token_throughput),
            output_throughput_per_gpu: output_throughput.filter(|_| facts.gpus > 0).map(|t| t / f64::from(facts.gpus)),
            request_goodput: self.request_goodput,
            output_throughput_steady: self.output_throughput_steady,
            steady_reached: self.origin.as_ref().is_some_and(|o| o.steady_reached),
            ttft: self.ttft,
            tpot: self.tpot,
            itl: self.itl,
            e2el: self.e2el,
            ..counted
        };
        Measurement { tool: TOOL.to_string(), facts, summary, started_at: self.date, origin: self.origin }
    }

    /// What the file says of the cell. The engine is a guess from nothing, so it is left out.
    fn facts(&self) -> UnitFacts {
        let mean = |tokens: u64| {
            let mean = (self.completed > 0).then(|| tokens as f64 / self.completed as f64)?;
            Some(mean.round() as u32)
        };
        let api = match self.backend.as_deref() {
            Some("openai-chat") => Some("chat".to_string()),
            Some("openai" | "vllm" | "sglang" | "sglang-oai") => Some("completions".to_string()),
            _ => None,
        };
        UnitFacts {
            experiment: TOOL.to_string(),
            model: self.model_id.clone(),
            method: "external".into(),
            engine: "openai".into(),
            api,
            isl: mean(self.total_input_tokens),
            osl: mean(self.total_output_tokens),
            concurrency: self.max_concurrency,
            request_rate: self.request_rate,
            requests: Some(self.num_prompts),
            ..UnitFacts::default()
        }
    }
}

fn rate(f: &Fields<'_>) -> Result<Option<f64>, FormatError> {
    match f.get("request_rate") {
        None => Ok(None),
        Some(Json::String(s)) if s == "inf" => Ok(None),
        Some(_) => f.number("request_rate").map_err(|_| {
            f.wrong("request_rate", "it takes a number or \"inf\"; rates that change are not read".to_string())
        }),
    }
}

/// Statistics of one latency. The number of values is that of the completed requests, also for gaps, whose own is not in
/// the file.
fn dist(f: &Fields<'_>, metric: &str, completed: u64) -> Result<Dist, FormatError> {
    // SGLang writes the whole latency out.
    let theirs = if metric == "e2el" { "e2e_latency" } else { metric };
    let get = |stat: &str| Ok(f.number(&format!("{stat}_{metric}_ms"))?.or(f.number(&format!("{stat}_{theirs}_ms"))?));
    let mean = get("mean")?;
    let p50 = get("median")?.or(get("p50")?);
    let n = if mean.is_some() || p50.is_some() { completed } else { 0 };
    Ok(Dist {
        n,
        mean,
        std: get("std")?,
        min: None,
        max: None,
        p50,
        p90: get("p90")?,
        p95: get("p95")?,
        p99: get("p99")?,
    })
}

/// What the Rust client says of the time in which all streams were busy, or what we knew of it.
fn steady(f: &Fields<'_>) -> Result<Option<f64>, FormatError> {
    match (f.get("steady_state"), origin(f)?) {
        (_, Some(origin)) => Ok(origin.output_throughput_steady),
        (Some(steady), None) => Fields::of(TOOL, steady)?.number("output_throughput"),
        (None, None) => Ok(None),
    }
}

fn origin(f: &Fields<'_>) -> Result<Option<Origin>, FormatError> {
    let Some(value) = f.get(ORIGIN) else { return Ok(None) };
    serde_json::from_value(value.clone()).map(Some).map_err(|e| f.wrong(ORIGIN, e.to_string()))
}

/// The client's name for an API.
fn backend(api: Option<&str>) -> &'static str {
    match api {
        Some("chat") => "openai-chat",
        Some("generate") => "tensorrt-llm",
        _ => "openai",
    }
}

/// `2026-11-24T06:15:00.000Z` as `20261124-061500`.
fn date(rfc3339: &str) -> String {
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    match rfc3339.split_once('T') {
        Some((day, time)) => format!("{}-{}", digits(day), digits(time.split(['.', 'Z']).next().unwrap_or_default())),
        None => rfc3339.to_string(),
    }
}

fn details(requests: &[RequestRecord]) -> Details {
    let seconds = |ns: u64| ns as f64 / 1e9;
    let input = |r: &RequestRecord| u64::from(r.input_tokens.or(r.requested_input).unwrap_or(0));
    Details {
        input_lens: requests.iter().map(input).collect(),
        output_lens: requests.iter().map(RequestRecord::output).collect(),
        ttfts: requests.iter().map(|r| r.ttft_ns().map_or(0.0, seconds)).collect(),
        start_times: requests.iter().map(|r| seconds(r.start_ns)).collect(),
        errors: requests.iter().map(error).collect(),
    }
}

/// A request that was cut off has no error of its own; an empty text would make it a good one.
fn error(r: &RequestRecord) -> String {
    match (&r.error, r.status) {
        (Some(error), _) => error.to_string(),
        (None, crate::stats::Status::Ok) => String::new(),
        (None, status) => status.as_str().to_string(),
    }
}

impl Serialize for VllmBench {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(None)?;
        map.serialize_entry("date", &self.date)?;
        map.serialize_entry("endpoint_type", &self.backend)?;
        map.serialize_entry("backend", &self.backend)?;
        map.serialize_entry("label", &self.label)?;
        map.serialize_entry("model_id", &self.model_id)?;
        map.serialize_entry("tokenizer_id", &self.tokenizer_id)?;
        map.serialize_entry("num_prompts", &self.num_prompts)?;
        match self.request_rate {
            Some(rate) => map.serialize_entry("request_rate", &rate)?,
            None => map.serialize_entry("request_rate", "inf")?,
        }
        map.serialize_entry("burstiness", &self.burstiness.unwrap_or(1.0))?;
        map.serialize_entry("max_concurrency", &self.max_concurrency)?;
        map.serialize_entry("duration", &self.duration)?;
        map.serialize_entry("completed", &self.completed)?;
        map.serialize_entry("failed", &self.failed)?;
        map.serialize_entry("total_input_tokens", &self.total_input_tokens)?;
        map.serialize_entry("total_output_tokens", &self.total_output_tokens)?;
        map.serialize_entry("request_throughput", &self.request_throughput)?;
        map.serialize_entry("request_goodput", &self.request_goodput)?;
        map.serialize_entry("output_throughput", &self.output_throughput)?;
        map.serialize_entry("total_token_throughput", &self.total_token_throughput)?;
        for (metric, dist) in [("ttft", &self.ttft), ("tpot", &self.tpot), ("itl", &self.itl), ("e2el", &self.e2el)] {
            let stats = [
                ("mean", dist.mean),
                ("median", dist.p50),
                ("std", dist.std),
                ("p90", dist.p90),
                ("p95", dist.p95),
                ("p99", dist.p99),
            ];
            for (stat, value) in stats {
                map.serialize_entry(&format!("{stat}_{metric}_ms"), &value)?;
            }
        }
        if let Some(Details { input_lens, output_lens, ttfts, start_times, errors }) = &self.details {
            map.serialize_entry("input_lens", input_lens)?;
            map.serialize_entry("output_lens", output_lens)?;
            map.serialize_entry("ttfts", ttfts)?;
            map.serialize_entry("start_times", start_times)?;
            map.serialize_entry("errors", errors)?;
        }
        if let Some(origin) = &self.origin {
            map.serialize_entry(ORIGIN, origin)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing;
    use super::*;

    fn subject(report: &super::super::super::Report) -> Subject<'_> {
        let unit = &report.units[0];
        Subject { unit_id: unit.unit_id, deploy_id: unit.deploy_id, facts: &unit.facts, sample: &unit.samples[0] }
    }

    #[test]
    fn what_is_written_reads_back_as_the_same_measurement() {
        let report = testing::report();
        let subject = subject(&report);
        let written = serde_json::to_string(&VllmBench::of(&subject, None)).unwrap();
        let read = VllmBench::parse(&serde_json::from_str(&written).unwrap()).unwrap().measurement();
        assert_eq!(read.facts, *subject.facts);
        assert_eq!(read.origin.as_ref().unwrap().unit_id, subject.unit_id);
        // The file has no place for these.
        let bare = |d: &Dist| Dist { min: None, max: None, ..d.clone() };
        let s = &subject.sample.summary;
        let expected = Summary {
            ttft: bare(&s.ttft),
            tpot: bare(&s.tpot),
            itl: bare(&s.itl),
            e2el: bare(&s.e2el),
            output_tokens_per_user: None,
            ..s.clone()
        };
        assert_eq!(read.summary, expected);
    }

    #[test]
    fn dates_rates_and_details_are_theirs() {
        let report = testing::report();
        let mut facts = report.units[0].facts.clone();
        facts.request_rate = Some(2.5);
        let subject = Subject { facts: &facts, ..subject(&report) };
        let failed = RequestRecord {
            status: crate::stats::Status::Cancelled,
            first_token_ns: None,
            last_token_ns: None,
            output_tokens: None,
            token_events: 0,
            ..crate::stats::record::tests::request(1, 500_000_000, 0, 1, 8)
        };
        let requests = [crate::stats::record::tests::request(0, 0, 50_000_000, 2_000_000_000, 8), failed];
        let json = serde_json::to_value(VllmBench::of(&subject, Some(&requests))).unwrap();
        assert_eq!(json["date"], "20261124-061500");
        assert_eq!((&json["request_rate"], &json["label"]), (&Json::from(2.5), &Json::from("hf-vllm")));
        assert_eq!(json["ttfts"], serde_json::json!([0.05, 0.0]));
        assert_eq!(json["start_times"], serde_json::json!([0.0, 0.5]));
        assert_eq!(json["errors"], serde_json::json!(["", "cancelled"]));
        assert_eq!(json["output_lens"], serde_json::json!([8, 0]));
    }

    /// Files as the tools wrote them: 4 streams, 16 requests of 200 tokens, TTFT 50 ms, ITL 10 ms.
    #[test]
    fn files_of_both_clients_are_read() {
        for text in [
            include_str!("../../../tests/data/peers/vllm-bench-serve-0.32.json"),
            include_str!("../../../tests/data/peers/vllm-bench-rust.json"),
        ] {
            let read = VllmBench::parse(&serde_json::from_str(text).unwrap()).unwrap().measurement();
            let (facts, s) = (&read.facts, &read.summary);
            assert_eq!((facts.model.as_str(), facts.concurrency, facts.request_rate), ("truth", Some(4), None));
            assert_eq!((facts.osl, facts.api.as_deref(), s.n_ok, s.n_error), (Some(200), Some("chat"), 16, 0));
            assert!(s.ttft.p50.is_some_and(|ms| (50.0..52.0).contains(&ms)), "{:?}", s.ttft);
            assert!(s.tpot.p99.is_some_and(|ms| (9.9..10.1).contains(&ms)), "{:?}", s.tpot);
            assert!(s.output_throughput.is_some_and(|t| (390.0..393.0).contains(&t)));
            assert!(read.origin.is_none());
        }
    }

    #[test]
    fn a_file_that_is_something_else_says_what_is_missing() {
        let parse = |text: &str| VllmBench::parse(&serde_json::from_str(text).unwrap()).unwrap_err().to_string();
        assert!(parse("[]").contains("it is a list"), "{}", parse("[]"));
        assert!(parse("{\"completed\": 3}").contains("`model_id` is missing"));
        let odd = parse("{\"completed\": \"three\"}");
        assert!(odd.contains("`completed`") && odd.contains("a whole number"), "{odd}");
    }
}
