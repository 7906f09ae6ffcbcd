//! Simulated engines inside this process: no GPU, no container engine, no download. They load, answer, log, die and are
//! watched as real ones are.

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};

use super::log::Log;
use super::ready::Asker;
use super::secret::Redactor;
use super::{Deployer, Endpoint, Engine, Failure, FailureClass, OnProgress, Progress, Stage, diagnosis};
use crate::plan::{Deployment, TlsOptions};
use crate::sim::{self, SimError, SimOptions, SimServer, Status};

/// Log lines that go with a failure.
const FAILURE_LINES: usize = 50;

/// Starts simulated engines.
#[derive(Clone, Copy, Debug)]
pub struct SimDeployer;

impl Deployer for SimDeployer {
    fn start<'a>(
        &'a self,
        deployment: &'a Deployment,
        progress: OnProgress<'a>,
    ) -> BoxFuture<'a, Result<Box<dyn Engine>, Failure>> {
        Box::pin(async move { Ok(Box::new(start(deployment, progress).await?) as Box<dyn Engine>) })
    }
}

async fn start(deployment: &Deployment, progress: OnProgress<'_>) -> Result<SimEngine, Failure> {
    let options = options(deployment)?;
    let message = format!("the simulated {} loads {}", options.flavor.as_str(), options.model);
    let model = options.model.clone();
    let mut server = sim::start(options).map_err(|e| cannot_start(deployment, &e))?;
    progress(Progress { stage: Stage::Start, message, fraction: None });
    let log = Log::default();
    if let Some(lines) = server.take_log() {
        tokio::spawn(collect(log.clone(), lines));
    }
    let endpoint = Endpoint {
        base_url: server.url(),
        headers: Vec::new(),
        tls: TlsOptions::default(),
        model: deployment.served_model.clone().unwrap_or(model),
        network_path: "loopback".into(),
        redactor: Redactor::default(),
    };
    let status = server.watch();
    let mut engine = SimEngine { server: Some(server), status, log, endpoint, version: None };
    let ready = {
        let asker = Asker::new(&engine.endpoint, &deployment.spec.api)?;
        tokio::select! {
            biased;
            failure = engine.crashed() => Err(Failure { stage: Stage::Start, ..failure }),
            ready = asker.wait_ready(None) => ready,
        }
        .map(|()| asker)
    };
    let about = match ready {
        Ok(asker) => asker.about().await,
        Err(failure) => return Err(failure),
    };
    engine.endpoint.model = about.model_of(deployment, &engine.endpoint.model);
    engine.version = about.version;
    Ok(engine)
}

fn options(deployment: &Deployment) -> Result<SimOptions, Failure> {
    let table = deployment.spec.sim.as_ref().ok_or_else(|| {
        let cause = format!("{} is to be simulated, but has no simulated engine", deployment.container);
        Failure::deterministic(Stage::Create, cause)
    })?;
    SimOptions::from_table(table).map_err(|e| cannot_start(deployment, &e))
}

fn cannot_start(deployment: &Deployment, e: &SimError) -> Failure {
    let cause = format!("cannot start {}: {e}", deployment.container);
    match e {
        SimError::Bind { .. } | SimError::Thread { .. } => Failure::infrastructure(Stage::Create, cause),
        SimError::UnknownOption { .. }
        | SimError::BadOption { .. }
        | SimError::UnknownFlavor { .. }
        | SimError::NoFlavor => Failure::deterministic(Stage::Create, cause),
    }
}

struct SimEngine {
    /// Taken when it is stopped.
    server: Option<SimServer>,
    status: watch::Receiver<Status>,
    log: Log,
    endpoint: Endpoint,
    version: Option<String>,
}

impl Engine for SimEngine {
    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn version(&self) -> Option<String> {
        self.version.clone()
    }

    fn log_tail(&self, lines: usize) -> String {
        self.log.tail(lines)
    }

    fn crashed(&self) -> BoxFuture<'_, Failure> {
        let mut status = self.status.clone();
        Box::pin(async move {
            let reason = match status.wait_for(Status::is_end).await.map(|s| s.clone()) {
                Ok(Status::Crashed { reason }) => reason,
                // It is stopped by us alone, and then nobody waits for its death.
                Ok(_) => std::future::pending().await,
                Err(_) => "the simulator's thread panicked".into(),
            };
            // The collector may be a few lines behind the status.
            tokio::task::yield_now().await;
            self.death(&reason)
        })
    }

    fn stop(mut self: Box<Self>) -> BoxFuture<'static, Result<(), Failure>> {
        Box::pin(async move {
            if let Some(mut server) = self.server.take() {
                // It waits for its thread.
                let _ = tokio::task::spawn_blocking(move || server.stop()).await;
            }
            Ok(())
        })
    }
}

impl SimEngine {
    fn death(&self, reason: &str) -> Failure {
        let tail = self.log.tail(FAILURE_LINES);
        let known = diagnosis::find(&tail).or_else(|| diagnosis::find(reason));
        let (class, cause) = match known {
            Some(known) => (known.class, format!("the engine died: {}. Its log says: {reason}", known.meaning)),
            None => (FailureClass::Infrastructure, format!("the engine died: {reason}")),
        };
        Failure { class, ..Failure::infrastructure(Stage::Start, cause) }.with_log(tail)
    }
}

async fn collect(log: Log, mut lines: mpsc::UnboundedReceiver<String>) {
    while let Some(line) = lines.recv().await {
        log.push(line);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::deployment;
    use super::*;

    fn sim(extra: &str) -> Deployment {
        let mut deployment = deployment(
            "[api]\ndialect = \"openai\"\ndefault = \"completions\"\nhealth = \"/health\"\nmodels = \"/v1/models\"\nversion = \"/version\"\n",
        );
        let text = format!("flavor = \"hf-vllm\"\nmodel = \"org/tiny-1B\"\n{extra}");
        deployment.spec.sim = Some(toml::from_str(&text).unwrap());
        deployment
    }

    #[tokio::test]
    async fn an_engine_starts_answers_and_stops() {
        let deployment = sim("");
        let engine = SimDeployer.start(&deployment, &|_| {}).await.unwrap();
        assert_eq!(engine.endpoint().model, "org/tiny-1B");
        assert!(engine.endpoint().base_url.starts_with("http://127.0.0.1:"));
        assert!(engine.version().is_some());
        assert!(!engine.log_tail(10).is_empty());
        engine.stop().await.unwrap();
    }

    #[tokio::test]
    async fn a_bad_option_and_a_crash_are_failures_that_say_why() {
        let failure = SimDeployer.start(&sim("colour = 1"), &|_| {}).await.err().unwrap();
        assert_eq!((failure.stage, failure.class), (Stage::Create, FailureClass::Deterministic));
        assert!(failure.cause.contains("`colour`"), "{}", failure.cause);
        let failure = SimDeployer.start(&sim("crash_at_start = \"oom\""), &|_| {}).await.err().unwrap();
        assert_eq!((failure.stage, failure.class), (Stage::Start, FailureClass::Deterministic));
        assert!(failure.cause.contains("too little memory"), "{}", failure.cause);
        assert!(failure.log_tail.is_some());
    }
}
