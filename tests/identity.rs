//! What decides an id, and what does not: pinned ids, every parameter in turn, and random matrices.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;

use llmatrix::spec::params::{PARAMS, Scope};
use proptest::prelude::*;
use serde_json::Value as Json;
use support::{Plan, Sandbox, finish, text};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");

/// A sandbox with the templates and files that pinned ids are made with.
fn sandbox() -> Sandbox {
    let s = Sandbox::new();
    copy(Path::new(DATA), s.root());
    s
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir_all(&target).expect("a directory");
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).expect("a file");
        }
    }
}

/// Label → (unit, deployment).
fn by_label(plan: &Plan) -> BTreeMap<String, (String, String)> {
    let labelled = |u: &Json| (text(&u["labels"]["case"]), (text(&u["unit_id"]), text(&u["deploy_id"])));
    plan.units().iter().map(labelled).collect()
}

/// How to read a failure: an id that moved means that every user's stored result of such a cell is no longer found, and
/// that all of them are measured again. That is right only when numbers measured before are no longer comparable — then
/// raise the protocol version, write it under *Results* in the changelog, and replace the file by what is printed below.
/// In every other case the change that moved the id is the mistake: a default that is now written into the document, a
/// parameter that is hashed under another name, a number that is printed in another way. A *new* parameter must not move
/// anything; give it a new point in `golden.toml` and a new line here.
#[test]
fn pinned_ids_stay() {
    let s = sandbox();
    let mut found = String::new();
    for (label, (unit, deploy)) in by_label(&s.plan("golden.toml")) {
        writeln!(found, "{label} {unit} {deploy}").unwrap();
    }
    let pinned = fs::read_to_string(format!("{DATA}/golden.ids")).unwrap_or_default();
    let pinned: String = pinned.lines().filter(|l| !l.starts_with('#')).map(|l| format!("{l}\n")).collect();
    assert!(
        found == pinned,
        "ids moved (see the comment above this test). They are now:\n{found}\nand were:\n{pinned}"
    );
}

#[test]
fn pinned_ids_can_be_made_again_from_what_explain_prints() {
    let s = sandbox();
    for (label, (unit, deploy)) in by_label(&s.plan("golden.toml")) {
        let told = s.run(&format!("explain --json {} golden.toml", &unit[..12])).success().json();
        assert_eq!((text(&told["unit_id"]), text(&told["deploy_id"])), (unit.clone(), deploy.clone()), "{label}");
        assert_eq!(support::canonical::unit_id(&told["unit"]), unit, "{label}");
        assert_eq!(support::canonical::deploy_id(&told["deploy"]), deploy, "{label}");
    }
}

#[test]
fn the_pinned_cells_set_every_parameter_between_them() {
    let s = sandbox();
    let plan = s.plan("golden.toml");
    let set: BTreeSet<String> =
        plan.units().iter().flat_map(|u| u["cell"].as_object().unwrap().keys().cloned()).collect();
    let missing: Vec<&str> = PARAMS
        .iter()
        .map(|p| p.name)
        .filter(|n| !set.iter().any(|k| k == n || k.starts_with(&format!("{n}."))))
        .collect();
    assert!(missing.is_empty(), "add a point to golden.toml for {missing:?}");
}

/// A parameter with two values, and what has to stand beside it for it to have an effect.
type Pair = (&'static str, &'static str, &'static str, &'static str);

const PAIRS: &[Pair] = &[
    ("model", "", "'a/b'", "'a/c'"),
    ("revision", "", "'x'", "'y'"),
    ("tokenizer", "", "'x'", "'y'"),
    ("served_model", "", "'x'", "'y'"),
    ("method", "", "'hf'", "'triton'"),
    ("engine", "", "'vllm'", "'sglang'"),
    ("image", "", "'x:1'", "'x:2'"),
    ("hardware", "", "'h100-sxm-80gb'", "'b200-sxm-180gb'"),
    ("gpus", "", "2", "3"),
    ("tensor_parallel", "", "1", "2"),
    ("pipeline_parallel", "", "1", "2"),
    ("data_parallel", "", "1", "2"),
    ("expert_parallel", "tensor_parallel = 8", "1", "8"),
    ("dp_attention", "tensor_parallel = 8", "false", "true"),
    ("dtype", "", "'float16'", "'bfloat16'"),
    ("quantization", "", "'none'", "'fp8'"),
    ("kv_cache_dtype", "", "'auto'", "'fp8'"),
    ("max_model_len", "", "4096", "4097"),
    ("gpu_memory_utilization", "", "0.9", "0.91"),
    ("max_num_seqs", "", "8", "9"),
    ("prefix_caching", "", "false", "true"),
    ("engine_args.deep", "", "{ a = 1 }", "{ a = 2 }"),
    ("env.X", "", "'1'", "'2'"),
    ("assets.adapter", "", "'adapter'", "'prompts.jsonl'"),
    ("container.shm_size", "", "'1g'", "'2g'"),
    ("endpoint", EXTERNAL, "'http://a'", "'http://b'"),
    ("headers.X", EXTERNAL_AT, "'1'", "'2'"),
    ("tls.ca", EXTERNAL_AT, "'a.pem'", "'b.pem'"),
    ("tls.cert", EXTERNAL_AT, "'a.pem'", "'b.pem'"),
    ("tls.key", EXTERNAL_AT, "'a.pem'", "'b.pem'"),
    ("tls.insecure", EXTERNAL_AT, "false", "true"),
    ("tokens.input", "", "8", "9"),
    ("tokens.output", "", "8", "9"),
    ("tokens.input_stddev", "", "0", "0.5"),
    ("tokens.output_stddev", "", "0", "0.5"),
    ("tokens.input_range", "RANGE", "[[1, 2]]", "[[1, 3]]"),
    ("tokens.shared_prefix", "", "0", "4"),
    ("tokens.prefix_groups", "tokens.shared_prefix = 4", "1", "2"),
    ("concurrency", "", "1", "2"),
    ("rate", "", "1", "1.5"),
    ("arrival", "rate = 1", "'poisson'", "'constant'"),
    ("burstiness", "rate = 1\narrival = 'gamma'", "1", "2"),
    ("requests", "", "10", "11"),
    ("duration", "", "'60s'", "'61s'"),
    ("stages", "", "[[{ concurrency = 1, duration = '1s' }]]", "[[{ concurrency = 2, duration = '1s' }]]"),
    ("ramp", "", "'1s'", "'2s'"),
    ("tokens.turns", "api = 'chat'", "1", "2"),
    ("replay_speed", "DATASET\ndataset = 'prompts.jsonl'\nformat = 'trace'", "1", "2"),
    ("cancel_rate", "", "0", "0.5"),
    ("cancel_after", "cancel_rate = 0.5", "1", "'1s'"),
    ("warmup", "", "0", "1"),
    ("seed", "", "0", "1"),
    ("dataset", "DATASET", "'prompts.jsonl'", "'adapter/adapter_config.json'"),
    ("format", "DATASET\ndataset = 'prompts.jsonl'", "'jsonl'", "'sharegpt'"),
    ("api", "", "'chat'", "'completions'"),
    ("temperature", "", "0", "0.1"),
    ("ignore_eos", "", "true", "false"),
];

const EXTERNAL: &str = "method = 'external'\nengine = 'openai'";
const EXTERNAL_AT: &str = "method = 'external'\nengine = 'openai'\nendpoint = 'http://a'";

/// One block in which only this parameter varies. Its seed keeps its cells apart from those of the other blocks.
fn block(seed: usize, (name, beside, a, b): Pair) -> String {
    let dataset = beside.starts_with("DATASET");
    let range = beside == "RANGE";
    let beside = beside.trim_start_matches("DATASET").trim_start_matches("RANGE");
    let mut lines: Vec<String> = beside.lines().map(str::to_string).collect();
    let sets = |key: &str| name == key || beside.lines().any(|l| l.starts_with(&format!("{key} =")));
    for (key, line) in [
        ("model", "model = 'org/m'"),
        ("method", "method = 'hf'"),
        ("engine", "engine = 'vllm'"),
        ("tokens.output", "tokens.output = 8"),
        ("requests", "requests = 50"),
    ] {
        let ended = key == "requests" && name == "duration";
        if !sets(key) && !ended {
            lines.push(line.to_string());
        }
    }
    if name != "seed" {
        lines.push(format!("seed = {}", seed + 100));
    }
    if !sets("tokens.input") && !dataset && !range {
        lines.push("tokens.input = 8".into());
    }
    let lines: Vec<String> = lines.into_iter().filter(|l| !l.is_empty()).collect();
    let vary = format!("a = {{ \"{name}\" = {a} }}\nb = {{ \"{name}\" = {b} }}\n");
    let label = name.replace('.', "-");
    format!("[[matrix]]\n{}\n[matrix.vary.param]\n{label} = {{}}\n[matrix.vary.value]\n{vary}", lines.join("\n"))
}

#[test]
fn every_parameter_decides_the_id_and_only_its_own() {
    let covered: BTreeSet<&str> = PAIRS.iter().map(|p| p.0).collect();
    let missing: Vec<&str> = PARAMS
        .iter()
        .map(|p| p.name)
        .filter(|n| !covered.iter().any(|c| c == n || c.starts_with(&format!("{n}."))))
        .collect();
    assert!(missing.is_empty(), "no pair of values for {missing:?}");

    let s = sandbox();
    s.write("pairs.toml", PAIRS.iter().enumerate().map(|(i, p)| block(i, *p)).collect::<String>());
    let plan = s.plan("pairs.toml");
    let unsupported = plan.with("unsupported");
    assert!(unsupported.is_empty(), "{unsupported:#?}");
    let labels = |u: &Json| (text(&u["labels"]["param"]), text(&u["labels"]["value"]));
    let ids: BTreeMap<_, _> = plan.units().iter().map(|u| (labels(u), u)).collect();
    assert_eq!(ids.len(), 2 * PAIRS.len());
    for (name, ..) in PAIRS {
        let head = name.split('.').next().unwrap();
        let row = PARAMS.iter().find(|p| p.name == *name || p.name == head).expect("a parameter");
        let of = |value: &str| ids[&(name.replace('.', "-"), value.to_string())];
        let differ = |id: &str| of("a")[id] != of("b")[id];
        assert!(differ("unit_id"), "{name} does not change the unit's id");
        assert_eq!(differ("deploy_id"), row.scope == Scope::Deploy, "{name} is of the {:?} scope", row.scope);
    }
}

#[test]
fn what_is_not_hashed_changes_nothing() {
    let s = sandbox();
    let base = by_label(&s.plan("golden.toml"));
    let golden = s.read("golden.toml");
    // Values of variables, of the host's paths, the name of a data set and of an asset with the same content.
    let mut command = s.command(["plan", "--json", "golden.toml"]);
    let with = Plan(finish(command.env("HF_TOKEN", "a").env("KEY", "b"), "plan").success().json());
    assert_eq!(by_label(&with), base);
    let edits = [
        ("source = \"/data/x\"", "source = \"/data/elsewhere\""),
        ("adapter = \"adapter\"", "adapter = \"./copies/adapter\""),
        ("dataset = \"prompts.jsonl\"", "dataset = \"copies/p.jsonl\""),
        ("name = \"golden\"", "name = \"other\"\ndescription = \"d\"\ntags = [\"t\"]"),
    ];
    s.mkdir("copies/adapter");
    fs::copy(s.path("adapter/adapter_config.json"), s.path("copies/adapter/adapter_config.json")).unwrap();
    fs::copy(s.path("prompts.jsonl"), s.path("copies/p.jsonl")).unwrap();
    for (from, to) in edits {
        assert!(golden.contains(from), "{from}");
        s.write("golden.toml", golden.replace(from, to));
        assert_eq!(by_label(&s.plan("golden.toml")), base, "{to}");
    }
    let sections = "[run]\nrepeats = 9\nsettle = \"1s\"\n[slo]\nttft = \"1s\"\n[cost]\ngpu_hour_usd = { h100 = 1 }\n[gate]\nagainst = \"x\"\n";
    s.write("golden.toml", format!("{golden}{sections}"));
    assert_eq!(by_label(&s.plan("golden.toml")), base, "policy");
    // Labels: every point renamed gives the same set of ids.
    s.write(
        "golden.toml",
        golden.replace("vary.case", "vary.variant").replace("when = { case =", "when = { variant ="),
    );
    let renamed = s.plan("golden.toml");
    assert_eq!(renamed.ids(), base.values().map(|(unit, _)| unit.clone()).collect());
}

/// Axes of a random block: how many values each has.
#[derive(Clone, Debug)]
struct Shape {
    concurrency: usize,
    seeds: usize,
    tokens: usize,
    labels: usize,
    range_end: u64,
    reversed: bool,
}

fn shapes() -> impl Strategy<Value = Vec<Shape>> {
    let shape = (1..4usize, 1..4usize, 1..3usize, 1..3usize, 1..40u64, any::<bool>()).prop_map(
        |(concurrency, seeds, tokens, labels, range_end, reversed)| Shape {
            concurrency,
            seeds,
            tokens,
            labels,
            range_end,
            reversed,
        },
    );
    prop::collection::vec(shape, 1..4)
}

/// A file with these blocks. No two blocks share a cell: each has a model of its own.
fn file(shapes: &[Shape], reorder: bool) -> String {
    let mut out = String::from("[defaults]\nmethod = 'sim'\nengine = 'vllm'\n");
    for (i, shape) in shapes.iter().enumerate() {
        let list = |n: usize| (1..=n).map(|v| v.to_string()).collect::<Vec<_>>().join(", ");
        let tokens: Vec<String> =
            (1..=shape.tokens).map(|n| format!("{{ input = {}, output = {n} }}", 8 * n)).collect();
        let labels: Vec<String> = (0..shape.labels).map(|n| format!("l{n} = {{ max_num_seqs = {} }}", n + 8)).collect();
        let mut lines = [
            format!("model = 'm{i}'"),
            format!("concurrency = [{}]", list(shape.concurrency)),
            format!("seed = [{}]", list(shape.seeds)),
            format!("tokens = [{}]", tokens.join(", ")),
            format!("vary.batch = {{ {} }}", labels.join(", ")),
            format!("warmup = {{ from = 1, to = {}, times = 2 }}", shape.range_end),
        ];
        if reorder && shape.reversed {
            lines.reverse();
        }
        writeln!(out, "[[matrix]]\n{}", lines.join("\n")).unwrap();
    }
    out
}

/// 1, 2, 4 … and the end.
fn doublings(end: u64) -> usize {
    (0..).take_while(|i| (1u64 << i) < end).count() + 1
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_expansion_has_as_many_units_as_its_axes_multiply_to(shapes in shapes()) {
        let s = Sandbox::new();
        s.write("p.toml", file(&shapes, false));
        let plan = s.plan("p.toml");
        let cells = |x: &Shape| x.concurrency * x.seeds * x.tokens * x.labels * doublings(x.range_end);
        prop_assert_eq!(plan.units().len(), shapes.iter().map(cells).sum::<usize>());
        prop_assert_eq!(plan.ids().len(), plan.units().len());
        prop_assert_eq!(plan.deploy_ids().len(), shapes.iter().map(|x| x.labels).sum::<usize>());
        // Keys in another order: the same cells.
        s.write("p.toml", file(&shapes, true));
        let again = s.plan("p.toml");
        prop_assert_eq!(again.ids(), plan.ids());
        // Excluding one value takes exactly its share.
        let first = &shapes[0];
        if first.seeds > 1 {
            let text = file(&shapes, false).replacen("model = 'm0'", "model = 'm0'\nexclude = [{ seed = 1 }]", 1);
            s.write("p.toml", text);
            let left = s.plan("p.toml");
            prop_assert_eq!(left.units().len(), plan.units().len() - cells(first) / first.seeds);
            prop_assert!(left.ids().is_subset(&plan.ids()));
        }
    }
}
