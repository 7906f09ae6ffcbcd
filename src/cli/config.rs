//! `config`: each machine setting with its source.

use super::args::{ConfigArgs, Global};
use super::failure::Failure;
use super::output::Output;
use super::prepare;

pub fn command(args: &ConfigArgs, global: &Global, output: &Output) -> Result<u8, Failure> {
    let layered = prepare::settings(&args.dir, global)?;
    if output.json {
        let entries: Vec<_> = layered
            .sources
            .iter()
            .map(|(key, value, source)| serde_json::json!({ "key": key, "value": value, "source": source }))
            .collect();
        output.json(&entries);
        return Ok(0);
    }
    let mut table = super::output::table(&["SETTING", "VALUE", "SOURCE"]);
    for (key, value, source) in &layered.sources {
        table.add_row([*key, if value.is_empty() { "–" } else { value }, source]);
    }
    output.text(&table.to_string());
    Ok(0)
}
