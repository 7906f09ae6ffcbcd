"""Stands in for TensorRT-LLM's LLM API where there is no GPU: its names, its strictness, its streaming, and tokens of the
model's own tokenizer at a fixed pace instead of a model's. For tests of the Triton model that is written against it."""

import asyncio
import dataclasses
import time

from transformers import AutoTokenizer

__version__ = "0.0.0+standin"

# Seconds from a request to its first token, and between two tokens.
FIRST, NEXT = 0.020, 0.010

ARGUMENTS = {
    "model", "tokenizer", "revision", "backend", "dtype", "tensor_parallel_size", "pipeline_parallel_size",
    "moe_expert_parallel_size", "enable_attention_dp", "max_seq_len", "max_batch_size", "max_num_tokens",
    "kv_cache_config", "cuda_graph_config", "enable_chunked_prefill", "load_format", "trust_remote_code",
}  # fmt: skip


@dataclasses.dataclass(kw_only=True)
class SamplingParams:
    """Fields that are used here; any other is refused, as the real one does."""

    max_tokens: int = 32
    min_tokens: int | None = None
    ignore_eos: bool = False
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    end_id: int | None = None

    def __post_init__(self):
        if self.temperature is not None and self.temperature <= 0:
            raise ValueError(f"require temperature > 0, got temperature={self.temperature}")
        if self.max_tokens < 1:
            raise ValueError(f"require max_tokens >= 1, got max_tokens={self.max_tokens}")


@dataclasses.dataclass
class Completion:
    text: str = ""
    token_ids: list = dataclasses.field(default_factory=list)
    finish_reason: str | None = None


class Output:
    """A request on its way: awaited for its end, iterated for each token."""

    def __init__(self, llm, prompt_token_ids, params):
        self.llm, self.params = llm, params
        self.prompt_token_ids = prompt_token_ids
        self.outputs = [Completion()]
        self.finished = False
        self.aborted = False
        self.due = time.monotonic() + FIRST

    def abort(self):
        self.aborted = True

    async def step(self):
        await asyncio.sleep(max(0.0, self.due - time.monotonic()))
        self.due += NEXT
        completion = self.outputs[0]
        # Something else for each prompt, and never one of the special tokens that come first.
        seed = sum(self.prompt_token_ids) + 7919 * len(completion.token_ids)
        completion.token_ids.append(16 + seed % (len(self.llm.tokenizer) - 16))
        completion.text = self.llm.tokenizer.decode(completion.token_ids)
        if len(completion.token_ids) >= self.params.max_tokens or self.aborted:
            completion.finish_reason = "length"
            self.finished = True

    def __aiter__(self):
        return self

    async def __anext__(self):
        if self.finished:
            raise StopAsyncIteration
        await self.step()
        return self

    def __await__(self):
        return self.whole().__await__()

    async def whole(self):
        while not self.finished:
            await self.step()
        return self


class LLM:
    def __init__(self, model, tokenizer=None, **arguments):
        unknown = set(arguments) - ARGUMENTS
        if unknown:
            raise ValueError(f"1 validation error for TorchLlmArgs\n{sorted(unknown)[0]}\n  Extra inputs are not permitted")
        self.tokenizer = AutoTokenizer.from_pretrained(tokenizer or model)
        self.longest = arguments.get("max_seq_len")

    def generate_async(self, inputs, sampling_params=None, streaming=False):
        params = sampling_params or SamplingParams()
        ids = inputs if isinstance(inputs, list) else self.tokenizer(inputs)["input_ids"]
        if self.longest and len(ids) + params.max_tokens > self.longest:
            raise ValueError(f"The sum of prompt length ({len(ids)}) and max_tokens ({params.max_tokens}) exceeds {self.longest}")
        return Output(self, ids, params)

    def shutdown(self):
        pass
