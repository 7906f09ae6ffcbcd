//! The real Triton Inference Server: our transformers model, and our TensorRT-LLM model on a stand-in of its API.

use super::{
    TRITON, assert_agree, assert_killed_while_measured, assert_start_fails, rows, taken_port, without_weights,
};

const ONE: &str = "engine=python,concurrency=1";

#[test]
fn the_example_is_measured_and_agrees_with_the_server() {
    let Some(w) = TRITON.workspace("real-triton") else { return };
    let file = TRITON.example(&w, |text| text);
    let file = file.to_str().unwrap();
    let done = w.run(&["run", "--json", "--repeats", "3", file]).expect(0);
    assert_eq!(done.event("run_finished")["measured"], 6, "{}", done.stdout);
    w.assert_clean();
    let rows = rows(&w);
    assert_eq!(rows.len(), 18);
    for row in &rows {
        assert_eq!((&row["valid"], &row["output_tokens_source"]), (&true.into(), &"usage".into()), "{row}");
        assert_eq!((&row["isl_actual_mean"], &row["osl_actual_mean"]), (&128.0.into(), &32.0.into()), "{row}");
    }
    // The other model lets go of its requests at once, so that Triton does not know how long they take.
    let (held, handed_on): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row["engine"] == "python");
    assert!(handed_on.iter().all(|row| row["server_e2el_mean_ms"].is_null()));
    assert_agree(&held, "mean_e2el_ms", "server_e2el_mean_ms", 0.05, |_| 3.0);
    assert_eq!(w.run(&["run", "--json", "--repeats", "3", file]).expect(0).event("run_finished")["cached"], 6);
}

#[test]
fn a_model_that_is_not_there() {
    let Some(w) = TRITON.workspace("real-triton-nomodel") else { return };
    let done = TRITON.one_cell(&w, ONE, &["model=/nowhere/tiny-llama"]);
    assert_start_fails(done, "deterministic", &["the model is `/nowhere/tiny-llama`"]);
    let half = format!("model={}", without_weights(&w).display());
    let done = TRITON.one_cell(&w, ONE, &[&half]);
    assert_start_fails(done, "deterministic", &["The model has no weights", "/llmatrix/models/half"]);
    w.assert_clean();
}

#[test]
fn too_little_shared_memory() {
    let Some(w) = TRITON.workspace("real-triton-shm") else { return };
    let done = TRITON.one_cell(&w, ONE, &["container.shm_size=256KiB"]);
    assert_start_fails(done, "deterministic", &["raise `container.shm_size`"]);
    w.assert_clean();
}

#[test]
fn too_little_memory() {
    let Some(w) = TRITON.workspace("real-triton-memory") else { return };
    let done = TRITON.one_cell(&w, ONE, &["container.memory=100MiB"]);
    assert_start_fails(done, "deterministic", &["raise `container.memory`"]);
    w.assert_clean();
}

#[test]
fn a_port_that_is_taken() {
    let Some(w) = TRITON.workspace("real-triton-port") else { return };
    let done = TRITON.one_cell(&w, ONE, &[&taken_port("")]);
    assert_start_fails(done, "infrastructure", &["The port is taken"]);
    w.assert_clean();
}

#[test]
fn a_server_that_is_killed_while_it_is_measured() {
    let Some(w) = TRITON.workspace("real-triton-killed") else { return };
    assert_killed_while_measured(&TRITON, &w, ONE, "tiny-llama-triton-python");
}
