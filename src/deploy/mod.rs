//! Starting and stopping serving stacks. A [`Deployer`] turns a deployment into an [`Engine`] that answers; what happens
//! on the way is told through [`Progress`], what goes wrong is a [`Failure`]. Each kind of stack is one module: in
//! containers, simulated, external; [`Deployers`] picks.

pub mod diagnosis;
pub mod docker;
mod external;
mod log;
mod ready;
pub mod secret;
mod sim;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;

pub use crate::event::{FailureClass, Stage};
use crate::plan::{Deployment, TlsOptions};
use secret::{Redactor, Secret};

pub use external::ExternalDeployer;
pub use sim::SimDeployer;

/// Longest end of a log that is kept with a failure, bytes.
const LONGEST_TAIL: usize = 64 << 10;

/// A step on the way to an engine that answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    pub stage: Stage,
    pub message: String,
    /// From 0 to 1, where it is known.
    pub fraction: Option<f64>,
}

/// Why an engine did not start, or died.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{cause}")]
pub struct Failure {
    pub stage: Stage,
    pub class: FailureClass,
    /// What was being done, to what, why it failed, what to try. Redacted.
    pub cause: String,
    /// The host lacks what every deployment of this kind needs.
    pub environment: bool,
    /// The end of the engine's log, redacted.
    pub log_tail: Option<String>,
}

impl Failure {
    /// May go away by itself.
    pub fn infrastructure(stage: Stage, cause: impl Into<String>) -> Failure {
        let cause = cause.into();
        Failure { stage, class: FailureClass::Infrastructure, cause, environment: false, log_tail: None }
    }

    /// The same inputs fail the same way.
    pub fn deterministic(stage: Stage, cause: impl Into<String>) -> Failure {
        Failure { class: FailureClass::Deterministic, ..Failure::infrastructure(stage, cause) }
    }

    /// The host lacks what every deployment of this kind needs.
    pub fn environment(stage: Stage, cause: impl Into<String>) -> Failure {
        Failure { environment: true, ..Failure::infrastructure(stage, cause) }
    }

    /// With the end of a log, of which the last 64 KiB are kept.
    pub fn with_log(self, tail: impl Into<String>) -> Failure {
        let mut tail = tail.into();
        if tail.len() > LONGEST_TAIL {
            let from =
                (tail.len() - LONGEST_TAIL..=tail.len()).find(|i| tail.is_char_boundary(*i)).unwrap_or(tail.len());
            tail.drain(..from);
        }
        Failure { log_tail: Some(tail).filter(|t| !t.is_empty()), ..self }
    }
}

/// Where an engine answers, and how it wants to be asked.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Scheme, host and port, and a path prefix where there is one; no slash at the end.
    pub base_url: String,
    /// Sent with every request.
    pub headers: Vec<(String, Secret)>,
    pub tls: TlsOptions,
    /// The name that requests give the model.
    pub model: String,
    /// How requests get there, for the record: `loopback`, or the host of a remote endpoint.
    pub network_path: String,
    /// Takes the values of secrets out of texts.
    pub redactor: Redactor,
}

impl Endpoint {
    /// Its address for messages, redacted.
    pub fn shown(&self) -> String {
        self.redactor.redact(&self.base_url)
    }
}

/// Something that an engine's log told on its way up: a milestone of its template.
#[derive(Clone, Debug, PartialEq)]
pub struct Milestone {
    pub name: String,
    /// What the template's pattern captured; empty where it captures nothing.
    pub value: String,
    /// Seconds since the container was started.
    pub seconds: f64,
}

/// What a start found and went through.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Startup {
    /// In the order in which the log told them.
    pub milestones: Vec<Milestone>,
    /// All caches that it was given held something; `None` where it was given none.
    pub warm_caches: Option<bool>,
}

/// What a container has used, as the container engine counts it. What it does not tell is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ContainerUsage {
    /// CPU seconds since it began.
    pub cpu_s: Option<f64>,
    /// Without the page cache that the kernel can drop.
    pub memory_mib: Option<f64>,
    /// Seconds that its CPU limit has held it back.
    pub throttled_s: Option<f64>,
}

/// An engine that answers its health path.
pub trait Engine: Send + Sync {
    /// Where it answers.
    fn endpoint(&self) -> &Endpoint;

    /// As the engine reports itself.
    fn version(&self) -> Option<String>;

    /// Version of the container engine, for a container.
    fn container_engine(&self) -> Option<String> {
        None
    }

    /// Digest of the image that runs, for a container.
    fn image_digest(&self) -> Option<String> {
        None
    }

    /// Commit of the hub that the model is from, where that is known.
    fn model_commit(&self) -> Option<String> {
        None
    }

    /// Labels of the image that runs, for a container.
    fn image_labels(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// UUIDs of the GPUs that it was given.
    fn gpus(&self) -> Vec<String> {
        Vec::new()
    }

    /// Text that the control group of each of its processes holds: a container's id.
    fn control_group(&self) -> Option<String> {
        None
    }

    /// How it came up.
    fn startup(&self) -> Startup {
        Startup::default()
    }

    /// What it has used of the host; `None` where that cannot be told.
    fn usage(&self) -> BoxFuture<'_, Option<ContainerUsage>> {
        Box::pin(std::future::ready(None))
    }

    /// The last lines of its log, redacted; empty where there is none to read.
    fn log_tail(&self, lines: usize) -> String;

    /// Resolves when the engine dies without having been asked to, with the cause; never before.
    fn crashed(&self) -> BoxFuture<'_, Failure>;

    /// Stops it and removes what it left. Dropping an engine stops it too, without waiting.
    fn stop(self: Box<Self>) -> BoxFuture<'static, Result<(), Failure>>;
}

/// What hears of the progress of a start.
pub type OnProgress<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// Starts engines of one kind.
pub trait Deployer: Send + Sync {
    /// Gets what a start needs and this host may have to wait for: images that are pulled, devices that others use. The
    /// time it takes is not the engine's. A start that was not prepared does it by itself.
    fn prepare<'a>(
        &'a self,
        _deployment: &'a Deployment,
        _progress: OnProgress<'a>,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Gets what a start needs and no device is needed for: images, models. For a deployment whose turn has not come,
    /// while another is measured: it takes as little of the host as it can.
    fn prefetch<'a>(
        &'a self,
        _deployment: &'a Deployment,
        _progress: OnProgress<'a>,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Removes what the deployment needed and none of `later` does: what this process downloaded, or with `all` what was
    /// there before, too. Returns what is gone, for people.
    fn evict<'a>(
        &'a self,
        _deployment: &'a Deployment,
        _later: &'a [Deployment],
        _all: bool,
    ) -> BoxFuture<'a, Vec<String>> {
        Box::pin(std::future::ready(Vec::new()))
    }

    /// The end of the log of the deployment's last start, redacted: for one that was given up.
    fn last_words(&self, _deployment: &Deployment) -> Option<String> {
        None
    }

    /// What its health path looked like last, redacted, where it has been asked and did not answer well.
    fn last_look(&self, _deployment: &Deployment) -> Option<String> {
        None
    }

    /// Starts an engine and waits until its health path answers 200. How long that may take is the caller's to say:
    /// dropping the future gives the start up and removes what it made.
    fn start<'a>(
        &'a self,
        deployment: &'a Deployment,
        progress: OnProgress<'a>,
    ) -> BoxFuture<'a, Result<Box<dyn Engine>, Failure>>;
}

/// Gives the value of an environment variable.
pub type Variables = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// The deployers of this build; each deployment goes to the one that can start it.
pub struct Deployers {
    sim: SimDeployer,
    external: ExternalDeployer,
    containers: Option<Box<dyn Deployer>>,
}

impl Deployers {
    /// Without a deployer of containers: such deployments fail and say so.
    pub fn new(variables: Variables) -> Deployers {
        Deployers { sim: SimDeployer, external: ExternalDeployer::new(variables), containers: None }
    }

    /// With a deployer of containers.
    pub fn with_containers(self, containers: Box<dyn Deployer>) -> Deployers {
        Deployers { containers: Some(containers), ..self }
    }
}

impl Deployers {
    /// The one that starts this deployment; `None` where it is a container and nobody starts those.
    fn of(&self, deployment: &Deployment) -> Option<&dyn Deployer> {
        if deployment.flavor.is_some() || deployment.spec.sim.is_some() {
            return Some(&self.sim);
        }
        if deployment.spec.container.is_none() {
            return Some(&self.external);
        }
        self.containers.as_deref()
    }
}

impl Deployer for Deployers {
    fn prepare<'a>(
        &'a self,
        deployment: &'a Deployment,
        progress: OnProgress<'a>,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        match self.of(deployment) {
            Some(deployer) => deployer.prepare(deployment, progress),
            // The start says so.
            None => Box::pin(std::future::ready(Ok(()))),
        }
    }

    fn prefetch<'a>(
        &'a self,
        deployment: &'a Deployment,
        progress: OnProgress<'a>,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        match self.of(deployment) {
            Some(deployer) => deployer.prefetch(deployment, progress),
            None => Box::pin(std::future::ready(Ok(()))),
        }
    }

    fn evict<'a>(
        &'a self,
        deployment: &'a Deployment,
        later: &'a [Deployment],
        all: bool,
    ) -> BoxFuture<'a, Vec<String>> {
        match self.of(deployment) {
            Some(deployer) => deployer.evict(deployment, later, all),
            None => Box::pin(std::future::ready(Vec::new())),
        }
    }

    fn last_words(&self, deployment: &Deployment) -> Option<String> {
        self.of(deployment)?.last_words(deployment)
    }

    fn last_look(&self, deployment: &Deployment) -> Option<String> {
        self.of(deployment)?.last_look(deployment)
    }

    fn start<'a>(
        &'a self,
        deployment: &'a Deployment,
        progress: OnProgress<'a>,
    ) -> BoxFuture<'a, Result<Box<dyn Engine>, Failure>> {
        match self.of(deployment) {
            Some(deployer) => deployer.start(deployment, progress),
            None => Box::pin(std::future::ready(Err(no_containers(deployment)))),
        }
    }
}

fn no_containers(deployment: &Deployment) -> Failure {
    Failure::environment(
        Stage::Create,
        format!(
            "cannot start {}: containers are not started here. Rehearse the experiment with `--simulate`, or measure a \
             running server with method `external`",
            deployment.container
        ),
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::digest::DeployId;
    use crate::value::Value;

    /// A deployment of method `external` with the given specification.
    pub(crate) fn deployment(spec: &str) -> Deployment {
        Deployment {
            id: DeployId::of(&Value::str("d")),
            container: "org--m-hf-vllm".into(),
            directory: "org--m_hf_vllm".into(),
            document: Value::str("d"),
            spec: toml::from_str(spec).unwrap(),
            model: "org/m".into(),
            served_model: None,
            method: "hf".into(),
            engine: "vllm".into(),
            hardware: "cpu".into(),
            gpus: 0,
            assets: Vec::new(),
            endpoint: None,
            headers: Vec::new(),
            tls: TlsOptions::default(),
            flavor: None,
        }
    }

    #[tokio::test]
    async fn a_container_is_refused_in_plain_words() {
        let spec = "[api]\ndialect = \"openai\"\ndefault = \"chat\"\n[container]\nimage = \"i\"\nport = 1\n";
        let deployers = Deployers::new(Arc::new(|_| None));
        let failure = deployers.start(&deployment(spec), &|_| {}).await.err().unwrap();
        assert_eq!((failure.stage, failure.class), (Stage::Create, FailureClass::Infrastructure));
        assert!(failure.environment && failure.cause.contains("--simulate"), "{}", failure.cause);
    }
}
