//! The tensors of attention, and what it keeps of a token.

use super::family::{Bias, Heads, Kind};
use super::fields::{Fields, ShapeError};

/// Of one layer; all layers are alike.
pub(super) struct Attention {
    pub parameters: u128,
    pub kv_heads: u64,
    pub kv_head_width: u64,
}

impl Attention {
    pub fn read(fields: &Fields, kind: &Kind) -> Result<Attention, ShapeError> {
        let or_default = |name: &'static str| -> Result<Option<u64>, ShapeError> {
            Ok(fields.number(name)?.or_else(|| kind.default(name)).filter(|n| *n > 0))
        };
        let heads = or_default("num_attention_heads")?.ok_or(ShapeError::Missing("num_attention_heads"))?;
        match kind.attention {
            Heads::Latent => latent(fields, heads),
            Heads::Grouped => {
                let kv_heads = or_default("num_key_value_heads")?.unwrap_or(heads);
                let head = match or_default("head_dim")? {
                    Some(head) => head,
                    None => fields.need("hidden_size")? / heads,
                };
                grouped(fields, kind, heads, kv_heads, head)
            }
        }
    }
}

/// Projections to queries, keys and values, and back; biases, norms and sinks.
fn grouped(fields: &Fields, kind: &Kind, heads: u64, kv_heads: u64, head: u64) -> Result<Attention, ShapeError> {
    if head == 0 || kv_heads > heads {
        let because = format!("{heads} heads of queries, {kv_heads} of keys and values, {head} elements each");
        return Err(ShapeError::Impossible { name: "num_key_value_heads", because });
    }
    // The KV cache alone can be told without it.
    let hidden = u128::from(fields.number("hidden_size")?.unwrap_or(0));
    let (queries, keys) = (u128::from(heads * head), u128::from(kv_heads * head));
    let inputs = queries + 2 * keys;
    let bias = match kind.bias {
        Bias::Never => 0,
        Bias::Inputs => inputs,
        Bias::AsConfigured if fields.flag("attention_bias") == Some(true) => inputs + hidden,
        Bias::AsConfigured => 0,
    };
    let norms = if kind.head_norms { 2 * u128::from(head) } else { 0 };
    let sinks = if kind.sinks { u128::from(heads) } else { 0 };
    let parameters = hidden * inputs + queries * hidden + bias + norms + sinks;
    Ok(Attention { parameters, kv_heads, kv_head_width: 2 * head })
}

/// Queries, directly or through a vector of lower rank; keys and values through the latent vector that is kept, beside the
/// part of the key that carries the position.
fn latent(fields: &Fields, heads: u64) -> Result<Attention, ShapeError> {
    let (hidden, rank) = (fields.number("hidden_size")?.unwrap_or(0), fields.need("kv_lora_rank")?);
    let positional = fields.need("qk_rope_head_dim")?;
    let width = rank + positional;
    let wide = |a: u64, b: u64| u128::from(a) * u128::from(b);
    let (plain, value) = (fields.number("qk_nope_head_dim")?.unwrap_or(0), fields.number("v_head_dim")?.unwrap_or(0));
    let query = heads * (plain + positional);
    let queries = match fields.number("q_lora_rank")?.filter(|r| *r > 0) {
        Some(low) => wide(hidden, low) + u128::from(low) + wide(low, query),
        None => wide(hidden, query),
    };
    let keys_and_values = wide(hidden, width) + u128::from(rank) + wide(rank, heads * (plain + value));
    let bias = match fields.flag("attention_bias") {
        Some(true) => u128::from(fields.number("q_lora_rank")?.unwrap_or(0) + width + hidden),
        _ => 0,
    };
    let parameters = queries + keys_and_values + wide(heads * value, hidden) + bias;
    Ok(Attention { parameters, kv_heads: 1, kv_head_width: width })
}
