//! The labels on every container of ours. Whatever a later process must know of a container stands in them.

/// Present on every container of ours; the tool's version.
pub const TOOL: &str = "llmatrix.tool";
/// The run, as its directory is called.
pub const RUN: &str = "llmatrix.run";
pub const EXPERIMENT: &str = "llmatrix.experiment";
pub const DEPLOY_ID: &str = "llmatrix.deploy_id";
pub const OWNER_PID: &str = "llmatrix.owner_pid";
pub const OWNER_STARTED: &str = "llmatrix.owner_started";
pub const BOOT_ID: &str = "llmatrix.boot_id";
pub const HOST: &str = "llmatrix.host";
pub const PID_NAMESPACE: &str = "llmatrix.pid_namespace";
/// Present when a person started it: then only a person stops it.
pub const BY_HAND: &str = "llmatrix.by_hand";
pub const METHOD: &str = "llmatrix.method";
pub const ENGINE: &str = "llmatrix.engine";
pub const MODEL: &str = "llmatrix.model";
/// The model's name in requests.
pub const SERVED_MODEL: &str = "llmatrix.served_model";
/// Port of the server inside the container.
pub const PORT: &str = "llmatrix.port";
pub const HEALTH: &str = "llmatrix.health";
/// GPUs it was given, separated by commas.
pub const GPUS: &str = "llmatrix.gpus";
/// Its scratch directory on the host.
pub const SCRATCH: &str = "llmatrix.scratch";
/// Names of environment variables whose values are secrets, separated by commas.
pub const SECRETS: &str = "llmatrix.secrets";
