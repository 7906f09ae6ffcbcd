//! Load shapes through the binary: what plans say, what is refused, what is measured; ids of older files stay.

mod support;

use support::{Sandbox, rows};

const BASE: &str = "[[matrix]]\nmodel = \"org/m\"\nmethod = \"sim\"\nengine = \"vllm\"\nengine_args.speed = 50\n";
const TOKENS: &str = "tokens = { input = 64, output = 4 }\n";

fn ids(s: &Sandbox, block: &str) -> Vec<String> {
    s.write("e.toml", format!("{BASE}{block}"));
    s.plan("e.toml").ids().into_iter().collect()
}

#[test]
fn defaults_of_the_shapes_change_no_id() {
    let s = Sandbox::new();
    let plain = ids(&s, &format!("{TOKENS}concurrency = 2\n"));
    for same in ["cancel_rate = 0\n", "replay_speed = 1\n", "cancel_after = 1\n"] {
        assert_eq!(ids(&s, &format!("{TOKENS}concurrency = 2\n{same}")), plain, "{same}");
    }
    for other in ["ramp = \"1s\"\n", "cancel_rate = 0.5\n"] {
        assert_ne!(ids(&s, &format!("{TOKENS}concurrency = 2\n{other}")), plain, "{other}");
    }
    let staged = |stages: &str| ids(&s, &format!("{TOKENS}stages = [[{stages}]]\n"));
    let one = staged("{ rate = 2, duration = \"60s\" }");
    assert_eq!(one, staged("{ duration = \"1m\", rate = 2.0, to = 2 }"));
    assert_ne!(one, staged("{ rate = 2, to = 3, duration = \"60s\" }"));
    assert_ne!(one, staged("{ concurrency = 2, duration = \"60s\" }"));
}

#[test]
fn what_contradicts_itself_is_refused() {
    let s = Sandbox::new();
    for (block, says) in [
        ("rate = 2\nstages = [[{ rate = 2, duration = \"1s\" }]]\n", "`stages` and `rate` both say what the load is"),
        ("concurrency = 2\nstages = [[{ concurrency = 2, duration = \"1s\" }]]\n", "`concurrency` both say"),
        ("stages = [{ rate = 2, duration = \"1s\" }]\n", "takes a list of stages"),
        ("cancel_after = \"2s\"\n", "no effect without `cancel_rate`"),
        ("cancel_after = 0\ncancel_rate = 0.5\n", "`cancel_after` is 0"),
        ("replay_speed = 2\n", "`replay_speed` is for a trace"),
    ] {
        s.write("e.toml", format!("{BASE}{TOKENS}{block}"));
        s.run("validate e.toml").exit(3);
        s.run("plan e.toml").exit(3).says(&[says]);
    }
    // A cap on stages of rate is one.
    s.write("e.toml", format!("{BASE}{TOKENS}concurrency = 4\nstages = [[{{ rate = 2, duration = \"1s\" }}]]\n"));
    s.run("plan e.toml").success();
}

#[test]
fn stages_traces_and_cancellation_are_measured() {
    let s = Sandbox::new();
    let trace: String = (0..20)
        .map(|i| format!("{{\"timestamp\":{},\"input_length\":{},\"output_length\":3}}\n", 100 * i, 20 + i))
        .collect();
    s.write("t.jsonl", trace);
    s.write(
        "t.csv",
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,30,2\n2023-11-16 18:15:46.98,31,2\n",
    );
    s.write(
        "e.toml",
        format!(
            "{BASE}[matrix.vary.shape]\n\
             staged = {{ tokens = {{ input = 64, output = 4 }}, stages = [[{{ rate = 10, to = 30, duration = \"1s\" }}]] }}\n\
             ramped = {{ tokens = {{ input = 64, output = 4 }}, concurrency = 3, ramp = \"300ms\", duration = \"600ms\" }}\n\
             cancelled = {{ tokens = {{ input = 64, output = 50 }}, cancel_rate = 0.5, concurrency = 2, requests = 40 }}\n\
             mooncake = {{ dataset = \"t.jsonl\", format = \"trace\", replay_speed = 4 }}\n\
             azure = {{ dataset = \"t.csv\" }}\n"
        ),
    );
    // Whether a sample on a busy machine counts is not what this is about.
    s.run("run e.toml");
    let csv = s.tree("artifacts/org--m_sim_vllm").into_iter().find(|f| f.ends_with(".csv")).unwrap();
    let all = rows(&s.path(&format!("artifacts/org--m_sim_vllm/{csv}")));
    let row = |label: &str| all.iter().find(|r| r["labels"] == format!("shape={label}")).unwrap();
    let number = |label: &str, column: &str| row(label)[column].parse::<f64>().unwrap();
    let arrived = number("staged", "n_sent");
    assert!((8.0..34.0).contains(&arrived), "20 are expected in a second from 10 to 30 a second: {arrived}");
    assert_eq!(row("staged")["request_rate"], "30");
    assert!(number("ramped", "n_sent") > 3.0);
    assert_eq!(row("ramped")["concurrency"], "3");
    let cancelled = number("cancelled", "n_cancelled");
    assert!((8.0..32.0).contains(&cancelled), "{cancelled}");
    assert_eq!(number("cancelled", "n_error"), 0.0);
    assert_eq!(number("cancelled", "n_ok") + cancelled, 40.0);
    assert_eq!((number("mooncake", "n_ok"), number("azure", "n_ok")), (20.0, 2.0));
    assert_eq!(number("mooncake", "isl_actual_mean"), 29.5);
    assert_eq!(number("azure", "osl_actual_mean"), 2.0);
}
