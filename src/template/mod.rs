//! Strict minijinja templates: deploy parameters in, a [`spec::DeploySpec`] out. Sees no file system and no clock; the
//! texts are handed in, and the only names a template can use are the deploy parameters and the functions below.
//!
//! | name | gives |
//! |---|---|
//! | `flag(name, value)` | `[]` for none and false, `[name]` for true, else `[name, text]`; a table is JSON |
//! | `flags(table)` | every entry of a table as flags, `max_num_seqs` as `--max-num-seqs` |
//! | `flags(table, "no-")` | the same; an entry that is false is `--no-NAME` |
//! | `snake(table)` | top-level names with `_` for `-`; none is an empty table |
//! | `merge(a, b, …)` | tables merged in depth, later wins, lists replace |
//! | `unsupported(reason)` | refuses the cell: `plan` lists it with the reason |
//! | `table \| compact` | without the entries that are none |
//! | `words \| shell` | one line that a shell splits into the same words |
//! | `value \| toml` | a TOML literal |
//! | `value \| json` | JSON, which is YAML too |

pub mod builtin;
mod functions;
pub mod limits;
pub mod spec;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use minijinja::{Environment, UndefinedBehavior};

use crate::value::{Table, Value};
use spec::DeploySpec;

/// Longest text a template may render to.
const MAX_RENDERED: usize = 1 << 20;
/// Steps a template may take; far above any real one, low enough that an endless loop ends at once.
const FUEL: u64 = 2_000_000;

/// All templates of a plan, compiled. Names are `METHOD/ENGINE`.
pub struct Templates {
    env: Environment<'static>,
    names: BTreeMap<String, Source>,
}

struct Source {
    /// Where the text came from, for messages.
    origin: String,
    /// Top-level names that the text mentions: the parameters this stack honours.
    mentions: BTreeSet<String>,
    /// Part of the binary, not handed in.
    builtin: bool,
    /// Why the text does not compile.
    broken: Option<TemplateError>,
}

/// A rendered template.
#[derive(Clone, Debug)]
pub struct Rendered {
    pub spec: DeploySpec,
    /// The same, untyped: what enters the deployment's document.
    pub document: Value,
    pub text: String,
}

/// Why a template gives no specification.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TemplateError {
    /// The template itself refuses this cell.
    #[error("{0}")]
    Unsupported(String),
    #[error("{origin}{}: {message}", line.map(|l| format!(":{l}")).unwrap_or_default())]
    Failed { origin: String, line: Option<usize>, message: String },
}

/// One template text.
#[derive(Clone, Debug)]
pub struct TemplateText {
    /// `METHOD/ENGINE`.
    pub name: String,
    /// Shown in messages: a path, or `built-in …`.
    pub origin: String,
    pub text: String,
}

impl Templates {
    /// Compiles the built-in templates and those handed in, which replace built-in ones of the same name. A text that
    /// does not compile is reported when a cell first needs it.
    pub fn new(overrides: Vec<TemplateText>) -> Templates {
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        env.set_fuel(Some(FUEL));
        let syntax = minijinja::syntax::SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        env.set_syntax(syntax.expect("the default delimiters are valid"));
        functions::register(&mut env);
        let mut texts: BTreeMap<String, TemplateText> = builtin::all().map(|t| (t.name.clone(), t)).collect();
        let handed_in: BTreeSet<String> = overrides.iter().map(|t| t.name.clone()).collect();
        texts.extend(overrides.into_iter().map(|t| (t.name.clone(), t)));
        let mut names = BTreeMap::new();
        for (name, TemplateText { origin, text, .. }) in texts {
            let compiled = limits::check(&text)
                .map_err(|(line, message)| TemplateError::Failed {
                    origin: origin.clone(),
                    line: Some(line + 1),
                    message,
                })
                .and_then(|()| {
                    let added = env.add_template_owned(name.clone(), text).and_then(|()| env.get_template(&name));
                    added.map_err(|e| failed(&origin, &e))
                });
            let (mentions, broken) = match compiled {
                Ok(template) => (template.undeclared_variables(false).into_iter().collect(), None),
                Err(e) => (BTreeSet::new(), Some(e)),
            };
            let builtin = !handed_in.contains(&name);
            names.insert(name, Source { origin, mentions, builtin, broken });
        }
        Templates { env, names }
    }

    pub fn contains(&self, method: &str, engine: &str) -> bool {
        self.names.contains_key(&format!("{method}/{engine}"))
    }

    /// Whether the template is part of the binary: what its engine takes is known then.
    pub fn is_builtin(&self, name: &str) -> bool {
        self.names.get(name).is_some_and(|s| s.builtin)
    }

    /// Names of all templates, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// Whether the template's text mentions a top-level parameter.
    pub fn mentions(&self, name: &str, parameter: &str) -> bool {
        self.names.get(name).is_some_and(|s| s.mentions.contains(parameter))
    }

    /// Renders a template with the deploy parameters `context` (nested tables; unset parameters are handed in as none by
    /// their absence from `context` but presence in `known`).
    pub fn render(&self, name: &str, context: &Table, known: &[&'static str]) -> Result<Rendered, TemplateError> {
        let source = self.names.get(name).ok_or_else(|| TemplateError::Failed {
            origin: format!("templates/{name}.toml.j2"),
            line: None,
            message: "there is no such template".into(),
        })?;
        if let Some(broken) = &source.broken {
            return Err(broken.clone());
        }
        let template = self.env.get_template(name).map_err(|e| failed(&source.origin, &e))?;
        let mut globals: BTreeMap<Arc<str>, minijinja::Value> =
            known.iter().map(|k| (Arc::from(*k), minijinja::Value::from(()))).collect();
        globals.extend(context.iter().map(|(k, v)| (k.clone(), jinja_value(v))));
        let text = template.render(globals).map_err(|e| failed(&source.origin, &e))?;
        if text.len() > MAX_RENDERED {
            return Err(source.error(format!("renders to {} bytes; the limit is {MAX_RENDERED}", text.len())));
        }
        let document: Value = toml::from_str(&text).map_err(|e| source.in_text(&text, &e))?;
        let spec: DeploySpec = toml::from_str(&text).map_err(|e| source.in_text(&text, &e))?;
        Ok(Rendered { spec, document, text })
    }
}

impl Source {
    fn error(&self, message: String) -> TemplateError {
        TemplateError::Failed { origin: self.origin.clone(), line: None, message }
    }

    /// An error in the rendered TOML, shown with the rendered line it is in.
    fn in_text(&self, text: &str, e: &toml::de::Error) -> TemplateError {
        let at = e.span().map_or(0, |s| s.start);
        let line = text[..at.min(text.len())].matches('\n').count();
        let shown: String = text.lines().nth(line).unwrap_or("").trim().chars().take(120).collect();
        self.error(format!(
            "the rendered text is not a deployment: {} (rendered line {}: `{shown}`)",
            e.message(),
            line + 1
        ))
    }
}

/// A value as templates and expressions see it.
pub fn jinja_value(value: &Value) -> minijinja::Value {
    match value {
        Value::Bool(b) => (*b).into(),
        Value::Int(i) => (*i).into(),
        Value::Float(f) => (*f).into(),
        Value::Str(s) => s.clone().into(),
        Value::List(items) => items.iter().map(jinja_value).collect(),
        Value::Map(table) => minijinja::Value::from_pairs(table.iter().map(|(k, v)| (k.clone(), jinja_value(v)))),
    }
}

fn failed(origin: &str, e: &minijinja::Error) -> TemplateError {
    if let Some(reason) = e.detail().and_then(|d| d.strip_prefix(functions::UNSUPPORTED)) {
        return TemplateError::Unsupported(reason.to_string());
    }
    let message = e.detail().map_or_else(|| e.kind().to_string(), str::to_string);
    TemplateError::Failed { origin: origin.to_string(), line: e.line(), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(text: &str) -> Result<Rendered, TemplateError> {
        let text = TemplateText { name: "hf/x".into(), origin: "templates/hf/x.toml.j2".into(), text: text.into() };
        let mut context = Table::new();
        context.insert("model".into(), "org/m".into());
        context.insert(
            "engine_args".into(),
            serde_json::from_str(r#"{"eager":true,"off":false,"max_num_seqs":64,"rope":{"a":1.5}}"#).unwrap(),
        );
        Templates::new(vec![text]).render("hf/x", &context, &["model", "dtype"])
    }

    const API: &str = "[api]\ndialect = \"openai\"\ndefault = \"chat\"\n";

    #[test]
    fn flags_merge_and_literals() {
        let text = format!(
            "{API}[container]\nimage = \"i\"\nport = 1\ncommand = {{{{ ([model] + flag(\"--dtype\", dtype) + flags(engine_args)) | toml }}}}\n[container.files]\n\"/c.yml\" = {{{{ merge({{'a': {{'b': 1}}}}, {{'a': {{'c': none}}}}) | json | toml }}}}\n"
        );
        let c = render(&text).unwrap().spec.container.unwrap();
        assert_eq!(c.command, ["org/m", "--eager", "--max-num-seqs", "64", "--rope", r#"{"a":1.5}"#]);
        assert_eq!(c.files["/c.yml"], r#"{"a":{"b":1,"c":null}}"#);
    }

    #[test]
    fn an_undefined_variable_is_an_error_with_its_line() {
        let e = render(&format!("{API}\nx = {{{{ modle }}}}\n")).unwrap_err();
        assert_eq!(e.to_string(), "templates/hf/x.toml.j2:5: `modle` is undefined");
    }

    /// A template has the parameters and the functions above, and no way to a file, a variable or another program.
    #[test]
    fn a_template_reaches_nothing_else() {
        for (text, why) in [
            ("{% include '/etc/hostname' %}", "template"),
            ("{% include '../../secret.toml' %}", "template"),
            ("{% import 'os' as os %}", "template"),
            ("{% extends '/etc/hostname' %}", "template"),
            ("{{ env.HOME }}", "undefined"),
            ("{{ environ('HOME') }}", "unknown"),
            ("{{ self.__class__ }}", "undefined"),
            ("{{ ''.__class__.__mro__ }}", "undefined"),
            ("{{ lipsum() }}", "unknown"),
            ("{{ cycler.__init__.__globals__ }}", "undefined"),
            ("{{ open('/etc/hostname').read() }}", "unknown"),
        ] {
            let e = render(text).unwrap_err().to_string();
            assert!(e.contains(why), "{text}: {e}");
        }
        // The other templates of the checkout are text that it may use, and nothing more.
        let whole = render("{% include 'hf/vllm' %}");
        assert!(whole.is_err() || whole.unwrap().spec.container.is_some());
    }

    #[test]
    fn a_template_can_refuse_and_must_render_to_a_deployment() {
        let e = render("{{ unsupported('no fp4 here') }}").unwrap_err();
        assert!(matches!(&e, TemplateError::Unsupported(r) if r == "no fp4 here"), "{e}");
        let e = render(&format!("{API}colour = 1\n")).unwrap_err().to_string();
        assert!(e.contains("unknown field `colour`") && e.contains("rendered line 4"), "{e}");
        for endless in
            ["{{ ([0] * 99999999) | json }}", "{{ flag('-x', [0] * 99999999) }}", "{{ ([0] * 99999999) | shell }}"]
        {
            let e = render(endless).unwrap_err();
            assert!(e.to_string().contains("more than a deployment has"), "{e}");
        }
        for chain in ["-", "not ", "1 + ", "a.", "a | "] {
            let e = render(&format!("{{{{ {}1 }}}}", chain.repeat(100_000))).unwrap_err();
            assert!(e.to_string().contains("operators in a row"), "{chain}: {e}");
        }
        let long = render("{% for i in range(3000) %}{{ 'x' * 1000 }}{% endfor %}").unwrap_err();
        assert!(long.to_string().contains("the limit is"), "{long}");
        let e = render("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}").unwrap_err();
        assert!(e.to_string().contains("fuel"), "{e}");
    }
}
