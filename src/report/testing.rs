//! A small report for the tests of every format.

use super::{EngineStart, Report, ReportUnit, Spread};
use crate::digest::{DeployId, UnitId};
use crate::event::{Counts, FailureClass, Outcome, Stage};
use crate::plan::Status;
use crate::spec::policy::{Cost, Gate, Slo};
use crate::stats::{Dist, Summary};
use crate::store::record::{
    AttemptRecord, GpuRecord, Provenance, Resources, RunRecord, RunUnit, RunUnsupported, SCHEMA, SampleRecord,
    UnitFacts, UnitResult,
};
use crate::value::Value;

fn facts(cell: &str) -> UnitFacts {
    let cell: super::super::store::record::CellRecord = serde_json::from_str(cell).unwrap();
    let text = |name: &str| cell.get(name).map(ToString::to_string);
    let number = |name: &str| cell.get(name).and_then(Value::as_u64).map(|n| n as u32);
    UnitFacts {
        experiment: "demo".into(),
        model: text("model").unwrap_or_default(),
        method: text("method").unwrap_or_default(),
        engine: text("engine").unwrap_or_default(),
        hardware: "h100-sxm-80gb".into(),
        gpus: 1,
        isl: number("tokens.input"),
        osl: number("tokens.output"),
        concurrency: number("concurrency"),
        cell,
        ..UnitFacts::default()
    }
}

/// A unit without samples.
pub fn unit(name: &str, cell: &str) -> ReportUnit {
    ReportUnit {
        probe: false,
        unit_id: UnitId::of(&Value::str(name)),
        deploy_id: DeployId::of(&Value::str("d")),
        directory: "org--m_hf_vllm".into(),
        name: name.into(),
        facts: facts(cell),
        samples: vec![],
        attempts: vec![],
        outcome: None,
        slo: Slo::default(),
        spread: None,
    }
}

fn dist(p50: f64) -> Dist {
    let [mean, p90, p95, p99] = [1.1, 1.5, 1.7, 2.0].map(|f| Some(p50 * f));
    Dist { n: 100, mean, std: Some(3.0), min: Some(p50 / 2.0), max: Some(p50 * 3.0), p50: Some(p50), p90, p95, p99 }
}

/// A run without units that ended well.
pub fn run_record(run: &str) -> RunRecord {
    RunRecord {
        schema: SCHEMA,
        run: run.into(),
        timestamp: run.split_once('-').map_or(run, |(stamp, _)| stamp).into(),
        experiment: "demo".into(),
        description: None,
        tags: Vec::new(),
        simulated: false,
        started_at: "2026-11-24T06:15:00.000Z".into(),
        finished_at: Some("2026-11-24T06:20:00.000Z".into()),
        died: false,
        hardware: vec![("h100-sxm-80gb".into(), "detected".into())],
        units: Vec::new(),
        searches: Vec::new(),
        unsupported: Vec::new(),
        slo: Slo::default(),
        cost: Cost::default(),
        gate: Gate::default(),
        control: None,
        warnings: Vec::new(),
        counts: None,
        exit_code: Some(0),
        provenance: provenance(),
    }
}

/// What a sample with this median TTFT measured.
pub fn summary(ttft: f64, throughput: f64) -> Summary {
    Summary {
        n_sent: 100,
        n_ok: 100,
        n_error: 0,
        n_cancelled: 0,
        error_rate: 0.0,
        input_tokens: 102_400,
        output_tokens: 12_800,
        isl_actual_mean: Some(1024.0),
        osl_actual_mean: Some(128.0),
        output_tokens_source: None,
        cached_input_tokens: None,
        duration_s: 12.5,
        makespan_s: None,
        request_throughput: Some(8.0),
        output_throughput: Some(throughput),
        total_token_throughput: Some(throughput * 9.0),
        output_throughput_steady: None,
        steady_reached: true,
        ttft: dist(ttft),
        ttfo: Dist::default(),
        tpot: dist(7.126),
        itl: dist(7.0),
        e2el: dist(900.0),
        e2el_intended: Dist::default(),
        queue_delay: Dist::default(),
        ttft_adj: Dist::default(),
        e2el_adj: Dist::default(),
        connect: Dist::default(),
        tokens_per_event: None,
        request_goodput: Some(7.5),
        output_throughput_per_gpu: Some(throughput),
        output_tokens_per_user: Some(140.0),
        queue_delay_p99_ms: None,
        recv_lag_p99_ms: None,
        client_cpu_fraction: None,
        wrong_output_length: 0,
        errors: vec![],
    }
}

pub fn sample(number: u32, ttft: f64, throughput: f64, invalid: Option<&str>) -> SampleRecord {
    SampleRecord {
        sample: number,
        run: RUN.into(),
        attempt: 1,
        start: 1,
        round: number,
        started_at: "2026-11-24T06:15:00.000Z".into(),
        finished_at: "2026-11-24T06:15:13.000Z".into(),
        seconds: 13.0,
        valid: invalid.is_none(),
        invalid_reason: invalid.map(String::from),
        simulated: false,
        summary: summary(ttft, throughput),
        resources: Resources::default(),
        sanity: None,
        prefetching: false,
        server: Default::default(),
        load: Default::default(),
        watch: Default::default(),
        startup: Default::default(),
        cost_usd: None,
        client_error_ttft_ms: Some(0.05),
        client_error_itl_ms: Some(0.02),
        provenance: provenance(),
        files: Default::default(),
    }
}

fn provenance() -> Provenance {
    Provenance {
        tool_version: "0.1.0".into(),
        engine_version: Some("0.33.0".into()),
        host: Some("bench-1".into()),
        gpus: vec![GpuRecord { name: "NVIDIA H100 80GB HBM3".into(), uuid: Some("GPU-1".into()) }],
        driver: Some("580.95.05".into()),
        ..Provenance::default()
    }
}

fn attempt(cause: &str, stage: Stage, blocked: bool) -> AttemptRecord {
    AttemptRecord {
        sample: 1,
        run: RUN.into(),
        attempt: 1,
        start: 1,
        started_at: "2026-11-24T06:16:00.000Z".into(),
        finished_at: "2026-11-24T06:16:30.000Z".into(),
        stage,
        class: FailureClass::Deterministic,
        cause: cause.into(),
        blocked,
        simulated: false,
        log_tail: Some("ERROR <torch> OutOfMemoryError & more\u{1b}[0m".into()),
        provenance: provenance(),
    }
}

const RUN: &str = "20261124T061500Z-demo";

/// Five units, each with another end.
pub fn report() -> Report {
    let cell = |engine: &str, c: u32, q: &str| {
        format!(
            r#"{{"model":"org/m","method":"hf","engine":"{engine}","tokens.input":1024,"tokens.output":128,"concurrency":{c},"quantization":"{q}"}}"#
        )
    };
    let oom = "CUDA out of memory\nsee the log";
    let mut units = [
        unit("m-hf-vllm c=1 bf16", &cell("vllm", 1, "none")),
        unit("m-hf-vllm c=8 bf16", &cell("vllm", 8, "none")),
        unit("m-hf-vllm c=1 fp8", &cell("vllm", 1, "fp8")),
        unit("m-hf-sglang c=1 bf16", &cell("sglang", 1, "none")),
        unit("m-hf-sglang c=8 bf16", &cell("sglang", 8, "none")),
    ];
    for (i, unit) in units.iter_mut().enumerate() {
        unit.facts.labels = vec![("precision".into(), if i == 2 { "fp8" } else { "bf16" }.into())];
    }
    units[0].samples =
        (1..).zip([99.0, 50.0, 52.0, 54.0]).map(|(n, ttft)| sample(n, ttft, 1000.0 + ttft, None)).collect();
    units[1].samples = vec![sample(1, 40.0, 5000.0, None)];
    units[2].samples = vec![sample(1, 90.0, 900.0, Some("error rate 0.12 is above 0.01"))];
    units[3].attempts = vec![attempt(oom, Stage::Measure, false)];
    units[4].attempts = vec![attempt("the image needs CUDA ≥ 12.8", Stage::Start, true)];
    let outcomes = [
        Outcome::Measured,
        Outcome::Cached,
        Outcome::Invalid { reason: "error rate 0.12 is above 0.01".into() },
        Outcome::Failed { stage: Stage::Measure, class: FailureClass::Deterministic, cause: oom.into() },
        Outcome::Blocked { cause: "the image needs CUDA ≥ 12.8".into() },
    ];
    let planned: [(&[u32], &[u32]); 5] = [(&[2, 3, 4], &[]), (&[1], &[]), (&[], &[1]), (&[], &[]), (&[], &[])];
    let mut counts = Counts::default();
    let mut run_units = Vec::new();
    for ((unit, outcome), (samples, invalid)) in units.iter().zip(outcomes).zip(planned) {
        counts.add(&outcome);
        run_units.push(RunUnit {
            unit_id: unit.unit_id,
            deploy_id: unit.deploy_id,
            directory: unit.directory.clone(),
            container: "m-hf-vllm".into(),
            name: unit.name.clone(),
            facts: unit.facts.clone(),
            slo: None,
            repeats: 3,
            status: Status::New,
            samples: samples.to_vec(),
            invalid_samples: invalid.to_vec(),
            probe: false,
            outcome: Some(outcome),
        });
    }
    counts.unsupported += 1;
    let run = RunRecord {
        description: Some("two engines & <one> model".into()),
        tags: vec!["nightly".into()],
        units: run_units,
        unsupported: vec![RunUnsupported {
            cell: facts(&cell("trtllm", 1, "fp4")).cell,
            labels: vec![],
            reason: "the checkpoint is not fp4".into(),
        }],
        warnings: vec!["the image tag floats | no lock".into()],
        counts: Some(counts),
        exit_code: Some(5),
        ..run_record(RUN)
    };
    Report::of_run(run, |_, id| {
        let unit = units.iter().find(|u| u.unit_id == id)?;
        Some(UnitResult {
            samples: unit.samples.clone(),
            attempts: unit.attempts.clone(),
            ..UnitResult::empty(id, unit.deploy_id)
        })
    })
}

/// Two stacks under three loads of four pairs of lengths, all measured three times, with requests and engine starts.
pub fn wide_report() -> Report {
    let mut report = Report { title: "wide".into(), ..Report::default() };
    for (e, engine) in ["vllm", "sglang"].into_iter().enumerate() {
        for (l, (isl, osl)) in [(128, 128), (1024, 128), (128, 1024), (1024, 1024)].into_iter().enumerate() {
            for c in [1u32, 8, 64] {
                report.units.push(measured(e as f64, l as f64, engine, (isl, osl, c)));
            }
        }
        let start = |start, seconds| EngineStart {
            deploy_id: DeployId::of(&Value::str(engine)),
            container: format!("m-hf-{engine}"),
            start,
            seconds: Some(seconds),
            stages: vec![(Stage::Pull, 3.0), (Stage::Ready, seconds)],
            engine_version: Some("1.0".into()),
            failure: None,
        };
        report.starts.extend([start(1, 40.0 + e as f64), start(2, 31.5)]);
    }
    report
}

fn measured(e: f64, l: f64, engine: &str, (isl, osl, c): (u32, u32, u32)) -> ReportUnit {
    let cell = format!(
        r#"{{"model":"org/m","method":"hf","engine":"{engine}","tokens.input":{isl},"tokens.output":{osl},"concurrency":{c}}}"#
    );
    let mut unit = unit(&format!("m-hf-{engine} {isl} {osl} c={c}"), &cell);
    let load = f64::from(c);
    let ttft = 30.0 * (1.0 + e / 10.0) * (1.0 + l) * load.powf(0.4);
    for n in 1..=3 {
        let wobble = 1.0 + 0.01 * f64::from(n);
        let mut sample = sample(n, ttft * wobble, 900.0 * load.powf(0.7) / (1.0 + l) / (1.0 + e / 10.0), None);
        sample.summary.output_tokens_per_user = Some(150.0 / load.powf(0.3) / (1.0 + e / 9.0) * wobble);
        unit.samples.push(sample);
    }
    let ms = 1_000_000;
    let request = |i: u64| {
        let first = ((ttft * (0.8 + 0.01 * i as f64)) * ms as f64) as u64;
        crate::stats::record::tests::request(i, 0, first, first + (7 + i % 5) * 20 * ms, 21)
    };
    let mut spread = Spread::default();
    spread.add(&(0..60).map(request).collect::<Vec<_>>());
    unit.spread = Some(spread);
    unit
}
