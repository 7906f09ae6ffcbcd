//! Planning a matrix of the size that public benchmark suites have: counts against an independent count, and plans that
//! are the same byte for byte.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use support::{Sandbox, finish};

/// One served configuration and the loads it is measured under: what such a suite lists a hundred of.
struct Recipe {
    model: &'static str,
    engine: &'static str,
    image: &'static str,
    hardware: &'static str,
    quantization: &'static str,
    tensor_parallel: u64,
    expert_parallel: u64,
    dp_attention: bool,
    tokens: (u64, u64),
    from: u64,
    to: u64,
}

const MODELS: [(&str, &str); 3] = [
    ("deepseek-ai/DeepSeek-R1-0528", "fp8"),
    ("openai/gpt-oss-120b", "fp4"),
    ("meta-llama/Llama-3.3-70B-Instruct", "fp8"),
];
const ENGINES: [(&str, &str); 3] = [
    ("vllm", "vllm/vllm-openai:v0.27.1"),
    ("sglang", "lmsysorg/sglang:v0.5.7-cu130"),
    ("trtllm", "nvcr.io/nvidia/tensorrt-llm/release:1.2.1"),
];
const TOKENS: [(u64, u64); 3] = [(1024, 1024), (1024, 8192), (8192, 1024)];

/// (hardware, tensor, expert, attention data parallel, first and last concurrency), cycled so that every engine gets
/// what it can honour.
const SHAPES: [(&str, u64, u64, bool, u64, u64); 4] = [
    ("h200-sxm-141gb", 8, 1, false, 4, 64),
    ("b200-sxm-180gb", 4, 1, false, 4, 128),
    ("b200-sxm-180gb", 8, 8, true, 64, 512),
    ("b200-sxm-180gb", 8, 8, false, 16, 100),
];

fn recipes() -> Vec<Recipe> {
    let mut out = Vec::new();
    for (model, quantization) in MODELS {
        for (engine, image) in ENGINES {
            for tokens in TOKENS {
                for (hardware, tensor_parallel, expert_parallel, dp_attention, from, to) in SHAPES {
                    out.push(Recipe {
                        model,
                        engine,
                        image,
                        hardware,
                        quantization,
                        tensor_parallel,
                        expert_parallel,
                        dp_attention,
                        tokens,
                        from,
                        to,
                    });
                }
            }
        }
    }
    out
}

/// `{ from, to, times = 2 }` spelt out: doubling, and the end in any case.
fn doubling(from: u64, to: u64) -> Vec<u64> {
    let mut values = Vec::new();
    let mut next = from;
    while next < to {
        values.push(next);
        next *= 2;
    }
    values.push(to);
    values
}

/// The file. `reversed` writes the same keys in the opposite order.
fn file(recipes: &[Recipe], reversed: bool) -> String {
    let mut out =
        String::from("name = \"converted\"\n[defaults]\nmethod = \"hf\"\nrequests = \"{{ 10 * concurrency }}\"\n");
    for r in recipes {
        let (input, output) = r.tokens;
        let mut keys = vec![
            format!("model = \"{}\"", r.model),
            format!("engine = \"{}\"", r.engine),
            format!("image = \"{}\"", r.image),
            format!("hardware = \"{}\"", r.hardware),
            format!("quantization = \"{}\"", r.quantization),
            format!("tensor_parallel = {}", r.tensor_parallel),
            format!("expert_parallel = {}", r.expert_parallel),
            format!("dp_attention = {}", r.dp_attention),
            format!("tokens = {{ input = {input}, output = {output} }}"),
            format!("max_model_len = {}", input + output + 256),
            format!("concurrency = {{ from = {}, to = {}, times = 2 }}", r.from, r.to),
        ];
        if reversed {
            keys.reverse();
        }
        writeln!(out, "[[matrix]]\n{}", keys.join("\n")).unwrap();
    }
    out
}

#[test]
fn a_hundred_blocks_have_exactly_the_cells_and_deployments_that_a_count_by_hand_gives() {
    let recipes = recipes();
    assert_eq!(recipes.len(), 108);
    let mut cells = BTreeSet::new();
    let mut deployments: BTreeMap<_, usize> = BTreeMap::new();
    for r in &recipes {
        // Each token length has its own `max_model_len`, so it is an engine start of its own; concurrency is not.
        let deploy = (r.model, r.engine, r.hardware, r.tensor_parallel, r.expert_parallel, r.dp_attention, {
            r.tokens.0 + r.tokens.1 + 256
        });
        for concurrency in doubling(r.from, r.to) {
            if cells.insert((deploy, r.tokens, concurrency)) {
                *deployments.entry(deploy).or_default() += 1;
            }
        }
    }
    // 1024 + 8192 = 8192 + 1024: those two share an engine start.
    assert_eq!(deployments.len(), 3 * 3 * 4 * 2);

    let s = Sandbox::new();
    s.write("converted.toml", file(&recipes, false));
    let plan = s.plan("converted.toml");
    plan.all("new", "nothing is measured");
    assert_eq!(plan.0["summary"]["units"], cells.len());
    assert_eq!((plan.ids().len(), plan.deploy_ids().len()), (cells.len(), deployments.len()));
    let mut found: Vec<usize> =
        plan.0["deployments"].as_array().unwrap().iter().map(|d| d["units"].as_array().unwrap().len()).collect();
    let mut expected: Vec<usize> = deployments.into_values().collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
    // Every cell as written: the last of a range is its end, and expressions have their values.
    let odd = plan.units().iter().filter(|u| u["cell"]["concurrency"] == 100).count();
    assert_eq!(odd, 27);
    assert!(plan.units().iter().all(|u| u["cell"]["requests"] == 10 * u["cell"]["concurrency"].as_u64().unwrap()));
    let classes: BTreeSet<&str> =
        plan.0["deployments"].as_array().unwrap().iter().map(|d| d["hardware"].as_str().unwrap()).collect();
    assert_eq!(classes, BTreeSet::from(["b200-sxm-180gb", "h200-sxm-141gb"]));
    assert!(!s.exists("artifacts"));
}

#[test]
fn plans_are_the_same_byte_for_byte_and_ids_do_not_depend_on_place_or_order() {
    let s = Sandbox::new();
    let recipes = recipes();
    s.write("a/converted.toml", file(&recipes, false));
    s.write("b/reversed.toml", file(&recipes, true));
    let first = s.run("plan --json a/converted.toml").success().stdout;
    assert_eq!(s.run("plan --json a/converted.toml").success().stdout, first);
    s.mkdir("elsewhere/deep");
    let mut there = s.command(["plan", "--json", "../../a/converted.toml"]);
    let there = finish(there.current_dir(s.path("elsewhere/deep")), "plan from elsewhere").success().stdout;
    assert_eq!(there, first, "another working directory");
    let absolute = s.path("a/converted.toml");
    let absolute =
        finish(&mut s.command(["plan".as_ref(), "--json".as_ref(), absolute.as_os_str()]), "absolute").success();
    assert_eq!(absolute.stdout, first, "an absolute path");

    let (plan, reversed) = (s.plan("a/converted.toml"), s.plan("b/reversed.toml"));
    assert_eq!(plan.ids(), reversed.ids());
    assert_eq!(plan.deploy_ids(), reversed.deploy_ids());
    let order = |p: &support::Plan| p.units().iter().map(|u| u["unit_id"].clone()).collect::<Vec<_>>();
    assert_eq!(order(&plan), order(&reversed), "cells are in the order of the file's values, not of its keys");
}
