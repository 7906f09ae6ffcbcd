//! Verdicts of known models on known GPUs, and how they change with what is asked.

use super::ask::Ask;
use super::card::Card;
use super::load::{Load, Peak};
use super::remedy::with_remedies;
use super::*;
use crate::model::ModelShape;
use crate::plan::lock::LockedModel;

/// A model of `tests/data/models` with the bytes of its plain checkpoint.
fn model(name: &str) -> LockedModel {
    let path = format!("{}/tests/data/models/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let config: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let parameters = ModelShape::read(&config).unwrap().parameters;
    LockedModel::default().sized(parameters * 2, Some(&config)).0
}

/// One GPU, nothing set but the longest length.
fn ask(name: &str, engine: &str, class: &str) -> Ask {
    Ask {
        model: model(name),
        engine: engine.into(),
        hardware: class.into(),
        card: Card::of(class).unwrap(),
        tensor: 1,
        pipeline: 1,
        data: 1,
        expert: 1,
        dp_attention: false,
        dtype: None,
        quantization: None,
        kv_dtype: None,
        share: None,
        max_model_len: Some(8192),
        max_num_seqs: None,
        batched_tokens: None,
        prefix_caching: false,
        load: Load::default(),
    }
}

fn with(mut ask: Ask, change: impl Fn(&mut Ask)) -> Ask {
    change(&mut ask);
    ask
}

const H100: &str = "h100-sxm-80gb";

#[test]
fn verdicts_of_known_models() {
    use Verdict::{DoesNotFit, Fits, Tight};
    let cases: &[(&str, &str, &str, u64, Verdict)] = &[
        ("llama-3.1-8b", "vllm", H100, 1, Fits),
        ("llama-3.1-8b", "vllm", "l4-24gb", 1, Fits),
        ("llama-3.1-8b", "vllm", "t4-16gb", 1, DoesNotFit),
        // 131.4 GiB of weights.
        ("llama-3.1-70b", "vllm", H100, 1, DoesNotFit),
        // 65.7 GiB on each, and little beside.
        ("llama-3.1-70b", "vllm", H100, 2, Tight),
        ("llama-3.1-70b", "vllm", H100, 4, Fits),
        ("llama-3.1-70b", "sglang", H100, 4, Fits),
        ("llama-3.1-70b", "trtllm", H100, 1, DoesNotFit),
        ("llama-3.1-70b", "vllm", "mi300x-192gb", 1, Fits),
        ("mixtral-8x7b", "vllm", H100, 1, DoesNotFit),
        ("mixtral-8x7b", "vllm", H100, 2, Fits),
        ("qwen3-32b", "vllm", H100, 2, Fits),
        ("deepseek-v3", "vllm", "h200-sxm-141gb", 4, DoesNotFit),
    ];
    for (name, engine, class, tensor, verdict) in cases {
        let fit = with(ask(name, engine, class), |a| a.tensor = *tensor).judge();
        assert_eq!(fit.verdict, *verdict, "{name} {engine} {class} × {tensor}: {}", fit.made_of());
    }
}

#[test]
fn the_sum_is_what_it_says() {
    let fit = with(ask("llama-3.1-70b", "vllm", H100), |a| a.tensor = 2).judge();
    let gib = |bytes: f64| bytes / GIB;
    assert!((gib(fit.weights_total) - 131.41).abs() < 0.01 && (gib(fit.weights) - 65.71).abs() < 0.01);
    assert!((gib(fit.memory) - 79.65).abs() < 0.01, "{}", gib(fit.memory));
    assert!((fit.memory * 0.9 - fit.weights - fit.overhead - fit.room).abs() < 1.0);
    let kv = fit.kv.unwrap();
    assert_eq!((kv.bytes_per_token, kv.bytes_per_token_per_gpu), (327_680.0, 163_840.0));
    assert_eq!(kv.longest.unwrap().bytes, 8192.0 * 163_840.0);
}

#[test]
fn each_engine_counts_its_share_in_its_own_way() {
    let (memory, weights, overhead) = (80.0, 40.0, 4.0);
    let room = |engine, given| Share::of(engine, given).room(memory, weights, overhead);
    assert!((room("vllm", Some(0.9)) - 28.0).abs() < 1e-9);
    assert!((room("sglang", Some(0.9)) - 32.0).abs() < 1e-9);
    // What is left beside the share has to hold the overhead.
    assert!((room("sglang", Some(1.0)) - 36.0).abs() < 1e-9);
    assert!((room("trtllm", Some(0.5)) - 18.0).abs() < 1e-9);
    assert!((room("python", None) - 36.0).abs() < 1e-9);
    assert!(Share::of("trtllm", None).room(memory, 90.0, overhead) < 0.0);
    assert!(Share::of("vllm", None).assumed && !Share::of("vllm", Some(0.8)).assumed);
}

#[test]
fn heads_are_replicated_and_latents_always() {
    let per_gpu = |name: &str, tensor: u64, pipeline: u64| {
        let ask = with(ask(name, "vllm", H100), |a| (a.tensor, a.pipeline) = (tensor, pipeline));
        ask.cache().unwrap().per_gpu
    };
    // Four key-value heads of 128, 28 layers.
    assert_eq!(per_gpu("qwen2.5-7b", 4, 1), 57_344.0 / 4.0);
    assert_eq!(per_gpu("qwen2.5-7b", 7, 1), 57_344.0 / 4.0);
    assert_eq!(per_gpu("qwen2.5-7b", 2, 2), 57_344.0 / 4.0);
    // Ten of 28 layers in the largest stage.
    assert_eq!(per_gpu("qwen2.5-7b", 1, 3), 57_344.0 * 10.0 / 28.0);
    for tensor in [1, 8] {
        assert_eq!(per_gpu("deepseek-v3", tensor, 1), 70_272.0);
    }
}

#[test]
fn precision_changes_bytes() {
    let base = ask("llama-3.1-8b", "vllm", H100);
    let total = |change: &dyn Fn(&mut Ask)| with(base.clone(), change).weights().total;
    let (parameters, embedding) = (8_030_261_248.0, 1_050_673_152.0);
    assert_eq!(total(&|_| {}), parameters * 2.0);
    assert_eq!(total(&|a| a.quantization = Some("none".into())), parameters * 2.0);
    assert_eq!(total(&|a| a.quantization = Some("fp8".into())), parameters + embedding);
    assert_eq!(total(&|a| a.quantization = Some("fp4".into())), (parameters - embedding) * 0.5625 + embedding * 2.0);
    assert_eq!(total(&|a| a.dtype = Some(crate::model::Dtype::Float32)), parameters * 4.0);
    let token =
        |word: Option<&str>| with(base.clone(), |a| a.kv_dtype = word.map(str::to_string)).cache().unwrap().whole;
    assert_eq!((token(None), token(Some("fp8_e4m3"))), (131_072.0, 65_536.0));
    assert_eq!(with(base.clone(), |a| a.kv_dtype = Some("fp99".into())).judge().notes.len(), 1);
    // TensorRT-LLM serves what the checkpoint is, and says so.
    let trtllm = with(ask("llama-3.1-8b", "trtllm", H100), |a| a.quantization = Some("fp8".into())).weights();
    assert_eq!(trtllm.total, parameters * 2.0);
    assert!(trtllm.notes[0].contains("changes no weight"), "{:?}", trtllm.notes);
}

#[test]
fn a_quantized_checkpoint_is_taken_as_it_is() {
    let bytes = 688_586_727_753;
    let mut ask = ask("deepseek-v3", "sglang", "h200-sxm-141gb");
    ask.model.weight_bytes = Some(bytes);
    ask.quantization = Some("fp8".into());
    assert_eq!(ask.weights().total, bytes as f64);
    // A checkpoint whose configuration says nothing, and that is half as large as it would be.
    let mut small = super::tests::ask("llama-3.1-8b", "vllm", H100);
    small.model.weight_bytes = Some(8_030_261_248);
    assert_eq!(with(small, |a| a.quantization = Some("fp8".into())).weights().total, 8_030_261_248.0);
}

/// Published sizes: 13.76 GB of GPT-OSS 20B; 671 GB and a little of DeepSeek-V3's main model.
#[test]
fn a_checkpoint_whose_files_are_not_here_is_counted() {
    let gigabytes = |name: &str| {
        let ask = with(ask(name, "vllm", H100), |a| a.model.weight_bytes = None);
        ask.weights().total / 1e9
    };
    assert!((gigabytes("llama-3.1-8b") - 16.06).abs() < 0.01, "{}", gigabytes("llama-3.1-8b"));
    assert!((gigabytes("gpt-oss-20b") - 13.76).abs() < 0.1, "{}", gigabytes("gpt-oss-20b"));
    assert!((gigabytes("deepseek-v3") - 672.9).abs() < 0.1, "{}", gigabytes("deepseek-v3"));
}

#[test]
fn a_float32_checkpoint_is_served_in_two_bytes_by_engines_that_do_so() {
    let mut wide = ask("llama-3.1-8b", "vllm", H100);
    wide.model.weight_bytes = wide.model.weight_bytes.map(|b| b * 2);
    wide.model.shape.as_mut().unwrap().dtype = Some(crate::model::Dtype::Float32);
    assert_eq!(wide.weights().total, 8_030_261_248.0 * 2.0);
    assert_eq!(wide.cache().unwrap().whole, 131_072.0);
    wide.engine = "trtllm".into();
    assert_eq!((wide.weights().total, wide.cache().unwrap().whole), (8_030_261_248.0 * 4.0, 262_144.0));
}

#[test]
fn experts_spread_further_than_the_rest() {
    let part = |engine: &str, change: &dyn Fn(&mut Ask)| {
        let ask = with(ask("mixtral-8x7b", engine, H100), change);
        let weights = ask.weights();
        weights.per_gpu / weights.total
    };
    let experts = (32 * 8 * 3 * 4096 * 14_336u64) as f64 / 46_702_792_704.0;
    let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
    assert!(near(part("sglang", &|a| a.tensor = 4), 0.25));
    assert!(near(part("sglang", &|a| a.data = 4), 1.0), "copies");
    assert!(near(part("vllm", &|a| a.data = 4), 1.0 - experts + experts / 4.0));
    let attention = |a: &mut Ask| (a.tensor, a.dp_attention) = (8, true);
    assert!(near(part("sglang", &attention), 1.0 - experts + experts / 8.0));
    let grouped = |a: &mut Ask| (a.tensor, a.data, a.dp_attention) = (8, 2, true);
    assert!(near(part("sglang", &grouped), (1.0 - experts) / 4.0 + experts / 8.0));
}

#[test]
fn a_load_that_does_not_fit_at_once_is_tight_and_says_how_much_would() {
    let mut ask = ask("llama-3.1-8b", "vllm", H100);
    ask.load =
        Load { longest: Some(30_200), largest: Some(Peak { requests: 64, tokens: 30_200, shared: 0, groups: 1 }) };
    ask.max_model_len = Some(32_768);
    let fit = with_remedies(&ask);
    assert_eq!(fit.verdict, Verdict::Tight);
    let kv = fit.kv.as_ref().unwrap();
    let fitting = kv.tokens / 30_200;
    assert!(fit.remedies.contains(&format!("concurrency up to {fitting}")), "{:?}", fit.remedies);
    let text = fit.warning().unwrap();
    assert!(text.starts_with("is tight in 80 GiB: weights 15.0 GiB over 1 GPU + "), "{text}");
    assert!(text.contains("64 of 30200 tokens take 235.9 GiB"), "{text}");
    // Half of the requests on each of two copies, no more than the engine batches, and a shared prefix once.
    let peak = ask.load.largest.unwrap();
    assert_eq!(with(ask.clone(), |a| a.data = 2).sequences(peak), 32);
    assert_eq!(with(ask.clone(), |a| a.max_num_seqs = Some(16)).sequences(peak), 16);
    let shared = Peak { shared: 30_000, groups: 2, ..peak };
    assert_eq!(with(ask.clone(), |a| a.prefix_caching = true).kept(shared), 64 * 200 + 2 * 30_000);
    assert_eq!(ask.kept(shared), 64 * 30_200);
}

#[test]
fn what_to_try_makes_it_better() {
    let large = with_remedies(&ask("llama-3.1-70b", "vllm", H100));
    let text = large.warning().unwrap();
    assert!(text.starts_with("will not fit in 80 GiB: weights 131.4 GiB over 1 GPU + "), "{text}");
    assert!(text.contains(" leave nothing of 71.7 GiB (0.9 of 79.6 GiB) for the KV cache; try "), "{text}");
    assert!(large.remedies[0].starts_with("tensor_parallel = "), "{:?}", large.remedies);
    let long = with_remedies(&with(ask("llama-3.1-8b", "vllm", "l40s-48gb"), |a| a.max_model_len = Some(1 << 20)));
    assert_eq!(long.verdict, Verdict::DoesNotFit);
    let shorter = long.remedies.iter().find_map(|r| r.strip_prefix("max_model_len = ")).unwrap().parse().unwrap();
    let judged = with(ask("llama-3.1-8b", "vllm", "l40s-48gb"), |a| a.max_model_len = Some(shorter)).judge();
    assert!(judged.verdict < Verdict::DoesNotFit, "{}", judged.made_of());
    assert!(with_remedies(&ask("llama-3.1-8b", "vllm", H100)).remedies.is_empty());
}

#[test]
fn vllm_wants_room_for_the_length_of_the_model() {
    let unset = |engine: &str| with(ask("llama-3.1-8b", engine, "rtx-4090-24gb"), |a| a.max_model_len = None).judge();
    // 131072 tokens take 16 GiB beside 15 GiB of weights.
    assert_eq!(unset("vllm").verdict, Verdict::DoesNotFit);
    assert!(unset("sglang").verdict < Verdict::DoesNotFit);
}

#[test]
fn a_window_lets_one_long_sequence_in() {
    let cache = ask("gpt-oss-20b", "vllm", H100).cache().unwrap();
    // Twelve of 24 layers keep 128 tokens.
    assert_eq!(cache.sequence(100), 100.0 * 49_152.0);
    assert_eq!(cache.sequence(10_000), (10_000 + 128) as f64 * 49_152.0 / 2.0);
}

#[test]
fn sizes_without_a_shape_give_a_verdict_too() {
    let mut ask = ask("llama-3.1-70b", "vllm", H100);
    ask.model = LockedModel {
        weight_bytes: Some(141_107_412_992),
        kv_bytes_per_token: Some(327_680),
        ..LockedModel::default()
    };
    let fit = ask.judge();
    assert_eq!((fit.verdict, fit.kv.as_ref().unwrap().bytes_per_token), (Verdict::DoesNotFit, 327_680.0));
    assert_eq!(with(ask.clone(), |a| a.tensor = 4).judge().verdict, Verdict::Fits);
    assert_eq!(with(ask.clone(), |a| a.kv_dtype = Some("fp8".into())).cache().unwrap().whole, 163_840.0);
    ask.model.kv_bytes_per_token = None;
    assert_eq!(ask.judge().kv, None);
}

#[test]
fn classes_say_their_memory() {
    let nominal = |class: &str| Card::of(class).map(|c| (c.nominal_gib, (c.bytes / GIB).round()));
    assert_eq!(nominal(H100), Some((80, 80.0)));
    assert_eq!(nominal("b200-sxm-192gb"), Some((192, 179.0)));
    assert_eq!(nominal("b200-sxm-180gb"), Some((180, 180.0)));
    for class in ["cpu", "sim", "external", "h999-preview-1tb", "x-gb", "x-0gb", "x-99999999999999gb"] {
        assert_eq!(nominal(class), None, "{class}");
    }
}

/// More memory, fewer bytes or more GPUs never make a verdict worse.
#[test]
fn more_never_makes_it_worse() {
    for name in ["llama-3.1-8b", "llama-3.1-70b", "qwen3-32b", "mixtral-8x7b", "gemma-2-9b-it", "deepseek-v2-lite"] {
        for engine in ["vllm", "sglang", "trtllm", "python", "other"] {
            for class in ["t4-16gb", "l4-24gb", "l40s-48gb", H100, "mi300x-192gb"] {
                let base = ask(name, engine, class);
                let verdict = base.judge().verdict;
                let fp8 = with(base.clone(), |a| a.quantization = Some("fp8".into()));
                let cache = with(base.clone(), |a| a.kv_dtype = Some("fp8".into()));
                let shorter = with(base.clone(), |a| a.max_model_len = Some(1024));
                for other in [fp8, cache, shorter] {
                    assert!(other.judge().verdict <= verdict, "{name} {engine} {class}: {other:?}");
                }
                let larger = with(base.clone(), |a| a.card.bytes *= 2.0).judge();
                assert!(larger.room > base.judge().room, "{name} {engine} {class}");
                let two = with(base.clone(), |a| a.tensor = 2).judge();
                assert!(two.weights < base.judge().weights, "{name} {engine} {class}");
            }
        }
    }
}
