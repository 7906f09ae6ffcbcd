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
        let about = {
            let asker = Asker::new(&endpoint, &deployment.spec.api)?;
            asker.wait_ready(Some(PATIENCE)).await?;
            asker.about().await
        };
        if let Some(served) = about.other_than(&deployment.model).filter(|_| deployment.served_model.is_none()) {
            let cause = format!(
                "identity mismatch: {} serves {served}, and the experiment asks for `{}`. Set `model` to what is served, or \
                 `served_model` to the name that this model has there",
                endpoint.shown(),
                deployment.model
            );
            return Err(Failure::deterministic(Stage::Ready, cause));
        }
        endpoint.model = about.model_of(deployment, &endpoint.model);
        Ok(External { endpoint, version: about.version })
    }

    /// Address, headers and TLS of a running server, with secrets resolved.
    pub fn endpoint(&self, deployment: &Deployment) -> Result<Endpoint, Failure> {
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
        let network_path =
            if local { "loopback".into() } else { redactor.redact(&format!("{}://{host}", parsed.scheme())) };
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::FailureClass;
    use super::super::tests::deployment;
    use super::*;

    const API: &str =
        "[api]\ndialect = \"openai\"\ndefault = \"chat\"\nhealth = \"/health\"\nmodels = \"/v1/models\"\n";

    fn deployer() -> ExternalDeployer {
        ExternalDeployer::new(Arc::new(|name| (name == "KEY").then(|| "hunter22".to_string())))
    }

    /// Answers each path of the script, once per connection, and gives back what it was asked.
    async fn server(script: &'static [(&'static str, &'static str)]) -> (String, tokio::task::JoinHandle<Vec<String>>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            let mut seen = Vec::new();
            for (path, answer) in script {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let n = socket.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..n]).into_owned();
                assert!(request.starts_with(&format!("GET {path} ")), "{request}");
                seen.push(request);
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
            seen
        });
        (url, serving)
    }

    #[tokio::test]
    async fn a_server_is_waited_for_asked_and_left_alone() {
        let (url, serving) = server(&[
            ("/health", "HTTP/1.1 503 Loading\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"),
            ("/health", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"),
            (
                "/v1/models",
                "HTTP/1.1 200 OK\r\ncontent-length: 23\r\nconnection: close\r\n\r\n{\"data\": [{\"id\": \"m\"}]}",
            ),
        ])
        .await;
        let mut deployment = deployment(API);
        deployment.endpoint = Some(url);
        deployment.headers = vec![("authorization".into(), "Bearer ${KEY}".into())];
        let engine = deployer().start(&deployment, &|_| {}).await.unwrap();
        assert_eq!(engine.endpoint().network_path, "loopback");
        assert!(!format!("{:?}", engine.endpoint()).contains("hunter22"));
        engine.stop().await.unwrap();
        for request in serving.await.unwrap() {
            assert!(request.to_ascii_lowercase().contains("authorization: bearer hunter22"), "{request}");
        }
    }

    const OTHER: &[(&str, &str)] = &[
        ("/health", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"),
        ("/v1/models", "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"data\": [{\"id\": \"org/another\"}]}"),
    ];

    #[tokio::test]
    async fn a_server_of_another_model_is_an_identity_mismatch() {
        let (url, _serving) = server(OTHER).await;
        let mut deployment = deployment(API);
        deployment.endpoint = Some(url);
        let failure = deployer().start(&deployment, &|_| {}).await.err().unwrap();
        assert_eq!(failure.class, FailureClass::Deterministic);
        assert!(failure.cause.contains("identity mismatch") && failure.cause.contains("`org/another`"), "{failure}");
        // A name of its own is the experiment's word for it.
        let (url, _serving) = server(OTHER).await;
        (deployment.endpoint, deployment.served_model) = (Some(url), Some("an-alias".into()));
        let engine = deployer().start(&deployment, &|_| {}).await.unwrap();
        assert_eq!(engine.endpoint().model, "an-alias");
    }

    #[tokio::test]
    async fn what_cannot_be_resolved_or_reached_is_said_without_the_secret() {
        let mut deployment = deployment(API);
        deployment.endpoint = Some("http://${NOPE}:1".into());
        let failure = deployer().start(&deployment, &|_| {}).await.err().unwrap();
        assert_eq!((failure.stage, failure.class), (Stage::Create, FailureClass::Deterministic));
        deployment.endpoint = Some("ftp://h".into());
        let failure = deployer().start(&deployment, &|_| {}).await.err().unwrap();
        assert!(failure.cause.contains("is not an http:// or https:// URL"), "{}", failure.cause);

        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        deployment.endpoint = Some(format!("http://{closed}/${{KEY}}"));
        tokio::time::pause();
        let failure = deployer().start(&deployment, &|_| {}).await.err().unwrap();
        assert_eq!((failure.stage, failure.class), (Stage::Ready, FailureClass::Infrastructure));
        assert!(!failure.cause.contains("hunter22"), "{}", failure.cause);
    }
}
