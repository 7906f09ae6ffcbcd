//! The words of `dtype`, `quantization` and `kv_cache_dtype`. Engines add words with every version, so a word that is not
//! known here is passed on as it is; one that is nearly a known word is taken for a slip, and one that another engine
//! knows is not sent to an engine that does not.

use super::identity::{Pairs, get};
use crate::diag::nearest;
use crate::value::Value;

/// The words of one parameter, each list with spaces between.
struct Words {
    parameter: &'static str,
    /// What a checkpoint can be: any stack is told so.
    common: &'static str,
    /// What an engine takes by its option, in its present version and in earlier ones.
    engines: &'static [(&'static str, &'static str)],
}

const TORCH: &str = "auto half float16 bfloat16 float float32";

const WORDS: &[Words] = &[
    Words {
        parameter: "dtype",
        common: "",
        engines: &[("vllm", TORCH), ("sglang", TORCH), ("trtllm", "auto float16 bfloat16 float32")],
    },
    Words {
        parameter: "quantization",
        common: "none fp8 fp4 nvfp4 mxfp4 mxfp8 int8 int4 awq gptq w4a16 w8a8",
        engines: &[
            (
                "vllm",
                "none fp8 fp4 nvfp4 mxfp4 mxfp8 awq gptq auto-round auto_awq auto_gptq awq_marlin bitblas bitsandbytes \
                 compressed-tensors deepseek_v4_fp8 experts_int8 fbgemm_fp8 fp8_per_block fp8_per_channel fp8_per_tensor \
                 fp_quant gguf gpt_oss_mxfp4 gptq_bitblas gptq_marlin hqq humming inc int8_per_channel_weight_only ipex \
                 marlin modelopt modelopt_fp4 modelopt_mixed modelopt_mxfp8 moe_wna16 nvfp4_per_token online \
                 petit_nvfp4 ptpc_fp8 quark rtn torchao",
            ),
            (
                "sglang",
                "none fp8 fp4 nvfp4 mxfp4 mxfp8 awq gptq auto-round auto-round-int8 awq_marlin bitsandbytes \
                 blockwise_int8 compressed-tensors gguf gptq_marlin humming marlin mlx_q4 mlx_q8 modelopt modelopt_fp4 \
                 modelopt_fp8 modelopt_mixed modelslim moe_wna16 mxfp_w4a8 nvfp4_online petit_nvfp4 qoq quark \
                 quark_int4fp8_moe quark_mxfp4 torchao unquant w4afp8 w8a8_fp8 w8a8_int8",
            ),
        ],
    },
    Words {
        parameter: "kv_cache_dtype",
        common: "",
        engines: &[
            (
                "vllm",
                "auto bfloat16 float16 fp8 fp8_ds_mla fp8_e4m3 fp8_e5m2 fp8_inc fp8_per_token_head int4_per_token_head \
                 int8_per_token_head nvfp4 nvfp4_4over6 nvfp4_ds_mla turboquant_3bit_nc turboquant_4bit_nc \
                 turboquant_k3v4_nc turboquant_k8v4 ultraquant_4bit",
            ),
            ("sglang", "auto bf16 bfloat16 fp4_e2m1 fp4_mx_block16 fp8 fp8_e4m3 fp8_e5m2 mxfp8 nvfp4"),
            ("trtllm", "auto fp8 nvfp4"),
        ],
    },
];

impl Words {
    fn known(&self) -> impl Iterator<Item = &'static str> {
        let lists = std::iter::once(self.common).chain(self.engines.iter().map(|(_, words)| *words));
        lists.flat_map(str::split_whitespace)
    }
}

/// A value that is nearly a known word: (parameter, the value, the word).
pub(super) fn slip(pairs: &[(std::sync::Arc<str>, Value)]) -> Option<(&'static str, String, &'static str)> {
    WORDS.iter().find_map(|words| {
        let given = get(pairs, words.parameter)?.as_str()?;
        let word = given.to_ascii_lowercase();
        let known = words.known().any(|k| k == word);
        let meant = nearest(&word, words.known()).filter(|_| !known)?;
        Some((words.parameter, given.to_string(), meant))
    })
}

/// Whether a built-in template's engine takes the words of these parameters. The error names the engine, the parameter and
/// what it takes.
pub(super) fn honoured(engine: &str, stack: &str, pairs: &Pairs) -> Result<(), String> {
    let model = get(pairs, "model").and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
    for words in WORDS {
        let Some(given) = get(pairs, words.parameter).and_then(Value::as_str) else { continue };
        let Some((_, own)) = words.engines.iter().find(|(name, _)| *name == engine) else { continue };
        let word = given.to_ascii_lowercase();
        // Nothing is sent to the engine where the checkpoint is already so.
        let checkpoint = words.parameter == "quantization" && model.contains(&word);
        if checkpoint || own.split_whitespace().any(|o| o == word) || !words.known().any(|k| k == word) {
            continue;
        }
        let rest = if words.parameter == "quantization" { "; or name a checkpoint that is so" } else { "" };
        return Err(format!(
            "{stack} cannot honour `{} = \"{given}\"`: {engine} takes {}{rest}",
            words.parameter,
            own.split_whitespace().collect::<Vec<_>>().join(", ")
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(set: &[(&str, &str)]) -> Pairs {
        let mut pairs: Pairs = set.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        pairs
    }

    #[test]
    fn a_slip_is_told_from_a_new_word() {
        let slip_of = |parameter: &str, word: &str| slip(&pairs(&[(parameter, word)])).map(|(.., meant)| meant);
        assert_eq!(slip_of("quantization", "pf8"), Some("fp8"));
        assert_eq!(slip_of("quantization", "bitsandbyte"), Some("bitsandbytes"));
        assert_eq!(slip_of("kv_cache_dtype", "fp8_e4m4"), Some("fp8_e4m3"));
        assert_eq!(slip_of("dtype", "bfloat61"), Some("bfloat16"));
        for (parameter, word) in [("quantization", "FP8"), ("quantization", "deepspeedfp"), ("dtype", "half")] {
            assert_eq!(slip_of(parameter, word), None, "{word}");
        }
    }

    /// What the simulated images refuse is known here.
    #[test]
    fn every_choice_of_the_images_is_known() {
        let mut seen = 0;
        for engine in ["vllm", "sglang"] {
            let path = format!("{}/src/sim/image/tables/{engine}.txt", env!("CARGO_MANIFEST_DIR"));
            let table = std::fs::read_to_string(path).expect("a table");
            for words in WORDS {
                let option = format!("one of: {} = ", words.parameter.replace('_', "-"));
                let choices =
                    table.lines().find_map(|l| l.strip_prefix(option.as_str())).expect("the option's choices");
                for choice in choices.split_whitespace() {
                    assert_eq!(honoured(engine, "it", &pairs(&[(words.parameter, choice)])), Ok(()), "{engine}");
                    assert!(words.known().any(|k| k == choice), "{engine}: `{choice}` of {}", words.parameter);
                    seen += 1;
                }
            }
        }
        assert!(seen > 80, "{seen}");
    }

    #[test]
    fn an_engine_gets_no_word_that_only_another_one_knows() {
        let of = |engine: &str, set: &[(&str, &str)]| honoured(engine, "hf × it", &pairs(set));
        let e = of("vllm", &[("kv_cache_dtype", "fp4_e2m1")]).unwrap_err();
        assert!(e.starts_with("hf × it cannot honour `kv_cache_dtype = \"fp4_e2m1\"`: vllm takes auto, "), "{e}");
        assert!(of("sglang", &[("kv_cache_dtype", "fp4_e2m1")]).is_ok());
        assert!(of("trtllm", &[("dtype", "half")]).is_err() && of("vllm", &[("dtype", "half")]).is_ok());
        let int8 = [("model", "org/M-8B"), ("quantization", "int8")];
        assert!(of("vllm", &int8).unwrap_err().contains("or name a checkpoint that is so"));
        assert!(of("vllm", &[("model", "org/M-8B-INT8"), ("quantization", "int8")]).is_ok());
        // TensorRT-LLM takes what the checkpoint is, and a word that nobody knows may be new.
        assert!(of("trtllm", &int8).is_ok() && of("vllm", &[("quantization", "fp3")]).is_ok());
    }
}
