//! Which options an engine's program knows: tables of names by what they take, from the engines' own sources.

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// What an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Switch,
    /// Nothing; `--no-NAME` switches it off.
    Pair,
    /// `true`, `1`, `false` or `0`.
    Bool,
    Int,
    /// An integer that may end in `k`, `m`, `K`, `M` and so on.
    Size,
    Float,
    /// A JSON object or list.
    Json,
    /// One word or more.
    Words,
    /// A word or nothing.
    Optional,
    Text,
    /// One of some words.
    Choice(&'static [&'static str]),
}

/// The options of a section of a table, by name.
pub type Flags = BTreeMap<&'static str, Kind>;

macro_rules! table {
    ($name:ident, $file:literal, $section:literal) => {
        pub static $name: LazyLock<Flags> =
            LazyLock::new(|| section(include_str!(concat!("tables/", $file)), $section));
    };
}

table!(VLLM_ENGINE, "vllm.txt", "engine");
table!(VLLM_SERVER, "vllm.txt", "server");
table!(SGLANG, "sglang.txt", "");
table!(TRTLLM_SERVE, "trtllm.txt", "serve");
table!(TRTLLM_LLM, "trtllm.txt", "llm");
table!(TRTLLM_KV_CACHE, "trtllm.txt", "kv_cache_config");
table!(TRITON, "triton.txt", "");
table!(NIM_BOTH, "nim.txt", "both");
table!(NIM_FIRST, "nim.txt", "first");
table!(NIM_LATER, "nim.txt", "later");
table!(FROM_PRETRAINED, "transformers.txt", "");

/// `vllm serve`: the engine's options and the server's.
pub static VLLM: LazyLock<Flags> =
    LazyLock::new(|| VLLM_ENGINE.iter().chain(VLLM_SERVER.iter()).map(|(name, kind)| (*name, *kind)).collect());

/// All sections of a table; what stands before the first has no name.
pub fn sections(text: &'static str) -> BTreeMap<&'static str, Flags> {
    let mut all: BTreeMap<&'static str, Flags> = BTreeMap::new();
    let mut current = "";
    for line in text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        if let Some(title) = line.strip_prefix('[') {
            current = title.trim_end_matches(']');
            continue;
        }
        let flags = all.entry(current).or_default();
        let (kind, names) = line.split_once(": ").expect("a line of a table is `KIND: NAMES`");
        match kind {
            "one of" => {
                let (name, words) = names.split_once(" = ").expect("`one of: NAME = WORDS`");
                let words: Vec<&'static str> = words.split(' ').collect();
                flags.insert(name, Kind::Choice(words.leak()));
            }
            kind => flags.extend(names.split(' ').map(|name| (name, named(kind)))),
        }
    }
    all
}

fn section(text: &'static str, wanted: &str) -> Flags {
    sections(text).remove(wanted).expect("the table has the section")
}

fn named(kind: &str) -> Kind {
    match kind {
        "switch" => Kind::Switch,
        "pair" => Kind::Pair,
        "bool" => Kind::Bool,
        "int" => Kind::Int,
        "size" => Kind::Size,
        "float" => Kind::Float,
        "json" => Kind::Json,
        "words" => Kind::Words,
        "optional" => Kind::Optional,
        "text" => Kind::Text,
        other => panic!("a table has the kind `{other}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_read() {
        assert_eq!(VLLM["max-num-seqs"], Kind::Int);
        assert_eq!(VLLM["enable-prefix-caching"], Kind::Pair);
        assert_eq!(VLLM["host"], Kind::Text);
        assert!(!VLLM_ENGINE.contains_key("host"));
        assert!(matches!(VLLM["dtype"], Kind::Choice(words) if words.contains(&"bfloat16")));
        assert_eq!(SGLANG["disable-radix-cache"], Kind::Switch);
        assert_eq!(TRTLLM_SERVE["tp_size"], Kind::Int);
        assert_eq!(TRTLLM_KV_CACHE["enable_block_reuse"], Kind::Switch);
        assert_eq!(TRITON["exit-on-error"], Kind::Bool);
        for table in [&*VLLM, &SGLANG, &TRTLLM_LLM, &TRITON] {
            assert!(table.len() > 60);
        }
    }
}
