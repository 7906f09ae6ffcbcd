//! What a deployment asks of its GPUs: the parameters that memory depends on, and the sizes of its model.

use super::super::Deployment;
use super::super::lock::{self, Lock, LockedModel};
use super::card::Card;
use super::load::Load;
use crate::model::Dtype;
use crate::value::{Table, Value};

/// Everything a verdict is made from.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub model: LockedModel,
    pub engine: String,
    pub hardware: String,
    pub card: Card,
    pub tensor: u64,
    pub pipeline: u64,
    pub data: u64,
    pub expert: u64,
    pub dp_attention: bool,
    pub dtype: Option<Dtype>,
    pub quantization: Option<String>,
    pub kv_dtype: Option<String>,
    pub share: Option<f64>,
    pub max_model_len: Option<u64>,
    pub max_num_seqs: Option<u64>,
    pub batched_tokens: Option<u64>,
    pub prefix_caching: bool,
    pub load: Load,
}

impl Ask {
    /// `None` where nothing is started on a GPU of a known size, or the lock has no size of the model.
    pub fn of(d: &Deployment, lock: &Lock) -> Option<Ask> {
        if d.spec.container.is_none() || d.flavor.is_some() || d.gpus == 0 {
            return None;
        }
        let card = Card::of(&d.hardware)?;
        let local = lock::is_local(&d.model);
        let key = if local { d.model.clone() } else { lock::model_key(&d.model, d.revision()) };
        let model = lock.models.get(&key)?;
        if model.weight_bytes.is_none() && model.shape.is_none() {
            return None;
        }
        let set = Settings(d.document.as_map()?.get("params")?.as_map()?);
        Some(Ask {
            model: model.clone(),
            engine: d.engine.clone(),
            hardware: d.hardware.clone(),
            card,
            tensor: set.size("tensor_parallel", &["tensor_parallel_size", "tp_size"]),
            pipeline: set.size("pipeline_parallel", &["pipeline_parallel_size", "pp_size"]),
            data: set.size("data_parallel", &["data_parallel_size", "dp_size"]),
            expert: set.size("expert_parallel", &["ep_size"]),
            dp_attention: set.value("dp_attention", &[]).and_then(Value::as_bool).unwrap_or(false),
            dtype: set.text("dtype", &["dtype"]).and_then(|w| Dtype::parse(&w)),
            quantization: set.text("quantization", &["quantization"]),
            kv_dtype: set.text("kv_cache_dtype", &["kv_cache_dtype", "kv_cache_config.dtype"]),
            share: set.share(),
            max_model_len: set.count("max_model_len", &["max_model_len", "context_length", "max_seq_len"]),
            max_num_seqs: set.count("max_num_seqs", &["max_num_seqs", "max_running_requests", "max_batch_size"]),
            batched_tokens: set.count("", &["max_num_batched_tokens", "chunked_prefill_size", "max_num_tokens"]),
            prefix_caching: set.value("prefix_caching", &[]).and_then(Value::as_bool).unwrap_or(false),
            load: Load::default(),
        })
    }

    /// Tensor parallelism of attention, and copies of the model: data-parallel attention splits the tensor group.
    pub fn groups(&self) -> (u64, u64) {
        match (self.dp_attention, self.data) {
            (true, 1) => (1, self.tensor),
            (true, data) => ((self.tensor / data).max(1), data),
            (false, data) => (self.tensor, data),
        }
    }

    /// Largest share of the layers that one stage of a pipeline has.
    pub fn stage(&self) -> f64 {
        match &self.model.shape {
            Some(shape) if shape.layers > 0 => shape.layers.div_ceil(self.pipeline) as f64 / shape.layers as f64,
            _ => 1.0 / self.pipeline as f64,
        }
    }

    /// The type that unquantized weights are served in, and that they are stored in.
    pub fn types(&self) -> (Dtype, Dtype) {
        let stored = self.model.shape.as_ref().and_then(|s| s.dtype).unwrap_or(Dtype::Bfloat16);
        let own = match (stored, self.engine.as_str()) {
            // Their `auto` never serves four bytes.
            (Dtype::Float32, "vllm" | "sglang") => Dtype::Float16,
            (stored, _) => stored,
        };
        (self.dtype.unwrap_or(own), stored)
    }
}

/// The deploy parameters, with the engine's own options in the second place.
struct Settings<'d>(&'d Table);

impl<'d> Settings<'d> {
    fn value(&self, name: &str, own: &[&str]) -> Option<&'d Value> {
        let params = self.0;
        let option = |own: &&str| {
            let wanted = |k: &str| k.strip_prefix("engine_args.").is_some_and(|k| k.replace('-', "_") == **own);
            params.iter().find(|(k, _)| wanted(k)).map(|(_, v)| v)
        };
        params.get(name).or_else(|| own.iter().find_map(option))
    }

    fn count(&self, name: &str, own: &[&str]) -> Option<u64> {
        self.value(name, own).and_then(Value::as_u64).filter(|n| *n > 0)
    }

    fn size(&self, name: &str, own: &[&str]) -> u64 {
        self.count(name, own).unwrap_or(1)
    }

    fn text(&self, name: &str, own: &[&str]) -> Option<String> {
        let word = self.value(name, own)?.as_str()?.to_ascii_lowercase();
        Some(word).filter(|w| w != "auto")
    }

    fn share(&self) -> Option<f64> {
        let own = ["gpu_memory_utilization", "mem_fraction_static", "kv_cache_config.free_gpu_memory_fraction"];
        self.value("gpu_memory_utilization", &own).and_then(Value::as_f64).filter(|f| *f > 0.0 && *f <= 1.0)
    }
}
