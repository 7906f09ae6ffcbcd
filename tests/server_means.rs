//! What the engines say of themselves stands beside what was measured, for every simulated stack.

mod support;

use support::{Sandbox, rows};

#[test]
fn every_stack_tells_its_own_means() {
    let s = Sandbox::new();
    let stacks = [
        ("hf", "vllm"),
        ("hf", "sglang"),
        ("hf", "trtllm"),
        ("triton", "vllm"),
        ("triton", "python"),
        ("triton", "trtllm"),
        ("nim", "vllm"),
        ("unim", "vllm"),
    ];
    let mut text = "[defaults]\nmodel = \"org/m\"\ntokens = { input = 64, output = 8 }\nrequests = 8\nconcurrency = 2\nwarmup = 3\n".to_string();
    for (method, engine) in stacks {
        text.push_str(&format!("[[matrix]]\nmethod = \"{method}\"\nengine = \"{engine}\"\n"));
    }
    s.write("e.toml", text);
    s.run("run e.toml --simulate").success();
    for (method, engine) in stacks {
        let stack = format!("artifacts/simulated/org--m_{method}_{engine}");
        let csv = s.tree(&stack).into_iter().find(|f| f.ends_with(".csv")).unwrap();
        for row in rows(&s.path(&format!("{stack}/{csv}"))) {
            let number =
                |column: &str| row[column].parse::<f64>().unwrap_or_else(|_| panic!("{method}/{engine} {column}"));
            assert!(number("server_ttft_mean_ms") > 0.0);
            // Triton counts a request as done when the model lets go of it, which that one does at once.
            let held = (method, engine) != ("triton", "trtllm");
            assert_eq!(row["server_e2el_mean_ms"].is_empty(), !held, "{method}/{engine}");
            assert!(!held || number("server_e2el_mean_ms") > number("server_ttft_mean_ms"));
            // Triton's own metrics have no time between tokens.
            let itl = !matches!((method, engine), ("triton", "python" | "trtllm"));
            assert_eq!(row["server_itl_mean_ms"].is_empty(), !itl, "{method}/{engine}");
        }
    }
}
