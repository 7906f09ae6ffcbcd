//! From what is asked to a verdict.

use super::ask::Ask;
use super::cache::Cache;
use super::pool::Share;
use super::{Fit, GIB, Kv, Need, Verdict};

/// Driver and libraries, communication, captured graphs, fragments of the allocator.
const FIXED: f64 = 1.5 * GIB;
/// More than one GPU: buffers of the communication.
const BETWEEN_GPUS: f64 = 0.5 * GIB;
/// Activations of a token at the widest place of a layer, in elements per element of the hidden size.
const WIDEST: f64 = 16.0;
/// Below this share of the memory what is left is within the error of the estimate.
const MARGIN: f64 = 0.05;
/// From here on engines run larger batches, in GiB.
const LARGE_GPU: u64 = 70;

impl Ask {
    pub fn judge(&self) -> Fit {
        let weights = self.weights();
        let overhead = self.overhead();
        let share = Share::of(&self.engine, self.share);
        let memory = self.card.bytes;
        let room = share.room(memory, weights.per_gpu, overhead);
        let cache = self.cache();
        let kv = cache.as_ref().map(|cache| self.kv(cache, room));
        let longest = kv.as_ref().and_then(|kv| kv.longest.as_ref()).map_or(0.0, |n| n.bytes);
        let largest = kv.as_ref().and_then(|kv| kv.largest.as_ref()).map_or(0.0, |n| n.bytes);
        let verdict = if room <= 0.0 || longest > room {
            Verdict::DoesNotFit
        } else if largest > room || room - longest.max(largest) < MARGIN * memory {
            Verdict::Tight
        } else {
            Verdict::Fits
        };
        let mut notes = weights.notes;
        let shape = self.model.shape.as_ref();
        if let Some(shape) = shape.filter(|s| s.assumed) {
            notes.push(format!("`{}` is taken as a decoder of the usual shape", shape.architecture));
        }
        if let Some(window) = shape.and_then(|s| s.window) {
            notes.push(format!(
                "{} of {} layers see {} tokens back: an engine that knows keeps no more of them",
                window.layers,
                shape.map_or(0, |s| s.layers),
                window.tokens
            ));
        }
        if let Some(word) = cache.and_then(|c| c.unknown) {
            notes.push(format!(
                "how large `{word}` makes the KV cache is not known here: taken as the model's own type"
            ));
        }
        let (attention, copies) = self.groups();
        Fit {
            verdict,
            hardware: self.hardware.clone(),
            nominal_gib: self.card.nominal_gib,
            memory,
            gpus: attention.saturating_mul(self.pipeline),
            copies,
            parameters: shape.map(|s| s.parameters),
            active_parameters: shape.map(|s| s.active_parameters),
            share,
            weights_total: weights.total,
            weights: weights.per_gpu,
            weights_are: weights.are,
            overhead,
            room,
            kv,
            notes,
            remedies: Vec::new(),
        }
    }

    /// Activations of the largest batch, its logits twice, and a fixed part. An estimate: engines measure it at start.
    fn overhead(&self) -> f64 {
        let apart = if self.tensor.saturating_mul(self.pipeline) > 1 { BETWEEN_GPUS } else { 0.0 };
        let Some(shape) = &self.model.shape else { return FIXED + apart };
        let batch = if self.card.nominal_gib >= LARGE_GPU { 8192 } else { 2048 };
        let tokens = self.batched_tokens.unwrap_or(batch) as f64;
        let sequences = self.max_num_seqs.unwrap_or(256).min(1024) as f64;
        let activations = tokens * shape.hidden_size as f64 * WIDEST * self.types().0.bytes() as f64;
        let logits = sequences * shape.vocab_size as f64 * 4.0 * 2.0;
        FIXED + apart + activations + logits
    }

    fn kv(&self, cache: &Cache, room: f64) -> Kv {
        let longest = self.longest().map(|tokens| Need { sequences: 1, tokens, bytes: cache.sequence(tokens) });
        let largest = self.load.largest.map(|peak| Need {
            sequences: self.sequences(peak),
            tokens: peak.tokens,
            bytes: self.kept(peak) as f64 * cache.per_gpu,
        });
        Kv {
            dtype: cache.dtype.clone(),
            bytes_per_token: cache.whole,
            bytes_per_token_per_gpu: cache.per_gpu,
            tokens: if cache.per_gpu > 0.0 { (room.max(0.0) / cache.per_gpu) as u64 } else { 0 },
            longest,
            largest,
        }
    }

    /// Tokens of the longest sequence that has to have room: what is set, else what the units have. vLLM wants room for
    /// the model's own length where nothing is set.
    fn longest(&self) -> Option<u64> {
        let own = self.model.shape.as_ref().and_then(|s| s.max_position).filter(|_| self.engine == "vllm");
        self.max_model_len.or_else(|| self.load.longest.max(own))
    }
}
