//! Readiness over HTTP: the health path answers 200, then the engine says which models it serves and what version it is.
//! (The one-token request that completes readiness is the load generator's, so that it takes the same path as the
//! measurement.)

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, Client, Identity};

use super::{Endpoint, Failure, Stage};
use crate::plan::{Deployment, TlsOptions};
use crate::wire::ApiSpec;

/// Between two looks at the health path.
const POLL: Duration = Duration::from_millis(250);
/// A single look. Some engines' health paths run a real request that takes seconds.
const LOOK: Duration = Duration::from_secs(30);
/// Answers are documents of a few kilobytes; anything longer is not one.
const MAX_ANSWER: usize = 4 << 20;

/// What an engine says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Introduction {
    /// Names of the served models, in its order.
    pub models: Vec<String>,
    pub version: Option<String>,
}

impl Introduction {
    /// The name that requests give the model: as the experiment says, else `guess` where it is served, else one that ends
    /// as it does, else the first that is.
    pub fn model_of(&self, deployment: &Deployment, guess: &str) -> String {
        if deployment.served_model.is_some() || self.models.iter().any(|m| m == guess) {
            return guess.to_string();
        }
        let alike = self.models.iter().find(|m| is_alike(m, guess));
        alike.or(self.models.first()).cloned().unwrap_or_else(|| guess.to_string())
    }

    /// The models that a server lists, when the one that is asked for is none of them. A server that lists none may serve
    /// any.
    pub fn other_than(&self, asked: &str) -> Option<String> {
        let other = !self.models.is_empty() && !self.models.iter().any(|m| is_alike(m, asked));
        other.then(|| {
            let names: Vec<String> = self.models.iter().take(5).map(|m| format!("`{m}`")).collect();
            names.join(", ")
        })
    }
}

/// Servers name a model by its id, by the path it was loaded from, or by the last part of either.
fn is_alike(served: &str, asked: &str) -> bool {
    let last = |name: &str| name.trim_end_matches('/').rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
    last(served) == last(asked)
}

/// Asks an engine over its control paths.
pub struct Asker<'a> {
    client: Client,
    endpoint: &'a Endpoint,
    api: &'a ApiSpec,
}

/// One look at the health path.
pub enum Health {
    Ready,
    /// Not ready, and what it looks like instead.
    NotYet(String),
}

impl<'a> Asker<'a> {
    pub fn new(endpoint: &'a Endpoint, api: &'a ApiSpec) -> Result<Asker<'a>, Failure> {
        Ok(Asker { client: client(endpoint)?, endpoint, api })
    }

    /// Waits until the health path answers 200. `patience` bounds how long; without it the caller does.
    pub async fn wait_ready(&self, patience: Option<Duration>) -> Result<(), Failure> {
        let last = std::sync::Mutex::new(String::from("it has not been asked yet"));
        let looking = async {
            loop {
                match self.health().await {
                    Health::Ready => break,
                    Health::NotYet(seen) => *last.lock().expect("no holder panics") = seen,
                }
                tokio::time::sleep(POLL).await;
            }
        };
        match patience {
            None => looking.await,
            Some(patience) => {
                if tokio::time::timeout(patience, looking).await.is_err() {
                    let seen = last.lock().expect("no holder panics").clone();
                    return Err(Failure::infrastructure(
                        Stage::Ready,
                        format!(
                            "{} is not ready: {seen} (looked for {}). Is the server running, and the address right?",
                            self.endpoint.shown(),
                            crate::units::format_duration(patience)
                        ),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Looks once. An API without a health path is ready as far as this can tell.
    pub async fn health(&self) -> Health {
        let Some(path) = &self.api.health else { return Health::Ready };
        match self.get(path).await {
            Ok(response) if response.status().as_u16() == 200 => Health::Ready,
            Ok(response) => Health::NotYet(format!("{path} answers {}", response.status().as_u16())),
            Err(e) => Health::NotYet(e),
        }
    }

    /// Asks for the served models and the version, each where the API has a path for it. What is not answered is absent.
    pub async fn about(&self) -> Introduction {
        let models = match &self.api.models {
            Some(path) => self.json(path).await.map(|v| model_ids(&v)).unwrap_or_default(),
            None => Vec::new(),
        };
        let version = match &self.api.version {
            Some(path) => self.json(path).await.and_then(|v| version_in(&v)),
            None => None,
        };
        Introduction { models, version }
    }

    async fn json(&self, path: &str) -> Option<serde_json::Value> {
        let response = self.get(path).await.ok().filter(|r| r.status().is_success())?;
        serde_json::from_slice(&read_at_most(response, MAX_ANSWER).await?).ok()
    }

    async fn get(&self, path: &str) -> Result<reqwest::Response, String> {
        let url = format!("{}{path}", self.endpoint.base_url);
        self.client.get(url).timeout(LOOK).send().await.map_err(|e| self.endpoint.redactor.redact(&chain(&e)))
    }
}

/// The body of an answer; `None` when it breaks off or does not end within the limit.
async fn read_at_most(mut response: reqwest::Response, limit: usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    while let Some(part) = response.chunk().await.ok()? {
        if out.len() + part.len() > limit {
            return None;
        }
        out.extend_from_slice(&part);
    }
    Some(out)
}

/// An error with its causes: reqwest's own text leaves out why a connection failed.
fn chain(e: &reqwest::Error) -> String {
    let mut text = e.to_string();
    let mut source = std::error::Error::source(e);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn client(endpoint: &Endpoint) -> Result<Client, Failure> {
    // Another part of the process may have chosen one already; either will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut headers = HeaderMap::new();
    for (name, value) in &endpoint.headers {
        let bad = || Failure::deterministic(Stage::Create, format!("`headers.{name}` is not a valid HTTP header"));
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        let mut value = HeaderValue::from_str(value.expose()).map_err(|_| bad())?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    let builder = Client::builder().no_proxy().default_headers(headers).connect_timeout(Duration::from_secs(10));
    let builder = with_tls(builder, &endpoint.tls)?;
    builder.build().map_err(|e| Failure::deterministic(Stage::Create, format!("cannot set up HTTP: {}", chain(&e))))
}

fn with_tls(mut builder: reqwest::ClientBuilder, tls: &TlsOptions) -> Result<reqwest::ClientBuilder, Failure> {
    let TlsOptions { ca, cert, key, insecure } = tls;
    if let Some(path) = ca {
        let certificates = Certificate::from_pem_bundle(&read("tls.ca", path)?).map_err(|e| bad("tls.ca", path, &e))?;
        builder = builder.tls_certs_only(certificates);
    }
    if let Some(path) = cert {
        let mut pem = read("tls.cert", path)?;
        if let Some(key) = key {
            pem.push(b'\n');
            pem.extend(read("tls.key", key)?);
        }
        builder = builder.identity(Identity::from_pem(&pem).map_err(|e| bad("tls.cert", path, &e))?);
    }
    Ok(if *insecure { builder.tls_danger_accept_invalid_certs(true) } else { builder })
}

fn read(parameter: &str, path: &str) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|e| bad(parameter, path, &e))
}

fn bad(parameter: &str, path: &str, e: &dyn std::fmt::Display) -> Failure {
    Failure::deterministic(Stage::Create, format!("cannot use `{parameter} = \"{path}\"`: {e}"))
}

/// `{"data": [{"id": "a"}, …]}`.
fn model_ids(answer: &serde_json::Value) -> Vec<String> {
    let data = answer.get("data").and_then(|d| d.as_array());
    data.into_iter().flatten().filter_map(|m| Some(m.get("id")?.as_str()?.to_string())).collect()
}

/// `{"version": "0.10.1"}`, and the forms that Triton (`/v2`) and NIM (`/v1/version`) have.
fn version_in(answer: &serde_json::Value) -> Option<String> {
    let text = |key: &str| answer.get(key).and_then(|v| v.as_str()).map(str::to_string);
    text("version").or_else(|| text("release")).or_else(|| text("api"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_goes_by_its_id_or_the_end_of_it() {
        let about =
            |models: &[&str]| Introduction { models: models.iter().map(|m| m.to_string()).collect(), version: None };
        for served in ["org/Model-8B", "Model-8B", "/models/model-8b/"] {
            assert_eq!(about(&["x", served]).other_than("org/Model-8B"), None, "{served}");
        }
        assert_eq!(about(&[]).other_than("org/Model-8B"), None);
        assert_eq!(about(&["org/Model-70B", "y"]).other_than("org/Model-8B").unwrap(), "`org/Model-70B`, `y`");
        let deployment = super::super::tests::deployment("[api]\ndialect = \"openai\"\ndefault = \"chat\"\n");
        assert_eq!(about(&["x", "Model-8B"]).model_of(&deployment, "org/Model-8B"), "Model-8B");
    }

    #[test]
    fn answers_of_engines_are_understood() {
        let answer = serde_json::json!({"object": "list", "data": [{"id": "a"}, {"x": 1}, {"id": "b"}]});
        assert_eq!(model_ids(&answer), ["a", "b"]);
        assert!(model_ids(&serde_json::json!([])).is_empty());
        assert_eq!(version_in(&serde_json::json!({"version": "1.2"})).as_deref(), Some("1.2"));
        assert_eq!(version_in(&serde_json::json!({"name": "triton", "version": "2.5"})).as_deref(), Some("2.5"));
        assert_eq!(version_in(&serde_json::json!({"release": "1.8", "api": "1"})).as_deref(), Some("1.8"));
    }
}
