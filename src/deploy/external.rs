//! Servers that already run. They are never started and never stopped; that one answers is all that is asked of it.

use std::time::Duration;

use futures_util::future::BoxFuture;
use url::Url;

use super::ready::Asker;
use super::secret::{Redactor, resolve};
use super::{Deployer, Endpoint, Engine, Failure, OnProgress, Progress, Stage, Variables};
use crate::plan::Deployment;

/// A server that runs answers; one that does not within this time is not there.
const PATIENCE: Duration = Duration::from_secs(15);

/// Connects to servers that already run.
pub struct ExternalDeployer {
    variables: Variables,
}

impl ExternalDeployer {
    pub fn new(variables: Variables) -> ExternalDeployer {
        ExternalDeployer { variables }
    }

    async fn connect(&self, deployment: &Deployment, progress: OnProgress<'_>) -> Result<External, Failure> {
        let mut endpoint = self.endpoint(deployment)?;
        let message = format!("waiting for {} to answer", endpoint.shown());
        progress(Progress { stage: Stage::Ready, message, fraction: None });
        let asker = Asker::new(&endpoint, &deployment.spec.api)?;
        asker.wait_ready(Some(PATIENCE)).await?;
        let about = asker.about().await;
        if deployment.served_model.is_none() && !about.models.iter().any(|m| *m == endpoint.model) {
            if let Some(first) = about.models.into_iter().next() {
                endpoint.model = first;
            }
        }
        Ok(External { endpoint, version: about.version })
    }

    fn endpoint(&self, deployment: &Deployment) -> Result<Endpoint, Failure> {
        let written = deployment.endpoint.as_deref().ok_or_else(|| {
            Failure::deterministic(
                Stage::Create,
                format!(
                    "{} renders to no container and has no `endpoint`: set `endpoint = \"http://host:port\"`, or let \
                     the template render a [container]",
                    deployment.container
                ),
            )
        })?;
        let mut redactor = Redactor::default();
        let url = resolve(written, "endpoint", &self.variables, &mut redactor)?;
        let bad = |why: &str| Failure::deterministic(Stage::Create, format!("`endpoint = \"{written}\"` {why}"));
        let parsed = Url::parse(url.expose()).map_err(|e| bad(&format!("is not a URL: {e}")))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(bad("is not an http:// or https:// URL"));
        }
        let host = parsed.host_str().ok_or_else(|| bad("names no host"))?;
        let local = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
        let network_path = if local { "loopback".into() } else { redactor.redact(&format!("{}://{host}", parsed.scheme())) };
        let header = |(name, value): &(String, String)| {
            resolve(value, &format!("headers.{name}"), &self.variables, &mut redactor).map(|v| (name.clone(), v))
        };
        let headers = deployment.headers.iter().map(header).collect::<Result<_, _>>()?;
        Ok(Endpoint {
            base_url: url.expose().trim_end_matches('/').to_string(),
            headers,
            tls: deployment.tls.clone(),
            model: deployment.served_model.clone().unwrap_or_else(|| deployment.model.clone()),
            network_path,
            redactor,
        })
    }
}

impl Deployer for ExternalDeployer {
    fn start<'a>(
        &'a self,
        deployment: &'a Deployment,
        progress: OnProgress<'a>,
    ) -> BoxFuture<'a, Result<Box<dyn Engine>, Failure>> {
        Box::pin(async move { Ok(Box::new(self.connect(deployment, progress).await?) as Box<dyn Engine>) })
    }
}

struct External {
    endpoint: Endpoint,
    version: Option<String>,
}

impl Engine for External {
    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn version(&self) -> Option<String> {
        self.version.clone()
    }

    fn log_tail(&self, _: usize) -> String {
        String::new()
    }

    /// A server that is not ours cannot be watched: its death shows as failed requests.
    fn crashed(&self) -> BoxFuture<'_, Failure> {
        Box::pin(std::future::pending())
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, Result<(), Failure>> {
        Box::pin(std::future::ready(Ok(())))
    }
}
