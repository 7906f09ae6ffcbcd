//! What runs again after an edit, and what does not: one edit per row, the statuses and reasons of `plan`, and the samples
//! on disk.

mod support;

use std::collections::BTreeSet;

use support::{FAST, Plan, Sandbox, fields, text};

/// Six units in two deployments; the prompts of two of them come from a data set.
fn experiment() -> String {
    format!(
        r#"name = "base"
[defaults]
requests = 2
{FAST}
[[matrix]]
method = "sim"
model = "org/Model-8B"
engine = ["vllm", "trtllm"]
tokens = {{ input = 8, output = 2 }}
concurrency = [1, 8]
[[matrix]]
method = "sim"
model = "org/Model-8B"
engine = ["vllm", "trtllm"]
tokens.output = 2
dataset = "prompts.jsonl"
concurrency = 1
[run]
repeats = 1
"#
    )
}

const PROMPTS: &str = "{\"prompt\": \"one two three\"}\n{\"prompt\": \"four five\"}\n";

/// The experiment with its artifacts.
fn measured() -> Sandbox {
    let s = Sandbox::new();
    s.write("x/base.toml", experiment());
    s.write("x/prompts.jsonl", PROMPTS);
    s.run("run x/base.toml").success();
    s
}

fn edited(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "`{from}` is not in the experiment");
    text.replace(from, to)
}

#[test]
fn edits_that_change_no_cell_run_nothing_again() {
    let s = measured();
    let base = experiment();
    let edits: &[(&str, String)] = &[
        ("comment", format!("# a comment\n{base}# another\n")),
        ("blank lines and spaces", edited(&base, "concurrency = [1, 8]", "\n  concurrency   =  [ 1,\n 8, ]")),
        ("key order", {
            let block = "method = \"sim\"\nmodel = \"org/Model-8B\"\nengine = [\"vllm\", \"trtllm\"]\n";
            edited(&base, block, "engine = [\"vllm\", \"trtllm\"]\nmodel = \"org/Model-8B\"\nmethod = \"sim\"\n")
        }),
        ("values reordered", edited(&base, "[1, 8]", "[8, 1]")),
        ("blocks reordered", {
            let (head, rest) = base.split_once("[[matrix]]").unwrap();
            let (first, rest) = rest.split_once("[[matrix]]").unwrap();
            let (second, run) = rest.split_once("[run]").unwrap();
            format!("{head}[[matrix]]{second}[[matrix]]{first}[run]{run}")
        }),
        ("hexadecimal", edited(&base, "[1, 8]", "[0x1, 0x8]")),
        ("float that is an integer", edited(&base, "requests = 2", "requests = 2.0")),
        ("a range of the same values", edited(&base, "[1, 8]", "{ from = 1, to = 8, times = 8 }")),
        ("an expression of the same value", edited(&base, "requests = 2", "requests = \"{{ 1 + 1 }}\"")),
        ("dotted keys", edited(&base, "tokens = { input = 8, output = 2 }", "tokens.input = 8\n\"tokens.output\" = 2")),
        ("dashes", edited(&base, "ttft = ", "\"ttft\" = ")),
        (
            "explicit defaults",
            edited(
                &base,
                "requests = 2",
                "requests = 2\ntemperature = 0.0\nseed = 0\nwarmup = 0\nignore_eos = true\ntensor_parallel = 1\n\
                 prefix_caching = false\ndp_attention = false\ngpus = 1\napi = \"completions\"\nhardware = \"sim\"\n\
                 tokens.turns = 1\ntokens.shared_prefix = 0\narrival = \"poisson\"\nburstiness = 1",
            ),
        ),
        ("a default moved into the block", {
            let without = edited(&base, "requests = 2\n", "");
            edited(&without, "method = \"sim\"", "requests = 2\nmethod = \"sim\"")
        }),
        ("new name", edited(&base, "name = \"base\"", "name = \"other\"")),
        ("no name", edited(&base, "name = \"base\"\n", "")),
        ("description and tags", format!("description = \"d\"\ntags = [\"t\"]\n{base}")),
        ("new slo", format!("{base}[slo]\nttft = \"1ms\"\np95_ttft = \"2ms\"\n")),
        ("cost", format!("{base}[cost]\ngpu_hour_usd = {{ sim = 1.0 }}\n")),
        ("gate", format!("{base}[gate]\nagainst = \"last-good\"\np95_ttft = \"+10%\"\n")),
        ("run policy", edited(&base, "repeats = 1", "repeats = 1\nattempts = 5\nseed = 7\nmax_units = 9\nstarts = 1")),
        (
            "labels",
            edited(&base, "concurrency = [1, 8]", "vary.load = { a = { concurrency = 1 }, b = { concurrency = 8 } }"),
        ),
        (
            "an override that gives what is there",
            format!("{base}[[override]]\nwhen = {{ engine = \"vllm\" }}\nset = {{ requests = 2 }}\n"),
        ),
        (
            "policy by override",
            format!(
                "{base}[[override]]\nwhen = {{ engine = \"vllm\" }}\nrun = {{ request_timeout = \"1m\" }}\nslo = {{ ttft = \"1s\" }}\n"
            ),
        ),
    ];
    for (what, text) in edits {
        s.write("x/base.toml", text);
        let plan = s.plan("x/base.toml");
        assert_eq!(plan.units().len(), 6, "{what}");
        plan.all("cached", what);
        assert!(plan.units().iter().all(|u| u["reasons"].as_array().unwrap().is_empty()), "{what}");
    }
}

#[test]
fn moving_the_experiment_with_what_it_refers_to_runs_nothing_again() {
    let s = measured();
    s.run("lock x/base.toml").success().says(&["refers to nothing that needs a lock"]);
    s.write("elsewhere/deep/renamed.toml", edited(&experiment(), "name = \"base\"\n", ""));
    s.write("elsewhere/deep/prompts.jsonl", PROMPTS);
    s.plan("elsewhere/deep/renamed.toml").all("cached", "moved");
    // Another name of the data set is the same content.
    s.write("elsewhere/deep/renamed.toml", edited(&experiment(), "prompts.jsonl", "sub/p.jsonl"));
    s.write("elsewhere/deep/sub/p.jsonl", PROMPTS);
    s.plan("elsewhere/deep/renamed.toml").all("cached", "the data set renamed");
}

/// What an edit does: which units change and which field is named.
struct Edit {
    what: &'static str,
    from: &'static str,
    to: &'static str,
    changed: usize,
    new: usize,
    fields: &'static [&'static str],
}

#[test]
fn one_changed_value_runs_exactly_its_cells_again_and_the_reason_names_it() {
    let s = measured();
    let base = experiment();
    let edits = [
        Edit {
            what: "unit default",
            from: "requests = 2",
            to: "requests = 3",
            changed: 6,
            new: 0,
            fields: &["requests"],
        },
        Edit {
            what: "one engine's override",
            from: "[run]",
            to: "[[override]]\nwhen = { engine = \"vllm\" }\nset = { warmup = 1 }\n[run]",
            changed: 3,
            new: 0,
            fields: &["warmup"],
        },
        Edit {
            what: "deploy parameter of one block",
            from: "dataset = \"prompts.jsonl\"",
            to: "max_num_seqs = 16\ndataset = \"prompts.jsonl\"",
            changed: 2,
            new: 0,
            fields: &["max_num_seqs"],
        },
        Edit {
            what: "an engine's option",
            from: "itl = \"20us\"",
            to: "itl = \"21us\"",
            changed: 6,
            new: 0,
            fields: &["engine_args.itl"],
        },
        Edit {
            what: "two at once",
            from: "requests = 2",
            to: "requests = 2\nseed = 5\ntensor_parallel = 2",
            changed: 6,
            new: 0,
            fields: &["seed", "tensor_parallel"],
        },
        Edit { what: "another point", from: "[1, 8]", to: "[1, 8, 4]", changed: 0, new: 2, fields: &["concurrency"] },
        Edit { what: "a point less", from: "[1, 8]", to: "[1]", changed: 0, new: 0, fields: &[] },
        Edit {
            what: "hardware class",
            from: "requests = 2",
            to: "requests = 2\nhardware = \"sim-2\"",
            changed: 6,
            new: 0,
            fields: &["hardware"],
        },
        Edit {
            what: "environment",
            from: "requests = 2",
            to: "requests = 2\nenv = { MODE = \"${MODE}\" }",
            changed: 6,
            new: 0,
            fields: &["env.MODE"],
        },
    ];
    for edit in &edits {
        s.write("x/base.toml", edited(&base, edit.from, edit.to));
        let plan = s.plan("x/base.toml");
        assert_eq!((plan.with("changed").len(), plan.with("new").len()), (edit.changed, edit.new), "{}", edit.what);
        assert_eq!(plan.with("cached").len() + edit.changed + edit.new, plan.units().len(), "{}", edit.what);
        for unit in plan.with("changed").into_iter().chain(plan.with("new")) {
            assert_eq!(fields(unit), edit.fields.iter().map(|f| f.to_string()).collect(), "{}: {unit}", edit.what);
        }
    }
}

#[test]
fn reasons_give_both_values_and_the_run_measures_only_what_changed() {
    let s = measured();
    let before = s.results("artifacts");
    let text_ = edited(
        &experiment(),
        "[run]",
        "[[override]]\nwhen = { engine = \"trtllm\", concurrency = 8 }\nset = { requests = 4 }\n[run]",
    );
    s.write("x/base.toml", text_);
    let plan = s.plan("x/base.toml");
    let changed = plan.with("changed");
    assert_eq!(changed.len(), 1);
    assert_eq!(changed[0]["reasons"], serde_json::json!([{ "field": "requests", "old": 2, "new": 4 }]));
    assert_eq!((&changed[0]["cell"]["engine"], &changed[0]["cell"]["concurrency"]), (&"trtllm".into(), &8.into()));
    let human = s.run("plan x/base.toml").success();
    assert!(human.stdout.contains("requests 2 → 4"), "{}", human.stdout);

    s.run("run x/base.toml").success().says(&["6 units, 5 cached; 1 sample to measure over 1 engine start"]);
    let after = s.results("artifacts");
    assert_eq!(after.len(), 7);
    assert!(before.iter().all(|(path, bytes)| after[path] == *bytes), "what was there is untouched");
    // And back: the old result still counts.
    s.write("x/base.toml", experiment());
    s.plan("x/base.toml").all("cached", "the edit taken back");
}

#[test]
fn an_edited_data_set_runs_only_its_users_again() {
    let s = measured();
    s.write("x/prompts.jsonl", format!("{PROMPTS}{{\"prompt\": \"six\"}}\n"));
    let plan = s.plan("x/base.toml");
    assert_eq!(plan.with("changed").len(), 2);
    for unit in plan.units() {
        let user = unit["cell"].get("dataset").is_some();
        assert_eq!(unit["status"] == "changed", user, "{unit}");
        if user {
            assert_eq!(fields(unit), BTreeSet::from(["data set content".to_string()]));
        }
    }
    s.run("run x/base.toml").success().says(&["4 cached"]);
    s.write("x/prompts.jsonl", PROMPTS);
    s.plan("x/base.toml").all("cached", "the data set as it was");
}

/// A template that renders the simulator, with one deploy parameter that only some cells have.
const TEMPLATE: &str = r#"
ignores = ["*"]
served_model = {{ model | toml }}
sim = {{ merge({ "flavor": "hf-vllm", "model": model, "max_num_seqs": max_num_seqs }, snake(engine_args)) | toml }}
[api]
dialect = "openai"
default = "completions"
token_ids = true
health = "/health"
models = "/v1/models"
"#;

#[test]
fn an_edited_template_runs_only_cells_whose_rendering_changed() {
    let s = Sandbox::new();
    s.write("x/templates/sim/own.toml.j2", TEMPLATE);
    s.write(
        "x/e.toml",
        format!(
            "[defaults]\nrequests = 2\n{FAST}\n[[matrix]]\nmethod = \"sim\"\nengine = [\"own\", \"vllm\"]\nmodel = \"m\"\n\
             tokens = {{ input = 8, output = 2 }}\nmax_num_seqs = [16, 64]\n"
        ),
    );
    s.run("run x/e.toml").success();
    s.plan("x/e.toml").all("cached", "unedited");
    let edit = |text: String| {
        s.write("x/templates/sim/own.toml.j2", text);
        s.plan("x/e.toml")
    };
    edit(format!("{{# a comment #}}\n\n{TEMPLATE}# and one in TOML\n")).all("cached", "comments render to nothing");
    edit(TEMPLATE.replace("ignores = [\"*\"]", "ignores = [\"*\", \"dtype\"]"))
        .all("cached", "ignores are not rendered");

    let plan =
        edit(TEMPLATE.replace("snake(engine_args)", "{'noise': 0.1} if max_num_seqs > 20 else {}, snake(engine_args)"));
    assert_eq!(plan.with("changed").len(), 1, "{:#?}", plan.units());
    let unit = plan.with("changed")[0];
    assert_eq!((&unit["cell"]["engine"], &unit["cell"]["max_num_seqs"]), (&"own".into(), &64.into()));
    assert_eq!(unit["reasons"], serde_json::json!([{ "field": "template: sim.noise", "old": null, "new": 0.1 }]));

    let plan = edit(TEMPLATE.replace("token_ids = true", "token_ids = false"));
    let engines: BTreeSet<String> = plan.with("changed").iter().map(|u| text(&u["cell"]["engine"])).collect();
    assert_eq!((plan.with("changed").len(), engines), (2, BTreeSet::from(["own".to_string()])));
    // The built-in template of the other engine, overridden by a file that says the same in other words.
    let built_in = include_str!("../templates/sim/vllm.toml.j2");
    s.write("x/templates/sim/vllm.toml.j2", format!("{{# ours #}}\n{built_in}"));
    assert!(edit(TEMPLATE.into()).with("changed").is_empty());
}

#[test]
fn an_edited_template_of_a_container_changes_a_rehearsal_too() {
    let s = Sandbox::new();
    let template = include_str!("../templates/hf/vllm.toml.j2");
    s.write("x/templates/hf/vllm.toml.j2", template);
    s.write(
        "x/e.toml",
        "[[matrix]]\nmethod = \"hf\"\nengine = [\"vllm\", \"trtllm\"]\nmodel = \"org/m-1b\"\n\
         tokens = { input = 8, output = 2 }\nconcurrency = [1, 2]\nrequests = 2\nmax_num_seqs = 8\n",
    );
    s.run("run --simulate x/e.toml").success();
    s.plan("--simulate x/e.toml").all("cached", "unedited");
    s.write("x/templates/hf/vllm.toml.j2", template.replace("\"--seed\", \"0\"", "\"--seed\", \"1\""));
    let plan = s.plan("--simulate x/e.toml");
    assert_eq!(plan.statuses(), [("cached".to_string(), 2), ("changed".to_string(), 2)].into());
    for unit in plan.with("changed") {
        assert_eq!(unit["cell"]["engine"], "vllm");
        assert_eq!(fields(unit), BTreeSet::from(["template: container.command".to_string()]));
    }
    // Log lines that are only watched are not part of what runs.
    s.write("x/templates/hf/vllm.toml.j2", template.replace("[milestones]", "[milestones]\nmore = 'x'"));
    s.plan("--simulate x/e.toml").all("cached", "milestones");
}

#[test]
fn more_repeats_add_samples_and_fewer_are_a_hit() {
    let s = measured();
    let with = |n: u32| edited(&experiment(), "repeats = 1", &format!("repeats = {n}"));
    let numbers = |s: &Sandbox| s.samples("artifacts").into_values().collect::<BTreeSet<_>>();
    s.write("x/base.toml", with(3));
    let plan = s.plan("x/base.toml");
    plan.all("partial", "1 of 3");
    s.run("run x/base.toml").success().says(&["12 samples to measure over 2 engine starts"]);
    assert_eq!(numbers(&s), BTreeSet::from([vec![1, 2, 3]]));
    let before = s.results("artifacts");
    s.write("x/base.toml", with(5));
    s.run("run x/base.toml").success().says(&["12 samples to measure"]);
    assert_eq!(numbers(&s), BTreeSet::from([vec![1, 2, 3, 4, 5]]));
    let first_three = |bytes: &[u8]| -> Vec<serde_json::Value> {
        let result: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        result["samples"].as_array().unwrap()[..3].to_vec()
    };
    for (path, bytes) in s.results("artifacts") {
        assert_eq!(first_three(&bytes), first_three(&before[&path]), "samples are immutable");
    }
    s.write("x/base.toml", with(3));
    s.plan("x/base.toml").all("cached", "5 of 3");
    s.run("run x/base.toml").success().says(&["6 cached", "nothing was measured"]);
    // The flag stands over the file; --force adds, it does not delete.
    s.run("run x/base.toml --repeats 6").success().says(&["6 samples to measure"]);
    s.run("run x/base.toml --force --repeats 1").success();
    assert_eq!(numbers(&s), BTreeSet::from([vec![1, 2, 3, 4, 5, 6, 7]]));
}

#[test]
fn two_experiments_share_a_cell() {
    let s = measured();
    s.write("x/other.toml", edited(&edited(&experiment(), "\"base\"", "\"other\""), "[1, 8]", "[8, 16]"));
    let plan = s.plan("x/other.toml");
    assert_eq!(plan.statuses(), [("cached".to_string(), 4), ("new".to_string(), 2)].into());
    let first = s.results("artifacts");
    s.run("run x/other.toml").success();
    let all = s.results("artifacts");
    assert_eq!(all.len(), 8);
    assert!(first.iter().all(|(p, bytes)| all[p] == *bytes), "measured once, both refer to it");
    let run = s.runs("artifacts").into_iter().find(|r| r.ends_with("-other")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&s.read(&format!("artifacts/runs/{run}/plan.json"))).unwrap();
    let units = record["units"].as_array().unwrap();
    assert!(units.iter().all(|u| u["samples"] == serde_json::json!([1]) && u["facts"]["experiment"] == "other"));
}

#[test]
fn old_samples_expire_only_when_asked() {
    let s = measured();
    s.plan("x/base.toml --max-age 1h").all("cached", "younger than an hour");
    s.plan("x/base.toml --max-age 0s").all("expired", "nothing is younger than now");
}

#[test]
fn damage_is_set_aside_with_the_reason_and_measured_again() {
    let s = measured();
    let files: Vec<String> = s.results("artifacts").into_keys().collect();
    let before = s.read(&format!("artifacts/{}", files[0]));
    s.write(&format!("artifacts/{}", files[0]), &before[..before.len() / 2]);
    let dir = files[1].strip_suffix("/result.json").unwrap();
    std::fs::remove_dir_all(s.path(&format!("artifacts/{dir}"))).unwrap();
    let unit_file = format!("artifacts/{}", files[2].replace("result.json", "unit.json"));
    s.write(&unit_file, s.read(&unit_file).replace("\"requests\": 2", "\"requests\": 9"));
    let plan: Plan = s.plan("x/base.toml");
    // What a unit's document said can be made again; its samples vouch for themselves.
    assert_eq!(plan.statuses()["cached"], 4, "{:#?}", plan.statuses());
    let notes: Vec<String> =
        plan.units().iter().filter(|u| u.get("note").is_some()).map(|u| text(&u["note"])).collect();
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes.iter().any(|n| n.contains("result.json cannot be read")), "{notes:?}");
    assert!(notes.iter().any(|n| n.contains("unit.json cannot be read: its checksum")), "{notes:?}");
    s.run("run x/base.toml").success().says(&["set aside"]);
    s.plan("x/base.toml").all("cached", "measured again");
    let kept = s.tree("artifacts");
    assert!(kept.iter().any(|f| f.contains("/damaged-1-result.json")), "{kept:#?}");
    assert!(kept.iter().any(|f| f.contains("/damaged-1-unit.json")), "{kept:#?}");
}
