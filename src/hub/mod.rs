//! Registries and model hubs: what a reference means now, how large it is, and getting it here. Images are asked for
//! through the container engine. Knows nothing of deployments; may use the network, the user's registry credentials and
//! the token of the hub.

pub mod credentials;
pub mod daemon;
pub mod http;
pub mod image;
pub mod model;
pub mod registry;

pub use credentials::RegistryLogins;
pub use daemon::{Daemon, DaemonAddress};
pub use image::{Image, PullProgress};

/// Why a container engine or a registry did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// No engine answers.
    #[error(
        "no container engine answers at {address}: {reason}. Start Docker, or say where it is with `docker_host` or \
         DOCKER_HOST"
    )]
    NoDaemon { address: String, reason: String },
    /// Bind mounts and published ports would be another machine's.
    #[error("the container engine at {address} is on another machine; llmatrix starts containers on its own host only")]
    Elsewhere { address: String },
    #[error("cannot look at the image {image}: {reason}")]
    Inspect { image: String, reason: String },
    #[error("cannot pull the image {image}: {reason}")]
    Pull { image: String, reason: String },
    #[error("cannot resolve the image {image}: {reason}")]
    Resolve { image: String, reason: String },
}

/// An error of the engine's client with its causes, the engine's own words first.
pub fn reason(e: &bollard::errors::Error) -> String {
    if let bollard::errors::Error::DockerResponseServerError { message, .. } = e {
        return message.trim().to_string();
    }
    let mut text = e.to_string();
    let mut source = std::error::Error::source(e);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// The HTTP status of the engine's answer, where there was one.
pub fn status(e: &bollard::errors::Error) -> Option<u16> {
    match e {
        bollard::errors::Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}
