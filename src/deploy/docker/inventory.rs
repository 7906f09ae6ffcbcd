//! The containers of this host that are ours, and which of them nobody owns any more.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::ListContainersOptionsBuilder;
use serde::Serialize;

use super::address::Addresses;
use super::owner::{Life, Owner};
use super::{held, labels, scratch};
use crate::hub::status;

/// Who looks after a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Keeper {
    /// A run that lives.
    Run,
    /// A person: `start` left it running.
    Hand,
    /// A run that died: a leftover.
    Nobody,
    /// A process on another host, or in another container.
    Elsewhere,
}

/// A container of ours.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Container {
    pub name: String,
    pub id: String,
    /// `running`, `exited`, `created`, …
    pub state: String,
    pub exit_code: Option<i64>,
    pub oom_killed: bool,
    /// RFC 3339.
    pub started_at: Option<String>,
    pub kept_by: Keeper,
    pub method: String,
    pub engine: String,
    pub model: String,
    /// The model's name in requests.
    pub served_model: String,
    pub image: String,
    pub image_id: String,
    pub deploy_id: String,
    pub experiment: String,
    pub run: Option<String>,
    /// Through the published port; works from any process of this host.
    pub url: Option<String>,
    /// On the container network, without a hop in between.
    pub bridge_url: Option<String>,
    pub health_path: Option<String>,
    pub gpus: Vec<String>,
    #[serde(skip)]
    pub scratch: Option<PathBuf>,
    /// Values of environment variables that are not to be shown.
    #[serde(skip)]
    pub secrets: Vec<String>,
}

/// Every container of ours on this host, by name.
pub async fn list(docker: &Docker, here: &Owner) -> Result<Vec<Container>, Error> {
    let filters = HashMap::from([("label", vec![labels::TOOL])]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    let mut out = Vec::new();
    for found in docker.list_containers(Some(options)).await? {
        let Some(id) = found.id else { continue };
        // One that goes away between the two questions is not there.
        if let Some(container) = look(docker, &id, here).await? {
            out.extend(container.ok());
        }
    }
    out.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(out)
}

/// A container that is there and not ours: left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger;

/// The container of that name or id; `None` when there is none.
pub async fn look(docker: &Docker, name: &str, here: &Owner) -> Result<Option<Result<Container, Stranger>>, Error> {
    match docker.inspect_container(name, None).await {
        Ok(found) => Ok(Some(read(found, here).ok_or(Stranger))),
        Err(e) if status(&e) == Some(404) => Ok(None),
        Err(e) => Err(e),
    }
}

fn read(found: ContainerInspectResponse, here: &Owner) -> Option<Container> {
    let config = found.config.clone().unwrap_or_default();
    let given = config.labels.unwrap_or_default();
    given.get(labels::TOOL)?;
    let text = |key: &str| given.get(key).cloned().unwrap_or_default();
    let list = |key: &str| text(key).split(',').filter(|t| !t.is_empty()).map(str::to_string).collect::<Vec<_>>();
    let addresses = text(labels::PORT).parse().map(|p| Addresses::of(&found, p)).unwrap_or_default();
    let state = found.state.unwrap_or_default();
    let names = list(labels::SECRETS);
    let value = |pair: &String| {
        let (name, value) = pair.split_once('=')?;
        names.iter().any(|n| n == name).then(|| value.to_string())
    };
    let kept_by = match Owner::read(&given).map(|o| o.life(here)) {
        _ if given.contains_key(labels::BY_HAND) => Keeper::Hand,
        Some(Life::Alive) => Keeper::Run,
        Some(Life::Dead) => Keeper::Nobody,
        Some(Life::Unknown) | None => Keeper::Elsewhere,
    };
    let url = |address: String| format!("http://{address}");
    Some(Container {
        name: found.name.unwrap_or_default().trim_start_matches('/').to_string(),
        id: found.id.unwrap_or_default(),
        state: state.status.map(|s| s.to_string()).unwrap_or_default(),
        exit_code: state.exit_code.filter(|_| state.running != Some(true)),
        oom_killed: state.oom_killed == Some(true),
        started_at: state.started_at.filter(|t| !t.starts_with("0001")),
        kept_by,
        method: text(labels::METHOD),
        engine: text(labels::ENGINE),
        model: text(labels::MODEL),
        served_model: text(labels::SERVED_MODEL),
        image: config.image.unwrap_or_default(),
        image_id: found.image.unwrap_or_default(),
        deploy_id: text(labels::DEPLOY_ID),
        experiment: text(labels::EXPERIMENT),
        run: Some(text(labels::RUN)).filter(|r| !r.is_empty()),
        url: addresses.published.map(url),
        bridge_url: addresses.bridge.map(url),
        health_path: Some(text(labels::HEALTH)).filter(|h| !h.is_empty()),
        gpus: list(labels::GPUS),
        scratch: given.get(labels::SCRATCH).map(PathBuf::from),
        secrets: config.env.iter().flatten().filter_map(value).collect(),
    })
}

impl Container {
    pub fn is_running(&self) -> bool {
        self.state == "running"
    }
}

/// GPUs that running containers have. Locks do not always say so: a person's container outlives the process that locked
/// them, and processes in containers may see other locks.
pub fn gpus_in_use(containers: &[Container]) -> BTreeSet<String> {
    containers.iter().filter(|c| c.is_running()).flat_map(|c| c.gpus.iter().cloned()).collect()
}

/// What dead runs left behind.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Leftovers {
    pub containers: Vec<Container>,
    pub directories: Vec<PathBuf>,
}

impl Leftovers {
    pub fn is_empty(&self) -> bool {
        self.containers.is_empty() && self.directories.is_empty()
    }

    /// Looks for them: containers whose owner is dead, and scratch directories under `cache` that nobody needs. With
    /// `elsewhere`, also containers whose owner cannot be judged from here.
    pub async fn find(docker: &Docker, cache: &Path, here: &Owner, elsewhere: bool) -> Result<Leftovers, Error> {
        let all = list(docker, here).await?;
        let is_left = |c: &Container| match c.kept_by {
            Keeper::Nobody => true,
            Keeper::Elsewhere => elsewhere,
            Keeper::Run | Keeper::Hand => false,
        };
        let (containers, kept): (Vec<Container>, Vec<Container>) = all.into_iter().partition(is_left);
        let used: Vec<PathBuf> = kept.into_iter().filter_map(|c| c.scratch).collect();
        Ok(Leftovers { containers, directories: scratch::leftovers(cache, here, &used) })
    }

    /// Removes them. Returns what could not be removed, with why.
    pub async fn remove(&self, docker: &Docker) -> Vec<(String, String)> {
        let mut failed = Vec::new();
        for container in &self.containers {
            if let Err(why) = held::remove(docker, &container.id).await {
                failed.push((container.name.clone(), why));
            } else if let Some(path) = &container.scratch {
                scratch::remove(path);
            }
        }
        self.directories.iter().for_each(|path| scratch::remove(path));
        failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(change: impl FnOnce(&mut HashMap<String, String>)) -> Option<Container> {
        let mut given = HashMap::from([
            (labels::TOOL.to_string(), "0.1.0".to_string()),
            (labels::PORT.to_string(), "8000".to_string()),
            (labels::SECRETS.to_string(), "HF_TOKEN".to_string()),
            (labels::GPUS.to_string(), "GPU-1,GPU-2".to_string()),
        ]);
        Owner::this().write(&mut given);
        change(&mut given);
        let found = serde_json::from_value(serde_json::json!({
            "Name": "/org--m-hf-vllm",
            "Id": "abc",
            "State": {"Status": "running", "Running": true, "ExitCode": 0},
            "Config": {"Image": "i:1", "Labels": given, "Env": ["HF_TOKEN=hf_secret", "A=1"]},
            "NetworkSettings": {"Ports": {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "4000"}]}}
        }));
        read(found.unwrap(), &Owner::this())
    }

    #[test]
    fn containers_are_read_with_their_keeper() {
        let ours = container(|_| {}).unwrap();
        assert_eq!((ours.name.as_str(), ours.kept_by, ours.exit_code), ("org--m-hf-vllm", Keeper::Run, None));
        assert_eq!(ours.url.as_deref(), Some("http://127.0.0.1:4000"));
        assert_eq!(ours.secrets, ["hf_secret"]);
        assert!(!serde_json::to_string(&ours).unwrap().contains("hf_secret"));
        let keeper = |key: &str, value: &str| {
            let (key, value) = (key.to_string(), value.to_string());
            container(|l| _ = l.insert(key, value)).unwrap().kept_by
        };
        assert_eq!(keeper(labels::OWNER_STARTED, "1"), Keeper::Nobody);
        assert_eq!(keeper(labels::BY_HAND, "true"), Keeper::Hand);
        assert_eq!(keeper(labels::PID_NAMESPACE, "pid:[1]"), Keeper::Elsewhere);
        assert_eq!(keeper(labels::OWNER_PID, "?"), Keeper::Elsewhere);
        assert!(container(|l| _ = l.remove(labels::TOOL)).is_none());
    }

    #[test]
    fn gpus_of_a_person_are_taken() {
        let by_hand = container(|l| _ = l.insert(labels::BY_HAND.into(), "true".into())).unwrap();
        assert_eq!(gpus_in_use(std::slice::from_ref(&by_hand)).into_iter().collect::<Vec<_>>(), ["GPU-1", "GPU-2"]);
        let exited = Container { state: "exited".into(), ..by_hand };
        assert!(gpus_in_use(&[exited]).is_empty());
    }
}
