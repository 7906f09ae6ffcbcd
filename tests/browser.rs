//! `report.html` in a real browser, at the width of a desktop and of a phone, in both colour schemes: nothing on the console,
//! nothing wider than the window, text that can be told from what is behind it, and links and controls that work.
//!
//! The page is handed to headless Chromium with a probe in front of its own script; the probe's findings are read from the
//! document that Chromium prints. A phone is a frame of its width, because the browser's window does not get that narrow.

mod support;

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value as Json;
use support::{FAST, Sandbox, finish};

const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// `None` where there is no browser, which is said; under CI there has to be one.
fn browser() -> Option<&'static str> {
    let there = |name: &&str| {
        Command::new(name)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    };
    let found = NAMES.into_iter().find(there);
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "no Chromium is installed, and CI must have one");
        writeln!(std::io::stderr().lock(), "\n!!! the page DID NOT OPEN in a browser: no Chromium is installed !!!\n")
            .unwrap();
    }
    found
}

/// A run with every section: several stacks, lengths and loads, repeats, a failed start, cells that answer with errors, and
/// a search.
fn experiment() -> String {
    format!(
        "name = \"every-section\"\ndescription = \"<b>text</b> & more\"\n[defaults]\nrequests = 4\nmethod = \"sim\"\n{FAST}\n\
         [[matrix]]\nmodel = [\"org/{long}\", \"org/B\"]\nengine = [\"vllm\", \"sglang\"]\nconcurrency = [1, 4]\n\
         tokens = [{{ input = 8, output = 4 }}, {{ input = 64, output = 4 }}, {{ input = 8, output = 16 }}]\n\
         [[matrix]]\nmodel = \"org/B\"\nengine = \"vllm\"\ntokens = {{ input = 8, output = 4 }}\nengine_args.fail_every = 3\n\
         [[matrix]]\nmodel = \"org/B\"\nengine = \"trtllm\"\ntokens = {{ input = 8, output = 4 }}\nengine_args.kv_tokens = 64\n\
         max_model_len = 4096\n\
         [[matrix]]\nmodel = \"org/B\"\nengine = \"vllm\"\ntokens = {{ input = 16, output = 4 }}\n\
         concurrency = {{ from = 1, to = 4, until = \"slo\", within = \"50%\" }}\n\
         [run]\nrepeats = 2\nattempts = 1\n[slo]\nttft = \"1s\"\np95_ttft = \"1s\"\n[cost]\ngpu_hour_usd = {{ sim = 2.5 }}\n",
        long = "a-model-with-a-very-long-name-".repeat(3)
    )
}

/// Runs before anything else of the page: collects what goes wrong, and says at the end what it saw.
const PROBE: &str = include_str!("support/probe.js");

/// Writes what the probe says into the document.
const LISTEN: &str = r#"<script>addEventListener("message", (e) => { const out = document.createElement("pre"); out.id = "probe"; out.textContent = e.data; document.body.append(out); });</script>"#;

fn look(s: &Sandbox, browser: &str, page: &str, width: u32, dark: bool) -> Json {
    let probed = page.replacen("<head>", &format!("<head><script>{{{PROBE}}}</script>"), 1);
    let file = if width < 500 {
        s.write("probe/page.html", probed);
        let frame = format!("<iframe src=\"page.html\" style=\"border:0;width:{width}px;height:900px\"></iframe>");
        s.write("probe/frame.html", format!("<!doctype html><body style=\"margin:0\">{LISTEN}{frame}</body>"));
        "probe/frame.html"
    } else {
        s.write("probe/page.html", probed.replacen("<head>", &format!("<head>{LISTEN}"), 1));
        "probe/page.html"
    };
    let mut command = Command::new(browser);
    command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
    command.args(["--virtual-time-budget=20000", "--timeout=60000", "--enable-logging=stderr", "--log-level=0"]);
    command.arg(format!("--window-size={},900", width.max(500)));
    command.arg(format!("--user-data-dir={}", s.path("profile").display()));
    command.arg(format!("--blink-settings=preferredColorScheme={}", if dark { 0 } else { 1 }));
    command.arg("--dump-dom").arg(format!("file://{}", s.path(file).display())).stdin(Stdio::null());
    let done = finish(&mut command, browser).success();
    let console: Vec<&str> = done.stderr.lines().filter(|l| l.contains(":CONSOLE")).collect();
    assert!(console.is_empty(), "{console:#?}");
    let found = done.stdout.split("<pre id=\"probe\">").nth(1).and_then(|t| t.split("</pre>").next());
    let found = found.unwrap_or_else(|| panic!("the probe said nothing\n{}\n{}", done.stdout.len(), done.stderr));
    let plain = found.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    serde_json::from_str(&plain).unwrap_or_else(|e| panic!("{e}: {plain}"))
}

#[test]
fn the_page_in_a_browser() {
    let Some(browser) = browser() else { return };
    let s = Sandbox::new();
    s.write("every.toml", experiment());
    s.run("run --quiet every.toml").exit(5);
    let run = s.runs("artifacts")[0].clone();
    let page = s.read(&format!("artifacts/runs/{run}/report.html"));
    for (width, dark) in [(1440, false), (1440, true), (390, false), (390, true)] {
        let found = look(&s, browser, &page, width, dark);
        assert_eq!((&found["width"], &found["dark"]), (&Json::from(width), &Json::from(dark)), "{found}");
        assert_eq!(found["seen"], serde_json::json!([]), "the console: {found}");
        assert!(found["overflow"].as_i64().is_some_and(|o| o <= 0), "wider than the window: {found}");
        assert_eq!(found["wide"], serde_json::json!([]), "{found}");
        assert_eq!(found["faint"], serde_json::json!([]), "cannot be read: {found}");
        assert_eq!(found["broken"], 0, "links to nowhere: {found}");
        assert!(found["svgs"].as_u64().is_some_and(|n| n > 20) && found["unnamed"] == 0, "{found}");
        let sections: Vec<String> = serde_json::from_value(found["sections"].clone()).unwrap();
        for id in [
            "matrix",
            "results",
            "searches",
            "frontier",
            "load",
            "spread",
            "lengths",
            "starts",
            "failures",
            "soundness",
            "units",
            "provenance",
        ] {
            assert!(sections.iter().any(|s| s == id), "{id}: {sections:?}");
        }
        assert_eq!((&found["recoloured"], &found["sorted"]), (&Json::from(true), &Json::from("ascending")), "{found}");
        assert_eq!(found["shown"], 12, "rows of one engine: {found}");
        assert!(found["tip"].as_str().is_some_and(|t| t.contains("tok/s")), "hover: {found}");
    }
    let bright = |found: &Json| found["background"].clone();
    assert_ne!(bright(&look(&s, browser, &page, 1440, false)), bright(&look(&s, browser, &page, 1440, true)));
}
