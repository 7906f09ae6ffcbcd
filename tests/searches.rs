//! Planning of search axes: probes are the units of a sweep, and what a search cannot be is refused.

use std::sync::Arc;

use llmatrix::diag::{Diagnostic, SourceText};
use llmatrix::digest::Digest;
use llmatrix::plan::Plan;
use llmatrix::plan::build::{PlanRequest, build};
use llmatrix::plan::identity::Contents;
use llmatrix::plan::lock::Lock;
use llmatrix::spec::params::{BUILTIN_ENGINES, BUILTIN_METHODS};
use llmatrix::spec::predicate::Predicate;
use llmatrix::spec::types::Vocabulary;
use llmatrix::template::Templates;
use llmatrix::units::Objective;

struct NoFiles;

impl Contents for NoFiles {
    fn digest(&self, path: &str) -> Result<Digest, String> {
        Err(format!("there is no {path}"))
    }
}

fn plan(block: &str) -> Result<Plan, Vec<Diagnostic>> {
    let text = format!(
        "[[matrix]]\nmodel = \"org/m\"\nmethod = \"sim\"\nengine = \"vllm\"\ntokens = {{ input = 64, output = 16 }}\n{block}\n"
    );
    let words = Vocabulary {
        methods: BUILTIN_METHODS.iter().map(ToString::to_string).collect(),
        engines: BUILTIN_ENGINES.iter().map(ToString::to_string).collect(),
    };
    let source = Arc::new(SourceText { name: "e.toml".into(), text });
    let spec = llmatrix::spec::read::read(&source, "e", &words)?;
    let request = PlanRequest {
        spec: &spec,
        words: &words,
        templates: &Templates::new(Vec::new()),
        lock: &Lock::new(),
        contents: &NoFiles,
        detected_hardware: "cpu",
        set: &[],
        only: &[] as &[Predicate],
        settings: &[],
        simulate: false,
        sim_version: 1,
    };
    build(&request)
}

const SLO: &str = "[slo]\np95_ttft = \"500ms\"";

fn problem(block: &str) -> String {
    let problems = plan(block).map(|p| p.searches).unwrap_err();
    problems.iter().map(|p| format!("{}: {}", p.code, p.message)).collect::<Vec<_>>().join("\n")
}

#[test]
fn probes_are_the_units_of_a_sweep() {
    let searched = plan(&format!(
        "requests = \"{{{{ 10 * concurrency }}}}\"\nconcurrency = {{ from = 1, to = 64, until = \"slo\", within = \"10%\" }}\n{SLO}"
    ))
    .unwrap();
    assert!(searched.units.is_empty());
    let [search] = &searched.searches[..] else { panic!("{:?}", searched.searches) };
    assert_eq!((search.parameter.as_str(), search.until, search.within), ("concurrency", Objective::Slo, 0.1));
    assert!(search.max_probes >= 7 && (search.max_probes as usize) < search.probes.len());
    let sweep = plan("requests = \"{{ 10 * concurrency }}\"\nconcurrency = { from = 1, to = 64, step = 1 }").unwrap();
    for probe in &search.probes {
        let unit = sweep.units.iter().find(|u| u.cell.get("concurrency") == probe.unit.cell.get("concurrency"));
        assert_eq!(unit.unwrap().id, probe.unit.id, "at {}", probe.value);
    }
    assert_eq!(searched.deployments.len(), 1);
    assert_eq!(searched.deployments[0].id, sweep.deployments[0].id);
}

#[test]
fn rules_see_the_value_of_a_probe() {
    let text = "rate = { from = 1, to = 8, until = \"knee\" }\nduration = \"10s\"\nexclude = [{ rate.gt = 4 }]\n\
         [[override]]\nwhen = { rate.ge = 2 }\nset = { duration = \"20s\" }";
    let planned = plan(text).unwrap();
    let probes = &planned.searches[0].probes;
    assert!(probes.iter().all(|p| p.value <= 4.0), "`exclude` narrows the grid");
    for probe in probes {
        let expected = if probe.value >= 2.0 { "20s" } else { "10s" };
        assert_eq!(probe.unit.cell.get("duration").unwrap().as_str(), Some(expected), "at {}", probe.value);
    }
}

#[test]
fn searches_multiply_with_axes_and_labels() {
    let text = format!(
        "concurrency = {{ from = 1, to = 4, until = \"slo\" }}\n[matrix.vary.prefix]\nshort = {{ tokens.input = 32 }}\nlong = {{ tokens.input = 128 }}\n{SLO}"
    );
    let text = text.replace("tokens = { input = 64, output = 16 }", "");
    let planned = plan(&text).unwrap();
    let labels: Vec<&str> = planned.searches.iter().map(|s| &*s.labels[0].1).collect();
    assert_eq!(labels, ["short", "long"]);
    let ids: std::collections::BTreeSet<_> =
        planned.searches.iter().flat_map(|s| s.probes.iter().map(|p| p.unit.id)).collect();
    assert_eq!(ids.len(), 8);
    assert_eq!(planned.deployments.len(), 1, "one engine start for both");
}

#[test]
fn what_cannot_be_searched_is_refused() {
    let search = "concurrency = { from = 1, to = 8, until = \"slo\" }";
    assert!(problem(search).starts_with("missing_slo: `concurrency` is searched until the SLOs are met"));
    assert!(plan(&search.replace("slo", "knee")).is_ok(), "a knee needs none");
    for (block, expected) in [
        ("concurrency = { from = 1.5, to = 8, until = \"knee\" }", "a whole number"),
        ("concurrency = { from = 1, to = 8, until = \"best\" }", "`until = \"best\"` is not an objective"),
        ("concurrency = { from = 1, to = 8, until = \"knee\", within = \"five\" }", "is not a percentage"),
        ("seed = { from = 1, to = 8, until = \"knee\" }", "`seed` cannot be searched"),
        (
            "concurrency = { from = 1, to = 8, until = \"knee\" }\nrate = { from = 1, to = 8, until = \"knee\" }",
            "`concurrency` and `rate` are both searched",
        ),
        (
            "concurrency = { from = 1, to = 8, until = \"knee\" }\nmax_num_seqs = \"{{ concurrency }}\"",
            "search_deployment: `concurrency` is searched, and a deploy parameter depends on it",
        ),
        (
            "concurrency = { from = 1, to = 8, until = \"knee\" }\n[[override]]\nset = { concurrency = 4 }",
            "a searched parameter is also set",
        ),
    ] {
        let text = problem(block);
        assert!(text.contains(expected), "{block}\n{text}");
    }
}
