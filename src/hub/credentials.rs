//! The user's logins to registries, as `docker login` leaves them: in `config.json`, or with a credential helper, which is
//! run as a process of its own. What is read here goes to the container engine and nowhere else.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bollard::auth::DockerCredentials;
use serde::Deserialize;
use tokio::io::AsyncWriteExt;

/// How Docker Hub is called in `config.json`.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";
/// A helper that asks a person something would never answer here.
const PATIENCE: Duration = Duration::from_secs(30);

/// The registry part of Docker's `config.json`.
#[derive(Clone, Default, Deserialize)]
pub struct RegistryLogins {
    #[serde(default)]
    auths: BTreeMap<String, Login>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
}

#[derive(Clone, Default, Deserialize)]
struct Login {
    /// `user:password` in base64.
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    identitytoken: Option<String>,
}

/// What a helper prints.
#[derive(Deserialize)]
struct Helped {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

impl RegistryLogins {
    /// Reads `config.json` in Docker's configuration directory. A file that is not there, or not readable as one, holds
    /// no logins: images of public registries need none.
    pub fn read(dir: &Path) -> RegistryLogins {
        let text = std::fs::read(dir.join("config.json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// The login for a registry, such as `nvcr.io`.
    pub async fn of(&self, registry: &str) -> Option<DockerCredentials> {
        let names = names(registry);
        if let Some(helper) = names.iter().find_map(|n| self.helpers.get(n)).or(self.store.as_ref()) {
            for name in &names {
                if let Some(found) = ask(helper, name).await {
                    return Some(found);
                }
            }
        }
        let (name, login) = names.iter().find_map(|n| self.auths.get_key_value(n))?;
        login.credentials(name)
    }
}

impl Login {
    fn credentials(&self, server: &str) -> Option<DockerCredentials> {
        let decoded = self.auth.as_ref().and_then(|auth| String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok());
        // Some writers pad the password with zero bytes.
        let pair = decoded.as_deref().and_then(|text| text.trim_end_matches('\0').split_once(':'));
        let (username, password) = match pair {
            Some((user, password)) => (Some(user.to_string()), Some(password.to_string())),
            None => (self.username.clone(), self.password.clone()),
        };
        let token = self.identitytoken.clone().filter(|t| !t.is_empty());
        if token.is_none() && (username.is_none() || password.is_none()) {
            return None;
        }
        Some(DockerCredentials {
            username,
            password: password.filter(|_| token.is_none()),
            identitytoken: token,
            serveraddress: Some(server.to_string()),
            ..DockerCredentials::default()
        })
    }
}

/// The names a registry may have in `config.json`.
fn names(registry: &str) -> Vec<String> {
    if registry == super::image::DOCKER_HUB {
        return [DOCKER_HUB, "index.docker.io", "docker.io", "registry-1.docker.io"].map(String::from).to_vec();
    }
    vec![registry.to_string(), format!("https://{registry}"), format!("https://{registry}/v1/")]
}

/// Asks `docker-credential-HELPER get`.
async fn ask(helper: &str, server: &str) -> Option<DockerCredentials> {
    if !helper.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
        return None;
    }
    let mut child = tokio::process::Command::new(format!("docker-credential-{helper}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .ok()?;
    child.stdin.take()?.write_all(server.as_bytes()).await.ok()?;
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.ok()?.ok()?;
    let helped: Helped = serde_json::from_slice(&output.stdout).ok().filter(|_| output.status.success())?;
    let token = helped.username == "<token>";
    Some(DockerCredentials {
        username: (!token).then_some(helped.username),
        password: (!token).then(|| helped.secret.clone()),
        identitytoken: token.then_some(helped.secret),
        serveraddress: Some(server.to_string()),
        ..DockerCredentials::default()
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn logins(text: &str) -> RegistryLogins {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), text).unwrap();
        RegistryLogins::read(dir.path())
    }

    #[tokio::test]
    async fn logins_are_read_by_registry() {
        let auth = STANDARD.encode("$oauthtoken:nvapi-1:2");
        let found = logins(&format!(
            r#"{{"auths": {{"nvcr.io": {{"auth": "{auth}"}}, "https://index.docker.io/v1/": {{"identitytoken": "t"}}, "empty.io": {{}}}}}}"#
        ));
        let nvcr = found.of("nvcr.io").await.unwrap();
        assert_eq!((nvcr.username.as_deref(), nvcr.password.as_deref()), (Some("$oauthtoken"), Some("nvapi-1:2")));
        assert_eq!(found.of("docker.io").await.unwrap().identitytoken.as_deref(), Some("t"));
        assert!(found.of("empty.io").await.is_none() && found.of("ghcr.io").await.is_none());
        assert!(logins("not json").of("nvcr.io").await.is_none());
    }

    #[tokio::test]
    async fn a_helper_is_a_process_and_never_a_shell() {
        assert!(ask("x; touch /tmp/never", "nvcr.io").await.is_none());
        assert!(ask("there-is-no-such-helper", "nvcr.io").await.is_none());
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("docker-credential-test");
        std::fs::write(
            &script,
            "#!/bin/sh\nread server\necho \"{\\\"Username\\\":\\\"$server\\\",\\\"Secret\\\":\\\"s\\\"}\"\n",
        )
        .unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        // A path in place of a name is no helper either.
        assert!(ask(&format!("../{}", script.display()), "nvcr.io").await.is_none());
    }
}
