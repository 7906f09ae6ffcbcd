//! GPUs without a GPU: an engine of our own that believes in NVIDIA's runtime takes real device requests, and its
//! containers see which GPUs they were given.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use llmatrix::deploy::docker::{DockerDeployer, DockerOptions};
use llmatrix::deploy::{Deployer, Progress};
use llmatrix::digest::Digest;
use llmatrix::host::Gpu;
use llmatrix::plan::Deployment;
use llmatrix::plan::identity::{Contents, Resolver};
use llmatrix::plan::lock::Lock;
use llmatrix::template::Templates;
use llmatrix::value::Value;

use super::image;
use super::workspace::Workspace;

/// A container engine of its own: socket, data, network and process id.
pub struct OwnEngine {
    process: Child,
    dir: tempfile::TempDir,
    bridge: Bridge,
}

/// A network bridge of the host, for containers that are to have an address.
struct Bridge(String);

impl Bridge {
    fn create() -> Option<Bridge> {
        let name = format!("llmx{}", std::process::id() % 100_000);
        let ip = |args: &[&str]| Command::new("ip").args(args).status().is_ok_and(|s| s.success());
        if !ip(&["link", "add", &name, "type", "bridge"]) {
            return None;
        }
        let bridge = Bridge(name);
        let ready = ip(&["addr", "add", "10.213.77.1/24", "dev", &bridge.0]) && ip(&["link", "set", &bridge.0, "up"]);
        ready.then_some(bridge)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", &self.0]).status();
    }
}

impl OwnEngine {
    /// `None` where one cannot be started: without root, or without the daemon's program.
    pub fn start() -> Option<OwnEngine> {
        let bridge = Bridge::create()?;
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        fs::create_dir(&bin).unwrap();
        // The daemon offers its NVIDIA driver where it finds this on its path; what it does is the runtime's matter.
        let hook = bin.join("nvidia-container-runtime-hook");
        fs::write(&hook, "#!/bin/sh\nexit 0\n").unwrap();
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
        // Whatever the host's own daemon is configured to.
        fs::write(dir.path().join("daemon.json"), "{}").unwrap();
        let process = OwnEngine::launch(dir.path(), &bridge).ok()?;
        let mut engine = OwnEngine { process, dir, bridge };
        engine.answers().then_some(engine)
    }

    fn launch(dir: &Path, bridge: &Bridge) -> std::io::Result<Child> {
        let path = format!("{}:{}", dir.join("bin").display(), std::env::var("PATH").unwrap());
        let at = |name: &str| dir.join(name).display().to_string();
        Command::new("dockerd")
            .env("PATH", path)
            .args(["--config-file", &at("daemon.json"), "--host", &format!("unix://{}", at("docker.sock"))])
            .args(["--data-root", &at("data"), "--exec-root", &at("exec"), "--pidfile", &at("pid")])
            .args(["--bridge", &bridge.0, "--iptables=false", "--storage-driver=vfs"])
            .stdout(Stdio::null())
            .stderr(fs::File::create(at("log")).unwrap())
            .spawn()
    }

    /// Waits until it answers; what it said where it does not.
    fn answers(&mut self) -> bool {
        for _ in 0..300 {
            let answers = Command::new("docker").args(["-H", &self.host(), "version"]).output();
            if answers.is_ok_and(|o| o.status.success()) {
                return true;
            }
            if self.process.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        eprintln!("{}", fs::read_to_string(self.dir.path().join("log")).unwrap());
        false
    }

    /// Ends it, and its containers with it, and starts it again on the same data.
    pub fn restart(&mut self) {
        self.end();
        self.process = OwnEngine::launch(self.dir.path(), &self.bridge).expect("it started before");
        assert!(self.answers(), "it does not come up again");
    }

    fn end(&mut self) {
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }

    /// What the first process of a container was told of its GPUs.
    fn gpus_of(&self, container: &str) -> String {
        let pid = self.docker(&["inspect", "--format", "{{.State.Pid}}", container]);
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
        let text = String::from_utf8(environment).unwrap();
        let visible = text.split('\0').find_map(|v| v.strip_prefix("NVIDIA_VISIBLE_DEVICES="));
        visible.unwrap_or_else(|| panic!("{container} was given no GPU")).to_string()
    }

    pub fn host(&self) -> String {
        format!("unix://{}", self.dir.path().join("docker.sock").display())
    }

    pub fn docker(&self, args: &[&str]) -> String {
        let output = Command::new("docker").args(["-H", &self.host()]).args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_string()
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        self.end();
    }
}

struct NoFiles;

impl Contents for NoFiles {
    fn digest(&self, path: &str) -> Result<Digest, String> {
        Err(format!("{path} is not there"))
    }
}

fn deployment(w: &Workspace, tensor_parallel: i64) -> Deployment {
    let templates = Templates::new(Vec::new());
    let lock = Lock::new();
    let resolver = Resolver::new(&templates, &lock, &NoFiles, "h100-sxm-80gb", false, 1);
    let pairs: Vec<(Arc<str>, Value)> = vec![
        ("engine".into(), "vllm".into()),
        ("image".into(), image::of("hf", "vllm").into()),
        ("method".into(), "hf".into()),
        ("model".into(), format!("org/{}-{tensor_parallel}", w.name).into()),
        ("tensor_parallel".into(), Value::Int(tensor_parallel)),
    ];
    resolver.resolve(&pairs).unwrap_or_else(|e| panic!("{e:?}")).deployment
}

fn deployer(engine: &OwnEngine, dir: &Path, gpus: u32) -> DockerDeployer {
    let gpu = |i| Gpu { name: "NVIDIA H100 80GB HBM3".into(), uuid: Some(format!("GPU-{i}")) };
    let gpus = (0..gpus).map(gpu).collect();
    DockerDeployer::new(DockerOptions { host: Some(engine.host()), gpus, ..options(dir) })
}

fn options(dir: &Path) -> DockerOptions {
    DockerOptions {
        host: None,
        tls: None,
        logins: None,
        base: dir.to_path_buf(),
        cache: dir.join("cache"),
        experiment: "gpus".into(),
        run: Arc::default(),
        gpus: Vec::new(),
        devices: Vec::new(),
        gpu_locks: dir.join("locks"),
        offline: true,
        downloads: Arc::default(),
        by_hand: None,
        variables: Arc::new(|_| None),
    }
}

#[test]
fn gpus_are_given_by_uuid_and_to_one_deployment_at_a_time() {
    let Some(w) = Workspace::new("gpus") else { return };
    let Some(engine) = OwnEngine::start() else {
        // Around the test harness, which would swallow it.
        let mut err = std::io::stderr().lock();
        writeln!(err, "\n!!! the GPU test DID NOT RUN: it needs root, `dockerd` and `ip` !!!\n").unwrap();
        return;
    };
    image::hand_over(&["-H", &engine.host()], &image::of("hf", "vllm"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        // Two runs on one host: they share nothing but the locks.
        let (first, second) = (deployer(&engine, w.path(), 3), deployer(&engine, w.path(), 3));
        let (two, one, all) = (deployment(&w, 2), deployment(&w, 1), deployment(&w, 3));
        let a = first.start(&two, &|_| {}).await.unwrap();
        assert_eq!(engine.gpus_of(&two.container), "GPU-0,GPU-1");
        let b = second.start(&one, &|_| {}).await.unwrap();
        assert_eq!(engine.gpus_of(&one.container), "GPU-2");

        // A third waits until both have given back what they have.
        let said = std::sync::Mutex::new(Vec::new());
        let hear = |p: Progress| said.lock().unwrap().push(p.message);
        let waiting = async { second.start(&all, &hear).await.unwrap() };
        let release = async {
            loop {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                if said.lock().unwrap().iter().any(|m| m.contains("waits for GPUs")) {
                    break;
                }
            }
            a.stop().await.unwrap();
            b.stop().await.unwrap();
        };
        let (c, ()) = tokio::join!(waiting, release);
        assert_eq!(engine.gpus_of(&all.container), "GPU-0,GPU-1,GPU-2");
        c.stop().await.unwrap();

        // More than there are is told at once.
        let failure = deployer(&engine, w.path(), 1).start(&two, &|_| {}).await.err().unwrap();
        assert!(failure.environment && failure.cause.contains("it needs 2 GPUs, and this host has 1 GPU"), "{failure}");
        assert_eq!(engine.docker(&["ps", "-aq"]), "");
    });
}

#[test]
fn an_engine_that_cannot_hand_out_gpus_is_an_environment_failure() {
    let Some(w) = Workspace::new("notoolkit") else { return };
    let one = deployment(&w, 1);
    let gpus = vec![Gpu { name: "NVIDIA H100 80GB HBM3".into(), uuid: Some("GPU-0".into()) }];
    let deployer =
        DockerDeployer::new(DockerOptions { host: std::env::var("DOCKER_HOST").ok(), gpus, ..options(w.path()) });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let failure = runtime.block_on(async {
        let started = deployer.start(&one, &|_| {}).await;
        match started {
            // A host that has the toolkit starts it.
            Ok(engine) => engine.stop().await.map(|()| None).unwrap(),
            Err(failure) => Some(failure),
        }
    });
    if let Some(failure) = failure {
        assert!(failure.environment, "{failure:?}");
        assert!(failure.cause.contains("container toolkit"), "{failure}");
    }
    w.assert_clean();
}
