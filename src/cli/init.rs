//! `init`: a commented experiment to start from. Never overwrites.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use super::args::InitArgs;
use super::failure::Failure;
use super::output::Output;

/// The file that is written.
pub const STARTER: &str = include_str!("starter.toml");

pub fn command(args: &InitArgs, output: &Output) -> Result<u8, Failure> {
    let file = &args.file;
    if let Some(parent) = file.parent().filter(|p| !p.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(|e| Failure::io("create", parent, &e))?;
    }
    let mut handle = OpenOptions::new().write(true).create_new(true).open(file).map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Failure::Usage(format!("{} exists; give another name: llmatrix init FILE", file.display()))
        }
        _ => Failure::io("write", file, &e),
    })?;
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let text = STARTER.replace("my-sweep", &clean(&name));
    handle.write_all(text.as_bytes()).map_err(|e| Failure::io("write", file, &e))?;
    output.note(&format!("wrote {}", file.display()));
    output.note(&format!("next: llmatrix plan {0}\n      llmatrix run {0}", shown(file)));
    if output.json {
        output.json(&serde_json::json!({ "file": file }));
    }
    Ok(0)
}

fn clean(name: &str) -> String {
    let kept: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c)).take(96).collect();
    if kept.starts_with(|c: char| c.is_ascii_alphanumeric()) { kept } else { format!("x{kept}") }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
