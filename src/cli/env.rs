//! `env`: what this host is, as results record it.

use serde_json::json;

use super::failure::Failure;
use super::output::{self, Output};
use crate::host;
use crate::telemetry::gpu;

pub fn command(output: &Output) -> Result<u8, Failure> {
    let here = host::detect();
    let class = host::hardware::hardware_class(&here);
    let nvml = gpu::nvml_statement();
    if output.json {
        let gpus: Vec<_> = here.gpus.iter().map(|g| json!({ "name": g.name, "uuid": g.uuid })).collect();
        output.json(&json!({
            "tool_version": host::tool_version(), "tool_commit": host::tool_commit(), "host": here.hostname,
            "kernel": here.kernel, "cpu": here.cpu, "cpus": here.cpus, "memory_bytes": here.memory_bytes,
            "hardware": class, "gpus": gpus, "driver": here.driver, "nvml": nvml.as_ref().ok(),
        }));
        return Ok(0);
    }
    let known = |value: Option<String>| value.unwrap_or_else(|| "unknown".into());
    let mut table = output::pairs();
    table.add_row(["llmatrix".to_string(), host::tool_version().to_string()]);
    table.add_row(["host".to_string(), known(here.hostname.clone())]);
    table.add_row(["kernel".to_string(), known(here.kernel.clone())]);
    table.add_row([
        "cpu".to_string(),
        format!("{} ({} usable)", known(here.cpu.clone()), known(here.cpus.map(|n| n.to_string()))),
    ]);
    let gib = here.memory_bytes.map(|b| format!("{:.1} GiB", b as f64 / f64::from(1 << 30)));
    table.add_row(["memory".to_string(), known(gib)]);
    table.add_row(["gpu".to_string(), here.gpu_statement()]);
    let watched = nvml.unwrap_or_else(|why| format!("NVML is not here ({why}): NVIDIA GPUs are not watched"));
    table.add_row(["telemetry".to_string(), watched]);
    table.add_row(["hardware".to_string(), class]);
    output.text(&table.to_string());
    Ok(0)
}
