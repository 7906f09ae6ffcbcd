//! `schema`: the JSON Schema of experiment files, and the table of parameters.

use super::args::SchemaArgs;
use super::failure::Failure;
use super::output::Output;
use crate::spec::schema;

pub fn command(args: &SchemaArgs, output: &Output) -> Result<u8, Failure> {
    match args.params {
        true => output.text(&schema::parameters_markdown()),
        false => output.text(&schema::json_schema_text()),
    }
    Ok(0)
}
