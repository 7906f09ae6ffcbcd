//! The way from a deployment to a container that answers, step by step. Whatever step fails or is given up, what the steps
//! before it made is removed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bollard::models::{ContainerCreateBody, ContainerInspectResponse};
use bollard::query_parameters::CreateContainerOptionsBuilder;
use tokio::sync::mpsc;

use super::address::Addresses;
use super::engine::DockerEngine;
use super::held::{Held, Rest};
use super::inventory::{self, Keeper, Leftovers};
use super::place::{self, Directories};
use super::request::{self, Gpus, Placement};
use super::scratch::Scratch;
use super::watch::{Reading, Watch};
use super::{Shared, held, labels};
use crate::deploy::ready::{Asker, Health};
use crate::deploy::secret::{Redactor, resolve};
use crate::deploy::{Endpoint, Failure, FailureClass, OnProgress, Progress, Stage, diagnosis};
use crate::host::gpu::{self, GpuError, GpuPool, Lease};
use crate::host::{gpu_amd, tool_version};
use crate::hub::{self, Daemon, HubError, Image, PullProgress, image};
use crate::plan::{Deployment, TlsOptions};
use crate::template::spec::ContainerSpec;

/// Between two looks at the health path, and at GPUs that others hold.
const POLL: Duration = Duration::from_millis(250);
const GPU_POLL: Duration = Duration::from_secs(1);
/// Between two messages about a pull: each is kept in the journal.
const PULL_NEWS: Duration = Duration::from_secs(2);
/// How long the end of a container without an address may take to show.
const NO_ADDRESS: Duration = Duration::from_secs(5);

/// Starts a container and waits until it answers.
pub(super) async fn run(
    shared: &Shared,
    deployment: &Deployment,
    progress: OnProgress<'_>,
) -> Result<DockerEngine, Failure> {
    let spec = deployment.spec.container.as_ref().ok_or_else(|| {
        Failure::deterministic(Stage::Create, format!("{} renders to no container", deployment.container))
    })?;
    let launch = Launch { shared, deployment, spec, progress };
    launch.readable()?;
    let pool = launch.pool()?;
    let daemon = shared.daemon(deployment).await?;
    launch.sweep(daemon).await;
    shared.janitor.settle().await;
    let environment = place::environment(deployment, spec, &shared.options.variables)?;
    let (reference, image) = launch.image(daemon).await?;
    let lease = launch.lease(daemon, pool.as_ref()).await?;
    let (placement, rest) = launch.placement(reference, &image, lease, &environment)?;
    let held = launch.container(daemon, placement, rest).await?;
    launch.serve(daemon, held, &image, environment.redactor).await
}

struct Launch<'a> {
    shared: &'a Shared,
    deployment: &'a Deployment,
    spec: &'a ContainerSpec,
    progress: OnProgress<'a>,
}

impl Launch<'_> {
    fn tell(&self, stage: Stage, message: impl Into<String>) {
        (self.progress)(Progress { stage, message: message.into(), fraction: None });
    }

    /// The name that people know the deployment by, for messages.
    fn name(&self) -> &str {
        &self.deployment.container
    }

    fn cannot(&self, stage: Stage, why: impl std::fmt::Display) -> Failure {
        Failure::infrastructure(stage, format!("cannot start {}: {why}", self.name()))
    }

    /// Removes what dead runs left, once. What cannot be removed is said and stays.
    async fn sweep(&self, daemon: &Daemon) {
        let sweeping = self.shared.swept.get_or_init(|| async {
            let (cache, owner) = (&self.shared.options.cache, &self.shared.owner);
            let found = Leftovers::find(&daemon.docker, cache, owner, false).await;
            let left = match found {
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
        });
        sweeping.await;
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

    /// The GPUs to choose from; `None` where the deployment uses none. A host with too few is told at once.
    fn pool(&self) -> Result<Option<GpuPool>, Failure> {
        let Deployment { gpus, hardware, .. } = self.deployment;
        if *gpus == 0 || hardware == crate::host::hardware::CPU {
            return Ok(None);
        }
        let options = &self.shared.options;
        let pool = GpuPool::new(&options.gpus, &options.devices, &options.gpu_locks);
        let pool = pool.and_then(|pool| pool.has(*gpus).map(|()| pool));
        pool.map(Some).map_err(|e| Failure { environment: true, ..self.cannot(Stage::Create, e) })
    }

    /// The image that the lock names, else the one that the reference means here; pulled where it is not here. Returns
    /// the reference to start it by.
    async fn image(&self, daemon: &Daemon) -> Result<(String, Image), Failure> {
        let wanted = &self.spec.image;
        let local = async |reference: &str| {
            image::local(&daemon.docker, reference).await.map_err(|e| self.cannot(Stage::Pull, e))
        };
        let Some(locked) = self.deployment.locked_image() else {
            if let Some(image) = local(wanted).await? {
                return Ok((wanted.clone(), image));
            }
            self.pull(daemon, wanted).await.map_err(|e| self.not_pulled(&e))?;
            let image = local(wanted).await?;
            return image.map(|i| (wanted.clone(), i)).ok_or_else(|| self.vanished(wanted));
        };
        let pinned = image::pinned(wanted, locked);
        for reference in [wanted.as_str(), &pinned, locked] {
            if let Some(image) = local(reference).await?.filter(|i| i.is(locked)) {
                return Ok((reference.to_string(), image));
            }
        }
        if let Err(e) = self.pull(daemon, &pinned).await {
            return Err(match local(wanted).await? {
                Some(other) => self.mismatch(&other.digest(wanted), locked, Some(&e)),
                None => self.not_pulled(&e),
            });
        }
        let image = local(&pinned).await?;
        image.map(|i| (pinned.clone(), i)).ok_or_else(|| self.vanished(&pinned))
    }

    fn vanished(&self, reference: &str) -> Failure {
        self.cannot(Stage::Pull, format!("the image {reference} was pulled and is not here"))
    }

    fn mismatch(&self, here: &str, locked: &str, pull: Option<&HubError>) -> Failure {
        let pulled = pull.map(|e| format!(" ({e})")).unwrap_or_default();
        self.cannot(
            Stage::Create,
            format!(
                "identity_mismatch: {} is {here} on this host, and the lock says {locked}{pulled}. Get the locked image, \
                 or move the lock with `llmatrix lock --update`",
                self.spec.image
            ),
        )
    }

    fn not_pulled(&self, e: &HubError) -> Failure {
        let text = e.to_string();
        match diagnosis::line(&text) {
            Some(known) => Failure {
                class: known.class,
                ..self.cannot(Stage::Pull, format!("{text}. It means: {}", known.meaning))
            },
            None => self.cannot(Stage::Pull, text),
        }
    }

    async fn pull(&self, daemon: &Daemon, reference: &str) -> Result<(), HubError> {
        if self.shared.options.offline {
            let reason = "it is not on this host, and this run is offline".to_string();
            return Err(HubError::Pull { image: reference.to_string(), reason });
        }
        self.tell(Stage::Pull, format!("pulling {reference}"));
        let credentials = self.shared.logins.of(image::registry(reference)).await;
        let mut told = Instant::now();
        let heard = |p: PullProgress| {
            if told.elapsed() >= PULL_NEWS {
                told = Instant::now();
                let fraction = (p.bytes > 0).then(|| p.bytes_done as f64 / p.bytes as f64);
                (self.progress)(Progress { stage: Stage::Pull, message: pull_message(reference, p), fraction });
            }
        };
        image::pull(&daemon.docker, reference, credentials, heard).await
    }

    /// Takes the GPUs, waiting for those that other runs hold.
    async fn lease(&self, daemon: &Daemon, pool: Option<&GpuPool>) -> Result<Option<Lease>, Failure> {
        let Some(pool) = pool else { return Ok(None) };
        let used = tokio::task::spawn_blocking(gpu::memory_used).await.unwrap_or_default();
        let mut told = false;
        loop {
            let containers = inventory::list(&daemon.docker, &self.shared.owner).await.unwrap_or_default();
            let by_hand = inventory::gpus_by_hand(&containers);
            match pool.try_take(self.deployment.gpus, &by_hand, &used) {
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
        reference: String,
        image: &Image,
        lease: Option<Lease>,
        environment: &place::Environment,
    ) -> Result<(Placement, Rest), Failure> {
        let options = &self.shared.options;
        let prefix = self.deployment.id.short(8);
        let scratch = Scratch::create(&options.cache, &prefix, &self.shared.owner).map_err(|e| {
            self.cannot(Stage::Create, format!("no scratch directory under {}: {e}", options.cache.display()))
        })?;
        let directories = Directories { base: &options.base, cache: &options.cache };
        let binds = place::binds(self.deployment, self.spec, directories, &scratch, image.user.as_deref())?;
        let gpus = lease.as_ref().map(|l| gpus(l.ids())).unwrap_or_default();
        let labels = self.labels(&scratch, lease.as_ref(), &environment.secret);
        let placement = Placement {
            image: reference,
            env: environment.variables.clone(),
            binds,
            gpus,
            labels,
            ports: self.deployment.spec.api.metrics_port.into_iter().collect(),
            without_ulimits: false,
        };
        Ok((placement, Rest { scratch, lease }))
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

    fn served_model(&self) -> String {
        self.deployment.served_model.clone().unwrap_or_else(|| self.deployment.model.clone())
    }

    /// Creates and starts the container. Some engines cannot give what is asked for in one way and can in another.
    async fn container(&self, daemon: &Daemon, mut placement: Placement, mut rest: Rest) -> Result<Held, Failure> {
        loop {
            let body = request::body(self.spec, &placement).map_err(|e| Failure {
                class: FailureClass::Deterministic,
                ..self.cannot(Stage::Create, format!("`container.shm_size`: {e}"))
            })?;
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

    /// Waits until the container answers. It is removed with everything else when it does not.
    async fn serve(
        &self,
        daemon: &Daemon,
        held: Held,
        image: &Image,
        redactor: Redactor,
    ) -> Result<DockerEngine, Failure> {
        let (reached, mut milestones) = mpsc::unbounded_channel();
        let reading = Reading::new(&self.deployment.spec.milestones, redactor.clone(), reached)?;
        let watch = Watch::start(&daemon.docker, &held.id, &held.name, reading);
        let found = daemon.docker.inspect_container(&held.id, None).await;
        let found = found.map_err(|e| self.cannot(Stage::Start, hub::reason(&e)))?;
        if found.image.as_deref().is_some_and(|id| id != image.id) {
            let here = found.image.unwrap_or_default();
            return Err(self.mismatch(&here, self.deployment.locked_image().unwrap_or(&image.id), None));
        }
        let candidates = self.candidates(&found, redactor, &watch).await?;
        let ready = {
            let mut ready = std::pin::pin!(self.first_ready(&candidates));
            let mut doomed = std::pin::pin!(watch.doomed());
            loop {
                tokio::select! {
                    biased;
                    failure = &mut doomed => break Err(failure),
                    ready = &mut ready => break ready,
                    Some(text) = milestones.recv() => self.tell(Stage::Ready, text),
                }
            }
        };
        let ready = match ready {
            Ok(index) => index,
            Err(failure) => {
                drop(watch);
                held.discard().await;
                return Err(failure);
            }
        };
        let mut endpoint = candidates[ready].clone();
        let about = Asker::new(&endpoint, &self.deployment.spec.api)?.about().await;
        endpoint.model = about.model_of(self.deployment, &endpoint.model);
        let published = candidates.iter().find(|c| c.network_path == PUBLISHED).map(|c| c.base_url.clone());
        let image_digest = image.digest(&self.spec.image);
        Ok(DockerEngine { held, watch, endpoint, version: about.version, image_digest, published })
    }

    /// The ways to the server, the better one first.
    async fn candidates(
        &self,
        found: &ContainerInspectResponse,
        mut redactor: Redactor,
        watch: &Watch,
    ) -> Result<Vec<Endpoint>, Failure> {
        let variables = &self.shared.options.variables;
        let mut headers = Vec::new();
        for (name, text) in &self.deployment.headers {
            headers.push((name.clone(), resolve(text, &format!("headers.{name}"), variables, &mut redactor)?));
        }
        let addresses = Addresses::of(found, self.spec.port).reachable().await;
        let ways = [(addresses.bridge, BRIDGE), (addresses.published, PUBLISHED)];
        let endpoint = |(address, path): (Option<String>, &str)| {
            Some(Endpoint {
                base_url: format!("http://{}", address?),
                headers: headers.clone(),
                tls: TlsOptions::default(),
                model: self.served_model(),
                network_path: path.to_string(),
                redactor: redactor.clone(),
            })
        };
        let candidates: Vec<Endpoint> = ways.into_iter().filter_map(endpoint).collect();
        if candidates.is_empty() {
            // Most likely it has ended already, which says more.
            let ended = tokio::time::timeout(NO_ADDRESS, watch.ended()).await;
            return Err(ended.unwrap_or_else(|_| self.cannot(Stage::Start, "the container has no address")));
        }
        Ok(candidates)
    }

    /// Index of the first candidate that is ready. How long that may take is the caller's to say.
    async fn first_ready(&self, candidates: &[Endpoint]) -> Result<usize, Failure> {
        let api = &self.deployment.spec.api;
        let askers: Vec<Asker<'_>> = candidates.iter().map(|c| Asker::new(c, api)).collect::<Result<_, _>>()?;
        let mut told = String::new();
        loop {
            for (index, asker) in askers.iter().enumerate() {
                match asker.health().await {
                    Health::Ready => {
                        // It may have come up just after a better way was tried.
                        for (better, asker) in askers[..index].iter().enumerate() {
                            if matches!(asker.health().await, Health::Ready) {
                                return Ok(better);
                            }
                        }
                        return Ok(index);
                    }
                    Health::NotYet(seen) if index == 0 && seen.contains("answers") && seen != told => {
                        self.tell(Stage::Ready, format!("not ready yet: {seen}"));
                        told = seen;
                    }
                    Health::NotYet(_) => {}
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// How requests get to the server, for the record.
const BRIDGE: &str = "bridge";
const PUBLISHED: &str = "published port";

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

fn pull_message(reference: &str, progress: PullProgress) -> String {
    let PullProgress { layers, layers_done, bytes, bytes_done } = progress;
    let gb = |bytes: u64| bytes as f64 / 1e9;
    format!("pulling {reference}: {layers_done}/{layers} layers, {:.2} of {:.2} GB", gb(bytes_done), gb(bytes))
}
