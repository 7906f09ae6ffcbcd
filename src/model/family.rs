//! The architectures that are known: in what their tensors differ from those of the usual decoder.

use super::fields::{Fields, ShapeError};

/// In what an architecture differs. The usual decoder has attention with grouped heads and a gated feed-forward layer, each
/// behind a norm, and nothing has a bias.
#[derive(Debug)]
pub(super) struct Kind {
    /// `model_type`, and the class in `architectures` where there is no `model_type`.
    names: &'static [&'static str],
    classes: &'static [&'static str],
    pub attention: Heads,
    pub bias: Bias,
    /// A norm over each head of queries and of keys.
    pub head_norms: bool,
    /// A learned value per head that attention may look at instead of a token.
    pub sinks: bool,
    pub experts: Experts,
    /// Norms per layer, each of the hidden size.
    pub norms: u64,
    /// The output head is the embedding, where the configuration does not say.
    pub tied: bool,
    pub windows: Windows,
    /// Fields that configurations of this architecture leave out when they have these values.
    defaults: &'static [(&'static str, u64)],
}

/// What attention keeps of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heads {
    /// Keys and values of some heads.
    Grouped,
    /// One latent vector for all heads (multi-head latent attention).
    Latent,
}

/// Which projections of attention have a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bias {
    Never,
    /// Queries, keys and values always, the output never.
    Inputs,
    /// All four where `attention_bias` says so.
    AsConfigured,
}

/// How experts are described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Experts {
    None,
    Mixtral,
    Qwen,
    /// `scored`: the router has a correction for each expert.
    Deepseek {
        scored: bool,
    },
    GptOss,
}

/// Which layers look back over a window only, where no list of layers says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Windows {
    None,
    /// All of them, where there is a window.
    All,
    /// Those from `max_window_layers` on, where `use_sliding_window` says so.
    Switched,
    /// Every other one, from the first on.
    Alternating,
    /// All but every `sliding_window_pattern`th, the sixth where nothing is said.
    Pattern,
}

const USUAL: Kind = Kind {
    names: &[],
    classes: &[],
    attention: Heads::Grouped,
    bias: Bias::AsConfigured,
    head_norms: false,
    sinks: false,
    experts: Experts::None,
    norms: 2,
    tied: false,
    windows: Windows::None,
    defaults: &[],
};

const KINDS: &[Kind] = &[
    Kind { names: &["llama"], classes: &["LlamaForCausalLM"], ..USUAL },
    Kind { names: &["mistral"], classes: &["MistralForCausalLM"], bias: Bias::Never, windows: Windows::All, ..USUAL },
    Kind { names: &["phi3"], classes: &["Phi3ForCausalLM"], bias: Bias::Never, windows: Windows::All, ..USUAL },
    Kind {
        names: &["qwen2", "qwen2_vl", "qwen2_vl_text", "qwen2_5_vl", "qwen2_5_vl_text"],
        classes: &["Qwen2ForCausalLM"],
        bias: Bias::Inputs,
        windows: Windows::Switched,
        ..USUAL
    },
    Kind {
        names: &["qwen3", "qwen3_vl_text"],
        classes: &["Qwen3ForCausalLM"],
        head_norms: true,
        windows: Windows::Switched,
        ..USUAL
    },
    Kind {
        names: &["mixtral"],
        classes: &["MixtralForCausalLM"],
        bias: Bias::Never,
        experts: Experts::Mixtral,
        windows: Windows::All,
        ..USUAL
    },
    Kind {
        names: &["qwen2_moe"],
        classes: &["Qwen2MoeForCausalLM"],
        bias: Bias::Inputs,
        experts: Experts::Qwen,
        windows: Windows::Switched,
        ..USUAL
    },
    Kind {
        names: &["qwen3_moe", "qwen3_vl_moe_text"],
        classes: &["Qwen3MoeForCausalLM"],
        head_norms: true,
        experts: Experts::Qwen,
        windows: Windows::Switched,
        ..USUAL
    },
    Kind {
        names: &["deepseek_v2"],
        classes: &["DeepseekV2ForCausalLM"],
        attention: Heads::Latent,
        experts: Experts::Deepseek { scored: false },
        ..USUAL
    },
    Kind {
        names: &["deepseek_v3", "kimi_k2"],
        classes: &["DeepseekV3ForCausalLM"],
        attention: Heads::Latent,
        experts: Experts::Deepseek { scored: true },
        ..USUAL
    },
    Kind { names: &["gemma"], classes: &["GemmaForCausalLM"], tied: true, ..USUAL },
    Kind {
        names: &["gemma2"],
        classes: &["Gemma2ForCausalLM"],
        norms: 4,
        tied: true,
        windows: Windows::Alternating,
        ..USUAL
    },
    Kind {
        names: &["gemma3", "gemma3_text"],
        classes: &["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"],
        head_norms: true,
        norms: 4,
        tied: true,
        windows: Windows::Pattern,
        defaults: &[("vocab_size", 262_208), ("num_attention_heads", 8), ("num_key_value_heads", 4), ("head_dim", 256)],
        ..USUAL
    },
    Kind {
        names: &["gpt_oss"],
        classes: &["GptOssForCausalLM"],
        sinks: true,
        experts: Experts::GptOss,
        windows: Windows::Alternating,
        ..USUAL
    },
];

/// Parts of names of fields that a decoder of the usual shape does not have: with one of them a model keeps or computes
/// something that is not counted here.
const FOREIGN: &[&str] = &[
    "expert",
    "moe",
    "mamba",
    "ssm",
    "conv",
    "lora_rank",
    "linear_",
    "block_configs",
    "kv_shared",
    "hybrid",
    "recurrent",
    "per_layer",
    "cross_attention",
    "num_global",
    "attn_layer",
    "delta",
    "retention",
    "n_shared",
];

/// An architecture, and how sure that is.
pub(super) struct Family {
    pub name: String,
    pub kind: &'static Kind,
    /// Taken as the usual decoder.
    pub assumed: bool,
}

impl Family {
    /// The architecture that a configuration names, or the usual one where every field is of that.
    pub fn of(fields: &Fields) -> Result<Family, ShapeError> {
        let family = Family::for_cache(fields)?;
        if family.assumed {
            let unknown = |because: &str| family.unknown(because.to_string());
            if fields.text("hidden_act") != Some("silu") || fields.get("rms_norm_eps").is_none() {
                return Err(unknown(
                    "its `hidden_act` and `rms_norm_eps` are not those of a decoder of the usual shape",
                ));
            }
            for name in ["intermediate_size", "vocab_size"] {
                fields.get(name).ok_or_else(|| family.unknown(format!("its config.json has no `{name}`")))?;
            }
        }
        Ok(family)
    }

    /// The same for what only attention decides.
    pub fn for_cache(fields: &Fields) -> Result<Family, ShapeError> {
        let named = fields.text("model_type");
        let class = fields.either("architectures").and_then(|l| l.get(0)?.as_str());
        let of_name = KINDS.iter().find(|k| named.is_some_and(|n| k.names.contains(&n)));
        let of_class = || KINDS.iter().find(|k| named.is_none() && class.is_some_and(|c| k.classes.contains(&c)));
        let name: String = named.or(class).unwrap_or("unnamed").chars().take(64).collect();
        if let Some(kind) = of_name.or_else(of_class) {
            return Ok(Family { name, kind, assumed: false });
        }
        let family = Family { name, kind: &USUAL, assumed: true };
        if fields.flag("is_encoder_decoder") == Some(true) {
            return Err(family.unknown("it is an encoder with a decoder".into()));
        }
        if let Some(field) = fields.names().find(|n| FOREIGN.iter().any(|f| n.contains(f))) {
            return Err(family.unknown(format!("`{field}` is no field of a decoder of the usual shape")));
        }
        if let Some(field) = ["bias", "use_bias", "qkv_bias"].into_iter().find(|n| fields.flag(n) == Some(true)) {
            return Err(family.unknown(format!("`{field}` is no field of a decoder of the usual shape")));
        }
        Ok(family)
    }

    /// A number that configurations of this architecture may leave out.
    pub fn number(&self, fields: &Fields, name: &'static str) -> Result<u64, ShapeError> {
        match fields.number(name)?.or_else(|| self.kind.default(name)) {
            Some(n) if n > 0 => Ok(n),
            _ => Err(ShapeError::Missing(name)),
        }
    }

    fn unknown(&self, because: String) -> ShapeError {
        ShapeError::Unknown { architecture: self.name.clone(), because }
    }
}

impl Kind {
    pub fn default(&self, name: &str) -> Option<u64> {
        self.defaults.iter().find(|(n, _)| *n == name).map(|(_, value)| *value)
    }
}
