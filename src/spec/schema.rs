//! The JSON Schema of experiment files and the reference of parameters, both made from the one table.

use std::fmt::Write;

use serde_json::{Map, Value as Json, json};

use super::params::{BUILTIN_ENGINES, BUILTIN_METHODS, DefaultValue, Kind, PARAMS, Param, Scope};
use super::policy::{Market, SanityCheck};
use super::sections::{AGGREGATES, FLOAT, REQUEST_METRICS, RUN_KEYS, SAMPLE_METRICS};

/// The schema, formatted as it is committed.
pub fn json_schema_text() -> String {
    let mut text = serde_json::to_string_pretty(&json_schema()).expect("a schema is JSON");
    text.push('\n');
    text
}

/// JSON Schema (2020-12) of an experiment file, for editors. Quoted dotted paths and the rules between parameters are
/// checked by `llmatrix validate` alone.
pub fn json_schema() -> Json {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "llmatrix experiment",
        "type": "object",
        "required": ["matrix"],
        "additionalProperties": false,
        "properties": {
            "name": { "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$", "description": "Names the runs; never hashed." },
            "description": { "type": "string", "description": "Free text; never hashed." },
            "tags": { "type": "array", "items": { "type": "string" } },
            "defaults": object(parameters(&|p| value(p)), "Parameters every cell starts from; a list here is a value."),
            "matrix": { "type": "array", "minItems": 1, "items": { "$ref": "#/$defs/block" } },
            "override": { "type": "array", "items": {
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "when": { "$ref": "#/$defs/predicate" },
                    "set": object(parameters(&|p| value(p)), "Parameters that the matching cells get."),
                    "unset": { "type": "array", "items": { "type": "string" } },
                    "run": { "$ref": "#/$defs/run" },
                    "slo": { "$ref": "#/$defs/slo" },
                },
            }},
            "run": { "$ref": "#/$defs/run" },
            "slo": { "$ref": "#/$defs/slo" },
            "cost": { "type": "object", "additionalProperties": false, "properties": {
                "gpu_hour_usd": { "$ref": "#/$defs/prices" },
                "node_hour_usd": { "$ref": "#/$defs/prices" },
                "node_gpus": { "type": "integer", "minimum": 1 },
                "market": { "enum": Market::WORDS },
            }},
            "gate": gate(),
        },
        "$defs": {
            "prices": { "type": "object", "additionalProperties": { "anyOf": [
                { "type": "number", "minimum": 0 },
                { "type": "object", "additionalProperties": false, "properties": {
                    "on_demand": { "type": "number", "minimum": 0 }, "spot": { "type": "number", "minimum": 0 },
                }},
            ]}},
            "duration": { "type": "string", "pattern": "^\\s*([0-9.]+\\s*(us|µs|ms|s|m|min|h|d)\\s*)+$" },
            "range": { "type": "object", "required": ["from", "to"], "additionalProperties": false, "properties": {
                "from": { "type": "number" }, "to": { "type": "number" }, "times": { "type": "number", "exclusiveMinimum": 1 },
                "step": { "type": "number", "exclusiveMinimum": 0 }, "until": { "enum": ["slo", "knee"] }, "within": { "type": "string", "pattern": "%$" },
            }},
            "expression": { "type": "string", "pattern": "\\{\\{" },
            "predicate": { "type": "object", "minProperties": 1 },
            "block": block(),
            "run": run(),
            "slo": slo(),
        },
    })
}

fn object(properties: Map<String, Json>, description: &str) -> Json {
    json!({ "type": "object", "description": description, "properties": properties, "additionalProperties": false })
}

/// A block: every value may be a list or a range.
fn block() -> Json {
    let mut properties = parameters(&|p| {
        let mut any = vec![value(p), json!({ "type": "array", "items": value(p), "minItems": 1 })];
        if matches!(p.kind, Kind::Int { .. } | Kind::Float { .. }) {
            any.push(json!({ "$ref": "#/$defs/range" }));
        }
        json!({ "anyOf": any, "description": description(p) })
    });
    properties.insert("exclude".into(), json!({ "type": "array", "items": { "$ref": "#/$defs/predicate" } }));
    let point = json!({ "type": "object" });
    let axis = json!({ "type": "object", "minProperties": 1, "additionalProperties": point });
    properties.insert(
        "vary".into(),
        json!({ "type": "object", "description": "Labelled axes.", "additionalProperties": axis }),
    );
    // A table of parameters may itself be an axis: a list of partial tables.
    for table in ["tokens", "tls"] {
        let inner = properties[table].clone();
        let literal = object(inner_literals(table), "One point of the axis.");
        properties
            .insert(table.into(), json!({ "anyOf": [inner, { "type": "array", "items": literal, "minItems": 1 }] }));
    }
    object(properties, "One block of the matrix: a list or a range is an axis; the cells are their product.")
}

fn inner_literals(table: &str) -> Map<String, Json> {
    let all = parameters(&|p| value(p));
    all[table]["properties"].as_object().cloned().unwrap_or_default()
}

/// The parameters as nested properties.
fn parameters(of: &dyn Fn(&'static Param) -> Json) -> Map<String, Json> {
    let mut out = Map::new();
    for param in PARAMS {
        match param.name.split_once('.') {
            None => _ = out.insert(param.name.into(), of(param)),
            Some((table, name)) => {
                let entry = out.entry(table).or_insert_with(|| object(Map::new(), "A table of parameters."));
                entry["properties"][name] = of(param);
            }
        }
    }
    out
}

fn value(param: &Param) -> Json {
    let literal = match param.kind {
        Kind::Str => json!({ "type": "string", "minLength": 1 }),
        Kind::Method => json!({ "type": "string", "examples": BUILTIN_METHODS }),
        Kind::Engine => json!({ "type": "string", "examples": BUILTIN_ENGINES }),
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Int { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Float { min, max } if min > 0.0 => json!({ "type": "number", "exclusiveMinimum": 0, "maximum": max }),
        Kind::Float { min, max } => json!({ "type": "number", "minimum": min, "maximum": max }),
        Kind::Word(words) => json!({ "enum": words }),
        Kind::Duration => json!({ "$ref": "#/$defs/duration" }),
        Kind::Pair => {
            json!({ "type": "array", "items": { "type": "integer", "minimum": 1 }, "minItems": 2, "maxItems": 2 })
        }
        Kind::Stages => json!({ "type": "array", "minItems": 1, "items": {
            "type": "object", "required": ["duration"], "additionalProperties": false, "properties": {
                "rate": { "type": "number", "minimum": 0 }, "concurrency": { "type": "number", "minimum": 0 },
                "to": { "type": "number", "minimum": 0 }, "duration": { "$ref": "#/$defs/duration" },
            },
        }}),
        Kind::TokensOrTime => json!({ "anyOf": [{ "type": "integer", "minimum": 1 }, { "$ref": "#/$defs/duration" }] }),
        Kind::Open => json!({ "type": "object" }),
        Kind::Strings => json!({ "type": "object" }),
    };
    match param.kind {
        Kind::Str | Kind::Method | Kind::Engine | Kind::Open | Kind::Strings | Kind::Pair | Kind::Stages => {
            with_description(literal, param)
        }
        _ => json!({ "anyOf": [literal, { "$ref": "#/$defs/expression" }], "description": description(param) }),
    }
}

fn with_description(mut schema: Json, param: &Param) -> Json {
    schema["description"] = description(param).into();
    schema
}

fn description(param: &Param) -> String {
    match default_text(param.default) {
        Some(default) => format!("{} Default: {default}.", param.doc),
        None => param.doc.to_string(),
    }
}

fn default_text(default: DefaultValue) -> Option<String> {
    match default {
        DefaultValue::Unset => None,
        DefaultValue::Derived(text) => Some(text.to_string()),
        fixed => fixed.value().map(|v| v.to_string()),
    }
}

fn run() -> Json {
    let mut properties = Map::new();
    for key in RUN_KEYS {
        let schema = match *key {
            "repeats" | "starts" | "attempts" | "parallel" | "max_units" => json!({ "type": "integer", "minimum": 1 }),
            "seed" => json!({ "type": "integer", "minimum": 0 }),
            "fail_fast" | "retry_failed" | "force" | "offline" | "simulate" | "prefetch" => {
                json!({ "type": "boolean" })
            }
            "evict" => json!({ "enum": [true, false, "all"] }),
            "max_error_rate" => json!({ "type": "number", "minimum": 0, "maximum": 1 }),
            "sanity" => json!({ "enum": SanityCheck::WORDS }),
            "gate" | "webhook" | "dcgm" => json!({ "type": "string" }),
            "devices" => json!({ "type": "array", "items": { "type": "string" } }),
            "float" => json!({ "type": "array", "items": { "enum": FLOAT } }),
            _ => json!({ "$ref": "#/$defs/duration" }),
        };
        properties.insert((*key).into(), schema);
    }
    object(properties, "How to run; never hashed.")
}

fn latency_pattern() -> String {
    format!("^(({})_)?({})$", AGGREGATES.join("|"), REQUEST_METRICS.join("|"))
}

fn slo() -> Json {
    json!({
        "type": "object",
        "description": "Limits by metric; per request without a prefix, of the whole sample with one. Never hashed.",
        "patternProperties": { latency_pattern(): { "$ref": "#/$defs/duration" } },
        "additionalProperties": false,
    })
}

fn gate() -> Json {
    let limit = json!({ "type": ["string", "number"] });
    let sample = format!("^({})$", SAMPLE_METRICS.join("|"));
    json!({
        "type": "object",
        "description": "Allowed changes against a baseline. Never hashed.",
        "properties": {
            "against": { "type": ["string", "object"] },
            "control": { "type": "object" },
            "fdr": { "type": ["string", "number"], "description": "Share of the regressions reported that may be false; 1% by default." },
            "error": { "enum": ["starts", "samples"], "description": "Which repeats say how much a number scatters." },
        },
        "patternProperties": { latency_pattern(): limit.clone(), sample: limit },
        "additionalProperties": false,
    })
}

/// The parameters as a Markdown table per scope.
pub fn parameters_markdown() -> String {
    let mut out = String::new();
    for (scope, title) in [
        (
            Scope::Deploy,
            "### Deploy scope\n\nHow the engine is started. Templates see these; units with equal values share one engine start.",
        ),
        (Scope::Unit, "### Unit scope\n\nWhat is asked of the engine."),
    ] {
        let _ = writeln!(out, "{title}\n\n| parameter | type | default | meaning |\n|---|---|---|---|");
        for p in PARAMS.iter().filter(|p| p.scope == scope) {
            let default = default_text(p.default).unwrap_or_else(|| "–".into());
            let _ =
                writeln!(out, "| `{}` | {} | {} | {} |", p.name, type_text(p.kind), default, p.doc.replace('|', "\\|"));
        }
        out.push('\n');
    }
    out
}

fn type_text(kind: Kind) -> String {
    match kind {
        Kind::Str | Kind::Method | Kind::Engine => "text".into(),
        Kind::Bool => "true/false".into(),
        Kind::Int { min, .. } => format!("integer ≥ {min}"),
        Kind::Float { min, .. } if min > 0.0 => "number > 0".into(),
        Kind::Float { max: 1.0, .. } => "number 0–1".into(),
        Kind::Float { .. } => "number ≥ 0".into(),
        Kind::Word(words) => words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(" "),
        Kind::Duration => "duration".into(),
        Kind::Pair => "two integers".into(),
        Kind::Stages => "list of stages".into(),
        Kind::TokensOrTime => "integer ≥ 1 or duration".into(),
        Kind::Open => "table".into(),
        Kind::Strings => "table of text".into(),
    }
}
