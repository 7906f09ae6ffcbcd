//! How much of the KV cache one token takes, from a model's `config.json`.

use serde_json::Value;

/// Bytes per token over all layers, in the type of the weights: two vectors per layer and key-value head, or the one
/// compressed vector of multi-head latent attention. `None` where the configuration does not say.
pub fn bytes_per_token(config: &Value) -> Option<u64> {
    // The language part of a model with several.
    let config = config.get("text_config").filter(|c| c.is_object()).unwrap_or(config);
    let number = |name: &str| config.get(name).and_then(Value::as_u64).filter(|n| *n > 0);
    let layers = number("num_hidden_layers").or_else(|| number("n_layer"))?;
    let bytes = match config.get("torch_dtype").or_else(|| config.get("dtype")).and_then(Value::as_str) {
        Some("float32") => 4,
        Some("bfloat16" | "float16") | None => 2,
        Some(name) if name.starts_with("float8") => 1,
        Some(_) => return None,
    };
    if let Some(rank) = number("kv_lora_rank") {
        let width = rank.checked_add(number("qk_rope_head_dim").unwrap_or(0))?;
        return layers.checked_mul(width)?.checked_mul(bytes);
    }
    let heads = number("num_attention_heads").or_else(|| number("n_head"))?;
    let kv_heads = number("num_key_value_heads").unwrap_or(heads);
    let hidden = number("hidden_size").or_else(|| number("n_embd"));
    let head = number("head_dim").or_else(|| hidden.map(|h| h / heads))?;
    [2, layers, kv_heads, head, bytes].into_iter().try_fold(1u64, u64::checked_mul)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn known_models() {
        // Llama 3.1 8B: 2 × 32 × 8 × 128 × 2.
        let llama = json!({"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
            "hidden_size": 4096, "torch_dtype": "bfloat16"});
        assert_eq!(bytes_per_token(&llama), Some(131_072));
        // DeepSeek V3: 61 × (512 + 64) × 2.
        let deepseek = json!({"num_hidden_layers": 61, "num_attention_heads": 128, "kv_lora_rank": 512,
            "qk_rope_head_dim": 64, "torch_dtype": "bfloat16"});
        assert_eq!(bytes_per_token(&deepseek), Some(70_272));
        let nested = json!({"text_config": {"num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 4, "dtype": "float32"}});
        assert_eq!(bytes_per_token(&nested), Some(2 * 2 * 2 * 4 * 4));
        assert_eq!(bytes_per_token(&json!({})), None);
    }
}
