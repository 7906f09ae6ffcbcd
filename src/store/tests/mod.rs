//! The promises of the tree: whole or not at all, numbers used once, nothing lost to a kill, nothing deleted that was
//! damaged.

mod cost;
mod damage;
mod gc;

use std::fs;
use std::path::Path;

use jiff::Timestamp;

use super::csv_file::{ResultsCsv, header};
use super::json::to_json;
use super::record::*;
use super::row::{Field, Measured, Row, RowSource, columns};
use super::*;
use crate::digest::DeployId;
use crate::event::{FailureClass, Stage};
use crate::plan::Status;
use crate::plan::catalog::Catalog;
use crate::value::Value;

const STACK: &str = "org--m_hf_vllm";

fn document(n: i64) -> Value {
    serde_json::from_str(&format!(r#"{{"n":{n},"rate":0.1,"tokens":{{"input":1024}}}}"#)).unwrap()
}

pub(crate) fn unit_record(n: i64) -> UnitRecord {
    let (unit, deploy) = (document(n), document(-1));
    let facts = UnitFacts { model: "org/m".into(), method: "hf".into(), engine: "vllm".into(), ..Default::default() };
    UnitRecord {
        schema: SCHEMA,
        unit_id: UnitId::of(&unit),
        deploy_id: DeployId::of(&deploy),
        unit,
        deploy,
        simulated: false,
        facts,
    }
}

fn summary() -> crate::stats::Summary {
    let dist = serde_json::json!({"n": 3, "mean": 12.5, "p50": 0.1, "p99": 1e-7});
    let empty = serde_json::json!({"n": 0});
    serde_json::from_value(serde_json::json!({
        "n_sent": 4, "n_ok": 3, "n_error": 1, "n_cancelled": 0, "error_rate": 0.25, "input_tokens": 30,
        "output_tokens": 20, "duration_s": 2.0, "steady_reached": false, "ttft": dist, "ttfo": empty, "tpot": dist,
        "itl": empty, "e2el": empty, "e2el_intended": empty, "queue_delay": empty, "ttft_adj": empty,
        "e2el_adj": empty, "connect": empty, "wrong_output_length": 0, "errors": []
    }))
    .unwrap()
}

pub(crate) fn sample(number: u32, run: &str) -> SampleRecord {
    SampleRecord {
        sample: number,
        run: run.into(),
        attempt: 1,
        start: 1,
        round: 1,
        started_at: "2026-11-24T06:15:00.000Z".into(),
        finished_at: format!("2026-11-24T06:15:{number:02}.000Z"),
        seconds: 1.5,
        valid: true,
        invalid_reason: None,
        simulated: false,
        summary: summary(),
        resources: Resources::default(),
        sanity: None,
        prefetching: false,
        server: Default::default(),
        load: Default::default(),
        watch: Default::default(),
        startup: Default::default(),
        cost_usd: Some(0.5),
        client_error_ttft_ms: None,
        client_error_itl_ms: None,
        provenance: Provenance { tool_version: "0.1.0".into(), ..Provenance::default() },
        files: Default::default(),
    }
}

fn attempt(number: u32, run: &str, cause: &str) -> AttemptRecord {
    AttemptRecord {
        sample: number,
        run: run.into(),
        attempt: 1,
        start: 1,
        started_at: "2026-11-24T06:15:00.000Z".into(),
        finished_at: "2026-11-24T06:15:59.000Z".into(),
        stage: Stage::Measure,
        class: FailureClass::Deterministic,
        cause: cause.into(),
        blocked: false,
        simulated: false,
        log_tail: None,
        provenance: Provenance::default(),
    }
}

fn run_record(run: &str, timestamp: &str, units: &[UnitRecord]) -> RunRecord {
    let unit = |u: &UnitRecord| RunUnit {
        unit_id: u.unit_id,
        deploy_id: u.deploy_id,
        directory: STACK.into(),
        container: "org--m-hf-vllm".into(),
        name: "u".into(),
        facts: u.facts.clone(),
        slo: None,
        repeats: 2,
        status: Status::New,
        samples: vec![],
        invalid_samples: vec![],
        probe: false,
        outcome: None,
    };
    RunRecord {
        schema: SCHEMA,
        run: run.into(),
        timestamp: timestamp.into(),
        experiment: "e".into(),
        description: None,
        tags: vec![],
        simulated: false,
        started_at: "2026-11-24T06:15:00.000Z".into(),
        finished_at: None,
        died: false,
        hardware: vec![],
        units: units.iter().map(unit).collect(),
        searches: vec![],
        unsupported: vec![],
        slo: Default::default(),
        cost: Default::default(),
        gate: Default::default(),
        control: None,
        warnings: vec![],
        counts: None,
        exit_code: None,
        provenance: Provenance::default(),
    }
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("artifacts"), false);
    (dir, store)
}

fn reserve(store: &Store, record: &UnitRecord) -> Box<Reservation> {
    match store.reserve(STACK, record).unwrap() {
        Lookup::Reserved(reservation) => reservation,
        Lookup::Taken => panic!("the unit is taken"),
    }
}

fn commit(reservation: &mut Reservation, run: &str) {
    let draft = reservation.draft().unwrap();
    fs::write(draft.path().join("requests.csv"), "id\n1\n").unwrap();
    let number = reservation.next_sample();
    reservation.commit(draft, sample(number, run)).unwrap();
}

fn names(dir: &Path) -> Vec<String> {
    let mut names = read_dir_names(dir);
    names.sort();
    names
}

#[test]
fn samples_are_numbered_upwards_and_read_back_exactly() {
    let (_tmp, store) = store();
    let record = unit_record(1);
    let mut r = reserve(&store, &record);
    commit(&mut r, "a");
    commit(&mut r, "a");
    drop(r);
    let mut r = reserve(&store, &record);
    assert_eq!(r.next_sample(), 3);
    commit(&mut r, "b");
    let Stored::Present { unit, result } = store.read_unit(STACK, &record.unit_id).unwrap() else { panic!() };
    assert_eq!(*unit, record);
    let bare = |s: &SampleRecord| SampleRecord { files: Default::default(), ..s.clone() };
    let samples: Vec<SampleRecord> = result.samples.iter().map(bare).collect();
    assert_eq!(samples, [sample(1, "a"), sample(2, "a"), sample(3, "b")]);
    assert_eq!(result.samples[0].files.keys().collect::<Vec<_>>(), ["requests.csv"]);
    let dir = store.unit_dir(STACK, &record.unit_id);
    assert_eq!(names(&dir), ["result.json", "sample-1", "sample-2", "sample-3", "unit.json"]);
    assert_eq!(dir.file_name().unwrap().to_str().unwrap(), record.unit_id.short(16));
    assert_eq!(fs::read_to_string(dir.join("sample-3/requests.csv")).unwrap(), "id\n1\n");
}

#[test]
fn simulated_results_have_a_tree_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let record = unit_record(1);
    let simulated = Store::open(dir.path(), true);
    commit(&mut reserve(&simulated, &record), "a");
    assert!(dir.path().join("simulated").join(STACK).join("units").is_dir());
    let real = Store::open(dir.path(), false);
    assert_eq!(real.read_unit(STACK, &record.unit_id).unwrap(), Stored::Absent);
    assert!(real.stacks().is_empty());
    assert_eq!(simulated.stacks(), [STACK]);
}

#[test]
fn a_unit_has_one_holder() {
    let (_tmp, store) = store();
    let record = unit_record(1);
    let held = reserve(&store, &record);
    assert!(matches!(store.reserve(STACK, &record).unwrap(), Lookup::Taken));
    drop(held);
    reserve(&store, &record);
}

/// A sample's directory as it is before its record is written.
fn uncommitted(dir: &Path) {
    fs::create_dir(dir).unwrap();
    fs::write(dir.join(super::aside::UNCOMMITTED), "").unwrap();
}

/// Every state that a kill during a commit can leave, made by hand.
#[test]
fn a_kill_at_any_point_of_a_commit_loses_nothing_and_leaves_nothing() {
    let points: &[fn(&Path)] = &[
        |dir| fs::create_dir(dir.join(".tmp-sample-2")).unwrap(),
        |dir| {
            fs::create_dir(dir.join(".tmp-sample-2")).unwrap();
            fs::write(dir.join(".tmp-sample-2/requests.csv"), "torn").unwrap();
        },
        |dir| uncommitted(&dir.join("sample-2")),
        |dir| {
            uncommitted(&dir.join("sample-2"));
            fs::write(dir.join(".tmp-result.json"), "{\"schema\": 1, \"uni").unwrap();
        },
    ];
    for point in points {
        let (_tmp, store) = store();
        let record = unit_record(1);
        commit(&mut reserve(&store, &record), "a");
        let dir = store.unit_dir(STACK, &record.unit_id);
        point(&dir);
        // What is committed counts before anything is cleaned up.
        let state = store.states(&[(STACK, record.unit_id)]).remove(0).unwrap();
        assert_eq!(state.valid_samples.len(), 1);
        assert_eq!(state.damaged, None);
        let mut r = reserve(&store, &record);
        assert_eq!(names(&dir), ["result.json", "sample-1", "unit.json"]);
        assert_eq!(r.next_sample(), 2);
        commit(&mut r, "b");
        assert_eq!(r.result().samples.len(), 2);
    }
}

#[test]
fn a_kill_before_the_first_result_leaves_a_new_unit() {
    let points: &[fn(&Path)] = &[
        |dir| uncommitted(&dir.join("sample-1")),
        |dir| fs::write(dir.join(".tmp-unit.json"), "{").unwrap(),
        |dir| fs::write(dir.join("unit.json"), to_json(&unit_record(1))).unwrap(),
        |dir| {
            fs::write(dir.join("unit.json"), to_json(&unit_record(1))).unwrap();
            uncommitted(&dir.join("sample-1"));
            fs::write(dir.join(".tmp-result.json"), "{").unwrap();
        },
    ];
    for point in points {
        let (_tmp, store) = store();
        let record = unit_record(1);
        let dir = store.unit_dir(STACK, &record.unit_id);
        fs::create_dir_all(&dir).unwrap();
        point(&dir);
        let state = store.states(&[(STACK, record.unit_id)]).remove(0).unwrap_or_default();
        assert_eq!(state, Default::default());
        let mut r = reserve(&store, &record);
        assert_eq!((r.next_sample(), r.set_aside()), (1, None));
        commit(&mut r, "a");
        assert_eq!(names(&dir), ["result.json", "sample-1", "unit.json"]);
    }
}

#[test]
fn a_reservation_alone_writes_nothing() {
    let (_tmp, store) = store();
    let record = unit_record(1);
    let r = reserve(&store, &record);
    assert!(store.is_taken(&record.unit_id).unwrap());
    drop(r);
    assert!(!store.is_taken(&record.unit_id).unwrap());
    assert_eq!(store.states(&[(STACK, record.unit_id)]), [None]);
}

#[test]
fn a_newer_schema_is_an_error_and_no_damage() {
    let (_tmp, store) = store();
    let record = unit_record(1);
    commit(&mut reserve(&store, &record), "a");
    let path = store.unit_dir(STACK, &record.unit_id).join("result.json");
    fs::write(&path, r#"{"schema": 99, "something": "else"}"#).unwrap();
    let e = store.reserve(STACK, &record).unwrap_err();
    assert!(matches!(e, StoreError::Newer { found: 99, .. }), "{e}");
    assert!(path.exists());
}

#[test]
fn the_catalog_tells_samples_failures_and_documents() {
    let (_tmp, store) = store();
    let (a, b, c) = (unit_record(1), unit_record(2), unit_record(3));
    let mut r = reserve(&store, &a);
    r.record_failure(attempt(1, "a", "boom")).unwrap();
    commit(&mut r, "a");
    let draft = r.draft().unwrap();
    let invalid = SampleRecord { valid: false, invalid_reason: Some("late".into()), ..sample(2, "a") };
    r.commit(draft, invalid).unwrap();
    let mut r = reserve(&store, &b);
    r.record_failure(attempt(1, "a", "boom")).unwrap();

    let states = store.states(&[(STACK, a.unit_id), (STACK, c.unit_id), (STACK, b.unit_id)]);
    let first = states[0].as_ref().unwrap();
    assert_eq!(first.valid_samples, [(1, "2026-11-24T06:15:01Z".parse::<Timestamp>().unwrap())]);
    assert_eq!((first.invalid, first.last_invalid.as_deref()), (1, Some("late")));
    assert_eq!(first.last_failure, None, "a sample came after the failure");
    assert_eq!(first.mean_sample_seconds, Some(1.5));
    assert_eq!(states[1], None);
    let failure = states[2].as_ref().unwrap().last_failure.as_ref().unwrap();
    assert_eq!((failure.class, failure.stage, &*failure.cause), (FailureClass::Deterministic, Stage::Measure, "boom"));

    let mut documents = store.documents();
    documents.sort_by_key(|d| d.unit.as_map().unwrap()["n"].as_i64());
    assert_eq!(documents.iter().map(|d| d.unit_id).collect::<Vec<_>>(), [a.unit_id, b.unit_id]);
    assert_eq!((&documents[0].unit, &*documents[0].directory), (&a.unit, STACK));
}

#[test]
fn names_of_a_run_are_claimed_together_and_a_taken_second_is_skipped() {
    let (_tmp, store) = store();
    let now: Timestamp = "2026-11-24T06:15:00Z".parse().unwrap();
    let record = |run: &str, t: &str| run_record(run, t, &[]);
    fs::create_dir_all(store.stack_dir(STACK)).unwrap();
    fs::write(store.csv_path(STACK, "20261124T061501Z"), "someone's").unwrap();
    let stacks = [STACK.to_string()];
    let (first, plan) = store.create_run("a b/c", now, &stacks, record).unwrap();
    assert_eq!(first.timestamp(), "20261124T061500Z");
    assert_eq!(plan.run, "20261124T061500Z-a-b-c");
    let (second, _) = store.create_run("a b/c", now, &stacks, record).unwrap();
    assert_eq!(second.timestamp(), "20261124T061502Z", "second 1 has a results file of someone else");
    assert_eq!(store.runs(), ["20261124T061500Z-a-b-c", "20261124T061502Z-a-b-c"]);
    assert!(store.is_live("20261124T061500Z-a-b-c").unwrap());

    let path = store.csv_path(STACK, "20261124T061500Z");
    assert_eq!(fs::read_to_string(&path).unwrap(), header());
    let mut over = first.finish(&RunRecord { finished_at: Some("t".into()), ..plan }).unwrap();
    let files = over.files();
    assert!(store.is_live("20261124T061500Z-a-b-c").unwrap(), "its summaries are still to be written");
    over.seal().unwrap();
    assert!(!path.exists(), "a results file without rows does not stay");
    assert!(!store.is_live("20261124T061500Z-a-b-c").unwrap());
    assert!(files.plan().exists());
    assert_eq!(store.recover().unwrap(), [], "one run is over and the other is alive");
}

#[test]
fn a_dead_run_is_completed_from_its_units() {
    let (_tmp, store) = store();
    let now: Timestamp = "2026-11-24T06:15:00Z".parse().unwrap();
    let (a, b) = (unit_record(1), unit_record(2));
    let stacks = [STACK.to_string()];
    let units = [a.clone(), b.clone()];
    let (mut run, plan) = store.create_run("e", now, &stacks, |r, t| run_record(r, t, &units)).unwrap();
    let mut r = reserve(&store, &a);
    commit(&mut r, &plan.run);
    let facts = &plan.units[0].facts;
    let source = |s| RowSource { unit_id: Some(a.unit_id), deploy_id: None, facts, measured: Measured::Sample(s) };
    run.csv(STACK).unwrap().append(&Row::new(&source(&r.result().samples[0]))).unwrap();
    // Committed, but the row was torn.
    commit(&mut r, &plan.run);
    r.record_failure(attempt(3, &plan.run, "two\nlines, and a \"quote\"")).unwrap();
    fs::create_dir(store.unit_dir(STACK, &a.unit_id).join(".tmp-sample-3")).unwrap();
    let path = store.csv_path(STACK, run.timestamp());
    drop((run, r));
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend_from_slice(b"abc,\"torn");
    fs::write(&path, bytes).unwrap();

    let recovered = store.recover().unwrap();
    assert_eq!(recovered, [recover::Recovered { run: plan.run.clone(), samples: 2, rows_added: 2, problem: None }]);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 4, "{text}");
    let mut reader = csv::Reader::from_path(&path).unwrap();
    let rows: Vec<csv::StringRecord> = reader.records().map(|r| r.unwrap()).collect();
    let status = columns().iter().position(|c| c.name == "status").unwrap();
    assert_eq!(rows.iter().map(|r| &r[status]).collect::<Vec<_>>(), ["measured", "measured", "failed"]);
    let reason = columns().iter().position(|c| c.name == "invalid_reason").unwrap();
    assert_eq!(&rows[2][reason], "two lines, and a \"quote\"");

    let plan = store.read_run(&plan.run).unwrap();
    assert!(plan.died && plan.finished_at.is_some());
    assert_eq!(plan.units[0].samples, [1, 2]);
    assert_eq!(plan.units[0].outcome, Some(crate::event::Outcome::Measured));
    assert!(matches!(&plan.units[1].outcome, Some(crate::event::Outcome::NotRun { .. })));
    assert_eq!(names(&store.unit_dir(STACK, &a.unit_id)), ["result.json", "sample-1", "sample-2", "unit.json"]);
    assert_eq!(store.recover().unwrap(), [], "once is enough");
}

#[test]
fn a_run_killed_before_its_plan_leaves_nothing() {
    let (_tmp, store) = store();
    let TryLock::Held(lock) = Lock::attempt(&store.run_lock_path("20261124T061500Z-e")).unwrap() else { panic!() };
    fs::create_dir_all(store.run_files("20261124T061500Z-e").dir()).unwrap();
    assert_eq!(store.recover().unwrap(), []);
    assert!(store.run_files("20261124T061500Z-e").dir().exists(), "its process is alive");
    drop(lock);
    assert_eq!(store.recover().unwrap(), []);
    assert!(!store.run_files("20261124T061500Z-e").dir().exists());
    assert!(read_dir_names(&store.locks_dir()).is_empty());
}

#[test]
fn results_of_another_tool_version_are_written_anew() {
    let (_tmp, store) = store();
    let path = store.csv_path(STACK, "20261124T061500Z");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "old,columns\n1,2\n").unwrap();
    let (csv, rows) = ResultsCsv::reopen(&path).unwrap().unwrap();
    assert!(rows.is_empty());
    assert!(ResultsCsv::reopen(&path).unwrap().is_none(), "it is open here");
    drop(csv);
    assert_eq!(fs::read_to_string(&path).unwrap(), header());
}

#[test]
fn the_header_is_the_published_one() {
    assert_eq!(
        header(),
        "unit_id,deploy_id,sample,experiment,run,started_at,model,revision,method,engine,engine_version,image,\
         image_digest,hardware,gpus,tensor_parallel,pipeline_parallel,data_parallel,dtype,quantization,api,isl,osl,\
         concurrency,request_rate,arrival,requests,seed,tool_version,n_sent,n_ok,n_error,n_cancelled,error_rate,\
         input_tokens,output_tokens,isl_actual_mean,osl_actual_mean,output_tokens_source,cached_input_tokens,\
         duration_s,request_throughput,output_throughput,total_token_throughput,output_throughput_steady,\
         steady_reached,mean_ttft_ms,mean_tpot_ms,mean_itl_ms,mean_e2el_ms,std_ttft_ms,std_tpot_ms,std_itl_ms,\
         std_e2el_ms,p50_ttft_ms,p50_tpot_ms,p50_itl_ms,p50_e2el_ms,p90_ttft_ms,p90_tpot_ms,p90_itl_ms,p90_e2el_ms,\
         p95_ttft_ms,p95_tpot_ms,p95_itl_ms,p95_e2el_ms,p99_ttft_ms,p99_tpot_ms,p99_itl_ms,p99_e2el_ms,\
         request_goodput,output_throughput_per_gpu,output_tokens_per_user,gpu_power_mean_w,energy_j,\
         j_per_output_token,gpu_memory_peak_mib,kv_cache_usage_peak,cost_usd,usd_per_1m_output_tokens,\
         queue_delay_p99_ms,recv_lag_p99_ms,client_cpu_fraction,client_error_ttft_ms,client_error_itl_ms,valid,\
         invalid_reason,simulated,labels,parameters,status,attempt,engine_start,failure_stage,failure_class,\
         server_ttft_mean_ms,server_itl_mean_ms,server_e2el_mean_ms,sanity,sanity_text,sanity_logprob,prefetching,\
         makespan_s,server_running_mean,server_running_peak,server_waiting_mean,server_waiting_peak,\
         kv_cache_usage_mean,preemptions,prefix_hit_rate,server_queue_mean_ms,server_prefill_mean_ms,\
         server_decode_mean_ms,watch_cpu_fraction,j_per_request,output_tokens_per_joule,gpu_utilization_mean,\
         gpu_temperature_peak_c,gpu_sm_clock_mean_mhz,gpu_power_capped,host_cpu_mean,host_memory_peak_mib,\
         container_cpu_cores_mean,container_memory_peak_mib,container_throttled_s,prepare_s,ready_s,weights_s,\
         compile_s,graphs_s,kv_cache_tokens,weights_gib,warm_caches,usd_per_1m_input_tokens,usd_per_1m_tokens\n"
    );
}

#[test]
fn a_row_has_full_precision_and_empty_is_null() {
    let record = unit_record(1);
    let mut facts = record.facts.clone();
    facts.labels = vec![("precision".into(), "fp8".into())];
    facts.cell.insert("max_num_seqs".into(), Value::Int(64));
    facts.cell.insert("model".into(), Value::str("org/m"));
    let mut sample = sample(1, "r");
    sample.summary.error_rate = 0.1 + 0.2;
    let measured = Measured::Sample(&sample);
    let row = Row::new(&RowSource { unit_id: None, deploy_id: None, facts: &facts, measured });
    let json = serde_json::to_value(&row).unwrap();
    assert_eq!(json["error_rate"].as_f64(), Some(0.1 + 0.2));
    assert_eq!(json["unit_id"], serde_json::Value::Null);
    assert_eq!(json["mean_ttft_ms"], 12.5);
    assert_eq!(json["p95_ttft_ms"], serde_json::Value::Null);
    assert_eq!(json["labels"], "precision=fp8");
    assert_eq!(json["parameters"], "max_num_seqs=64");
    assert_eq!(json["usd_per_1m_output_tokens"], 25000.0);
    assert_eq!(row.get("p99_ttft_ms"), Some(&Field::Float(1e-7)));
    let error_rate = columns().iter().position(|c| c.name == "error_rate").unwrap();
    assert_eq!(row.texts().nth(error_rate).unwrap(), "0.30000000000000004");
}
