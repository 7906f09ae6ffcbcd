//! The request that creates a container, from what the template says and what this host adds. Nothing here looks at the
//! host: equal inputs give equal requests.

use std::collections::HashMap;
use std::path::PathBuf;

use bollard::models::{
    ContainerCreateBody, DeviceMapping, DeviceRequest, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountType,
    PortBinding, ResourcesUlimits,
};

use crate::deploy::secret::Secret;
use crate::template::spec::ContainerSpec;
use crate::units::{QuantityError, parse_bytes};

/// What a container gets beside its specification.
#[derive(Clone, Debug, Default)]
pub struct Placement {
    /// Reference of the image; pinned by digest where the lock says so.
    pub image: String,
    /// With every `${NAME}` resolved.
    pub env: Vec<(String, Secret)>,
    pub binds: Vec<Bind>,
    pub gpus: Gpus,
    pub labels: HashMap<String, String>,
    /// Ports to reach from the host beside the server's own.
    pub ports: Vec<u16>,
    /// The specification's limits are left out: some container engines may not raise them.
    pub without_ulimits: bool,
}

/// A path of the host that is seen in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    pub source: PathBuf,
    pub target: String,
    pub read_only: bool,
}

/// How the container is given its GPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Gpus {
    #[default]
    None,
    /// By UUID, through the engine's own way of asking its NVIDIA runtime.
    Nvidia(Vec<String>),
    /// By UUID, as devices of the Container Device Interface.
    Cdi(Vec<String>),
    /// Device nodes of ROCm, and the groups that may use them.
    Rocm { devices: Vec<PathBuf>, groups: Vec<u32> },
}

/// A size of the specification that is none.
#[derive(Debug, thiserror::Error)]
#[error("`container.{key}`: {source}")]
pub struct BadSize {
    key: &'static str,
    source: QuantityError,
}

/// The size that stands under `key`, as the engine takes it.
fn size(key: &'static str, text: Option<&str>) -> Result<Option<i64>, BadSize> {
    let bytes = text.map(parse_bytes).transpose().map_err(|source| BadSize { key, source })?;
    Ok(bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)))
}

/// Builds the request.
pub fn body(spec: &ContainerSpec, placement: &Placement) -> Result<ContainerCreateBody, BadSize> {
    let mut ports = vec![spec.port];
    ports.extend(placement.ports.iter().filter(|p| **p != spec.port));
    let port = |p: &u16| format!("{p}/tcp");
    Ok(ContainerCreateBody {
        image: Some(placement.image.clone()),
        entrypoint: spec.entrypoint.clone(),
        cmd: Some(spec.command.clone()).filter(|c| !c.is_empty() || spec.entrypoint.is_some()),
        env: Some(placement.env.iter().map(|(name, value)| format!("{name}={}", value.expose())).collect()),
        user: spec.user.clone(),
        working_dir: spec.workdir.clone(),
        labels: Some(placement.labels.clone()),
        exposed_ports: Some(ports.iter().map(port).collect()),
        // An image's own health check would send requests of its own into the measurement.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".into()]), ..HealthConfig::default() }),
        host_config: Some(HostConfig {
            port_bindings: Some(ports.iter().map(|p| (port(p), Some(vec![loopback()]))).collect()),
            ..host(spec, placement)?
        }),
        ..ContainerCreateBody::default()
    })
}

/// Any free port of the loopback.
fn loopback() -> PortBinding {
    PortBinding { host_ip: Some("127.0.0.1".into()), host_port: Some(String::new()) }
}

fn host(spec: &ContainerSpec, placement: &Placement) -> Result<HostConfig, BadSize> {
    let memory = size("memory", spec.memory.as_deref())?;
    let ulimits = |(name, limit): (&String, &i64)| ResourcesUlimits {
        name: Some(name.clone()),
        soft: Some(*limit),
        hard: Some(*limit),
    };
    let mut devices: Vec<DeviceMapping> = spec.devices.iter().map(|d| device(d)).collect();
    let mut host = HostConfig {
        // The engine's processes are reaped, and signals reach one that handles none.
        init: Some(true),
        auto_remove: Some(false),
        shm_size: size("shm_size", spec.shm_size.as_deref())?,
        memory,
        // No swap on top: an engine that swaps is not measured, it is waited for.
        memory_swap: memory,
        ipc_mode: spec.ipc.clone(),
        ulimits: Some(spec.ulimits.iter().map(ulimits).collect::<Vec<_>>())
            .filter(|u| !u.is_empty() && !placement.without_ulimits),
        mounts: Some(placement.binds.iter().map(mount).collect()),
        // Whatever the engine's default is: these can be followed, and do not fill the disk.
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".into()),
            config: Some(HashMap::from([("max-size".into(), "100m".into()), ("max-file".into(), "2".into())])),
        }),
        ..HostConfig::default()
    };
    match &placement.gpus {
        Gpus::None => {}
        Gpus::Nvidia(ids) => host.device_requests = Some(vec![gpu_request(None, ids.clone())]),
        Gpus::Cdi(ids) => {
            let names = ids.iter().map(|id| format!("nvidia.com/gpu={id}")).collect();
            host.device_requests = Some(vec![gpu_request(Some("cdi"), names)]);
        }
        Gpus::Rocm { devices: nodes, groups } => {
            devices.extend(nodes.iter().map(|n| device(&n.display().to_string())));
            host.group_add = Some(groups.iter().map(ToString::to_string).collect());
            // ROCm maps memory in ways that the default profile refuses.
            host.security_opt = Some(vec!["seccomp=unconfined".into()]);
        }
    }
    host.devices = Some(devices).filter(|d| !d.is_empty());
    Ok(host)
}

fn gpu_request(driver: Option<&str>, ids: Vec<String>) -> DeviceRequest {
    DeviceRequest {
        driver: driver.map(str::to_string),
        device_ids: Some(ids),
        capabilities: driver.is_none().then(|| vec![vec!["gpu".into()]]),
        ..DeviceRequest::default()
    }
}

/// `/dev/x`, `/dev/x:/dev/y` or `/dev/x:/dev/y:rw`.
fn device(text: &str) -> DeviceMapping {
    let mut parts = text.split(':');
    let host = parts.next().unwrap_or_default().to_string();
    let container = parts.next().unwrap_or(&host).to_string();
    let permissions = parts.next().unwrap_or("rwm").to_string();
    DeviceMapping {
        path_on_host: Some(host),
        path_in_container: Some(container),
        cgroup_permissions: Some(permissions),
    }
}

fn mount(bind: &Bind) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(bind.source.display().to_string()),
        target: Some(bind.target.clone()),
        read_only: Some(bind.read_only),
        ..Mount::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> ContainerSpec {
        toml::from_str(&format!("image = \"i\"\nport = 8000\n{text}")).unwrap()
    }

    #[test]
    fn gpus_are_asked_for_as_each_runtime_wants_it() {
        let host = |gpus: Gpus| {
            body(&spec("devices = [\"/dev/fuse\"]"), &Placement { gpus, ..Placement::default() })
                .unwrap()
                .host_config
                .unwrap()
        };
        let nvidia = host(Gpus::Nvidia(vec!["GPU-1".into()])).device_requests.unwrap();
        assert_eq!(nvidia[0].device_ids.as_deref(), Some(&["GPU-1".to_string()][..]));
        assert_eq!(nvidia[0].capabilities, Some(vec![vec!["gpu".to_string()]]));
        assert_eq!((nvidia[0].count, nvidia[0].driver.as_deref()), (None, None));
        let cdi = host(Gpus::Cdi(vec!["GPU-1".into()])).device_requests.unwrap();
        assert_eq!(cdi[0].device_ids.as_deref(), Some(&["nvidia.com/gpu=GPU-1".to_string()][..]));
        let rocm =
            host(Gpus::Rocm { devices: vec!["/dev/kfd".into(), "/dev/dri/renderD128".into()], groups: vec![44] });
        assert_eq!(rocm.devices.unwrap().len(), 3);
        assert_eq!(rocm.group_add, Some(vec!["44".to_string()]));
        assert!(host(Gpus::None).device_requests.is_none());
    }

    #[test]
    fn limits_can_be_left_out_and_sizes_must_be_sizes() {
        let spec = spec("shm_size = \"16GiB\"\nulimits = { memlock = -1 }");
        let host = |without_ulimits| {
            body(&spec, &Placement { without_ulimits, ..Placement::default() }).unwrap().host_config.unwrap()
        };
        assert_eq!(host(false).ulimits.unwrap()[0].hard, Some(-1));
        assert!(host(true).ulimits.is_none());
        assert_eq!(host(true).shm_size, Some(16 << 30));
        assert_eq!((host(true).memory, host(true).memory_swap), (None, None));
        let limited = ContainerSpec { memory: Some("2GiB".into()), ..spec.clone() };
        let limited = body(&limited, &Placement::default()).unwrap().host_config.unwrap();
        assert_eq!((limited.memory, limited.memory_swap), (Some(2 << 30), Some(2 << 30)));
        for (key, bad) in [
            ("shm_size", ContainerSpec { shm_size: Some("big".into()), ..spec.clone() }),
            ("memory", ContainerSpec { memory: Some("big".into()), ..spec.clone() }),
        ] {
            let e = body(&bad, &Placement::default()).unwrap_err().to_string();
            assert!(e.starts_with(&format!("`container.{key}`: ")), "{e}");
        }
    }

    #[test]
    fn a_command_of_an_image_stays_unless_it_is_replaced() {
        let command = |text: &str| body(&spec(text), &Placement::default()).unwrap().cmd;
        assert_eq!(command(""), None);
        assert_eq!(command("command = [\"a\"]"), Some(vec!["a".to_string()]));
        assert_eq!(command("entrypoint = [\"/x\"]"), Some(vec![]));
    }
}
