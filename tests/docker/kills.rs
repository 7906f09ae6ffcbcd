//! `kill -9` at random instants over a sweep of containers, again and again: nothing committed is lost, and the next start
//! removes what the dead one left.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::image;
use super::workspace::Workspace;

/// Two containers after one another, two units each.
fn sweep(w: &Workspace) -> PathBuf {
    let vary = |engine| format!("{engine} = {{ engine = \"{engine}\", image = \"{}\" }}\n", image::of("hf", engine));
    w.write(&format!(
        "name = \"{}\"\n[defaults]\nmodel = \"{}\"\nmethod = \"hf\"\ngpus = 0\n\
         env.LLMATRIX_SIM = \"--ttft 10ms --itl 2ms\"\n[[matrix]]\ntokens = {{ input = 16, output = 8 }}\nconcurrency = 1\n\
         requests = 6\nseed = [1, 2]\n[matrix.vary.stack]\n{}{}[run]\nready_timeout = \"10m\"\nattempts = 5\n",
        w.name,
        w.model(),
        vary("vllm"),
        vary("sglang"),
    ))
}

/// Committed samples by unit and number.
fn samples(w: &Workspace) -> BTreeMap<(String, u64), Value> {
    let mut out = BTreeMap::new();
    for stack in fs::read_dir(w.path().join("artifacts")).into_iter().flatten().flatten() {
        for unit in fs::read_dir(stack.path().join("units")).into_iter().flatten().flatten() {
            let Ok(bytes) = fs::read(unit.path().join("result.json")) else { continue };
            let result: Value = serde_json::from_slice(&bytes).expect("result.json is whole at any instant");
            for sample in result["samples"].as_array().unwrap() {
                let key = (result["unit_id"].as_str().unwrap().to_string(), sample["sample"].as_u64().unwrap());
                out.insert(key, sample.clone());
            }
        }
    }
    out
}

fn valid(samples: &BTreeMap<(String, u64), Value>) -> usize {
    samples.values().filter(|s| s["valid"] == true).count()
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[test]
fn chained_kills_leave_no_container() {
    let kills = number("RELIABILITY_DOCKER_KILLS", 5);
    let mut seed = number("RELIABILITY_SEED", 1);
    let (mut done, mut sweeps, mut committed) = (0, 0, 0);
    while done < kills {
        let Some(w) = Workspace::new("kills") else { return };
        let file = sweep(&w);
        let file = file.to_str().unwrap();
        let mut before = BTreeMap::new();
        while done < kills && valid(&before) < 4 {
            let mut run = w.command(&["run", "--quiet", file]).spawn().unwrap();
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let end = Instant::now() + Duration::from_millis((seed >> 33) % 6000);
            while Instant::now() < end && run.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(5));
            }
            if run.try_wait().unwrap().is_none() {
                run.kill().unwrap();
                done += 1;
            }
            run.wait().unwrap();
            let now = samples(&w);
            assert!(
                before.iter().all(|(key, sample)| now.get(key) == Some(sample)),
                "a committed sample was lost or changed"
            );
            // At most the one that the dead run had.
            assert!(w.containers().len() <= 1, "{:?}", w.containers());
            before = now;
        }
        w.run(&["run", "--quiet", file]).expect(0);
        // Where everything was cached, no container is started, and nobody looks for those of dead runs.
        w.run(&["clean", "--quiet"]).expect(0);
        let now = samples(&w);
        assert!(before.iter().all(|(key, sample)| now.get(key) == Some(sample)));
        assert_eq!(valid(&now), 4);
        w.run(&["validate"]).expect(0);
        w.assert_clean();
        sweeps += 1;
        committed += now.len();
    }
    let mut err = std::io::stderr().lock();
    let _ = writeln!(
        err,
        "{done} kills over {sweeps} sweeps of 4 units in 2 containers: {committed} samples committed, 0 lost, 0 changed, 0 \
         containers left"
    );
}
