//! Planning from text to ids, on templates of the tests' own.

use std::sync::Arc;

use super::build::{PlanRequest, build};
use super::identity::Contents;
use super::lock::{Lock, LockedImage};
use super::status::changes;
use super::*;
use crate::diag::{Diagnostic, SourceText};
use crate::spec::read::read;
use crate::spec::set::{parse_only, parse_set};
use crate::spec::types::Vocabulary;
use crate::template::{TemplateText, Templates};

const TEMPLATE: &str = r#"
[api]
dialect = "openai"
default = "completions"
[container]
image = {{ (image or "engine:1") | toml }}
port = 8000
command = {{ (["serve", model] + flag("--tp", tensor_parallel if tensor_parallel > 1 else none) + flag("--len", max_model_len)
  + flag("--quant", quantization) + flags(engine_args)) | toml }}
"#;

struct Files;

impl Contents for Files {
    fn digest(&self, path: &str) -> Result<Digest, String> {
        if path.contains("missing") { Err("not there".into()) } else { Ok(Digest::of_bytes(path.as_bytes())) }
    }
}

#[derive(Default)]
struct Flags<'a> {
    set: &'a [&'a str],
    only: &'a [&'a str],
    lock: Option<Lock>,
    template: Option<&'a str>,
    simulate: bool,
}

fn try_plan_with(text: &str, flags: Flags) -> Result<Plan, Vec<Diagnostic>> {
    let source = Arc::new(SourceText { name: "t.toml".into(), text: text.into() });
    let word = |w: &[&str]| w.iter().map(ToString::to_string).collect();
    let words = Vocabulary { methods: word(&["hf", "triton", "sim"]), engines: word(&["vllm", "sglang", "trtllm"]) };
    let spec = read(&source, "t", &words)?;
    let template = |name: &str| TemplateText {
        name: name.into(),
        origin: format!("templates/{name}.toml.j2"),
        text: flags.template.unwrap_or(TEMPLATE).into(),
    };
    let templates = Templates::new(vec![template("hf/vllm"), template("hf/sglang"), template("hf/trtllm")]);
    let mut labels = Default::default();
    spec.blocks.iter().for_each(|b| b.product.labels(&mut labels));
    let set: Vec<_> = flags.set.iter().map(|s| parse_set(s, &words).unwrap()).collect();
    let only: Vec<_> = flags.only.iter().map(|s| parse_only(s, &labels, &words).unwrap()).collect();
    build(&PlanRequest {
        spec: &spec,
        words: &words,
        templates: &templates,
        lock: flags.lock.as_ref().unwrap_or(&Lock::new()),
        contents: &Files,
        detected_hardware: "cpu",
        set: &set,
        only: &only,
        settings: &[],
        simulate: flags.simulate,
        sim_version: 1,
    })
}

fn plan_with(text: &str, flags: Flags) -> Plan {
    try_plan_with(text, flags).unwrap_or_else(|p| panic!("{:#?}", p.iter().map(|d| &d.message).collect::<Vec<_>>()))
}

/// A block that can be planned, and what the test adds.
fn plan(rest: &str) -> Plan {
    plan_with(&text(rest), Flags::default())
}

fn text(rest: &str) -> String {
    let has = |key: &str| rest.lines().any(|l| l.trim_start().starts_with(key));
    let mut out = String::from("[defaults]\nmodel = \"org/m\"\nmethod = \"hf\"\n");
    for (key, line) in [("engine =", "engine = \"vllm\"\n"), ("tokens", "tokens = { input = 8, output = 4 }\n")] {
        if !has(key) {
            out.push_str(line);
        }
    }
    format!("{out}{rest}")
}

fn ids(plan: &Plan) -> Vec<String> {
    let mut ids: Vec<String> = plan.units.iter().map(|u| u.id.to_string()).collect();
    ids.sort();
    ids
}

fn codes(rest: &str) -> Vec<(&'static str, usize)> {
    let Err(problems) = try_plan_with(rest, Flags::default()) else { panic!("planned without a problem: {rest}") };
    problems.iter().map(|p| (p.code, p.position().map_or(0, |p| p.0))).collect()
}

fn column(plan: &Plan, path: &str) -> Vec<String> {
    plan.units.iter().map(|u| u.cell.get(path).map_or("-".into(), |v| v.to_string())).collect()
}

#[test]
fn blocks_are_products_of_their_axes_and_are_united() {
    let p = plan(
        "[[matrix]]\nconcurrency = [1, 4]\nmax_model_len = [64, 128]\n[[matrix]]\nconcurrency = 1\nmax_model_len = 64\n",
    );
    assert_eq!(p.units.len(), 4, "the second block's only cell is in the first");
    assert_eq!(column(&p, "concurrency"), ["1", "1", "4", "4"], "the first axis varies slowest");
    assert_eq!(p.deployments.len(), 2);
}

#[test]
fn what_is_written_differently_but_means_the_same_has_the_same_ids() {
    let base = ids(&plan("[[matrix]]\nconcurrency = [1, 8]\n"));
    for same in [
        "[[matrix]]\nconcurrency = [8, 1]\n",
        "[[matrix]]\nconcurrency = [0x1, 8.0] # a comment\n",
        "[[matrix]]\n\"concurrency\" = { from = 1, to = 8, times = 8 }\n",
        "[[matrix]]\nconcurrency = [1, 8]\nseed = 0\ntensor_parallel = 1\nprefix_caching = false\napi = \"completions\"\ngpus = 1\n",
        "[[matrix]]\nconcurrency = [1, 8]\nrequests = 100\n",
        "[[matrix]]\nconcurrency = [1, 8]\narrival = \"constant\"\n",
        "[[matrix]]\n[matrix.vary.load]\nlight = { concurrency = 1 }\nheavy = { concurrency = 8 }\n",
        "[[matrix]]\nconcurrency = \"{{ 8 if seed else 1 }}\"\n[[matrix]]\nconcurrency = \"{{ 4 + 4 }}\"\n",
        "[slo]\nttft = \"1s\"\n[run]\nrepeats = 3\n[[matrix]]\nconcurrency = [1, 8]\n",
        "[[matrix]]\nconcurrency = [1, 8, 16]\nexclude = [{ concurrency.gt = 8 }]\n",
    ] {
        assert_eq!(ids(&plan(same)), base, "{same}");
    }
    let hashed = [
        "concurrency = [1, 8]\nseed = 1",
        "concurrency = [1, 8]\nmax_model_len = 64",
        "concurrency = [1, 8]\nhardware = \"h100\"",
        "concurrency = [1, 8]\ngpus = 2",
        "concurrency = [1, 8]\napi = \"chat\"",
        "concurrency = [1, 8]\nenv.A = \"1\"",
        "concurrency = [1, 8]\nheaders.A = \"${A}\"",
        "concurrency = [1, 8]\nassets.lora = \"./lora\"",
        "concurrency = [1, 8]\ncontainer.shm_size = \"1GiB\"",
    ];
    for other in hashed {
        let other = ids(&plan(&format!("[[matrix]]\n{other}\n")));
        assert!(other.iter().all(|id| !base.contains(id)), "{other:?}");
    }
}

#[test]
fn host_paths_and_secrets_are_not_hashed_but_names_are() {
    let with = |source: &str| {
        ids(&plan(&format!("[[matrix]]\ncontainer.mounts = [[{{ source = \"{source}\", target = \"/d\" }}]]\n")))
    };
    assert_eq!(with("/data/a"), with("/data/b"));
    let env = |name: &str| ids(&plan(&format!("[[matrix]]\nenv.HF_TOKEN = \"${{{name}}}\"\n")));
    assert_ne!(env("A"), env("B"));
}

#[test]
fn labelled_points_may_hold_axes_and_labels_serve_in_rules() {
    let p = plan(
        "[[matrix]]\nexclude = [{ precision = \"fp8\", concurrency = 4 }]\n[matrix.vary.precision]\nbf16 = {}\n\
         fp8 = { quantization = \"fp8\", concurrency = [1, 4] }\n[[override]]\nwhen = { precision = \"fp8\" }\nset = { max_model_len = 99 }\n",
    );
    let shape: Vec<_> =
        p.units.iter().map(|u| (u.labels[0].1.to_string(), u.cell.get("max_model_len").is_some())).collect();
    assert_eq!(shape, [("bf16".to_string(), false), ("fp8".to_string(), true)]);
}

#[test]
fn overrides_go_in_order_and_see_the_cell_as_it_then_is() {
    let p = plan(
        "[[matrix]]\nconcurrency = [1, 2]\n[[override]]\nwhen = { concurrency = 2 }\nset = { warmup = 5, engine_args.a = 1 }\n\
         [[override]]\nwhen = { warmup.ge = 5 }\nset = { seed = 7 }\nunset = [\"engine_args.a\"]\nrun = { repeats = 9 }\nslo = { ttft = \"1s\" }\n",
    );
    assert_eq!(column(&p, "seed"), ["0", "7"]);
    assert_eq!(p.deployments.len(), 1, "the unset option leaves one deployment");
    assert_eq!((p.policy_of(&p.units[0]).repeats, p.policy_of(&p.units[1]).repeats), (1, 9));
    assert_eq!(p.slo_of(&p.units[1]).0.len(), 1);
}

#[test]
fn expressions_see_the_cell_and_flags_come_after_them() {
    let body = "[[matrix]]\nconcurrency = [2, 3]\nrequests = \"{{ 10 * concurrency }}\"\nengine_args.name = \"x-{{ tokens.input }}\"\n";
    assert_eq!(column(&plan(body), "requests"), ["20", "30"]);
    let set = plan_with(&text(body), Flags { set: &["concurrency=5"], ..Flags::default() });
    assert_eq!(
        (column(&set, "requests"), column(&set, "concurrency")),
        (vec!["20".into(), "30".into()], vec!["5".into(), "5".into()])
    );
    let only = plan_with(&text(body), Flags { only: &["concurrency>=3"], ..Flags::default() });
    assert_eq!(column(&only, "concurrency"), ["3"]);
    let none = plan_with(&text(body), Flags { only: &["concurrency=9"], ..Flags::default() });
    assert!(none.units.is_empty() && none.deployments.is_empty());
}

#[test]
fn a_predicate_may_compute_its_bound() {
    let p = plan(
        "[[matrix]]\nmax_model_len = [16, 64]\nengine_args.batch = 32\nexclude = [{ engine_args.batch.lt = \"{{ max_model_len }}\" }]\n",
    );
    assert_eq!(column(&p, "max_model_len"), ["16"]);
}

#[test]
fn what_no_stack_can_honour_is_listed_with_its_reason() {
    let p = plan(
        "[[matrix]]\nmethod = [\"hf\", \"triton\"]\nengine = [\"vllm\", \"sglang\"]\n[[matrix]]\nengine = \"vllm\"\nkv_cache_dtype = \"fp8\"\n",
    );
    assert_eq!(p.units.len(), 3, "the built-in triton × vllm serves");
    let reasons: Vec<&str> = p.unsupported.iter().map(|u| u.reason.as_str()).collect();
    assert_eq!(reasons.len(), 2);
    assert!(reasons[0].contains("templates/triton/sglang.toml.j2"), "{reasons:?}");
    assert_eq!(reasons[1], "hf × vllm cannot honour `kv_cache_dtype`: its template does not use it");
}

#[test]
fn a_lock_changes_only_the_users_of_what_it_pins() {
    let body = text("[[matrix]]\nimage = [\"a:1\", \"b:1\"]\n");
    let before = plan_with(&body, Flags::default());
    let mut lock = Lock::new();
    lock.images.insert("a:1".into(), LockedImage { digest: "sha256:1".into() });
    let after = plan_with(&body, Flags { lock: Some(lock), ..Flags::default() });
    let c = changes(&before, &after);
    assert_eq!((c.changed.len(), c.unchanged.len(), c.added.len(), c.removed.len()), (1, 1, 0, 0));
    assert_eq!(c.changed[0].1[0].field, "image digest");
    let moving = before.warnings.iter().filter(|w| w.contains("can move")).count();
    assert_eq!(moving, 2, "{:?}", before.warnings);
}

#[test]
fn a_host_without_gpu_is_pointed_out_where_nobody_chose_it() {
    let said = |body: &str| {
        let warnings = plan_with(&text(body), Flags::default()).warnings;
        warnings.into_iter().filter(|w| w.contains("this host has no GPU")).count()
    };
    assert_eq!(said("[[matrix]]\nconcurrency = [1, 2]\n"), 1);
    assert_eq!(said("[[matrix]]\nhardware = \"cpu\"\n"), 0);
    assert_eq!(said("[[matrix]]\nhardware = \"h100-sxm-80gb\"\n"), 0);
}

#[test]
fn an_edited_template_changes_only_what_renders_differently() {
    let body = text("[[matrix]]\nengine = [\"vllm\", \"sglang\"]\nmax_model_len = [64, 128]\n");
    let before = plan_with(&body, Flags::default());
    let edited =
        TEMPLATE.replace("\"serve\", model", "\"serve\", model] + flag(\"--long\", max_model_len > 100) + [\"--x\"");
    let edited = edited.replace(" + [\"--x\"", " + [");
    let after = plan_with(&body, Flags { template: Some(&edited), ..Flags::default() });
    let c = changes(&before, &after);
    assert_eq!((c.changed.len(), c.unchanged.len()), (2, 2));
    assert_eq!(c.changed[0].1[0].field, "template: container.command");
}

#[test]
fn a_changed_scalar_is_named_and_a_new_axis_value_too() {
    let before = plan("[[matrix]]\nconcurrency = [1, 2]\nmax_model_len = 64\n");
    let after = plan("[[matrix]]\nconcurrency = [1, 2, 3]\nmax_model_len = 128\n");
    let c = changes(&before, &after);
    assert_eq!((c.changed.len(), c.added.len(), c.removed.len()), (2, 1, 0));
    let r = &c.changed[0].1;
    assert_eq!(
        (r.len(), r[0].field.as_str(), r[0].old.clone(), r[0].new.clone()),
        (1, "max_model_len", Some(64i64.into()), Some(128i64.into()))
    );
}

#[test]
fn a_rehearsal_has_ids_of_its_own() {
    let body = text("[[matrix]]\n");
    let real = plan_with(&body, Flags::default());
    let rehearsed = plan_with(&body, Flags { simulate: true, ..Flags::default() });
    assert_ne!(ids(&real), ids(&rehearsed));
    assert_eq!(rehearsed.deployments[0].flavor.as_deref(), Some("hf-vllm"));
    assert!(real.deployments[0].flavor.is_none());
}

#[test]
fn documents_give_the_ids_back() {
    let p = plan(
        "[[matrix]]\nconcurrency = [1, 8]\nrate = 2\narrival = \"gamma\"\nburstiness = 2\ndataset = \"d.jsonl\"\ntokens = { output = 3 }\n",
    );
    for unit in &p.units {
        assert_eq!(UnitId::of(&p.unit_document(unit)), unit.id);
        assert_eq!(DeployId::of(&p.deployments[unit.deployment].document), p.deployments[unit.deployment].id);
    }
}

#[test]
fn a_search_axis_is_planned_with_its_bound() {
    let p =
        plan("[[matrix]]\nrate = { from = 1, to = 64, until = \"slo\", within = \"5%\" }\n[slo]\np95_ttft = \"1s\"\n");
    assert_eq!((p.units.len(), p.searches.len(), p.searches[0].max_probes), (0, 1, 11));
}

#[test]
fn mistakes_are_found_with_their_line() {
    let cells = "model = \"m\"\nmethod = \"hf\"\nengine = \"vllm\"\ntokens = { input = 1, output = 1 }\n";
    for (rest, want) in [
        ("[[matrix]]\nexclude = [{ concurrency = 3 }]\nconcurrency = [1]\n", ("matches_nothing", 7)),
        ("[[matrix]]\nexclude = [{ concurrency = [1, 3] }]\nconcurrency = [1, 2]\n", ("matches_nothing", 7)),
        ("[[matrix]]\n[[override]]\nwhen = { seed.ge = 4 }\nset = { seed = 1 }\n", ("matches_nothing", 8)),
        ("[[matrix]]\nexclude = [{ concurrency = [1, 2] }]\nconcurrency = [1, 2]\n", ("empty_block", 6)),
        ("[[matrix]]\nwarmup = \"{{ requests }}\"\nrequests = \"{{ warmup + 1 }}\"\n", ("cyclic_expression", 8)),
        ("[[matrix]]\nwarmup = \"{{ model }}\"\n", ("wrong_type", 7)),
        ("[[matrix]]\nwarmup = \"{{ modell }}\"\n", ("unknown_parameter", 7)),
        ("[[matrix]]\nwarmup = \"{{ max_model_len * 2 }}\"\n", ("bad_expression", 7)),
        (
            "[[matrix]]\ntokens.input = [1]\nconcurrency = [1]\n[matrix.vary.x]\na = { tokens = { input = 3 } }\n",
            ("axis_conflict", 9),
        ),
        ("[[matrix]]\nconcurrency = []\n", ("empty_axis", 7)),
        ("[[matrix]]\ndataset = \"missing\"\n", ("conflict", 7)),
        ("[[matrix]]\nendpoint = \"http://x\"\n", ("conflict", 7)),
        ("[[matrix]]\nnodes = 2\n", ("reserved_parameter", 7)),
        ("[[matrix]]\nconcurrency = { from = 1, to = 100000000, step = 0.001 }\n", ("too_many_cells", 7)),
        ("[[matrix]]\nseed = { from = 1, to = 2000000, step = 1 }\n", ("too_many_cells", 7)),
        ("[[matrix]]\ncontainer.shm = \"1g\"\n", ("bad_container", 6)),
    ] {
        let all = codes(&format!("[defaults]\n{cells}{rest}"));
        assert!(all.contains(&want), "{rest}: {all:?}");
    }
    assert!(
        codes(&format!("[defaults]\n{}[[matrix]]\n", cells.replace("model", "served_model")))
            .contains(&("missing_parameter", 6))
    );
}

#[test]
fn files_of_a_container_may_have_dots_in_their_names() {
    let p = plan("[[matrix]]\ncontainer.files = { \"/etc/a.yml\" = \"x: 1\" }\n");
    let files = &p.deployments[0].spec.container.as_ref().unwrap().files;
    assert_eq!(files.get("/etc/a.yml").map(String::as_str), Some("x: 1"));
}
