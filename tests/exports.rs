//! What a run leaves for people and other tools: exports, plots, limits applied afterwards, tables in groups.

mod support;

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value as Json;
use support::{Sandbox, rows};

fn experiment(slo: &str) -> String {
    format!(
        "name = \"small\"\n[defaults]\nrequests = 4\nengine_args = {{ ttft = \"2ms\", itl = \"1ms\" }}\n[[matrix]]\nmethod = \"sim\"\nmodel = \"org/Model-8B\"\n\
         engine = [\"vllm\", \"trtllm\"]\ntokens = {{ input = 8, output = 4 }}\nconcurrency = [1, 2]\n[run]\nrepeats = 2\n{slo}"
    )
}

fn measured() -> Sandbox {
    let s = Sandbox::new();
    s.write("small.toml", experiment("[slo]\nttft = \"10s\"\n"));
    s.run("run --quiet small.toml").success();
    s
}

fn json(bytes: &[u8]) -> Json {
    serde_json::from_slice(bytes).expect("JSON")
}

#[test]
fn rows_are_the_same_in_every_format() {
    let s = measured();
    let csv = s.run("export --format csv").success().stdout;
    assert_eq!(csv, s.run("report --format csv").success().stdout);
    assert_eq!(csv.lines().count(), 1 + 8);
    assert_eq!(csv.lines().next().unwrap(), support::columns().join(","));
    assert_eq!(s.run("export --format json").success().stdout, s.run("report --json").success().stdout);
    s.run("export small --format parquet -o out.parquet").success().says(&["wrote out.parquet"]);
    let bytes = fs::read(s.path("out.parquet")).unwrap();
    assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"));
    let kept = s.run("export --format csv --only engine=vllm").success().stdout;
    assert_eq!(kept.lines().count(), 1 + 4);
    s.run("export").exit(2).says(&["--format"]);
    s.run("export nothing-like-it --format csv").exit(4);
}

#[test]
fn other_tools_files_hold_a_sample_each() {
    let s = measured();
    s.run("export --format vllm-bench").exit(2).says(&["one file per sample", "8 samples", "--output"]);
    s.run("export --format vllm-bench -o bench --details").success().says(&["wrote 8 files to bench"]);
    let rows: BTreeMap<(String, String), BTreeMap<String, String>> = s
        .tree("artifacts")
        .iter()
        .filter(|f| f.ends_with(".csv") && f.contains("benchmark_"))
        .flat_map(|f| rows(&s.path(&format!("artifacts/{f}"))))
        .map(|r| ((r["unit_id"].clone(), r["sample"].clone()), r))
        .collect();
    let files = s.tree("bench");
    assert_eq!(files.len(), 8);
    for file in &files {
        let bench = json(s.read(&format!("bench/{file}")).as_bytes());
        let origin = &bench["llmatrix"];
        let row = &rows[&(support::text(&origin["unit_id"]), origin["sample"].to_string())];
        for (ours, theirs) in [
            ("p50_ttft_ms", "median_ttft_ms"),
            ("p99_itl_ms", "p99_itl_ms"),
            ("output_throughput", "output_throughput"),
            ("request_goodput", "request_goodput"),
            ("duration_s", "duration"),
        ] {
            assert_eq!(bench[theirs].as_f64(), row[ours].parse().ok(), "{file}: {theirs}");
        }
        assert_eq!((&bench["completed"], &bench["request_rate"]), (&Json::from(4), &Json::from("inf")));
        for array in ["ttfts", "input_lens", "output_lens", "start_times", "errors"] {
            assert_eq!(bench[array].as_array().map(Vec::len), Some(4), "{file}: {array}");
        }
    }
    // One sample needs no directory.
    let one = "--only engine=vllm,concurrency=1";
    s.run(&format!("run --quiet small.toml --force {one} --repeats 1")).success();
    let stdout = s.run(&format!("export --format aiperf {one}")).success().stdout;
    let aiperf = json(stdout.as_bytes());
    assert_eq!(aiperf["schema_version"], "1.4");
    assert_eq!(aiperf["request_count"]["avg"], 4.0);
    for p in ["p1", "p25", "p75", "p99"] {
        assert!(aiperf["time_to_first_token"][p].as_f64().is_some_and(|v| v > 0.0), "{p}");
    }
    s.run(&format!("export --format aiperf --details {one}")).exit(2).says(&["--details"]);
}

#[test]
fn duckdb_gets_a_type_for_every_column() {
    let s = measured();
    let sql = s.run("export --duckdb-sql").success().stdout;
    for column in support::columns() {
        assert!(sql.contains(&format!("'{column}': '")), "{column}");
    }
    assert!(sql.contains("artifacts/*/benchmark_*.csv"), "{sql}");
    assert!(
        s.run("export --duckdb-sql --simulated").success().stdout.contains("artifacts/simulated/*/benchmark_*.csv")
    );
}

/// Goodput by column of the rows.
fn goodput(s: &Sandbox, flags: &str) -> Vec<Option<f64>> {
    s.run(&format!("report --json {flags}"))
        .success()
        .json_lines()
        .iter()
        .map(|r| r["request_goodput"].as_f64())
        .collect()
}

#[test]
fn limits_apply_to_what_was_measured_before() {
    let s = measured();
    let all: Vec<Option<f64>> =
        s.run("report --json").success().json_lines().iter().map(|r| r["request_throughput"].as_f64()).collect();
    assert_eq!(goodput(&s, ""), all, "everything is within 10 s");
    assert_eq!(goodput(&s, "--slo ttft=1us"), vec![Some(0.0); 8]);
    assert_eq!(goodput(&s, "--slo tpot=1m,e2el=1m"), all);
    s.run("report --slo p95_ttft=1s").exit(2).says(&["ttft, ttfo, tpot, itl, e2el"]);

    // Other limits in the file: nothing is measured again, and the new run's report goes by them.
    s.write("small.toml", experiment("[slo]\nttft = \"1us\"\n[cost]\ngpu_hour_usd = { sim = 3600 }\n"));
    s.run("run small.toml").success().says(&["8 units are cached"].map(|_| "nothing was measured"));
    assert_eq!(goodput(&s, ""), vec![Some(0.0); 8]);
    let priced = s.run("report --json").success().json_lines();
    assert!(priced.iter().all(|r| r["cost_usd"].as_f64().is_some_and(|c| c > 0.0)), "{priced:?}");
    s.write("small.toml", experiment(""));
    s.run("run small.toml").success();
    assert_eq!(goodput(&s, ""), vec![None; 8]);

    // Without its requests a sample cannot be judged anew, which is said.
    let lost = s.tree("artifacts").into_iter().find(|f| f.ends_with("/requests.csv")).unwrap();
    fs::remove_file(s.path(&format!("artifacts/{lost}"))).unwrap();
    assert_eq!(goodput(&s, "--slo ttft=10s").iter().filter(|g| g.is_none()).count(), 1);
    s.run("report --slo ttft=10s").success().says(&["goodput of 1 samples", "requests.csv"]);
}

#[test]
fn groups_plots_and_a_page_where_it_is_asked_for() {
    let s = measured();
    let text = s.run("report --group engine --columns concurrency,p50_ttft_ms").success().stdout;
    let (trtllm, vllm) = (text.find("engine trtllm").unwrap(), text.find("engine vllm").unwrap());
    assert!(trtllm < vllm && text.matches("TTFT p50").count() == 2, "{text}");
    let markdown = s.run("report --group concurrency --format md").success().stdout;
    assert!(markdown.contains("### conc 1\n") && markdown.contains("### conc 2\n"), "{markdown}");
    assert!(s.run("report --format summary").success().stdout.starts_with("# small\n"));

    s.run("report --plots plots").success().says(&["plots to plots"]);
    let plots = s.tree("plots");
    for name in
        ["frontier-Model-8B-8-4.svg", "ttft-Model-8B-8-4.svg", "spread-e2el-Model-8B-8-4.svg", "engine-starts.svg"]
    {
        assert!(plots.contains(name), "{name}: {plots:?}");
    }
    assert!(s.read("plots/engine-starts.svg").contains("<desc>"));

    s.run("report --format html -o pages/../page.html").exit(7);
    s.mkdir("pages");
    s.run("report --format html -o pages/page.html").success();
    let page = s.read("pages/page.html");
    let link = page.split("href=\"").find_map(|l| l.split('"').next().filter(|l| l.ends_with("/sample-1/"))).unwrap();
    assert!(s.exists(&format!("pages/{link}requests.csv")), "{link}");
    let own = s.tree("artifacts/runs").into_iter().find(|f| f.ends_with("report.html")).unwrap();
    assert!(s.read(&format!("artifacts/runs/{own}")).contains("href=\"../../org--Model-8B_sim_vllm/units/"));
}
