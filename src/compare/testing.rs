//! Small sides for the tests of this module.

use std::collections::BTreeMap;

use super::side::{SideCell, SideSample};
use crate::digest::{DeployId, UnitId};
use crate::plan::Status;
use crate::store::record::{Provenance, RunRecord, RunUnit, SCHEMA, SampleRecord, UnitFacts, UnitResult};
use crate::value::Value;

/// A cell with samples of (run, start, mean TTFT in milliseconds).
pub fn cell(engine: &str, concurrency: i64, samples: &[(&str, u32, f64)]) -> SideCell {
    let cell = BTreeMap::from([
        ("model".to_string(), Value::str("m")),
        ("method".to_string(), Value::str("hf")),
        ("engine".to_string(), Value::str(engine)),
        ("concurrency".to_string(), Value::Int(concurrency)),
    ]);
    let sample = |(run, start, value): &(&str, u32, f64)| SideSample {
        run: (*run).to_string(),
        start: Some(*start),
        values: BTreeMap::from([("mean_ttft".to_string(), *value)]),
        ..SideSample::default()
    };
    SideCell {
        name: format!("m-hf-{engine} conc {concurrency}"),
        cell,
        labels: Vec::new(),
        samples: samples.iter().map(sample).collect(),
    }
}

/// A sample record with everything measured.
pub fn sample(run: &str, number: u32, start: u32, ttft: f64) -> SampleRecord {
    let summary = crate::report::testing::summary(ttft, 1000.0);
    SampleRecord {
        sample: number,
        run: run.into(),
        attempt: 1,
        start,
        round: 1,
        started_at: "2026-11-01T02:00:00.000Z".into(),
        finished_at: "2026-11-01T02:01:00.000Z".into(),
        seconds: 60.0,
        valid: true,
        invalid_reason: None,
        simulated: false,
        summary,
        resources: Default::default(),
        server: Default::default(),
        load: Default::default(),
        watch: Default::default(),
        startup: Default::default(),
        cost_usd: None,
        client_error_ttft_ms: None,
        client_error_itl_ms: None,
        sanity: None,
        prefetching: false,
        provenance: Provenance {
            engine_version: Some("0.27".into()),
            driver: Some("550".into()),
            ..Provenance::default()
        },
        files: Default::default(),
    }
}

/// Two runs of one cell; the second stands on the sample of the first and on one of its own.
pub fn two_runs_on_one_sample() -> (Vec<RunRecord>, UnitResult) {
    let (unit_id, deploy_id) = (UnitId::of(&Value::str("u")), DeployId::of(&Value::str("d")));
    let names = ["20261101T020000Z-n", "20261102T020000Z-n"];
    let unit = |samples: &[u32]| RunUnit {
        unit_id,
        deploy_id,
        directory: "m_hf_vllm".into(),
        container: "m-hf-vllm".into(),
        name: "m-hf-vllm conc 1".into(),
        facts: UnitFacts {
            cell: BTreeMap::from([("engine".to_string(), Value::str("vllm"))]),
            labels: vec![("precision".into(), "fp8".into())],
            hardware: "h100".into(),
            ..UnitFacts::default()
        },
        slo: None,
        repeats: 2,
        status: Status::Cached,
        samples: samples.to_vec(),
        invalid_samples: Vec::new(),
        probe: false,
        outcome: None,
    };
    let run = |name: &str, samples: &[u32]| RunRecord {
        units: vec![unit(samples)],
        ..crate::report::testing::run_record(name)
    };
    let runs = vec![run(names[0], &[1]), run(names[1], &[1, 2])];
    let samples = vec![sample(names[0], 1, 1, 100.0), sample(names[1], 2, 2, 104.0)];
    (runs, UnitResult { schema: SCHEMA, unit_id, deploy_id, samples, attempts: Vec::new(), last_number: 0 })
}
