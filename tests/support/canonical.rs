//! Ids recomputed from stored documents by an independent reading of the rule: BLAKE3 in derive-key mode, under the
//! domain of the document's kind, over JSON without spaces and with sorted keys.

use std::fmt::Write;

use serde_json::Value as Json;

pub fn unit_id(document: &Json) -> String {
    id("llmatrix unit v1", document)
}

pub fn deploy_id(document: &Json) -> String {
    id("llmatrix deployment v1", document)
}

fn id(domain: &str, document: &Json) -> String {
    blake3::Hasher::new_derive_key(domain).update(canonical(document).as_bytes()).finalize().to_hex().to_string()
}

fn canonical(value: &Json) -> String {
    match value {
        Json::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            let pairs: Vec<String> =
                keys.into_iter().map(|k| format!("{}:{}", quoted(k), canonical(&map[k]))).collect();
            format!("{{{}}}", pairs.join(","))
        }
        Json::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        Json::String(s) => quoted(s),
        // The shortest text that reads back as the same float; an exponent where that is shorter.
        Json::Number(n) if n.is_f64() => {
            let f = n.as_f64().expect("a float");
            if (1e-5..1e17).contains(&f.abs()) { f.to_string() } else { format!("{f:e}") }
        }
        other => other.to_string(),
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => _ = write!(out, "\\{c}"),
            c if c < ' ' => _ = write!(out, "\\u{:04x}", c as u32),
            c => out.push(c),
        }
    }
    out + "\""
}
