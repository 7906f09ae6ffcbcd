//! The real vLLM on a CPU.

use super::{VLLM, assert_agree, assert_killed_while_measured, assert_start_fails, rows, taken_port, without_weights};

const ONE: &str = "api=completions,concurrency=1";

#[test]
fn the_example_is_measured_and_agrees_with_the_server() {
    let Some(w) = VLLM.workspace("real-vllm") else { return };
    let file = VLLM.example(&w, |text| text);
    let file = file.to_str().unwrap();
    let online = ["--only", "api=completions", "--only", "api=chat"];
    let done = w.run(&[&["run", "--json", "--repeats", "3"], &online[..], &[file]].concat()).expect(0);
    assert_eq!(done.event("run_finished")["measured"], 6, "{}", done.stdout);
    // Some builds say which device they are for: `0.32.0+cpu`.
    let version = done.event("deployment_ready")["engine_version"].clone();
    let release = version.as_str().and_then(|v| v.split('+').next());
    assert_eq!(release, Some("0.32.0"), "{}", done.stdout);
    w.assert_clean();
    let rows = rows(&w);
    assert_eq!(rows.len(), 18);
    for row in &rows {
        assert_eq!((&row["valid"], &row["output_tokens_source"]), (&true.into(), &"usage".into()), "{row}");
        assert_eq!(row["osl_actual_mean"], 64.0, "{row}");
        assert!(row["api"] == "chat" || row["isl_actual_mean"] == 512.0, "{row}");
    }
    // Requests that come at once pass vLLM's HTTP server one by one, before its clock starts: docs/performance.md.
    assert_agree(&rows, "mean_ttft_ms", "server_ttft_mean_ms", 0.05, |streams| 3.0 + 0.5 * (streams - 1.0));
    assert_agree(&rows, "mean_itl_ms", "server_itl_mean_ms", 0.05, |_| 0.0);
}

#[test]
fn a_batch_is_measured_from_its_first_request_to_its_last_answer() {
    let Some(w) = VLLM.workspace("real-vllm-batch") else { return };
    VLLM.one_cell(&w, "api=batch", &[]).expect(0);
    w.assert_clean();
    let row = &rows(&w)[0];
    assert_eq!((&row["api"], &row["valid"], &row["requests"]), (&"batch".into(), &true.into(), &48.into()), "{row}");
    assert_eq!((&row["n_ok"], &row["concurrency"]), (&48.into(), &48.into()), "all at once: {row}");
    assert_eq!((&row["osl_actual_mean"], &row["output_tokens"]), (&64.0.into(), &(48 * 64).into()), "{row}");
    let number = |column: &str| row[column].as_f64().unwrap_or_else(|| panic!("{column}: {row}"));
    assert!(
        number("makespan_s") >= number("duration_s") && number("p99_e2el_ms") <= 1e3 * number("makespan_s"),
        "{row}"
    );
    let throughput = number("output_tokens") / number("duration_s");
    assert!((number("output_throughput") / throughput - 1.0).abs() < 1e-9, "{row}");
}

#[test]
fn a_model_that_is_not_there() {
    let Some(w) = VLLM.workspace("real-vllm-nomodel") else { return };
    let half = format!("model={}", without_weights(&w).display());
    assert_start_fails(
        VLLM.one_cell(&w, ONE, &[&half]),
        "deterministic",
        &["The model has no weights", "/llmatrix/models/half"],
    );
    w.assert_clean();
}

#[test]
fn too_little_shared_memory() {
    let Some(w) = VLLM.workspace("real-vllm-shm") else { return };
    // What Docker gives by itself.
    let done = VLLM.one_cell(&w, ONE, &["container.shm_size=64MiB"]);
    assert_start_fails(done, "deterministic", &["raise `container.shm_size`"]);
    w.assert_clean();
}

#[test]
fn too_little_memory() {
    let Some(w) = VLLM.workspace("real-vllm-memory") else { return };
    let done = VLLM.one_cell(&w, ONE, &["container.memory=1GiB"]);
    assert_start_fails(done, "deterministic", &["raise `container.memory`"]);
    w.assert_clean();
}

#[test]
fn a_port_that_is_taken() {
    let Some(w) = VLLM.workspace("real-vllm-port") else { return };
    let done = VLLM.one_cell(&w, ONE, &[&taken_port("vllm serve")]);
    assert_start_fails(done, "infrastructure", &["The port is taken"]);
    w.assert_clean();
}

#[test]
fn an_engine_that_is_killed_while_it_measures() {
    let Some(w) = VLLM.workspace("real-vllm-killed") else { return };
    assert_killed_while_measured(&VLLM, &w, ONE, "tiny-llama-hf-vllm");
}
