//! The command line's own promises: exit codes, output, settings, locks, comparisons with a git revision.

mod support;

use std::collections::BTreeSet;
use std::io::Read;
use std::process::{Command, Stdio};

use serde_json::{Value as Json, json};
use support::{Done, FAST, Plan, Sandbox, columns, fields, finish, rows, text};

fn small() -> String {
    format!(
        "name = \"small\"\n[defaults]\nrequests = 2\n{FAST}\n[[matrix]]\nmethod = \"sim\"\nmodel = \"org/m\"\n\
         engine = [\"vllm\", \"trtllm\"]\ntokens = {{ input = 8, output = 2 }}\nconcurrency = [1, 2]\n"
    )
}

fn with_small() -> Sandbox {
    let s = Sandbox::new();
    s.write("small.toml", small());
    s
}

#[test]
fn nothing_selected_is_4_and_says_so() {
    let s = with_small();
    for command in ["plan", "run"] {
        s.run(&format!("{command} small.toml --only concurrency=64")).exit(4);
        // A value that could not be is a mistake of the line, not an empty selection.
        s.run(&format!("{command} small.toml --only concurency=1")).exit(2).says(&["did you mean `concurrency`?"]);
        s.run(&format!("{command} small.toml --only engine=vlm")).exit(2).says(&["vllm"]);
    }
    assert!(!s.exists("artifacts"));
    s.run("explain ffffffff").exit(4);
    s.run("report").exit(4);
    s.run("report nothing-like-it").exit(4);
}

#[test]
fn misused_flags_are_2() {
    let s = with_small();
    for line in [
        "",
        "frobnicate",
        "run",
        "run small.toml --fast",
        "run small.toml --repeats none",
        "run small.toml --repeats 0",
        "run small.toml --max-age soon",
        "run small.toml --set concurrency",
        "run small.toml --set concurency=1",
        "run small.toml --set concurrency=zero",
        "plan small.toml --only",
        "explain xyz",
        "report --format pdf",
        "sim --flavor none",
        "completions tcsh-like",
        "one sim vllm --concurrency 0",
    ] {
        let done = s.run(line).exit(2);
        assert_eq!(done.stdout, "", "{line}");
        assert!(done.stderr.len() > 20, "{line}: {}", done.stderr);
    }
    assert!(!s.exists("artifacts"));
    for line in ["--help", "--version", "run --help", "sim --help"] {
        let done = s.run(line).success();
        assert!(done.stdout.contains("llmatrix") && done.stderr.is_empty(), "{line}");
    }
}

#[test]
fn a_large_plan_asks_and_without_a_terminal_needs_yes() {
    let s = with_small();
    s.run("run small.toml --max-units 3").exit(2).says(&["4 units to measure", "max_units = 3", "--yes"]);
    assert!(!s.exists("artifacts"));
    s.run("run small.toml --max-units 3 --yes").success();
    // What is cached is no work, so there is nothing to ask.
    s.run("run small.toml --max-units 3").success();
}

#[test]
fn artifacts_that_cannot_be_written_are_7() {
    let s = with_small();
    s.write("taken", "a file");
    s.run("run small.toml --artifacts taken").exit(7).says(&["taken", "Not a directory"]);
    s.write("half/runs", "a file");
    s.run("run small.toml --artifacts half").exit(7).says(&["half/runs"]);
    assert_eq!(s.read("taken"), "a file");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let s = Sandbox::new();
    s.write("large.toml", small().replace("[1, 2]", "{ from = 1, to = 800, step = 1 }"));
    let head = |args: &[&str]| {
        let mut child = s.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = [0; 10];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(
            !stderr.contains("panicked") && output.status.code() == Some(0),
            "{args:?}: {:?} {stderr}",
            output.status
        );
        String::from_utf8(first.to_vec()).unwrap()
    };
    assert_eq!(head(&["plan", "--json", "large.toml"]), "{\"experime");
    head(&["schema"]);
    head(&["completions", "bash"]);
    s.write("small.toml", small());
    head(&["run", "--json", "small.toml"]);
    s.plan("small.toml").all("cached", "the run went on to its end");
}

#[test]
fn events_are_json_lines_and_the_last_one_has_the_exit_code() {
    let s = with_small();
    let check = |done: Done, measured: u64, cached: u64| {
        let events = done.json_lines();
        let numbers: Vec<u64> = events.iter().map(|e| e["seq"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (0..events.len() as u64).collect::<Vec<_>>());
        assert_eq!(events[0]["event"], "run_started");
        let last = events.last().unwrap();
        assert_eq!((&last["event"], &last["exit_code"]), (&json!("run_finished"), &json!(0)));
        assert_eq!((&last["measured"], &last["cached"]), (&json!(measured), &json!(cached)));
        assert_eq!(done.stderr, "", "nothing for a person");
        // The same lines as the journal's, but for its checksums.
        let run = text(&events[0]["run"]);
        let journal = s.read(&format!("artifacts/runs/{run}/journal.jsonl"));
        let journal: Vec<Json> = journal.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(journal.len(), events.len());
        assert!(journal.iter().zip(&events).all(|(j, e)| e.as_object().unwrap().iter().all(|(k, v)| j[k] == *v)));
    };
    check(s.run("run --json small.toml").success(), 4, 0);
    check(s.run("run --json --quiet small.toml").success(), 0, 4);
}

#[test]
fn quiet_and_colourless() {
    let s = with_small();
    let done = s.run("run --quiet small.toml").success();
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("", ""));
    // Errors are told in any case.
    assert!(!s.run("run --quiet gone.toml").exit(2).stderr.is_empty());
    for (name, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        for line in ["plan small.toml", "report", "run --force small.toml", "plan gone.toml", "validate small.toml"] {
            let mut command = s.command(line.split_whitespace());
            let done = finish(command.env(name, value), line);
            assert!(!done.stdout.contains('\u{1b}') && !done.stderr.contains('\u{1b}'), "{line}: {done:?}");
        }
    }
}

#[test]
fn settings_come_from_the_nearest_layer_and_say_where_from() {
    let s = with_small();
    let sources = |args: &[&str], variables: &[(&str, &str)]| -> Vec<(String, String, String)> {
        let mut command = s.command(args);
        let done = finish(command.envs(variables.iter().copied()), "config").success();
        let entries = done.json();
        let entry = |e: &Json| (text(&e["key"]), text(&e["value"]), text(&e["source"]));
        entries.as_array().unwrap().iter().map(entry).collect()
    };
    let of = |all: &[(String, String, String)], key: &str| {
        let (_, value, source) = all.iter().find(|(k, _, _)| k == key).unwrap();
        (value.clone(), source.clone())
    };
    let plain = sources(&["config", "--json"], &[]);
    assert!(plain.iter().all(|(_, _, source)| source == "built-in"), "{plain:?}");

    s.write(".home/.config/llmatrix/config.toml", "model = \"user/m\"\nui_port = 1\nartifacts = \"/tmp/a\"\n");
    s.write("llmatrix.toml", "ui_port = 2\nartifacts = \"mine\"\n");
    let all = sources(&["config", "--json", "--cache", "c"], &[("LLMATRIX_UI_PORT", "3")]);
    assert_eq!(of(&all, "model").0, "user/m");
    assert!(of(&all, "model").1.ends_with(".config/llmatrix/config.toml"), "{all:?}");
    assert!(of(&all, "artifacts").0.ends_with("mine") && of(&all, "artifacts").1.ends_with("llmatrix.toml"), "{all:?}");
    assert_eq!(of(&all, "ui_port"), ("3".into(), "environment LLMATRIX_UI_PORT".into()));
    assert_eq!(of(&all, "cache"), ("c".into(), "flag --cache".into()));
    let human = s.run("config").success().stdout;
    assert!(human.contains("ui_port") && human.contains("llmatrix.toml"), "{human}");

    s.run("run --quiet small.toml").success();
    assert!(s.exists("mine/runs") && !s.exists("artifacts"), "the setting is used");
    s.write("llmatrix.toml", "artefacts = \"mine\"\n");
    s.run("config").exit(3).says(&["artefacts"]);
    s.run("run small.toml").exit(3).says(&["artefacts"]);
}

#[test]
fn what_init_writes_is_valid_and_runs() {
    let s = Sandbox::new();
    s.run("init").success().says(&["wrote experiments/my-sweep.toml", "llmatrix plan experiments/my-sweep.toml"]);
    s.run("validate experiments").success();
    s.run("init").exit(2).says(&["exists"]);
    s.run("init sweeps/first.toml").success();
    assert!(s.read("sweeps/first.toml").contains("name = \"first\""));
    s.run("run --quiet sweeps/first.toml --set requests=2 --set tokens.output=2").success();
    let refused = s.run("init sweeps/first.toml").exit(2);
    assert!(refused.stderr.contains("sweeps/first.toml"), "never overwritten");
    let done = s.run("init --json other.toml").success().json();
    assert_eq!(done["file"], "other.toml");
}

#[test]
fn an_ad_hoc_cell_goes_the_same_way() {
    let s = Sandbox::new();
    let line = "one sim vllm org/tiny --input-tokens-mean 8 --output-tokens-mean 2 --requests 3 --concurrency 2 --set engine_args.speed=50";
    s.run(line).success();
    let samples = s.samples("artifacts");
    assert_eq!(samples.values().collect::<Vec<_>>(), [&vec![1]]);
    s.run(line).success().says(&["1 cached"]);
    s.run(&format!("{line} --force")).success();
    assert_eq!(s.samples("artifacts").values().collect::<Vec<_>>(), [&vec![1, 2]]);
    // An experiment with this cell finds it measured.
    s.write(
        "x.toml",
        "[[matrix]]\nmethod = \"sim\"\nengine = \"vllm\"\nmodel = \"org/tiny\"\ntokens = { input = 8, output = 2 }\n\
         requests = 3\nconcurrency = 2\nengine_args.speed = 50\n",
    );
    s.plan("x.toml").all("cached", "the same cell");
}

#[test]
fn explain_tells_everything_about_a_unit() {
    let s = with_small();
    let plan = s.plan("small.toml");
    let id = text(&plan.units()[0]["unit_id"]);
    let told = s.run(&format!("explain {} small.toml", &id[..8])).success().stdout;
    for word in [id.as_str(), "new", "concurrency", "tokens.input", "org--m-sim-vllm"] {
        assert!(told.contains(word), "{word} is not in\n{told}");
    }
    s.run("run --quiet small.toml").success();
    let told = s.run(&format!("explain {}", &id[..8])).success().stdout;
    assert!(told.contains(&id) && told.contains("samples     1 ("), "{told}");
    let told = s.run(&format!("explain --json {id} small.toml")).success().json();
    assert_eq!((&told["status"], &told["valid_samples"]), (&json!("cached"), &json!(1)));
    assert_eq!(told["unit"]["params"]["tokens.input"], 8);
    // An edit: the reasons are there.
    s.write("small.toml", small().replace("requests = 2", "requests = 3"));
    let new = text(&s.plan("small.toml").units()[0]["unit_id"]);
    let told = s.run(&format!("explain {new} small.toml")).success().stdout;
    assert!(told.contains("changed") && told.contains("requests 2 → 3"), "{told}");
    s.run("explain abc").exit(2).says(&["four"]);
}

#[test]
fn a_report_has_every_format() {
    let s = with_small();
    s.run("run --quiet small.toml --repeats 2").success();
    let run = s.runs("artifacts")[0].clone();
    let table = s.run("report").success().stdout;
    assert_eq!(table.matches("org/m").count(), 4, "{table}");
    assert_eq!(s.run(&format!("report {run}")).success().stdout, table);
    assert_eq!(s.run("report small").success().stdout, table, "an experiment's newest");

    let lines = s.run("report --json").success().json_lines();
    assert_eq!(lines.len(), 8);
    for line in &lines {
        let keys: BTreeSet<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, columns().into_iter().collect());
    }
    assert_eq!(s.run("report --format json").success().json_lines(), lines);

    s.write("all.csv", s.run("report --format csv").success().stdout);
    let found: BTreeSet<_> =
        rows(&s.path("all.csv")).into_iter().map(|r| (r["unit_id"].clone(), r["sample"].clone())).collect();
    let expected: BTreeSet<_> = lines.iter().map(|l| (text(&l["unit_id"]), l["sample"].to_string())).collect();
    assert_eq!(found, expected);

    let markdown = s.run("report --format markdown").success().stdout;
    assert_eq!(
        markdown
            .lines()
            .filter(|l| l.starts_with("| org/m |") || l.contains("| vllm |") || l.contains("| trtllm |"))
            .count(),
        4,
        "{markdown}"
    );
    let html = s.run("report --format html").success().stdout;
    assert!(html.to_lowercase().starts_with("<!doctype html>") && html.trim_end().ends_with("</html>"));
    assert!(!html.contains("http://") && !html.contains("https://"), "the page needs no network");
    let junit = s.run("report --format junit").success().stdout;
    assert!(junit.starts_with("<?xml") && junit.matches("<testcase").count() == 4, "{junit}");
    s.run("report --format html -o page.html").success();
    // A page that is a file may link to others.
    let file = s.read("page.html");
    assert!(
        file.starts_with(&html[..html.find("<body>").expect("a body")]) && file.trim_end().ends_with("</html>"),
        "{file}"
    );

    let picked = s
        .run("report --columns engine,concurrency,p99_ttft_ms --sort=-concurrency --only engine=vllm")
        .success()
        .stdout;
    assert!(!picked.contains("trtllm") && !picked.contains("org/m"), "{picked}");
    let numbers: Vec<&str> =
        picked.lines().filter(|l| l.contains("vllm")).filter_map(|l| l.split_whitespace().nth(1)).collect();
    assert_eq!(numbers, ["2", "1"], "{picked}");
    s.run("report --columns nothing").exit(2).says(&["nothing"]);
    s.run("report --only engine=sglang").exit(2).says(&["sglang"]);
}

#[test]
fn completions_and_schema_for_people() {
    let s = Sandbox::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = s.run(&format!("completions {shell}")).success().stdout;
        assert!(script.contains("llmatrix") && script.contains("retry-failed"), "{shell}");
    }
    let table = s.run("schema --params").success().stdout;
    assert!(table.contains("| `tokens.input` |") && table.contains("| `tensor_parallel` |"), "{table}");
}

const LOCKABLE: &str = r#"name = "lockable"
[defaults]
requests = 2
tokens = { input = 8, output = 2 }
[[matrix]]
method = "hf"
engine = "vllm"
model = "org/m"
[matrix.vary.adapter]
none = {}
own = { assets = { lora = "./adapter" }, engine_args.lora = "{{ assets.lora }}" }
file = { assets = { config = "./config.json" } }
"#;

#[test]
fn a_lock_keeps_what_it_can_and_lists_what_it_cannot() {
    let s = with_small();
    s.run("lock small.toml").success().says(&["nothing that needs a lock"]);
    assert!(!s.exists("small.lock"));

    s.write("x.toml", LOCKABLE);
    s.write("adapter/weights.bin", "0123");
    s.write("adapter/deep/more.bin", "4567");
    s.write("config.json", "{}");
    let done = s.run("lock --offline x.toml").exit(7).says(&["not locked", "org/m", "vllm/vllm-openai"]);
    assert!(done.stdout.contains("+ asset ./adapter"), "{}", done.stdout);
    let lock = s.read("x.lock");
    assert!(lock.contains("[assets.\"./adapter\"]") && !lock.contains("vllm-openai"), "{lock}");
    let told = s.run("lock --offline --json x.toml").exit(7).json();
    assert_eq!(told["changes"], json!([]));
    assert_eq!(told["unresolved"].as_array().unwrap().len(), 2, "{told}");
    assert_eq!(s.read("x.lock"), lock, "nothing moved");

    // Moved together with its lock and what it refers to.
    let before = s.plan("x.toml");
    for file in ["x.toml", "x.lock", "adapter/weights.bin", "adapter/deep/more.bin", "config.json"] {
        s.write(&format!("moved/{}", file.replace("x.", "renamed.")), s.read(file));
    }
    assert_eq!(s.plan("moved/renamed.toml").ids(), before.ids());
}

/// Units by label of `adapter`.
fn unit<'p>(plan: &'p Plan, label: &str) -> &'p Json {
    plan.units().iter().find(|u| u["labels"]["adapter"] == label).expect("a unit of each label")
}

#[test]
fn a_locked_asset_that_is_edited_changes_only_its_users() {
    let s = Sandbox::new();
    s.write("x.toml", LOCKABLE);
    s.write("adapter/weights.bin", "0123");
    s.write("config.json", "{}");
    s.run("lock --offline x.toml").exit(7);
    s.run("run --quiet --simulate x.toml").success();
    s.plan("--simulate x.toml").all("cached", "locked and measured");
    s.write("adapter/weights.bin", "9999");
    let plan = s.plan("--simulate x.toml");
    assert_eq!(plan.with("changed").len(), 1, "{:#?}", plan.units());
    assert_eq!(unit(&plan, "own")["status"], "changed");
    assert_eq!(fields(unit(&plan, "own")), BTreeSet::from(["assets.lora".to_string()]));
    // The lock takes note of it when told to, and says what moved.
    let done = s.run("lock --offline x.toml").exit(7);
    assert!(done.stdout.contains("~ asset ./adapter"), "{}", done.stdout);
    assert_eq!(s.plan("--simulate x.toml").ids(), plan.ids());
    // On a machine without the files the lock stands for them.
    std::fs::remove_dir_all(s.path("adapter")).unwrap();
    assert_eq!(s.plan("--simulate x.toml").ids(), plan.ids());
    std::fs::remove_file(s.path("x.lock")).unwrap();
    s.run("plan x.toml").exit(3).says(&["the asset `lora` cannot be read", "x.toml:"]);
}

fn git(s: &Sandbox, line: &str) {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=T", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main"]);
    command.args(line.split_whitespace()).current_dir(s.root()).env("HOME", s.path(".home"));
    let output = command.output().expect("git runs");
    assert!(output.status.success(), "git {line}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_branch_is_compared_with_its_base() {
    let s = Sandbox::new();
    git(&s, "init -q .");
    let base = small().replace("[1, 2]", "[1, 2, 4]")
        + "[[matrix]]\nmethod = \"sim\"\nmodel = \"org/m\"\nengine = \"vllm\"\ntokens.output = 2\ndataset = \"p.jsonl\"\nassets.a = \"dir\"\n";
    s.write("exp/small.toml", &base);
    s.write("exp/p.jsonl", "{\"prompt\": \"one\"}\n");
    s.write("exp/dir/a/b", "deep");
    s.write("exp/dir/c", "flat");
    s.write("templates/sim/vllm.toml.j2", include_str!("../templates/sim/vllm.toml.j2"));
    git(&s, "add -A");
    git(&s, "commit -q -m base");

    let against = |s: &Sandbox| -> Json { s.plan("--base HEAD exp/small.toml").0["base"].clone() };
    let count = |base: &Json| {
        let n = |key: &str| base[key].as_array().map_or(0, Vec::len);
        (n("added"), n("changed"), n("removed"), base["unchanged"].as_u64().unwrap())
    };
    let same = against(&s);
    assert_eq!((&same["ref"], &same["present"]), (&json!("HEAD"), &json!(true)));
    assert_eq!(count(&same), (0, 0, 0, 7));

    // One engine's value changes, a point goes, a point comes.
    let edited =
        base.replace("[1, 2, 4]", "[2, 4, 8]") + "[[override]]\nwhen = { engine = \"trtllm\" }\nset = { warmup = 1 }\n";
    s.write("exp/small.toml", edited);
    let changes = against(&s);
    assert_eq!(count(&changes), (2, 2, 2, 3));
    for change in changes["changed"].as_array().unwrap() {
        assert_eq!(change["reasons"], json!([{ "field": "warmup", "old": null, "new": 1 }]));
    }
    let human = s.run("plan --base HEAD exp/small.toml").success().stdout;
    assert!(human.contains("against HEAD: 2 added · 2 changed · 2 removed · 3 unchanged"), "{human}");

    // The revision's own templates, data sets and assets are what it is compared with.
    s.write("exp/small.toml", &base);
    s.write("exp/p.jsonl", "{\"prompt\": \"two\"}\n");
    assert_eq!(count(&against(&s)), (0, 1, 0, 6));
    s.write("exp/p.jsonl", "{\"prompt\": \"one\"}\n");
    s.write("exp/dir/a/b", "deeper");
    assert_eq!(count(&against(&s)), (0, 1, 0, 6));
    s.write("exp/dir/a/b", "deep");
    let template = include_str!("../templates/sim/vllm.toml.j2");
    s.write("templates/sim/vllm.toml.j2", template.replace("\"/metrics\"", "\"/other\""));
    assert_eq!(count(&against(&s)), (0, 4, 0, 3));
    s.write("templates/sim/vllm.toml.j2", template);

    s.write("exp/new.toml", small());
    let new = s.plan("--base HEAD exp/new.toml").0["base"].clone();
    assert_eq!((&new["present"], new["added"].as_array().unwrap().len()), (&json!(false), 4));
    s.run("plan --base no-such-branch exp/small.toml").exit(2).says(&["no-such-branch"]);
    assert!(!s.exists("artifacts"));
    // Outside of any repository.
    let outside = with_small();
    outside.run("plan --base HEAD small.toml").exit(7).says(&["git"]);
}

#[test]
fn some_that_fail_are_5_and_one_failure_can_end_it_with_8() {
    let s = Sandbox::new();
    let broken = small().replace("concurrency = [1, 2]", "concurrency = [1, 2]\n[[matrix]]\nmethod = \"sim\"\nmodel = \"broken\"\nengine = \"vllm\"\ntokens = { input = 8, output = 2 }\nengine_args.crash_at_start = \"oom\"");
    s.write("x.toml", &broken);
    s.run("run x.toml").exit(5).says(&["4 measured", "1 blocked", "exit code 5"]);
    let plan = s.plan("x.toml");
    assert_eq!(plan.statuses(), [("cached".to_string(), 4), ("failed".to_string(), 1)].into());
    assert!(text(&plan.with("failed")[0]["note"]).contains("--retry-failed"), "out of memory is for good");
    s.run("run x.toml").exit(5).says(&["4 cached"]);
    let attempts = |s: &Sandbox| -> usize {
        let results = s.results("artifacts").into_values();
        results.map(|b| serde_json::from_slice::<Json>(&b).unwrap()["attempts"].as_array().unwrap().len()).sum()
    };
    let before = attempts(&s);
    s.run("run x.toml").exit(5);
    assert_eq!(attempts(&s), before, "not tried again");
    s.run("run x.toml --retry-failed").exit(5);
    assert!(attempts(&s) > before, "tried again when told to");

    // Wrong lengths are invalid, never success.
    s.write("y.toml", small().replace("itl = \"20us\"", "itl = \"20us\", wrong_length = 1"));
    s.run("run y.toml").exit(5).says(&["4 invalid"]);
    s.run("run y.toml --fail-fast --set seed=3").exit(5).says(&["1 invalid, 3 not run"]);
    // A budget of nothing starts nothing.
    s.write("small.toml", small());
    s.run("run small.toml --budget 1us --set seed=4").exit(8).says(&["not run"]);
}
