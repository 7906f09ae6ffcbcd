//! Built-in templates, rendered from a cell's deploy parameters.

use llmatrix::spec::params::{PARAMS, Scope};
use llmatrix::template::{Rendered, TemplateError, TemplateText, Templates};
use llmatrix::value::Table;

/// A cell that sets nothing but its model.
pub const MINIMAL: &str = r#"{"model": "Qwen/Qwen3-8B", "gpus": 1}"#;

/// Top-level names of the deploy parameters.
fn known() -> Vec<&'static str> {
    let mut names: Vec<&'static str> = Vec::new();
    for param in PARAMS.iter().filter(|p| p.scope == Scope::Deploy) {
        let head = param.name.split('.').next().expect("a split has a first part");
        if !names.contains(&head) {
            names.push(head);
        }
    }
    names
}

/// The deploy parameters of a cell: the defaults, and `set` as JSON.
fn context(set: &str) -> Table {
    let mut table = Table::new();
    for param in PARAMS.iter().filter(|p| p.scope == Scope::Deploy && !p.name.contains('.')) {
        if let Some(value) = param.default.value() {
            table.insert(param.name.into(), value);
        }
    }
    let set: Table = serde_json::from_str(set).expect("the test's own JSON");
    table.extend(set);
    table
}

/// Renders a built-in template, `METHOD/ENGINE`.
pub fn render(stack: &str, set: &str) -> Result<Rendered, TemplateError> {
    Templates::new(Vec::<TemplateText>::new()).render(stack, &context(set), &known())
}
