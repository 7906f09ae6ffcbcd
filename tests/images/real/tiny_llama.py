#!/usr/bin/env python3
"""Makes a tiny Llama with random weights and a byte-level tokenizer, in the files of a Hugging Face model directory.

Nothing but the standard library, and always the same bytes: the model's content hash is part of experiments' ids.
Usage: tiny_llama.py DIRECTORY
"""

import json
import pathlib
import random
import struct
import sys

HIDDEN, LAYERS, HEADS, KV_HEADS, INNER, VOCABULARY, LONGEST = 128, 2, 4, 2, 384, 4096, 8192
SPECIAL = ["<|begin|>", "<|end|>", "<|pad|>"]
CHAT = (
    "{% for message in messages %}<|begin|>{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def alphabet():
    """The letters that stand for the 256 bytes in a byte-level vocabulary: themselves where they can be printed."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) for byte in plain] + [chr(256 + index) for index in range(len(others))]


def vocabulary():
    """Tokens in the order of their ids, and the merges that make the longer ones: syllables, words of two and three."""
    tokens, merges = SPECIAL + alphabet(), []
    known = set(tokens)

    def merge(left, right):
        if left + right not in known and len(tokens) < VOCABULARY:
            known.add(left + right)
            tokens.append(left + right)
            merges.append(f"{left} {right}")

    syllables = [consonant + vowel for consonant in "bcdfghjklmnprstvwyz" for vowel in "aeiou"]
    for syllable in syllables:
        merge(*syllable)
    for syllable in syllables:
        merge("Ġ", syllable)
    for syllable in syllables:
        for other in syllables:
            merge("Ġ" + syllable, other)
    return tokens, merges


def tensors():
    """Name → shape, in the order of the file."""
    head = HIDDEN // HEADS
    shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        shapes[prefix + "input_layernorm.weight"] = (HIDDEN,)
        shapes[prefix + "self_attn.q_proj.weight"] = (HIDDEN, HIDDEN)
        shapes[prefix + "self_attn.k_proj.weight"] = (KV_HEADS * head, HIDDEN)
        shapes[prefix + "self_attn.v_proj.weight"] = (KV_HEADS * head, HIDDEN)
        shapes[prefix + "self_attn.o_proj.weight"] = (HIDDEN, HIDDEN)
        shapes[prefix + "post_attention_layernorm.weight"] = (HIDDEN,)
        shapes[prefix + "mlp.gate_proj.weight"] = (INNER, HIDDEN)
        shapes[prefix + "mlp.up_proj.weight"] = (INNER, HIDDEN)
        shapes[prefix + "mlp.down_proj.weight"] = (HIDDEN, INNER)
    shapes["model.norm.weight"] = (HIDDEN,)
    shapes["lm_head.weight"] = (VOCABULARY, HIDDEN)
    return shapes


def bf16(value):
    return struct.pack("<f", value)[2:]


def weights():
    """The bytes of a safetensors file. Single bytes and special tokens are never the likeliest: a model of chance would
    say nothing but halves of letters for whole answers, which no trained one does, and servers hold those back."""
    chance = random.Random(20261124)
    header, data = {}, bytearray()
    for name, shape in tensors().items():
        size = shape[0] * (shape[1] if len(shape) > 1 else 1)
        start = len(data)
        if "norm" in name:
            data += bf16(1.0) * size
        else:
            # A table of values instead of a number each: a hundred times faster, and as random as this needs to be.
            values = [bf16(chance.uniform(-0.15, 0.15)) for _ in range(997)]
            numbers = chance.choices(values, k=size)
            if name == "lm_head.weight":
                silent = (len(SPECIAL) + 256) * HIDDEN
                numbers[:silent] = [bf16(0.0)] * silent
            data += b"".join(numbers)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, len(data)]}
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(data)


def tokenizer():
    tokens, merges = vocabulary()
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": index, "content": token, **special} for index, token in enumerate(SPECIAL)],
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": merges,
        },
    }


CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HIDDEN // HEADS,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": LONGEST,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
    "torch_dtype": "bfloat16",
}
TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": SPECIAL[0],
    "eos_token": SPECIAL[1],
    "pad_token": SPECIAL[2],
    "model_max_length": LONGEST,
    "clean_up_tokenization_spaces": False,
    "chat_template": CHAT,
}


def main(directory):
    directory.mkdir(parents=True, exist_ok=True)
    texts = {
        "config.json": CONFIG,
        "generation_config.json": {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2},
        "tokenizer.json": tokenizer(),
        "tokenizer_config.json": TOKENIZER_CONFIG,
    }
    for name, content in texts.items():
        (directory / name).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    (directory / "model.safetensors").write_bytes(weights())


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
