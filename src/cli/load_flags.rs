//! The unit parameters as flags, for `measure` and `one`: each becomes a `--set` of the same name as in the file.

use std::path::Path;

use super::args::LoadFlags;
use super::failure::Failure;
use super::prepare::{self, Prepared};

/// `key=value` for every flag that was given.
pub fn assignments(flags: &LoadFlags) -> Vec<String> {
    let LoadFlags {
        input_tokens_mean,
        output_tokens_mean,
        input_tokens_stddev,
        output_tokens_stddev,
        input_tokens_range,
        shared_prefix,
        prefix_groups,
        turns,
        concurrency,
        rate,
        arrival,
        burstiness,
        requests,
        duration,
        stages,
        ramp,
        replay_speed,
        cancel_rate,
        cancel_after,
        warmup,
        seed,
        dataset,
        format,
        api,
        temperature,
        ignore_eos,
    } = flags;
    let given = [
        ("tokens.input", text(input_tokens_mean)),
        ("tokens.output", text(output_tokens_mean)),
        ("tokens.input_stddev", text(input_tokens_stddev)),
        ("tokens.output_stddev", text(output_tokens_stddev)),
        ("tokens.input_range", input_tokens_range.as_ref().map(|r| format!("[{r}]"))),
        ("tokens.shared_prefix", text(shared_prefix)),
        ("tokens.prefix_groups", text(prefix_groups)),
        ("tokens.turns", text(turns)),
        ("concurrency", text(concurrency)),
        ("rate", text(rate)),
        ("arrival", arrival.clone()),
        ("burstiness", text(burstiness)),
        ("requests", text(requests)),
        ("duration", duration.clone()),
        ("stages", stages.clone()),
        ("ramp", ramp.clone()),
        ("replay_speed", text(replay_speed)),
        ("cancel_rate", text(cancel_rate)),
        ("cancel_after", cancel_after.clone()),
        ("warmup", text(warmup)),
        ("seed", text(seed)),
        ("dataset", dataset.clone()),
        ("format", format.clone()),
        ("api", api.clone()),
        ("temperature", text(temperature)),
        ("ignore_eos", text(ignore_eos)),
    ];
    given.into_iter().filter_map(|(key, value)| Some(format!("{key}={}", value?))).collect()
}

fn text<T: ToString>(value: &Option<T>) -> Option<String> {
    value.as_ref().map(T::to_string)
}

/// An experiment of one cell whose parameters all come from `set`; lengths get a default unless a data set gives them.
pub fn experiment(name: &str, set: &[String], dir: &Path) -> Result<Prepared, Failure> {
    let has = |key: &str| set.iter().any(|s| s.split('=').next().is_some_and(|k| k.trim() == key));
    let mut text =
        format!("name = \"{name}\"\n[[matrix]]\nmethod = \"external\"\nengine = \"openai\"\nmodel = \"unset\"\n");
    if !has("dataset") && !has("tokens.input_range") {
        text.push_str("tokens.input = 512\n");
    }
    if !has("dataset") {
        text.push_str("tokens.output = 128\n");
    }
    prepare::from_text(&dir.join(format!("{name}.toml")), text)
}
