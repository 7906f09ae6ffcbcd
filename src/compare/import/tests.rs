//! Real result files of other tools, as they were written by the versions that their names say.

use super::*;

fn file(name: &str) -> String {
    let path = format!("{}/tests/data/peers/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn only(name: &str) -> (Side, SideCell) {
    let side = read(&file(name), name).unwrap();
    assert_eq!((side.cells.len(), side.cells[0].samples.len()), (1, 1), "{name}");
    let cell = side.cells[0].clone();
    (side, cell)
}

fn value(cell: &SideCell, metric: &str) -> f64 {
    *cell.samples[0].values.get(metric).unwrap_or_else(|| panic!("no {metric} in {:?}", cell.samples[0].values))
}

#[test]
fn files_of_vllm_and_its_rust_client() {
    let (side, cell) = only("vllm-bench-serve-0.32.json");
    assert_eq!(side.tool.as_deref(), Some("vLLM bench"));
    assert_eq!(value(&cell, "mean_ttft"), 51.58716324990564);
    assert_eq!(value(&cell, "p50_tpot"), 10.000202487438187);
    assert_eq!(value(&cell, "p99_itl"), 10.23533930009762);
    assert_eq!((value(&cell, "output_throughput"), value(&cell, "error_rate")), (391.77303943356713, 0.0));
    assert_eq!(cell.cell["concurrency"], Value::Int(4));
    assert_eq!(cell.cell["tokens.output"], Value::Int(200));
    assert!(!cell.cell.contains_key("rate") && !cell.samples[0].values.contains_key("p95_ttft"));
    let (_, cell) = only("vllm-bench-rust.json");
    assert_eq!((value(&cell, "p90_ttft"), value(&cell, "p99_e2el")), (50.478699500000005, 2040.5956293000004));
    assert_eq!(value(&cell, "output_throughput_steady"), 393.66883291618694);
}

#[test]
fn files_of_aiperf() {
    let (side, cell) = only("aiperf-0.13.json");
    assert_eq!(side.tool.as_deref(), Some("AIPerf"));
    assert_eq!(value(&cell, "mean_ttft"), 52.937986374999994);
    // Their inter-token latency is our TPOT, their inter-chunk latency our ITL.
    assert_eq!((value(&cell, "p99_tpot"), value(&cell, "p99_itl")), (10.032169536934674, 11.896771510000004));
    assert_eq!(value(&cell, "p95_e2el"), 2049.89452725);
    assert_eq!(value(&cell, "output_throughput"), 389.62434646364807);
    assert_eq!((&cell.cell["concurrency"], &cell.cell["tokens.input"]), (&Value::Int(4), &Value::Int(100)));
    let (_, rounded) = only("aiperf-0.13.csv");
    assert_eq!((value(&rounded, "mean_ttft"), value(&rounded, "p99_itl")), (52.94, 11.9));
    assert_eq!((value(&rounded, "request_throughput"), value(&rounded, "error_rate")), (1.95, 0.0));
}

#[test]
fn a_file_of_guidellm() {
    let (side, cell) = only("guidellm-0.8.1.json");
    assert_eq!(side.tool.as_deref(), Some("guidellm"));
    assert_eq!(value(&cell, "p95_ttft"), 53.198814392089844);
    assert!((value(&cell, "p50_e2el") - 2041.044235229492).abs() < 1e-9, "seconds became milliseconds");
    assert_eq!(value(&cell, "mean_tpot"), 10.00039054820286, "without the first token");
    assert_eq!((&cell.cell["concurrency"], &cell.cell["model"]), (&Value::Int(4), &Value::str("truth")));
}

#[test]
fn measurements_of_one_load_are_repeats() {
    let two = format!("{}\n{}", file("vllm-bench-serve-0.32.json"), file("vllm-bench-serve-0.32.json"));
    let side = read(&two, "two").unwrap();
    assert_eq!((side.cells.len(), side.cells[0].samples.len(), side.runs.len()), (1, 2, 1));
}

#[test]
fn versions_that_are_not_known_are_refused_by_name() {
    let problem = |text: &str| read(text, "x").unwrap_err().to_string();
    let newer = file("aiperf-0.13.json").replace("\"1.4\"", "\"2.0\"").replace("0.13.0", "0.20.0");
    let said = problem(&newer);
    assert!(said.contains("2.0, of AIPerf 0.20.0") && said.contains("1.x"), "{said}");
    let said =
        problem(&file("guidellm-0.8.1.json").replacen("\"version\": 2", "\"version\": 3", 1).replace("0.8.1", "0.9.0"));
    assert!(said.contains("guidellm 0.9.0") && said.contains("version"), "{said}");
    // A minor version adds keys.
    assert!(read(&file("aiperf-0.13.json").replace("\"1.4\"", "\"1.9\""), "x").is_ok());
    assert!(problem("{\"a\": 1}").contains("It begins with a"));
    assert!(problem("[1, 2]").contains("no JSON object"));
    assert!(problem("not json").contains("neither JSON nor CSV"));
    assert!(problem("").contains("empty"));
    let none = file("vllm-bench-serve-0.32.json").replace("\"completed\": 16", "\"completed\": 0");
    assert!(problem(&none).contains("no request was completed"));
    let text = file("vllm-bench-serve-0.32.json").replace("\"completed\": 16", "\"completed\": \"all\"");
    assert!(problem(&text).contains("`completed`"), "{}", problem(&text));
}

#[test]
fn sglang_has_other_names() {
    let text = r#"{"model_id":"m","backend":"sglang","request_rate":4.0,"max_concurrency":null,"duration":10.0,"completed":40,
        "total_input_tokens":4000,"total_output_tokens":800,"request_throughput":4.0,"output_throughput":80.0,
        "total_throughput":480.0,"mean_ttft_ms":30.0,"median_ttft_ms":29.0,"mean_e2e_latency_ms":200.0}"#;
    let side = read(text, "s").unwrap();
    let cell = &side.cells[0];
    assert_eq!(side.tool.as_deref(), Some("SGLang bench_serving"));
    assert_eq!(
        (value(cell, "mean_e2el"), value(cell, "total_token_throughput"), value(cell, "p50_ttft")),
        (200.0, 480.0, 29.0)
    );
    assert_eq!((&cell.cell["rate"], cell.cell.get("concurrency")), (&Value::Int(4), None));
}
