//! What a template renders to: everything needed to start one engine and to speak to it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::value::Table;
use crate::wire::ApiSpec;

/// A rendered template, typed. The untyped form of the same text enters the deployment's hash.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeploySpec {
    /// How the server is spoken to.
    pub api: ApiSpec,
    /// The name of the model in requests, where the template decides it.
    #[serde(default)]
    pub served_model: Option<String>,
    /// A container to start.
    #[serde(default)]
    pub container: Option<ContainerSpec>,
    /// A simulated engine to start; its options are the simulator's own.
    #[serde(default)]
    pub sim: Option<Table>,
    /// Parameters that change nothing for this stack and are accepted knowingly; `*` is every parameter.
    #[serde(default)]
    pub ignores: Vec<String>,
    /// Log lines worth a note while the engine starts: name → regular expression.
    #[serde(default)]
    pub milestones: BTreeMap<String, String>,
}

/// What the container engine is asked for. Cache paths are symbolic (`cache:huggingface`), the host port is assigned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerSpec {
    pub image: String,
    #[serde(default)]
    pub entrypoint: Option<Vec<String>>,
    #[serde(default)]
    pub command: Vec<String>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Port the server listens on inside the container.
    pub port: u16,
    #[serde(default)]
    pub shm_size: Option<String>,
    /// Most memory of the host that it may use, such as `64GiB`; what goes beyond is killed.
    #[serde(default)]
    pub memory: Option<String>,
    #[serde(default)]
    pub ipc: Option<String>,
    #[serde(default)]
    pub user: Option<String>,
    #[serde(default)]
    pub workdir: Option<String>,
    #[serde(default)]
    pub ulimits: BTreeMap<String, i64>,
    #[serde(default)]
    pub devices: Vec<String>,
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Files rendered for this deployment: path inside the container → content. Mounted read-only.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
}

/// One bind mount. `source` is `cache:NAME` (a directory kept between runs) or a path on the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    pub source: String,
    pub target: String,
    #[serde(default)]
    pub read_only: bool,
}
