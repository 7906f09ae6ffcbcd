//! Known models: their configurations in `tests/data/models`, against published sizes and the hand calculations of
//! `docs/memory.md`.

use serde_json::{Value, json};

use super::*;

/// File, parameters as published, active ones, KV bytes per token in the model's own type.
const KNOWN: &[(&str, u64, u64, u64)] = &[
    // 2 × 32 layers × 8 heads × 128 × 2 bytes.
    ("llama-3.1-8b", 8_030_261_248, 8_030_261_248, 131_072),
    // 2 × 80 × 8 × 128 × 2.
    ("llama-3.1-70b", 70_553_706_496, 70_553_706_496, 327_680),
    // 2 × 28 × 8 × 128 × 2.
    ("llama-3.2-3b", 3_212_749_824, 3_212_749_824, 114_688),
    // 2 × 28 × 4 × 128 × 2.
    ("qwen2.5-7b", 7_615_616_512, 7_615_616_512, 57_344),
    // 2 × 64 × 8 × 128 × 2.
    ("qwen3-32b", 32_762_123_264, 32_762_123_264, 262_144),
    // 2 × 32 × 8 × 128 × 2.
    ("mistral-7b-v0.3", 7_248_023_552, 7_248_023_552, 131_072),
    // 2 × 32 × 8 × 128 × 2; two of eight experts.
    ("mixtral-8x7b", 46_702_792_704, 12_879_925_248, 131_072),
    // 2 × 48 × 4 × 128 × 2; eight of 128 experts.
    ("qwen3-30b-a3b", 30_532_122_624, 3_353_032_704, 98_304),
    // 61 × (512 + 64) × 2; eight of 256 experts and a shared one.
    ("deepseek-v3", 671_026_419_200, 37_552_297_472, 70_272),
    // 27 × (512 + 64) × 2; six of 64 experts and two shared ones.
    ("deepseek-v2-lite", 15_706_484_224, 2_661_150_208, 31_104),
    // 2 × 42 × 8 × 256 × 2.
    ("gemma-2-9b-it", 9_241_705_984, 9_241_705_984, 344_064),
    // 2 × 34 × 4 × 256 × 2; the language part alone.
    ("gemma-3-4b-it", 3_880_263_168, 3_880_263_168, 139_264),
    // 2 × 24 × 8 × 64 × 2; four of 32 experts.
    ("gpt-oss-20b", 20_914_757_184, 4_187_440_704, 49_152),
    // 2 × 32 × 32 × 96 × 2.
    ("phi-3-mini-4k", 3_821_079_552, 3_821_079_552, 393_216),
];

/// A configuration of `tests/data/models`.
pub fn config(name: &str) -> Value {
    let path = format!("{}/tests/data/models/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[test]
fn known_models_have_the_published_sizes() {
    for (name, parameters, active, kv) in KNOWN {
        let shape = ModelShape::read(&config(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!((shape.parameters, shape.active_parameters), (*parameters, *active), "{name}");
        assert_eq!(shape.kv().bytes_per_token(), Some(*kv), "{name}");
        assert_eq!(KvShape::read(&config(name)).unwrap(), shape.kv(), "{name}");
        assert!(!shape.assumed, "{name}");
    }
}

/// Each model stands in the page with its parameters and bytes, so that neither is changed alone.
#[test]
fn the_page_has_the_same_figures() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/memory.md")).expect("the page");
    let grouped = |n: u64| {
        let digits: Vec<char> = n.to_string().chars().rev().collect();
        let parts: Vec<String> = digits.chunks(3).map(|c| c.iter().rev().collect()).collect();
        parts.into_iter().rev().collect::<Vec<String>>().join(" ")
    };
    for (name, parameters, _, kv) in KNOWN {
        let row = page.lines().find(|l| l.contains(&format!("`{name}`"))).unwrap_or_else(|| panic!("no row of {name}"));
        assert!(row.contains(&grouped(*parameters)) && row.contains(&grouped(*kv)), "{name}: {row}");
    }
}

#[test]
fn what_a_checkpoint_is_and_how_far_layers_see_is_read() {
    let shape = |name: &str| ModelShape::read(&config(name)).unwrap();
    assert_eq!(shape("deepseek-v3").quantized.as_deref(), Some("fp8"));
    assert_eq!(shape("gpt-oss-20b").quantized.as_deref(), Some("mxfp4"));
    assert_eq!(shape("gpt-oss-20b").window, Some(Window { tokens: 128, layers: 12 }));
    assert_eq!(shape("gemma-2-9b-it").window, Some(Window { tokens: 4096, layers: 21 }));
    assert_eq!(shape("gemma-3-4b-it").window, Some(Window { tokens: 1024, layers: 29 }));
    assert_eq!(shape("phi-3-mini-4k").window, Some(Window { tokens: 2047, layers: 32 }));
    for unlimited in ["llama-3.1-8b", "qwen2.5-7b", "mistral-7b-v0.3", "deepseek-v3"] {
        assert_eq!(shape(unlimited).window, None, "{unlimited}");
    }
    assert_eq!(shape("llama-3.1-8b").dtype, Some(Dtype::Bfloat16));
    assert_eq!(shape("llama-3.1-8b").embedding_parameters, 2 * 128_256 * 4096);
    assert_eq!(shape("mixtral-8x7b").expert_parameters, 32 * 8 * 3 * 4096 * 14_336);
}

/// Fields of a configuration taken out or set.
fn changed(name: &str, change: &[(&str, Value)]) -> Value {
    let mut config = config(name);
    change.iter().for_each(|(field, value)| config[*field] = value.clone());
    config
}

#[test]
fn an_unknown_decoder_of_the_usual_shape_is_taken_as_one_and_says_so() {
    let known = ModelShape::read(&config("llama-3.1-8b")).unwrap();
    let other = ModelShape::read(&changed("llama-3.1-8b", &[("model_type", json!("hyperion"))])).unwrap();
    assert_eq!(other, ModelShape { architecture: "hyperion".into(), assumed: true, ..known });
}

#[test]
fn an_unknown_architecture_is_not_guessed() {
    let cases = [
        ("num_experts", json!(8)),
        ("mamba_d_state", json!(16)),
        ("q_lora_rank", json!(64)),
        ("use_bias", json!(true)),
        ("hidden_act", json!("gelu")),
        ("rms_norm_eps", Value::Null),
        ("is_encoder_decoder", json!(true)),
    ];
    for (field, value) in cases {
        let config = changed("llama-3.1-8b", &[("model_type", json!("hyperion")), (field, value)]);
        let e = ModelShape::read(&config).unwrap_err();
        assert!(matches!(&e, ShapeError::Unknown { architecture, .. } if architecture == "hyperion"), "{field}: {e}");
    }
    let linear = changed("qwen3-32b", &[("layer_types", json!(["linear_attention", "full_attention"]))]);
    assert!(matches!(ModelShape::read(&linear), Err(ShapeError::Impossible { name: "layer_types", .. })));
    assert!(KvShape::read(&linear).is_err());
}

#[test]
fn broken_configurations_are_errors() {
    let read = |field: &str, value: Value| ModelShape::read(&changed("llama-3.1-8b", &[(field, value)]));
    assert_eq!(read("hidden_size", Value::Null), Err(ShapeError::Missing("hidden_size")));
    assert_eq!(read("vocab_size", json!(0)), Err(ShapeError::Missing("vocab_size")));
    assert!(matches!(read("intermediate_size", json!("wide")), Err(ShapeError::NotANumber { .. })));
    assert!(matches!(read("num_attention_heads", json!(-1)), Err(ShapeError::NotANumber { .. })));
    assert_eq!(read("num_hidden_layers", json!(1 << 20)), Err(ShapeError::TooLarge));
    assert!(matches!(read("num_key_value_heads", json!(64)), Err(ShapeError::Impossible { .. })));
    let most = json!(1u64 << 26);
    let huge = [("vocab_size", most.clone()), ("hidden_size", most.clone()), ("num_hidden_layers", json!(1 << 14))];
    let huge = [huge.as_slice(), &[("intermediate_size", most.clone()), ("head_dim", most)]].concat();
    assert_eq!(ModelShape::read(&changed("llama-3.1-8b", &huge)), Err(ShapeError::TooLarge));
    for nothing in [json!({}), json!([]), json!("x"), Value::Null] {
        assert!(ModelShape::read(&nothing).is_err() && KvShape::read(&nothing).is_err(), "{nothing}");
    }
}

#[test]
fn the_cache_alone_can_be_told() {
    let llama = json!({"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "hidden_size": 4096, "torch_dtype": "bfloat16"});
    assert_eq!(KvShape::read(&llama).unwrap().bytes_per_token(), Some(131_072));
    let nested =
        json!({"text_config": {"num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 4, "dtype": "float32"}});
    assert_eq!(KvShape::read(&nested).unwrap().bytes_per_token(), Some(2 * 2 * 2 * 4 * 4));
}

#[test]
fn a_shape_reads_back_from_the_lock() {
    for (name, ..) in KNOWN {
        let shape = ModelShape::read(&config(name)).unwrap();
        let text = toml::to_string(&shape).unwrap();
        assert_eq!(toml::from_str::<ModelShape>(&text).unwrap(), shape, "{text}");
    }
}
