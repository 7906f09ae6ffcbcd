//! Layers that look back over a window only: an engine that knows of them keeps less of a long context.

use serde::{Deserialize, Serialize};

use super::family::{Kind, Windows};
use super::fields::{Fields, ShapeError};

/// So many layers see no further back than so many tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    pub tokens: u64,
    pub layers: u64,
}

impl Window {
    /// `None` where every layer sees everything. A list of layers with other kinds of attention is an error: what those
    /// keep is not known.
    pub(super) fn read(fields: &Fields, kind: &Kind, layers: u64) -> Result<Option<Window>, ShapeError> {
        let tokens = fields.number("sliding_window")?.filter(|t| *t > 0);
        let number = match fields.list("layer_types") {
            Some(list) => listed(list)?.min(layers),
            None => ruled(fields, kind, layers)?,
        };
        Ok(tokens.filter(|_| number > 0).map(|tokens| Window { tokens, layers: number }))
    }
}

fn listed(list: &[serde_json::Value]) -> Result<u64, ShapeError> {
    let mut sliding = 0;
    for entry in list {
        match entry.as_str() {
            Some("sliding_attention") => sliding += 1,
            Some("full_attention") => {}
            _ => {
                let because = format!("{entry} is not a kind of attention that is known here");
                return Err(ShapeError::Impossible { name: "layer_types", because });
            }
        }
    }
    Ok(sliding)
}

fn ruled(fields: &Fields, kind: &Kind, layers: u64) -> Result<u64, ShapeError> {
    Ok(match kind.windows {
        Windows::None => 0,
        Windows::All => layers,
        Windows::Switched if fields.flag("use_sliding_window") == Some(true) => {
            layers.saturating_sub(fields.number("max_window_layers")?.unwrap_or(layers))
        }
        Windows::Switched => 0,
        Windows::Alternating => layers.div_ceil(2),
        Windows::Pattern => {
            let every = fields.number("sliding_window_pattern")?.filter(|n| *n > 0).unwrap_or(6);
            layers - layers / every
        }
    })
}
