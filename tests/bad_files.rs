//! Files that are wrong, each in one way: the exit code, the place, the code, what to do about it; and nothing is written.

mod support;

use std::collections::BTreeSet;

use serde_json::Value as Json;
use support::Sandbox;

/// A block that would be fine.
const GOOD: &str = r#"[[matrix]]
model = "org/m"
method = "sim"
engine = "vllm"
tokens = { input = 8, output = 2 }
concurrency = 1
"#;

/// One wrong file: the name of its snapshot, its text, and what each of its problems is.
struct Bad {
    name: &'static str,
    text: String,
    problems: &'static [(&'static str, u64, u64, &'static str)],
}

fn bad(
    name: &'static str,
    text: impl Into<String>,
    problems: &'static [(&'static str, u64, u64, &'static str)],
) -> Bad {
    Bad { name, text: text.into(), problems }
}

fn files() -> Vec<Bad> {
    let with = |line: &str| format!("{GOOD}{line}\n");
    vec![
        bad("unknown_parameter", with("concurency = 4"), &[("unknown_parameter", 7, 1, "did you mean `concurrency`?")]),
        bad(
            "parameter_by_another_name",
            with("tp = 4"),
            &[("unknown_parameter", 7, 1, "did you mean `tensor_parallel`?")],
        ),
        bad("policy_in_a_block", with("repeats = 4"), &[("unknown_parameter", 7, 1, "stands under [run]")]),
        bad(
            "unknown_section",
            format!("[default]\nseed = 1\n{GOOD}"),
            &[("unknown_section", 1, 2, "did you mean `defaults`?")],
        ),
        bad(
            "unknown_policy",
            format!("{GOOD}[run]\nrepeat = 3\n"),
            &[("unknown_setting", 8, 1, "did you mean `repeats`?")],
        ),
        bad("wrong_type", with("seed = \"one\""), &[("wrong_type", 7, 8, "a whole number")]),
        bad("out_of_range", with("temperature = -1"), &[("out_of_range", 7, 15, "")]),
        bad("bad_duration", with("duration = \"5 parsecs\""), &[("wrong_type", 7, 12, "30s")]),
        bad(
            "list_in_defaults",
            format!("[defaults]\nseed = [1, 2]\n{GOOD}"),
            &[("wrong_type", 2, 8, "[[matrix]] block")],
        ),
        bad(
            "unknown_engine",
            GOOD.replace("\"vllm\"", "\"vlllm\""),
            &[("unknown_value", 4, 10, "did you mean `vllm`?")],
        ),
        bad("unknown_method", GOOD.replace("\"sim\"", "\"slurm\""), &[("unknown_value", 3, 10, "sim")]),
        bad("unknown_word", with("arrival = \"poison\""), &[("unknown_value", 7, 11, "did you mean `poisson`?")]),
        bad(
            "two_axes_set_one_scalar",
            with("vary.load = { a = { concurrency = 2 }, b = { concurrency = 4 } }")
                .replace("concurrency = 1\n", "concurrency = [1, 2]\n"),
            &[("axis_conflict", 7, 6, "")],
        ),
        bad(
            "cyclic_expression",
            with("requests = \"{{ warmup + 1 }}\"\nwarmup = \"{{ requests - 1 }}\""),
            &[("cyclic_expression", 7, 12, "give one of them a value")],
        ),
        bad(
            "bad_expression",
            with("requests = \"{{ 10 * }}\"\nwarmup = \"{{ concurency }}\""),
            &[
                ("bad_expression", 7, 12, "{{ 10 * concurrency }}"),
                ("unknown_parameter", 8, 10, "did you mean `concurrency`?"),
            ],
        ),
        bad("expression_of_the_wrong_type", with("requests = \"{{ model }}\""), &[("wrong_type", 7, 12, "")]),
        bad(
            "rule_that_matches_nothing",
            format!("{GOOD}[[override]]\nwhen = {{ concurrency.ge = 100 }}\nset = {{ warmup = 1 }}\n"),
            &[("matches_nothing", 8, 8, "")],
        ),
        bad(
            "value_that_no_cell_has",
            format!("{GOOD}exclude = [{{ concurrency = [1, 3] }}]\n")
                .replace("concurrency = 1\n", "concurrency = [1, 2]\n"),
            &[("matches_nothing", 7, 32, "")],
        ),
        bad(
            "everything_is_excluded",
            format!("{GOOD}exclude = [{{ engine = \"vllm\" }}]\n"),
            &[("empty_block", 1, 1, "")],
        ),
        bad("duplicate_key", with("concurrency = 2"), &[("duplicate_key", 7, 1, "")]),
        bad(
            "invalid_toml",
            "[[matrix]]\nmodel = \"unfinished\nmethod = 'sim'\n[run\n",
            &[("invalid_toml", 2, 20, ""), ("invalid_toml", 4, 5, "")],
        ),
        bad(
            "huge_product",
            with("seed = { from = 1, to = 20000000, step = 1 }"),
            &[("too_many_cells", 7, 8, "larger steps")],
        ),
        bad(
            "search_width_that_is_none",
            with("rate = { from = 1, to = 8, until = \"slo\", within = \"5\" }"),
            &[("bad_range", 7, 52, "within = \"5%\"")],
        ),
        bad(
            "huge_product_of_axes",
            with("seed = { from = 1, to = 5000, step = 1 }\nwarmup = { from = 1, to = 5000, step = 1 }"),
            &[("too_many_cells", 7, 1, "")],
        ),
        bad("missing_model", GOOD.replace("model = \"org/m\"\n", ""), &[("missing_parameter", 1, 1, "set `model`")]),
        bad(
            "missing_tokens",
            GOOD.replace("tokens = { input = 8, output = 2 }\n", ""),
            &[("missing_parameter", 1, 1, "tokens = [{ input = 1024, output = 128 }]")],
        ),
        bad(
            "missing_dataset",
            GOOD.replace("tokens = { input = 8, output = 2 }", "tokens.output = 2\ndataset = \"gone.jsonl\""),
            &[("unreadable_file", 6, 1, "relative to the experiment file")],
        ),
        bad("dataset_and_input", with("dataset = \"p.jsonl\""), &[("conflict", 7, 1, "remove one of them")]),
        bad(
            "endpoint_of_another_method",
            with("endpoint = \"http://127.0.0.1:1\""),
            &[("conflict", 7, 1, "method = \"external\"")],
        ),
        bad("empty", "", &[("no_matrix", 1, 1, "[[matrix]]")]),
        bad("matrix_with_one_bracket", GOOD.replace("[[matrix]]", "[matrix]"), &[("wrong_type", 1, 1, "[[matrix]]")]),
        bad("bad_name", format!("name = \"a b/c\"\n{GOOD}"), &[("bad_name", 1, 8, "letters, digits")]),
        bad("reserved", with("nodes = 2"), &[("reserved_parameter", 7, 1, "reserved")]),
        bad(
            "no_stack_serves_it",
            GOOD.replace("\"sim\"", "\"triton\"").replace("\"vllm\"", "\"sglang\""),
            &[("all_unsupported", 1, 1, "templates/triton/sglang.toml.j2")],
        ),
        bad(
            "several",
            format!(
                "name = 7\n{}concurency = 4\nseed = -1\n[run]\nrepeats = 0\nattempt = 2\n[slo]\nttft = \"fast\"\nttfd = \"1s\"\n",
                GOOD.replace("\"vllm\"", "\"vlm\"")
            ),
            &[
                ("wrong_type", 1, 8, "a string"),
                ("unknown_value", 5, 10, "did you mean `vllm`?"),
                ("unknown_parameter", 8, 1, "did you mean `concurrency`?"),
                ("out_of_range", 9, 8, ""),
                ("wrong_type", 11, 11, ""),
                ("unknown_setting", 12, 1, "did you mean `attempts`?"),
                ("wrong_type", 14, 8, ""),
                ("unknown_metric", 15, 1, ""),
            ],
        ),
    ]
}

/// Code, line, column, and what the message or the help says.
type Problem = (&'static str, u64, u64, &'static str);

/// Whatever is not as it should be; a snapshot shows the rest.
fn check(s: &Sandbox, name: &str, problems: &[Problem]) -> Vec<String> {
    let done = s.run("validate x/bad.toml").exit(3);
    assert_eq!(done.stdout, "", "{name}");
    insta::assert_snapshot!(name, done.stderr.replace(&s.root().display().to_string(), "[dir]"));

    let mut wrong = Vec::new();
    let found: Vec<Json> = s.run("validate --json x/bad.toml").exit(3).json_lines();
    let place = |p: &Json| (p["code"].as_str().unwrap().to_string(), p["line"].as_u64(), p["column"].as_u64());
    let places: Vec<_> = found.iter().map(place).collect();
    let expected: Vec<_> =
        problems.iter().map(|p| (p.0.to_string(), (p.1 > 0).then_some(p.1), (p.2 > 0).then_some(p.2))).collect();
    if places != expected {
        wrong.push(format!("{name}: {places:?}, not {expected:?}"));
    }
    for (problem, (_, _, _, says)) in found.iter().zip(problems) {
        let keys: BTreeSet<&str> = problem.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, BTreeSet::from(["code", "message", "file", "line", "column", "help"]), "{name}");
        let all = format!("{} {}", problem["message"].as_str().unwrap(), problem["help"].as_str().unwrap_or_default());
        if !all.contains(says) {
            wrong.push(format!("{name}: `{says}` is not in {all}"));
        }
    }
    for command in ["plan", "run", "lock"] {
        let done = s.run(&format!("{command} x/bad.toml"));
        if done.code != Some(3) || !done.stdout.is_empty() || !done.stderr.contains(problems[0].0) {
            wrong.push(format!("{name}: {command}: {done:?}"));
        }
    }
    if s.exists("artifacts") || s.exists("x/bad.lock") {
        wrong.push(format!("{name}: something was written"));
    }
    wrong
}

#[test]
fn every_problem_has_its_place_its_code_and_a_way_out() {
    let mut wrong = Vec::new();
    for Bad { name, text, problems } in files() {
        let s = Sandbox::new();
        s.write("x/bad.toml", &text);
        wrong.extend(check(&s, name, problems));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn templates_that_are_wrong_are_named_with_their_line() {
    const API: &str = "[api]\ndialect = \"openai\"\ndefault = \"chat\"\n";
    let mut wrong = Vec::new();
    for (name, template, problem) in [
        (
            "template_undefined",
            format!("{API}\nserved_model = {{{{ modle }}}}\n"),
            ("template_error", 1, 1, "did you mean `model`?"),
        ),
        (
            "template_not_toml",
            format!("served_model = {{{{ model }}}}\n{API}"),
            ("template_error", 1, 1, "rendered line 1"),
        ),
        ("template_unknown_key", format!("colour = 1\n{API}"), ("template_error", 1, 1, "unknown field `colour`")),
        (
            "template_syntax",
            "{% if model %}\n".to_string(),
            ("template_error", 1, 1, "templates/sim/vllm.toml.j2:1: unexpected end"),
        ),
    ] {
        let s = Sandbox::new();
        s.write("x/bad.toml", GOOD);
        s.write("x/templates/sim/vllm.toml.j2", template);
        wrong.extend(check(&s, name, &[problem]));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_template_that_no_cell_needs_stands_in_nobodys_way() {
    let s = Sandbox::new();
    s.write("x/good.toml", GOOD);
    s.write("x/templates/sim/sglang.toml.j2", "{% if model %}\n");
    s.write("x/templates/hf/vllm.toml.j2", "{{ modle }}\n");
    s.run("validate x/good.toml").success();
}

#[test]
fn a_wrong_lock_is_shown_with_its_line() {
    let s = Sandbox::new();
    s.write("x/bad.toml", GOOD);
    s.write("x/bad.lock", "version = 1\n[images]\n\"a:1\" = 3\n");
    let done = s.run("plan x/bad.toml").exit(3).says(&["bad_lock", "x/bad.lock:3:", "lock --update"]);
    assert_eq!(done.stdout, "");
    s.write("x/bad.lock", "version = 99\n");
    s.run("plan x/bad.toml").exit(3).says(&["version 99"]);
}

#[test]
fn bytes_that_are_no_text_and_files_that_are_not_there() {
    let s = Sandbox::new();
    s.write("x/bad.toml", b"name = \"caf\xe9\"\n");
    s.run("validate x/bad.toml").exit(3).says(&["x/bad.toml is not UTF-8 text", "byte 11", "save the file as UTF-8"]);
    let found = s.run("validate --json x/bad.toml").exit(3).json_lines();
    assert_eq!(found[0]["code"], "invalid_toml");
    for command in ["validate", "plan", "run", "lock"] {
        s.run(&format!("{command} gone.toml")).exit(2).says(&["there is no file or directory gone.toml"]);
        s.mkdir("empty");
        s.run(&format!("{command} empty")).exit(4).says(&["empty holds no experiment"]);
    }
    assert!(!s.exists("artifacts"));
}

#[test]
fn all_files_of_a_directory_are_checked_and_nothing_runs_when_one_is_wrong() {
    let s = Sandbox::new();
    s.write("x/a.toml", format!("{GOOD}concurency = 1\n"));
    s.write("x/b.toml", GOOD);
    s.write("x/c.toml", format!("{GOOD}seed = true\n"));
    s.write("x/llmatrix.toml", "ui_port = 1\n");
    let done = s.run("validate x").exit(3).says(&["x/a.toml:7:1", "x/b.toml: 1 unit", "x/c.toml:7:8"]);
    assert!(!done.stderr.contains("llmatrix.toml"));
    let files: Vec<Json> = s.run("validate --json x").exit(3).json_lines().iter().map(|p| p["file"].clone()).collect();
    assert_eq!(files, ["x/a.toml", "x/c.toml"]);
    s.run("run x").exit(3);
    s.run("run x/b.toml x/c.toml").exit(3).says(&["x/c.toml:7:8"]);
    assert!(!s.exists("artifacts"), "checked before the first one costs anything");
}
