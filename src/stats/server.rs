//! What a server says of the latencies that a client has measured.

use serde::{Deserialize, Serialize};

/// Means over the requests that the server counted between two looks; `None` where it has no such metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerMeans {
    pub server_ttft_mean_ms: Option<f64>,
    pub server_itl_mean_ms: Option<f64>,
    pub server_e2el_mean_ms: Option<f64>,
    /// Requests that it counted: those of `server_ttft_mean_ms`, else of `server_e2el_mean_ms`.
    pub requests: Option<u64>,
    /// It was started anew between the two looks.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub restarted: bool,
}
