//! From a cell to the shape of its load: stages, ramps, clients that go away.

use std::time::Duration;

use super::Cell;
use crate::units::parse_duration;
use crate::value::Value;
use crate::workload::profile::{Level, Profile, Stage};
use crate::workload::{CancelAfter, Cancellation};

/// Load that changes over time: the stages, or a ramp to the cell's rate or concurrency.
pub fn profile(cell: &Cell) -> Option<Profile> {
    if let Some(stages) = cell.get("stages") {
        return of_stages(&stages);
    }
    let ramp = cell.get("ramp").and_then(|v| duration(&v))?;
    let rate = cell.get("rate").and_then(|v| v.as_f64());
    Some(match rate {
        Some(rate) => Profile::ramp(Level::Rate, rate, ramp),
        None => {
            let concurrency = cell.get("concurrency").and_then(|v| v.as_f64()).unwrap_or(1.0);
            Profile::ramp(Level::Concurrency, concurrency, ramp)
        }
    })
}

fn of_stages(value: &Value) -> Option<Profile> {
    let stages = value.as_list()?;
    let rates = stages.first()?.as_map()?.contains_key("rate");
    let level = if rates { Level::Rate } else { Level::Concurrency };
    let stage = |value: &Value| {
        let table = value.as_map()?;
        let from = table.get(if rates { "rate" } else { "concurrency" })?.as_f64()?;
        let to = table.get("to").and_then(Value::as_f64).unwrap_or(from);
        Some(Stage { from, to, duration: duration(table.get("duration")?)? })
    };
    let stages: Option<Vec<Stage>> = stages.iter().map(stage).collect();
    Some(Profile { level, stages: stages?, then: None })
}

/// Whether the cell's stages are of this level.
pub fn has_stages_of(value: Option<&Value>, key: &str) -> bool {
    let first = value.and_then(Value::as_list).and_then(|l| l.first()).and_then(Value::as_map);
    first.is_some_and(|stage| stage.contains_key(key))
}

/// Clients that give up.
pub fn cancellation(cell: &Cell) -> Option<Cancellation> {
    let share = cell.get("cancel_rate").and_then(|v| v.as_f64()).filter(|share| *share > 0.0)?;
    let after = cell.get("cancel_after")?;
    let after = match after.as_u64() {
        Some(tokens) => CancelAfter::Tokens(u32::try_from(tokens).unwrap_or(u32::MAX)),
        None => CancelAfter::Time(duration(&after)?),
    };
    Some(Cancellation { share, after })
}

fn duration(value: &Value) -> Option<Duration> {
    parse_duration(value.as_str()?).ok()
}
