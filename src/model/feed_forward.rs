//! The tensors of the feed-forward layers: dense ones, and experts with their routers.

use super::family::{Experts, Kind};
use super::fields::{Fields, ShapeError};

/// Of all layers together.
#[derive(Debug, Default)]
pub(super) struct FeedForward {
    pub parameters: u128,
    /// Of these, in experts that tokens are routed to.
    pub experts: u128,
    /// Of these, what one token does not meet.
    pub idle: u128,
}

/// A layer of experts.
struct Sparse {
    experts: u64,
    /// Experts that a token is routed to.
    chosen: u64,
    expert: u128,
    /// The router, and what every token meets.
    rest: u128,
}

impl FeedForward {
    pub fn read(fields: &Fields, kind: &Kind, layers: u64) -> Result<FeedForward, ShapeError> {
        let hidden = u128::from(fields.need("hidden_size")?);
        let gated = |width: u64| 3 * hidden * u128::from(width);
        let dense = || -> Result<u128, ShapeError> {
            let width = fields.need("intermediate_size")?;
            let bias = if fields.flag("mlp_bias") == Some(true) { 2 * u128::from(width) + hidden } else { 0 };
            Ok(gated(width) + bias)
        };
        let (sparse, sparse_layers) = match kind.experts {
            Experts::None => {
                return Ok(FeedForward { parameters: u128::from(layers) * dense()?, ..FeedForward::default() });
            }
            Experts::Mixtral => (mixtral(fields, hidden)?, layers),
            Experts::GptOss => (gpt_oss(fields, hidden)?, layers),
            Experts::Qwen => (qwen(fields, hidden)?, qwen_layers(fields, layers)?),
            Experts::Deepseek { scored } => (deepseek(fields, hidden, scored)?, deepseek_layers(fields, layers)?),
        };
        if sparse.chosen > sparse.experts {
            let because = format!("{} of {} experts", sparse.chosen, sparse.experts);
            return Err(ShapeError::Impossible { name: "num_experts_per_tok", because });
        }
        let of_layers = |n: u64, each: u128| u128::from(n) * each;
        let dense_layers = layers - sparse_layers;
        let dense = if dense_layers > 0 { of_layers(dense_layers, dense()?) } else { 0 };
        let experts = of_layers(sparse_layers, u128::from(sparse.experts) * sparse.expert);
        Ok(FeedForward {
            parameters: dense + experts + of_layers(sparse_layers, sparse.rest),
            experts,
            idle: of_layers(sparse_layers, u128::from(sparse.experts - sparse.chosen) * sparse.expert),
        })
    }
}

fn mixtral(fields: &Fields, hidden: u128) -> Result<Sparse, ShapeError> {
    let experts = fields.need("num_local_experts")?;
    Ok(Sparse {
        experts,
        chosen: fields.need("num_experts_per_tok")?,
        expert: 3 * hidden * u128::from(fields.need("intermediate_size")?),
        rest: hidden * u128::from(experts),
    })
}

/// Everything has a bias, the router too.
fn gpt_oss(fields: &Fields, hidden: u128) -> Result<Sparse, ShapeError> {
    let (experts, width) = (fields.need("num_local_experts")?, u128::from(fields.need("intermediate_size")?));
    Ok(Sparse {
        experts,
        chosen: fields.need("num_experts_per_tok")?,
        expert: (hidden + 1) * 2 * width + (width + 1) * hidden,
        rest: (hidden + 1) * u128::from(experts),
    })
}

/// A shared expert has a gate of its own.
fn qwen(fields: &Fields, hidden: u128) -> Result<Sparse, ShapeError> {
    let experts = fields.need("num_experts")?;
    let shared = match fields.number("shared_expert_intermediate_size")? {
        Some(width) if width > 0 => 3 * hidden * u128::from(width) + hidden,
        _ => 0,
    };
    Ok(Sparse {
        experts,
        chosen: fields.need("num_experts_per_tok")?,
        expert: 3 * hidden * u128::from(fields.need("moe_intermediate_size")?),
        rest: hidden * u128::from(experts) + shared,
    })
}

/// Every `decoder_sparse_step`th layer, but for those listed as dense.
fn qwen_layers(fields: &Fields, layers: u64) -> Result<u64, ShapeError> {
    let step = fields.number("decoder_sparse_step")?.unwrap_or(1).max(1);
    let dense = fields.list("mlp_only_layers").unwrap_or_default();
    let listed = |layer: u64| dense.iter().any(|d| d.as_u64() == Some(layer));
    Ok((0..layers).filter(|l| (l + 1) % step == 0 && !listed(*l)).count() as u64)
}

fn deepseek(fields: &Fields, hidden: u128, scored: bool) -> Result<Sparse, ShapeError> {
    let experts = fields.need("n_routed_experts")?;
    let expert = 3 * hidden * u128::from(fields.need("moe_intermediate_size")?);
    let shared = u128::from(fields.number("n_shared_experts")?.unwrap_or(0)) * expert;
    let correction = if scored { u128::from(experts) } else { 0 };
    Ok(Sparse {
        experts,
        chosen: fields.need("num_experts_per_tok")?,
        expert,
        rest: hidden * u128::from(experts) + correction + shared,
    })
}

/// Every `moe_layer_freq`th layer from `first_k_dense_replace` on.
fn deepseek_layers(fields: &Fields, layers: u64) -> Result<u64, ShapeError> {
    let first = fields.number("first_k_dense_replace")?.unwrap_or(0);
    let every = fields.number("moe_layer_freq")?.unwrap_or(1).max(1);
    Ok((first.min(layers)..layers).filter(|l| l % every == 0).count() as u64)
}
