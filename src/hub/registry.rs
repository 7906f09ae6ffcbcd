//! A registry asked directly, for the one thing that the container engine does not tell before a pull: how large an image
//! is. Speaks the distribution protocol's questions: a manifest, and the token that it takes to get one.
//! What cannot be learnt is `None`: an image of unknown size is pulled all the same.

use std::time::Duration;

use bollard::auth::DockerCredentials;
use reqwest::header::{ACCEPT, WWW_AUTHENTICATE};
use reqwest::{Client, StatusCode};
use serde::Deserialize;

use super::http;
use super::image::{DOCKER_HUB, registry, repository};

/// Where the names of Docker Hub are asked for.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";
const PATIENCE: Duration = Duration::from_secs(15);
/// Manifests and indexes are a few kilobytes.
const MAX_MANIFEST: usize = 4 << 20;
const TYPES: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, \
                     application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";

/// A manifest, or an index of manifests by platform.
#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Deserialize)]
struct Token {
    #[serde(alias = "access_token")]
    token: String,
}

/// Bytes of an image's layers as the registry has them, compressed. `architecture` is Docker's word for it, `amd64`.
pub async fn compressed_size(reference: &str, architecture: &str, login: Option<&DockerCredentials>) -> Option<u64> {
    let asker = Asker::new(reference, login)?;
    let tag = match reference.split_once('@') {
        Some((_, digest)) => digest,
        None => reference.strip_prefix(repository(reference)).and_then(|t| t.strip_prefix(':')).unwrap_or("latest"),
    };
    let manifest = asker.manifest(tag).await?;
    if manifest.manifests.is_empty() {
        return size(&manifest);
    }
    let fits = |d: &&Descriptor| d.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture == architecture);
    let chosen = manifest.manifests.iter().find(fits)?;
    size(&asker.manifest(&chosen.digest).await?)
}

/// A layer that an image has twice is loaded once.
fn size(manifest: &Manifest) -> Option<u64> {
    let mut layers: Vec<&Descriptor> = manifest.layers.iter().collect();
    layers.sort_by(|a, b| a.digest.cmp(&b.digest));
    layers.dedup_by(|a, b| a.digest == b.digest);
    (!layers.is_empty()).then(|| layers.iter().map(|l| l.size).fold(0, u64::saturating_add))
}

struct Asker {
    client: Client,
    base: String,
    basic: Option<(String, String)>,
    refresh: Option<String>,
}

impl Asker {
    fn new(reference: &str, login: Option<&DockerCredentials>) -> Option<Asker> {
        let client = http::client().ok()?;
        let (host, name) = match registry(reference) {
            DOCKER_HUB => {
                let name = repository(reference);
                let name = name.strip_prefix("docker.io/").unwrap_or(name);
                (DOCKER_HUB_HOST, if name.contains('/') { name.to_string() } else { format!("library/{name}") })
            }
            host => (host, repository(reference).strip_prefix(host)?.trim_start_matches('/').to_string()),
        };
        // As the container engine does it: only a registry of this host may be spoken to in the clear.
        let bare = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let scheme = if matches!(bare, "localhost" | "127.0.0.1" | "[::1]") { "http" } else { "https" };
        let basic = login.and_then(|l| Some((l.username.clone()?, l.password.clone()?)));
        let refresh = login.and_then(|l| l.identitytoken.clone());
        Some(Asker { client, base: format!("{scheme}://{host}/v2/{name}"), basic, refresh })
    }

    async fn manifest(&self, reference: &str) -> Option<Manifest> {
        let url = format!("{}/manifests/{reference}", self.base);
        let ask = || self.client.get(&url).header(ACCEPT, TYPES).timeout(PATIENCE);
        let mut response = ask().send().await.ok()?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let challenge = response.headers().get(WWW_AUTHENTICATE)?.to_str().ok()?.to_string();
            response = match Challenge::parse(&challenge)? {
                Challenge::Basic => {
                    let (user, password) = self.basic.as_ref()?;
                    ask().basic_auth(user, Some(password)).send().await.ok()?
                }
                Challenge::Bearer { realm, service, scope } => {
                    let token = self.token(&realm, &service, &scope).await?;
                    ask().bearer_auth(token).send().await.ok()?
                }
            };
        }
        let bytes = response.error_for_status().ok()?.bytes().await.ok().filter(|b| b.len() <= MAX_MANIFEST)?;
        serde_json::from_slice(&bytes).ok()
    }

    async fn token(&self, realm: &str, service: &str, scope: &str) -> Option<String> {
        let mut url = url::Url::parse(realm).ok()?;
        // A login is not sent in the clear to somebody else.
        let safe = url.scheme() == "https" || self.base.starts_with("http:");
        let request = match &self.refresh {
            Some(refresh) if safe => {
                let mut form = url::form_urlencoded::Serializer::new(String::new());
                form.append_pair("grant_type", "refresh_token").append_pair("service", service);
                form.append_pair("scope", scope).append_pair("client_id", "llmatrix");
                form.append_pair("refresh_token", refresh);
                let kind = "application/x-www-form-urlencoded";
                self.client.post(url).header("content-type", kind).body(form.finish())
            }
            _ => {
                url.query_pairs_mut().append_pair("service", service).append_pair("scope", scope);
                let request = self.client.get(url);
                match &self.basic {
                    Some((user, password)) if safe => request.basic_auth(user, Some(password)),
                    _ => request,
                }
            }
        };
        let response = request.timeout(PATIENCE).send().await.ok()?.error_for_status().ok()?;
        let token: Token = serde_json::from_slice(&response.bytes().await.ok()?).ok()?;
        Some(token.token)
    }
}

/// What a registry wants to see first.
#[derive(Debug, PartialEq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: String, scope: String },
}

impl Challenge {
    /// `Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull"`.
    fn parse(header: &str) -> Option<Challenge> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Challenge::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let value = |name: &str| {
            let start = rest.find(&format!("{name}=\""))? + name.len() + 2;
            rest[start..].split('"').next().map(str::to_string)
        };
        let optional = |name: &str| value(name).unwrap_or_default();
        Some(Challenge::Bearer { realm: value("realm")?, service: optional("service"), scope: optional("scope") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let bearer = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        assert_eq!(
            Challenge::parse(bearer),
            Some(Challenge::Bearer {
                realm: "https://auth.docker.io/token".into(),
                service: "registry.docker.io".into(),
                scope: "repository:a/b:pull,push".into(),
            })
        );
        assert_eq!(Challenge::parse("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(Challenge::parse("Digest x"), None);
    }

    #[test]
    fn names_are_asked_where_they_belong() {
        let base = |reference| Asker::new(reference, None).unwrap().base;
        assert_eq!(base("vllm/vllm-openai:v1"), "https://registry-1.docker.io/v2/vllm/vllm-openai");
        assert_eq!(base("ubuntu"), "https://registry-1.docker.io/v2/library/ubuntu");
        assert_eq!(base("nvcr.io/nim/meta/m:2"), "https://nvcr.io/v2/nim/meta/m");
        assert_eq!(base("127.0.0.1:5000/team/sim@sha256:1"), "http://127.0.0.1:5000/v2/team/sim");
    }

    #[test]
    fn layers_add_up_once_each() {
        let text = r#"{"layers":[{"digest":"a","size":10},{"digest":"b","size":5},{"digest":"a","size":10}]}"#;
        assert_eq!(size(&serde_json::from_str(text).unwrap()), Some(15));
        assert_eq!(size(&serde_json::from_str("{}").unwrap()), None);
    }
}
