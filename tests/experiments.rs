//! The experiments that come with the project: each is valid, plans to the cells and ids that it had, and is accepted by
//! the JSON Schema that editors use.

mod support;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use serde_json::Value as Json;
use support::{Plan, Sandbox, finish, text};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn experiments() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(format!("{ROOT}/experiments")).expect("experiments/");
    let mut files: Vec<PathBuf> = entries.map(|e| e.expect("an entry").path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "toml"));
    files.sort();
    assert!(files.len() >= 6, "{files:?}");
    files
}

fn stem(path: &std::path::Path) -> String {
    path.file_stem().unwrap().to_string_lossy().into_owned()
}

/// Planned for one class of hardware, so that ids are the same on every host.
fn plan(s: &Sandbox, path: &std::path::Path, simulate: bool) -> Plan {
    let path = path.to_string_lossy();
    let mut args = vec!["plan", "--json", "--set", "hardware=h100-sxm-80gb", &path];
    args.extend(simulate.then_some("--simulate"));
    Plan(finish(&mut s.command(&args), &path).success().json())
}

/// A difference says which ids moved: all of them after an edit of a template, some after an edit of the experiment.
#[test]
fn cells_and_ids_are_what_they_were() {
    let s = Sandbox::new();
    for path in experiments() {
        let plan = plan(&s, &path, false);
        let mut ids: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for unit in plan.units().iter().filter(|u| u["status"] != "unsupported") {
            ids.entry(text(&unit["deploy_id"])).or_default().push(text(&unit["unit_id"])[..8].to_string());
        }
        let summary = &plan.0["summary"];
        let mut out = format!("{} units, {} deployments", summary["units"], summary["deployments"]);
        let searches = plan.0["searches"].as_array().unwrap();
        writeln!(out, ", {} searches, {} unsupported", searches.len(), plan.with("unsupported").len()).unwrap();
        for d in plan.0["deployments"].as_array().unwrap() {
            let id = text(&d["deploy_id"]);
            writeln!(out, "\n{} {}", &id[..8], text(&d["container"])).unwrap();
            for line in ids.get(&id).map(Vec::as_slice).unwrap_or_default().chunks(12) {
                writeln!(out, "    {}", line.join(" ")).unwrap();
            }
        }
        insta::assert_snapshot!(stem(&path), out);
    }
    assert!(!s.exists("artifacts"));
}

#[test]
fn every_one_is_valid_and_can_be_rehearsed() {
    let s = Sandbox::new();
    let dir = format!("{ROOT}/experiments");
    let done = s.run_args(&["validate", &dir]).success();
    assert_eq!(done.stderr.matches("no problem").count(), experiments().len(), "{}", done.stderr);
    assert_eq!(s.run_args(&["validate", "--json", &dir]).success().stdout, "");
    for path in experiments() {
        let (real, rehearsed) = (plan(&s, &path, false), plan(&s, &path, true));
        assert_eq!(real.units().len(), rehearsed.units().len(), "{}", path.display());
        assert!(rehearsed.with("unsupported").is_empty(), "{}", path.display());
        assert!(rehearsed.0["simulated"] == true && real.0["simulated"] == false);
    }
}

fn schema() -> jsonschema::Validator {
    let text = std::fs::read_to_string(format!("{ROOT}/schemas/experiment.schema.json")).expect("the schema");
    let schema: Json = serde_json::from_str(&text).expect("the schema is JSON");
    jsonschema::validator_for(&schema).expect("the schema is a schema")
}

fn as_json(toml: &str) -> Json {
    let table: toml::Table = toml::from_str(toml).unwrap_or_else(|e| panic!("{e}\n{toml}"));
    serde_json::to_value(table).expect("TOML has a JSON form")
}

#[test]
fn the_schema_in_the_repository_is_what_the_binary_prints() {
    let s = Sandbox::new();
    let committed = std::fs::read_to_string(format!("{ROOT}/schemas/experiment.schema.json")).expect("the schema");
    let printed = s.run("schema").success().stdout;
    assert!(printed == committed, "run `llmatrix schema > schemas/experiment.schema.json`");
}

#[test]
fn the_schema_accepts_what_is_valid() {
    let schema = schema();
    let s = Sandbox::new();
    s.run("init mine.toml").success();
    let mut texts: Vec<(String, String)> =
        experiments().iter().map(|p| (stem(p), std::fs::read_to_string(p).unwrap())).collect();
    texts.push(("init".into(), s.read("mine.toml")));
    let golden = std::fs::read_to_string(format!("{ROOT}/tests/data/golden.toml")).unwrap();
    texts.push(("golden".into(), golden));
    texts.push((
        "axes".into(),
        "[[matrix]]\nmodel = [\"a\"]\nmethod = \"hf\"\nengine = [\"vllm\"]\ntokens.input = { from = 1, to = 8, step = 1 }\n\
         tokens.output = [1, 2]\nrate = { from = 1, to = 8, until = \"slo\", within = \"5%\" }\nengine_args.x = [1, 2]\n\
         dp_attention = [true, false]\nduration = [\"1s\", \"1m30s\"]\ntokens.input_range = [[1, 2], [3, 4]]\n\
         exclude = [{ tokens.input.ge = 3 }, { model = [\"a\"] }]\n\
         [[override]]\nwhen = { rate.lt = 2 }\nunset = [\"seed\"]\nrun = { attempts = 3 }\nslo = { p99_e2el = \"1s\" }\n"
            .into(),
    ));
    for (name, text) in texts {
        let json = as_json(&text);
        let errors: Vec<String> = schema.iter_errors(&json).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(errors.is_empty(), "{name}: {errors:#?}");
    }
}

#[test]
fn the_schema_rejects_what_is_not() {
    let schema = schema();
    let block = "[[matrix]]\nmodel = \"m\"\nmethod = \"hf\"\nengine = \"vllm\"\ntokens = { input = 1, output = 1 }\n";
    assert!(schema.is_valid(&as_json(block)));
    for wrong in [
        format!("{block}concurency = 4\n"),
        format!("{block}seed = \"one\"\n"),
        format!("{block}concurrency = 0\n"),
        format!("{block}concurrency = [1, \"two\"]\n"),
        format!("{block}arrival = \"poison\"\n"),
        format!("{block}temperature = -1\n"),
        format!("{block}duration = \"5 parsecs\"\n"),
        format!("{block}tokens.inptu = 4\n").replace("tokens = { input = 1, output = 1 }\n", ""),
        format!("{block}concurrency = {{ from = 1, to = 8, by = 2 }}\n"),
        format!("[defaults]\nseed = [1, 2]\n{block}"),
        format!("[default]\nseed = 1\n{block}"),
        format!("{block}[run]\nrepeat = 3\n"),
        format!("{block}[slo]\nttfd = \"1s\"\n"),
        format!("{block}[[override]]\nwhere = {{ seed = 1 }}\nset = {{ seed = 1 }}\n"),
        format!("name = \"a b\"\n{block}"),
        "name = \"x\"\n".to_string(),
        block.replace("[[matrix]]", "[matrix]"),
    ] {
        assert!(!schema.is_valid(&as_json(&wrong)), "accepted:\n{wrong}");
    }
}
