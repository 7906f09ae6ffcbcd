//! A whole night: what `schedule` writes is what a scheduler accepts, and what it runs ends with a summary, whatever the
//! end. systemd's own checker is asked where it is installed; under `CI` it has to be.

mod support;

use std::io::Write;
use std::process::{Command, Stdio};
use std::str::FromStr;

use support::{Done, FAST, Sandbox, finish};
use yaml_rust2::{Yaml, YamlLoader};

fn night() -> String {
    format!(
        "name = \"night\"\n[defaults]\nrequests = 2\n{FAST}\n[[matrix]]\nmethod = \"sim\"\nmodel = \"org/m\"\n\
         engine = [\"vllm\", \"trtllm\"]\ntokens = {{ input = 8, output = 2 }}\n[run]\nattempts = 1\n"
    )
}

fn with_night() -> Sandbox {
    let s = Sandbox::new();
    s.write("experiments/night.toml", night());
    s
}

/// Says around the test harness that something did not run; under CI it has to.
fn not_here(test: &str, what: &str) {
    assert!(std::env::var_os("CI").is_none(), "{what} is not installed, and CI must have it");
    writeln!(std::io::stderr().lock(), "\n!!! {test} DID NOT RUN: {what} is not installed !!!\n").unwrap();
}

#[test]
fn systemd_accepts_the_service_and_the_timer() {
    let s = with_night();
    s.write("odd 100% $x.toml", night());
    for file in ["experiments/night.toml", "odd 100% $x.toml"] {
        let args = ["schedule", file, "--on", "Mon..Fri 02:30", "--budget", "6h", "--max-age", "20h", "-o", "units"];
        s.run_args(&args).success().says(&["wrote units/llmatrix-night.service", "systemctl"]);
        if Command::new("systemd-analyze").arg("--version").stdout(Stdio::null()).status().is_err() {
            return not_here("systemd_accepts_the_service_and_the_timer", "systemd-analyze");
        }
        let mut verify = Command::new("systemd-analyze");
        verify.arg("verify").args(["service", "timer"].map(|kind| s.path(&format!("units/llmatrix-night.{kind}"))));
        let done = finish(&mut verify, "systemd-analyze verify").success();
        assert_eq!((done.stdout.trim(), done.stderr.trim()), ("", ""), "not a word of complaint");
    }
    let calendar = s.read("units/llmatrix-night.timer");
    let calendar = calendar.lines().find_map(|l| l.strip_prefix("OnCalendar=")).unwrap();
    finish(Command::new("systemd-analyze").args(["calendar", calendar]), "systemd-analyze calendar").success();
    let service = s.read("units/llmatrix-night.service");
    assert!(service.contains("\"odd 100%% $$x.toml\"") && service.contains("TimeoutStartSec="), "{service}");
}

#[test]
fn a_file_of_secrets_is_never_overwritten_and_names_what_is_needed() {
    let s = Sandbox::new();
    let matrix = "[[matrix]]\nmethod = \"external\"\nmodel = \"m\"\nendpoint = \"http://${GATEWAY}:1\"\n\
                  tokens = { input = 8, output = 2 }\n\
                  headers = { authorization = \"Bearer ${API_KEY}\" }\nrequests = 1\n";
    s.write("night.toml", format!("name = \"night\"\n{matrix}"));
    s.run("schedule night.toml --at 02:00 -o units").success();
    let environment = s.read("units/llmatrix-night.env");
    assert!(environment.contains("#GATEWAY=\n") && environment.contains("#API_KEY=\n"), "{environment}");
    s.write("units/llmatrix-night.env", "API_KEY=mine\n");
    s.run("schedule night.toml --at 03:00 -o units").success().says(&["kept"]);
    assert_eq!(s.read("units/llmatrix-night.env"), "API_KEY=mine\n");
    let workflow = s.run("schedule night.toml --at 03:00 --github").success().stdout;
    assert!(workflow.contains("API_KEY: ${{ secrets.API_KEY }}"), "{workflow}");
}

#[test]
fn misused_flags_are_refused_before_anything_is_written() {
    let s = with_night();
    for line in [
        "schedule experiments/night.toml",
        "schedule experiments/night.toml --at 25:00",
        "schedule experiments/night.toml --on 02:00",
        "schedule experiments/night.toml --at 02:00 --on 'Sun 02:00'",
        "schedule experiments/night.toml --at 02:00 --cron --github",
        "schedule experiments/night.toml --at 02:00 --budget soon",
        "schedule experiments/night.toml --at 02:00 --name a/b",
        "schedule gone.toml --at 02:00",
    ] {
        s.run(&format!("{line} -o units")).exit(2);
    }
    s.write("broken.toml", "[[matrix]]\nmodle = 1\n");
    s.run("schedule broken.toml --at 02:00 -o units").exit(3);
    assert!(!s.exists("units"));
}

#[test]
fn the_workflow_is_yaml_with_what_a_runner_needs() {
    let s = with_night();
    let out = s.run("schedule experiments/night.toml --at 02:00 --github --budget 6h --simulate").success().stdout;
    let documents = YamlLoader::load_from_str(&out).expect("YAML");
    let workflow = &documents[0];
    assert_eq!(workflow["on"]["schedule"][0]["cron"].as_str(), Some("0 2 * * *"));
    assert_eq!(workflow["concurrency"]["cancel-in-progress"].as_bool(), Some(false));
    let job = &workflow["jobs"]["measure"];
    assert!(job["timeout-minutes"].as_i64().is_some_and(|m| m > 360), "{job:?}");
    let steps = job["steps"].as_vec().expect("steps");
    assert_eq!(
        steps[1]["run"].as_str().map(|r| r.contains("--budget 6h") && r.contains("$GITHUB_STEP_SUMMARY")),
        Some(true)
    );
    assert_eq!(steps[2]["if"].as_str(), Some("always()"));
    assert_eq!(steps[2]["with"]["path"].as_str(), Some("artifacts/simulated/runs/"));
    // The one in the docs likewise: it comments whatever happened.
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/nightly.md")).unwrap();
    let text = page.split("```yaml\n").nth(1).and_then(|t| t.split("```").next()).expect("a workflow in the guide");
    let guide = &YamlLoader::load_from_str(text).expect("YAML")[0];
    let steps = guide["jobs"]["changed"]["steps"].as_vec().expect("steps");
    let comment = steps.iter().find(|s| s["name"].as_str() == Some("Comment")).expect("it comments");
    assert_eq!(comment["if"].as_str(), Some("always()"));
    assert!(!matches!(guide["on"]["pull_request"], Yaml::BadValue));
}

/// The command of a crontab's line, after its five fields.
fn command_of(crontab: &str) -> (String, String) {
    let line = crontab.lines().find(|l| !l.starts_with('#') && !l.is_empty()).expect("a line");
    let fields: Vec<&str> = line.splitn(6, ' ').collect();
    // cron gives the shell `%` for `\%`.
    (fields[..5].join(" "), fields[5].replace("\\%", "%"))
}

fn shell(s: &Sandbox, command: &str) -> Done {
    let mut sh = Command::new("sh");
    sh.args(["-c", command]).current_dir("/").env_clear().env("HOME", s.path(".home")).stdin(Stdio::null());
    sh.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    finish(&mut sh, command)
}

/// The line of a crontab as cron would run it: a first night measures, a second one finds everything cached, a third one
/// that meets a running one is left out, and each leaves its summary.
#[test]
fn a_night_from_cron_runs_and_does_not_meet_another() {
    let s = with_night();
    let crontab = s.run("schedule experiments/night.toml --at 02:00 --cron --max-age 20h").success().stdout;
    let crontab = crontab.split("# --- llmatrix-night.env").next().unwrap();
    let (fields, command) = command_of(crontab);
    croner::Cron::from_str(&fields).expect("five fields of a crontab");
    s.write(".home/.config/llmatrix/llmatrix-night.env", "LLMATRIX_LOAD_THREADS=1\n");

    shell(&s, &command).success();
    let summary = || s.read("artifacts/llmatrix-night-summary.md");
    assert!(summary().starts_with("# night\n") && summary().contains("2 measured"), "{}", summary());
    assert!(s.read("artifacts/llmatrix-night.log").contains("2 measured"));
    shell(&s, &command).success();
    assert!(summary().contains("2 cached"), "{}", summary());
    assert_eq!(s.runs("artifacts").len(), 2);

    // A night that is still running: whoever holds its lock.
    let lock = std::fs::File::create(s.path("artifacts/llmatrix-night.lock")).unwrap();
    lock.lock().unwrap();
    shell(&s, &command).success();
    assert_eq!(s.runs("artifacts").len(), 2, "nothing was started");
    let log = s.read("artifacts/llmatrix-night.log");
    assert!(log.contains("the night before is still running"), "{log}");
}

#[test]
fn there_is_a_summary_whatever_the_end() {
    let s = with_night();
    // An experiment that cannot be read, and one whose cells fail.
    s.write("broken.toml", "[[matrix]]\nmodle = 1\n");
    s.run("run broken.toml --summary s.md").exit(3);
    assert!(s.read("s.md").contains("Exit code **3**") && s.read("s.md").contains("modle"), "{}", s.read("s.md"));
    s.write("failing.toml", night().replace("itl = \"20us\"", "itl = \"20us\", fail_every = 2"));
    s.run("run failing.toml --summary s.md").exit(5);
    assert!(s.read("s.md").contains("**invalid**") || s.read("s.md").contains("**failed**"), "{}", s.read("s.md"));
    assert!(s.read("s.md").contains("Exit code **5**"));
    // A place that cannot be written to is told before anything is measured.
    let before = s.runs("artifacts").len();
    s.run("run experiments/night.toml --summary gone/s.md").exit(7).says(&["gone/s.md"]);
    assert_eq!(s.runs("artifacts").len(), before);
}

/// Killed without a chance to say anything: the file says that it has not ended, and the next run completes the report.
#[test]
fn a_night_that_is_killed_says_that_it_has_not_ended() {
    let s = Sandbox::new();
    s.write("slow.toml", night().replace("requests = 2", "requests = 1000\nconcurrency = 1").replace("300us", "50ms"));
    let mut child = s
        .command(["run", "slow.toml", "--json", "--summary", "s.md"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let out = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
    let started = std::io::BufRead::lines(out).map_while(Result::ok).any(|l| l.contains("\"sample_started\""));
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
    assert!(started);
    assert!(s.read("s.md").contains("It has not ended"), "{}", s.read("s.md"));
    let dead = s.runs("artifacts")[0].clone();
    let own = |file: &str| s.read(&format!("artifacts/runs/{dead}/{file}"));
    assert!(own("summary.md").contains("It has not ended") && !s.exists(&format!("artifacts/runs/{dead}/report.html")));

    s.write("slow.toml", night());
    s.run("run slow.toml --summary s.md").success();
    assert!(
        own("summary.md").contains("killed") && !own("summary.md").contains("It has not ended"),
        "{}",
        own("summary.md")
    );
    assert!(own("report.html").contains("the run was killed"));
    assert!(s.read("s.md").starts_with("# night\n"));
}

fn git(s: &Sandbox, line: &str) {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=t", "-c", "user.email=t@example.org"]).args(line.split_whitespace());
    let done = finish(command.current_dir(s.root()).env("HOME", s.path(".home")), &format!("git {line}"));
    done.success();
}

#[test]
fn a_pull_request_measures_the_cells_that_it_changes() {
    let s = with_night();
    git(&s, "init -q .");
    git(&s, "add experiments");
    git(&s, "commit -q -m base");
    let same =
        s.run("run experiments/night.toml --base HEAD --summary s.md").success().says(&["nothing differs from HEAD"]);
    assert_eq!(same.stdout, "");
    assert!(s.read("s.md").contains("nothing differs from HEAD") && !s.exists("artifacts/runs"));

    let changed = night() + "[[override]]\nwhen = { engine = \"trtllm\" }\nset = { max_num_seqs = 64 }\n";
    s.write("experiments/night.toml", changed);
    s.run("run experiments/night.toml --base HEAD --summary s.md").success();
    assert!(s.read("s.md").contains("1 measured") && s.read("s.md").contains("trtllm"), "{}", s.read("s.md"));
    assert_eq!(s.samples("artifacts").len(), 1);
    s.run("run experiments/night.toml --base no-such-thing").exit(2).says(&["no-such-thing"]);
}
