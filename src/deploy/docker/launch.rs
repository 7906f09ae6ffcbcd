//! The way from a deployment to a container that answers, step by step; `images` and `readiness` are steps of it.
//! Whatever step fails or is given up, what the steps before it made is removed.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::ContainerCreateBody;
use bollard::query_parameters::CreateContainerOptionsBuilder;

use super::engine::DockerEngine;
use super::fetch::Things;
use super::held::{Held, Rest};
use super::inventory::{self, Keeper, Leftovers};
use super::place::{self, Directories};
use super::request::{self, Gpus, Placement};
use super::scratch::Scratch;
use super::{Shared, held, labels};
use crate::deploy::{Failure, FailureClass, OnProgress, Progress, Stage, diagnosis};
use crate::host::gpu::{self, GpuError, GpuPool, Lease};
use crate::host::{gpu_amd, tool_version};
use crate::hub::{self, Daemon};
use crate::plan::Deployment;
use crate::template::spec::ContainerSpec;

/// Between two looks at GPUs that others hold.
const GPU_POLL: Duration = Duration::from_secs(1);

/// What a start needs and may have to wait for.
pub(super) struct Ready {
    things: Things,
    lease: Option<Lease>,
}

/// Gets what needs no device, for later.
pub(super) async fn prefetch(
    shared: &Shared,
    deployment: &Deployment,
    progress: OnProgress<'_>,
) -> Result<(), Failure> {
    let launch = Launch { gentle: true, ..Launch::new(shared, deployment, progress)? };
    let daemon = shared.daemon(deployment).await?;
    launch.fetch(daemon).await.map(drop)
}

/// Gets the image, the model and the GPUs.
pub(super) async fn prepare(
    shared: &Shared,
    deployment: &Deployment,
    progress: OnProgress<'_>,
) -> Result<Ready, Failure> {
    let launch = Launch::new(shared, deployment, progress)?;
    launch.readable()?;
    // What is missing here is told before anything is pulled, and all of it.
    let pool = launch.pool();
    let daemon = match (shared.daemon(deployment).await, &pool) {
        (Ok(daemon), _) => daemon,
        (Err(no_engine), Ok(_)) => return Err(no_engine),
        (Err(no_engine), Err(gpus)) => {
            return Err(Failure { cause: format!("{}. Besides, {gpus}", no_engine.cause), ..no_engine });
        }
    };
    let pool = pool.map_err(|gpus| Failure { environment: true, ..launch.cannot(Stage::Create, gpus) })?;
    place::environment(deployment, launch.spec, &shared.options.variables)?;
    launch.sweep(daemon).await;
    let things = launch.fetch(daemon).await?;
    let lease = launch.lease(daemon, pool.as_ref()).await?;
    Ok(Ready { things, lease })
}

/// Starts a container and waits until it answers.
pub(super) async fn run(
    shared: &Shared,
    deployment: &Deployment,
    progress: OnProgress<'_>,
) -> Result<DockerEngine, Failure> {
    let ready = match shared.take_prepared(deployment) {
        Some(ready) => ready,
        None => prepare(shared, deployment, progress).await?,
    };
    let launch = Launch::new(shared, deployment, progress)?;
    let daemon = shared.daemon(deployment).await?;
    // A start that was given up a moment ago may still have the name.
    shared.janitor.settle().await;
    let environment = place::environment(deployment, launch.spec, &shared.options.variables)?;
    let Ready { things, lease } = ready;
    let (placement, rest) = launch.placement(&things, lease, &environment)?;
    let held = launch.container(daemon, placement, rest).await?;
    launch.serve(daemon, held, &things, environment.redactor).await
}

/// One start.
pub(super) struct Launch<'a> {
    pub(super) shared: &'a Shared,
    pub(super) deployment: &'a Deployment,
    pub(super) spec: &'a ContainerSpec,
    pub(super) progress: OnProgress<'a>,
    /// It is for later: others come first.
    pub(super) gentle: bool,
}

impl<'a> Launch<'a> {
    fn new(shared: &'a Shared, deployment: &'a Deployment, progress: OnProgress<'a>) -> Result<Launch<'a>, Failure> {
        let spec = deployment.spec.container.as_ref().ok_or_else(|| {
            Failure::deterministic(Stage::Create, format!("{} renders to no container", deployment.container))
        })?;
        Ok(Launch { shared, deployment, spec, progress, gentle: false })
    }
}

impl Launch<'_> {
    pub(super) fn tell(&self, stage: Stage, message: impl Into<String>) {
        (self.progress)(Progress { stage, message: message.into(), fraction: None });
    }

    /// The name that people know the deployment by, for messages.
    pub(super) fn name(&self) -> &str {
        &self.deployment.container
    }

    pub(super) fn cannot(&self, stage: Stage, why: impl std::fmt::Display) -> Failure {
        Failure::infrastructure(stage, format!("cannot start {}: {why}", self.name()))
    }

    /// Removes what dead runs left. What cannot be removed is said and stays.
    async fn sweep(&self, daemon: &Daemon) {
        let (cache, owner) = (&self.shared.options.cache, &self.shared.owner);
        let left = match Leftovers::find(&daemon.docker, cache, owner, false).await {
            Ok(left) if left.is_empty() => return,
            Ok(left) => left,
            Err(e) => return self.tell(Stage::Create, format!("cannot look for leftovers: {}", hub::reason(&e))),
        };
        let failed = left.remove(&daemon.docker).await;
        for (name, why) in &failed {
            self.tell(Stage::Create, format!("cannot remove {name}, which a dead run left behind: {why}"));
        }
        let removed = left.containers.iter().map(|c| c.name.as_str());
        let removed: Vec<&str> = removed.filter(|n| failed.iter().all(|(f, _)| f != n)).collect();
        if !removed.is_empty() {
            self.tell(Stage::Create, format!("removed what dead runs left behind: {}", removed.join(", ")));
        }
    }

    /// Readiness is seen on the health path alone: a port that is open says nothing.
    fn readable(&self) -> Result<(), Failure> {
        match self.deployment.spec.api.health {
            Some(_) => Ok(()),
            None => Err(Failure {
                class: FailureClass::Deterministic,
                ..self.cannot(
                    Stage::Create,
                    "its template names no `health` path under [api], so nobody could see it is ready",
                )
            }),
        }
    }

    /// The GPUs to choose from; `None` where the deployment uses none. The error says what is missing.
    fn pool(&self) -> Result<Option<GpuPool>, String> {
        let Deployment { gpus, .. } = self.deployment;
        if *gpus == 0 {
            return Ok(None);
        }
        let options = &self.shared.options;
        let pool = GpuPool::new(&options.gpus, &options.devices, &options.gpu_locks);
        let pool = pool.and_then(|pool| pool.has(*gpus).map(|()| pool));
        let without = if options.gpus.is_empty() { ". `gpus = 0` starts it without" } else { "" };
        pool.map(Some).map_err(|e| format!("{e}{without}"))
    }

    /// Takes the GPUs, waiting for those that other runs hold.
    async fn lease(&self, daemon: &Daemon, pool: Option<&GpuPool>) -> Result<Option<Lease>, Failure> {
        let Some(pool) = pool else { return Ok(None) };
        let used = tokio::task::spawn_blocking(gpu::memory_used).await.unwrap_or_default();
        let mut told = false;
        loop {
            let containers = inventory::list(&daemon.docker, &self.shared.owner).await.unwrap_or_default();
            let in_use = inventory::gpus_in_use(&containers);
            match pool.try_take(self.deployment.gpus, &in_use, &used) {
                Ok(Some(lease)) => {
                    self.tell(Stage::Create, format!("uses {}", lease.ids().join(", ")));
                    return Ok(Some(lease));
                }
                Ok(None) => {}
                Err(e @ GpuError::Lock { .. }) => return Err(self.cannot(Stage::Create, e)),
                Err(e) => return Err(Failure { environment: true, ..self.cannot(Stage::Create, e) }),
            }
            if !std::mem::replace(&mut told, true) {
                self.tell(Stage::Create, "waits for GPUs that other runs or containers use");
            }
            tokio::time::sleep(GPU_POLL).await;
        }
    }

    /// Makes everything the container is given.
    fn placement(
        &self,
        things: &Things,
        lease: Option<Lease>,
        environment: &place::Environment,
    ) -> Result<(Placement, Rest), Failure> {
        let options = &self.shared.options;
        let prefix = self.deployment.id.short(8);
        let scratch = Scratch::create(&options.cache, &prefix, &self.shared.owner).map_err(|e| {
            self.cannot(Stage::Create, format!("no scratch directory under {}: {e}", options.cache.display()))
        })?;
        let Things { image: (reference, image), assets, .. } = things;
        let directories = Directories { base: &options.base, cache: &options.cache, hub: &self.shared.hub, assets };
        let warm_caches = place::warm_caches(self.deployment, self.spec, directories);
        let binds = place::binds(self.deployment, self.spec, directories, &scratch, image.user.as_deref())?;
        let gpus = lease.as_ref().map(|l| gpus(l.ids())).unwrap_or_default();
        let labels = self.labels(&scratch, lease.as_ref(), &environment.secret);
        let placement = Placement {
            image: reference.clone(),
            env: environment.variables.clone(),
            binds,
            gpus,
            labels,
            ports: self.deployment.spec.api.metrics_port.into_iter().collect(),
            without_ulimits: false,
        };
        Ok((placement, Rest { scratch, lease, warm_caches }))
    }

    fn labels(&self, scratch: &Scratch, lease: Option<&Lease>, secrets: &[String]) -> HashMap<String, String> {
        let Deployment { id, model, method, engine, .. } = self.deployment;
        let options = &self.shared.options;
        let mut out = HashMap::from([
            (labels::TOOL.to_string(), tool_version().to_string()),
            (labels::EXPERIMENT.to_string(), options.experiment.clone()),
            (labels::DEPLOY_ID.to_string(), id.to_string()),
            (labels::METHOD.to_string(), method.clone()),
            (labels::ENGINE.to_string(), engine.clone()),
            (labels::MODEL.to_string(), model.clone()),
            (labels::SERVED_MODEL.to_string(), self.served_model()),
            (labels::PORT.to_string(), self.spec.port.to_string()),
            (labels::SCRATCH.to_string(), scratch.path().display().to_string()),
        ]);
        self.shared.owner.write(&mut out);
        let mut set = |key: &str, value: Option<String>| _ = value.map(|v| out.insert(key.to_string(), v));
        set(labels::RUN, options.run.get().cloned());
        set(labels::BY_HAND, options.by_hand.is_some().then(|| "true".to_string()));
        set(labels::HEALTH, self.deployment.spec.api.health.clone());
        set(labels::GPUS, lease.map(|l| l.ids().join(",")));
        set(labels::SECRETS, Some(secrets.join(",")).filter(|s| !s.is_empty()));
        out
    }

    pub(super) fn served_model(&self) -> String {
        self.deployment.served_model.clone().unwrap_or_else(|| self.deployment.model.clone())
    }

    /// Creates and starts the container. Some engines cannot give what is asked for in one way and can in another.
    async fn container(&self, daemon: &Daemon, mut placement: Placement, mut rest: Rest) -> Result<Held, Failure> {
        loop {
            let body = request::body(self.spec, &placement)
                .map_err(|e| Failure { class: FailureClass::Deterministic, ..self.cannot(Stage::Create, e) })?;
            let (id, name) = self.create(daemon, body).await?;
            let held = Held::new(daemon.docker.clone(), self.shared.janitor.clone(), id, name, rest);
            let Err(e) = daemon.docker.start_container(&held.id, None).await else {
                self.tell(Stage::Start, format!("{} is started", held.name));
                return Ok(held);
            };
            let why = hub::reason(&e);
            let given_back = held.discard().await;
            let again = self.another_way(daemon, &why, &mut placement).await;
            rest = match given_back.filter(|_| again) {
                Some(rest) => rest,
                None => return Err(self.not_started(&why)),
            };
        }
    }

    /// Changes the placement where the engine's complaint says what else might do.
    async fn another_way(&self, daemon: &Daemon, why: &str, placement: &mut Placement) -> bool {
        if why.contains("error setting rlimit") && !placement.without_ulimits {
            self.tell(Stage::Start, "this container engine may not raise limits; goes on without `ulimits`");
            placement.without_ulimits = true;
            return true;
        }
        if why.contains("could not select device driver")
            && let Gpus::Nvidia(ids) = &placement.gpus
        {
            let info = daemon.docker.info().await.unwrap_or_default();
            let cdi = info.cdi_spec_dirs.is_some_and(|d| !d.is_empty()) || info.discovered_devices.is_some();
            if cdi {
                self.tell(Stage::Start, "the container engine has no NVIDIA runtime; asks for CDI devices instead");
                placement.gpus = Gpus::Cdi(ids.clone());
                return true;
            }
        }
        false
    }

    fn not_started(&self, why: &str) -> Failure {
        let no_gpus = why.contains("could not select device driver");
        let failure = match diagnosis::line(why) {
            Some(known) => Failure {
                class: known.class,
                ..self.cannot(Stage::Start, format!("{why}. It means: {}", known.meaning))
            },
            None => self.cannot(Stage::Start, why),
        };
        Failure { environment: no_gpus, ..failure }
    }

    /// Creates it under the conventional name, or with the suffix where a live container of ours has that name.
    async fn create(&self, daemon: &Daemon, body: ContainerCreateBody) -> Result<(String, String), Failure> {
        let asked = self.shared.options.by_hand.as_ref().and_then(|h| h.name.clone());
        let names = match asked {
            Some(name) => vec![name],
            None => vec![self.name().to_string(), format!("{}-{}", self.name(), self.deployment.id.short(8))],
        };
        for name in &names {
            for _ in 0..3 {
                let options = CreateContainerOptionsBuilder::new().name(name).build();
                match daemon.docker.create_container(Some(options), body.clone()).await {
                    Ok(created) => return Ok((created.id, name.clone())),
                    Err(e) if hub::status(&e) == Some(409) => {}
                    Err(e) => {
                        let why = hub::reason(&e);
                        let class = diagnosis::line(&why).map_or(FailureClass::Infrastructure, |d| d.class);
                        return Err(Failure { class, ..self.cannot(Stage::Create, why) });
                    }
                }
                if !self.make_room(daemon, name).await? {
                    break;
                }
            }
        }
        Err(self.cannot(
            Stage::Create,
            format!(
                "{} of ours {} already; `llmatrix ps` shows them, `llmatrix stop NAME` stops one",
                names.join(" and "),
                if names.len() == 1 { "runs" } else { "run" }
            ),
        ))
    }

    /// Whether the name is free now: a leftover that had it is removed. A stranger's container is not touched.
    async fn make_room(&self, daemon: &Daemon, name: &str) -> Result<bool, Failure> {
        let found = inventory::look(&daemon.docker, name, &self.shared.owner).await;
        match found.map_err(|e| self.cannot(Stage::Create, hub::reason(&e)))? {
            None => Ok(true),
            Some(Ok(ours)) if ours.kept_by == Keeper::Nobody => {
                held::remove(&daemon.docker, &ours.id).await.map_err(|why| self.cannot(Stage::Create, why))?;
                ours.scratch.iter().for_each(|s| super::scratch::remove(s));
                Ok(true)
            }
            Some(Ok(_)) => Ok(false),
            Some(Err(inventory::Stranger)) => Err(self.cannot(
                Stage::Create,
                format!("a container that is not ours is called {name}. Remove or rename it, and run again"),
            )),
        }
    }
}

/// How GPUs are handed to a container: AMD's as device nodes, others through the engine's NVIDIA runtime.
fn gpus(ids: &[String]) -> Gpus {
    let amd = gpu_amd::detect(std::path::Path::new(gpu_amd::TOPOLOGY));
    let render: Vec<_> = ids.iter().filter_map(|id| Some(amd.iter().find(|g| g.uuid == *id)?.render.clone())).collect();
    if render.len() < ids.len() || ids.is_empty() {
        return Gpus::Nvidia(ids.to_vec());
    }
    let devices: Vec<_> = std::iter::once(gpu_amd::KFD.into()).chain(render).collect();
    let mut groups: Vec<u32> = devices.iter().filter_map(|d| gpu_amd::group_of(d)).collect();
    groups.sort_unstable();
    groups.dedup();
    Gpus::Rocm { devices, groups }
}
