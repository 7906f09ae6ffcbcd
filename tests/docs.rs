//! The docs against the product: generated tables are current, examples are valid, commands and links exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use llmatrix::diag::SourceText;
use llmatrix::spec::policy::RunPolicy;
use llmatrix::spec::sections::RUN_KEYS;
use llmatrix::spec::types::Vocabulary;
use llmatrix::spec::{params, read, schema};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn program(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_llmatrix"));
    command.args(args).current_dir(root()).output().expect("the program runs")
}

/// What stands between `<!-- NAME: begin … -->` and `<!-- NAME: end -->`.
fn between<'t>(text: &'t str, name: &str) -> &'t str {
    let begin = text.find(&format!("<!-- {name}: begin")).unwrap_or_else(|| panic!("no begin of {name}"));
    let begin = begin + text[begin..].find("-->").expect("the marker is closed") + "-->".len();
    let end = text.find(&format!("<!-- {name}: end -->")).unwrap_or_else(|| panic!("no end of {name}"));
    &text[begin..end]
}

/// Fenced blocks of a language, with the line that each begins at.
fn fences(text: &str, language: &str) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let body: Vec<&str> = lines.by_ref().map(|(_, l)| l).take_while(|l| !l.starts_with("```")).collect();
        if info == language {
            out.push((at + 2, body.join("\n") + "\n"));
        }
    }
    out
}

/// Every Markdown file of the project.
fn pages() -> Vec<PathBuf> {
    let mut out: Vec<PathBuf> = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "SECURITY.md", "artifacts/README.md"]
        .map(PathBuf::from)
        .into();
    let docs = fs::read_dir(root().join("docs")).expect("docs can be read");
    let names = docs.map(|e| Path::new("docs").join(e.expect("an entry").file_name()));
    out.extend(names.filter(|p| p.extension().is_some_and(|e| e == "md")));
    out.sort();
    out
}

#[test]
fn the_tables_of_parameters_are_current() {
    let page = text("docs/experiment.md");
    let want = schema::parameters_markdown();
    assert!(
        between(&page, "parameters").trim() == want.trim(),
        "docs/experiment.md is stale: put the output of `llmatrix schema --params` between its markers"
    );
}

#[test]
fn the_committed_schema_is_current() {
    assert!(
        text("schemas/experiment.schema.json") == schema::json_schema_text(),
        "stale: cargo run -- schema > schemas/experiment.schema.json"
    );
}

#[test]
fn every_key_of_run_is_documented_with_its_default() {
    let page = text("docs/experiment.md");
    let rows: Vec<Vec<&str>> = between(&page, "run")
        .lines()
        .filter(|l| l.starts_with("| `"))
        .map(|l| l.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let documented: BTreeSet<&str> = rows.iter().map(|r| r[0].trim_matches('`')).collect();
    assert_eq!(documented, RUN_KEYS.iter().copied().collect());
    let defaults = serde_json::to_value(RunPolicy::default()).expect("a policy has a JSON form");
    for row in &rows {
        let key = row[0].trim_matches('`');
        let want = match &defaults[key] {
            serde_json::Value::Null => String::new(),
            serde_json::Value::Array(_) => String::new(),
            serde_json::Value::Object(duration) => {
                let seconds = duration["secs"].as_u64().expect("a duration has seconds");
                llmatrix::units::format_duration(std::time::Duration::from_secs(seconds))
            }
            other => other.to_string(),
        };
        assert_eq!(row[1], want, "default of `{key}`");
    }
}

/// Every TOML example that is about experiments reads without a problem; one without a block may be a part of a file.
#[test]
fn examples_of_experiments_are_valid() {
    let words = Vocabulary {
        methods: params::BUILTIN_METHODS.iter().map(ToString::to_string).collect(),
        engines: params::BUILTIN_ENGINES.iter().map(ToString::to_string).chain(["lmdeploy".into()]).collect(),
    };
    let mut seen = 0;
    for page in ["README.md", "docs/experiment.md", "docs/cli.md", "docs/simulator.md", "docs/nightly.md"] {
        for (line, body) in fences(&text(page), "toml") {
            let experiment = ["[[matrix]]", "[defaults]", "[[override]]", "[run]", "[slo]"];
            if !experiment.iter().any(|section| body.contains(section)) {
                continue;
            }
            seen += 1;
            let source = Arc::new(SourceText { name: format!("{page}:{line}"), text: body });
            if let Err(problems) = read::read(&source, "example", &words) {
                let problems: Vec<_> = problems.iter().filter(|p| p.code != "no_matrix").collect();
                assert!(problems.is_empty(), "{page}:{line}: {problems:#?}");
            }
        }
    }
    assert!(seen >= 6, "only {seen} examples were found");
}

/// The whole examples can be planned.
#[test]
fn whole_examples_can_be_planned() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut seen = 0;
    for page in ["README.md", "docs/experiment.md"] {
        for (line, body) in fences(&text(page), "toml").into_iter().filter(|(_, b)| b.starts_with("#:schema")) {
            seen += 1;
            let file = dir.path().join(format!("example-{seen}.toml"));
            fs::write(&file, body).expect("the example is written");
            let out = program(&["plan", "--json", file.to_str().expect("a plain path")]);
            assert!(out.status.success(), "{page}:{line}: {}", String::from_utf8_lossy(&out.stderr));
        }
    }
    assert!(seen >= 2, "only {seen} examples were found");
}

/// Each test that the table of faults names is there; `…` stands for the rest of a name, or for every test of a file.
#[test]
fn every_fault_has_its_test() {
    let mut names = BTreeSet::new();
    let mut dirs = vec![root().join("tests"), root().join("src")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("sources can be read").map(|e| e.expect("an entry").path()) {
            if entry.is_dir() {
                dirs.push(entry);
            } else if entry.extension().is_some_and(|e| e == "rs") {
                names.insert(format!("{}::", entry.file_stem().expect("a name").to_string_lossy()));
                let source = fs::read_to_string(&entry).expect("a source is text");
                let tests = source.lines().filter_map(|l| l.trim().rsplit_once("fn ")?.1.split_once("()"));
                names.extend(tests.map(|(name, _)| name.to_string()));
            }
        }
    }
    let page = text("docs/reliability.md");
    let table = page.split("## Faults").nth(1).expect("a section").split("\n## ").next().expect("its end");
    let cells = table.lines().filter(|l| l.starts_with("| ")).skip(1).filter_map(|l| l.rsplit('|').nth(1));
    let mut seen = 0;
    for cell in cells.filter(|c| c.contains('`')) {
        // The first word of a cell is the test binary, where one is named.
        for name in cell.split('`').skip(1).step_by(2).filter(|n| n.contains('_') || n.contains("::")) {
            let last = name.rsplit("::").next().unwrap_or(name);
            let known = match (last, last.strip_suffix('…')) {
                ("…", _) => names.contains(name.trim_end_matches('…')),
                (_, Some(begin)) => names.iter().any(|n| n.starts_with(begin)),
                (whole, None) => names.contains(whole),
            };
            assert!(known, "the table of faults names `{name}`, and there is no such test");
            seen += 1;
        }
    }
    assert!(seen > 25, "only {seen} tests were found in the table");
}

/// `docs/cli.md` has a section for each command of `--help`, and names no other.
#[test]
fn every_command_has_a_section() {
    let help = String::from_utf8(program(&["--help"]).stdout).expect("help is text");
    let listed = help.lines().skip_while(|l| !l.starts_with("Commands:")).skip(1).take_while(|l| !l.is_empty());
    let commands: BTreeSet<String> =
        listed.filter_map(|l| l.split_whitespace().next()).filter(|c| *c != "help").map(str::to_string).collect();
    let page = text("docs/cli.md");
    let sections: BTreeSet<String> =
        page.lines().filter_map(|l| l.strip_prefix("## `")?.strip_suffix('`')).map(str::to_string).collect();
    assert_eq!(sections, commands);
}

/// Every flag that a command has is on its page, `--help` aside.
#[test]
fn every_flag_is_on_the_page() {
    let page = text("docs/cli.md");
    for section in page.split("\n## `").skip(1) {
        let command = section.split('`').next().expect("a section has a name");
        let help = String::from_utf8(program(&[command, "--help"]).stdout).expect("help is text");
        // What follows belongs to the simulator and has a page of its own.
        let help = help.split("\nSimulator options").next().expect("text");
        let own = help.split("\nEverywhere:").next().expect("text");
        let flags = own.lines().filter_map(|l| l.split_whitespace().find(|w| w.starts_with("--")));
        for flag in flags.filter_map(|f| f.trim_end_matches(',').split('[').next()).filter(|f| *f != "--help") {
            let shared = page.contains(&format!("`{flag}")) || page.contains(&format!("{flag} "));
            assert!(shared, "docs/cli.md does not mention {flag} of `{command}`");
        }
    }
}

/// Command lines in `sh` blocks name commands and flags that exist.
#[test]
fn command_lines_in_the_docs_exist() {
    let mut seen = 0;
    for page in pages() {
        for (line, body) in fences(&text(page.to_str().expect("a plain path")), "sh") {
            for command in body.lines().map(str::trim).filter(|l| !l.starts_with('#')) {
                let Some(at) = command.find("llmatrix ").or(command.find("cargo run ")) else { continue };
                let words: Vec<&str> = command[at..]
                    .split(" #")
                    .next()
                    .expect("text")
                    .split_whitespace()
                    .skip(1)
                    .skip_while(|w| matches!(*w, "run" | "--release" | "-q") && command[at..].starts_with("cargo"))
                    .skip_while(|w| *w == "--")
                    .collect();
                let Some(name) = words.first().filter(|w| w.chars().all(|c| c.is_ascii_lowercase())) else { continue };
                let out = program(&[name, "--help"]);
                assert!(out.status.success(), "{}:{line}: there is no command `{name}`", page.display());
                let help = String::from_utf8(out.stdout).expect("help is text");
                for flag in words.iter().filter(|w| w.starts_with("--")) {
                    let flag = flag.split('=').next().expect("text");
                    assert!(help.contains(flag), "{}:{line}: `{name}` has no {flag}", page.display());
                }
                seen += 1;
            }
        }
    }
    assert!(seen >= 10, "only {seen} command lines were found");
}

/// Links to files and headings lead somewhere.
#[test]
fn links_lead_somewhere() {
    for page in pages() {
        let body = text(page.to_str().expect("a plain path"));
        for (at, _) in body.match_indices("](") {
            let target = body[at + 2..].split(')').next().expect("text");
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, heading) = target.split_once('#').map_or((target, None), |(f, h)| (f, Some(h)));
            let path = if file.is_empty() { page.clone() } else { page.parent().expect("a directory").join(file) };
            assert!(root().join(&path).exists(), "{}: the link to {target} leads nowhere", page.display());
            if let Some(heading) = heading {
                let other = fs::read_to_string(root().join(&path)).expect("a page is text");
                let there = other.lines().any(|l| l.starts_with('#') && anchor(l) == heading);
                assert!(there, "{}: {target} has no such heading", page.display());
            }
        }
    }
}

/// A heading as its anchor: lower case, spaces as hyphens, other punctuation dropped.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Set `UPDATE_DOCS=1` to write the table instead.
#[test]
fn the_table_of_columns_is_current() {
    let mut want = String::from("| column | unit | meaning |\n|---|---|---|\n");
    for c in llmatrix::store::row::columns() {
        want.push_str(&format!("| `{}` | {} | {} |\n", c.name, c.unit, c.doc.replace('|', "\\|")));
    }
    let page = text("docs/artifacts.md");
    let stands = between(&page, "columns");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let at = stands.as_ptr().addr() - page.as_ptr().addr();
        let written = format!("{}\n{want}{}", &page[..at], &page[at + stands.len()..]);
        fs::write(root().join("docs/artifacts.md"), written).expect("the page is written");
        return;
    }
    assert!(stands.trim() == want.trim(), "docs/artifacts.md is stale: UPDATE_DOCS=1 cargo test --test docs");
}
