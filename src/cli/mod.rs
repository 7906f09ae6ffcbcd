//! The command line: arguments to a request, wiring, exit codes. One file per command.

mod args;
mod baseline;
mod calibrate;
mod clean;
mod compare;
mod config;
mod containers;
mod contents;
mod env;
mod explain;
mod export;
mod failure;
mod float;
mod gate;
mod gc;
mod git;
mod init;
mod load_flags;
mod local_model;
mod lock;
mod logs;
mod measure;
mod one;
mod output;
mod plan;
mod prepare;
mod ps;
mod reach;
mod references;
mod report;
mod rerun;
mod results;
mod run;
mod schedule;
mod schema;
mod selection;
mod shell;
mod sides;
mod signals;
mod sim;
mod start;
mod stop;
mod summary;
mod validate;
mod webhook;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Cli, Command};
use failure::Failure;
use output::Output;

/// Runs the program and gives its exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version are no errors: clap prints them to stdout.
            let code = if e.use_stderr() { failure::USAGE } else { 0 };
            let _ = e.print();
            return ExitCode::from(code);
        }
    };
    let output = Output::new(cli.global.json, cli.global.quiet);
    let code = match dispatch(cli, &output) {
        Ok(code) => code,
        Err(failure) => {
            output.failure(&failure);
            failure.exit_code()
        }
    };
    ExitCode::from(code)
}

fn dispatch(cli: Cli, output: &Output) -> Result<u8, Failure> {
    let global = cli.global;
    match cli.command {
        Command::Run(args) => run::command(&args, &global, output),
        Command::One(args) => one::command(&args, &global, output),
        Command::Measure(args) => measure::command(&args, &global, output),
        Command::Calibrate(args) => calibrate::command(&args, &global, output),
        Command::Report(args) => report::command(&args, &global, output),
        Command::Compare(args) => compare::command(&args, &global, output),
        Command::Baseline(args) => baseline::command(&args, &global, output),
        Command::Export(args) => export::command(&args, &global, output),
        Command::Schedule(args) => schedule::command(&args, &global, output),
        Command::Start(args) => start::command(&args, &global, output),
        Command::Status(args) => ps::status(&args, &global, output),
        Command::Logs(args) => logs::command(&args, &global, output),
        Command::Stop(args) => stop::command(&args, &global, output),
        Command::Ps => ps::ps(&global, output),
        Command::Clean(args) => clean::command(&args, &global, output),
        Command::Gc(args) => gc::command(&args, &global, output),
        Command::Sim(args) => sim::command(&args, output),
        Command::Validate(args) => validate::command(&args, &global, output),
        Command::Plan(args) => plan::command(&args, &global, output),
        Command::Lock(args) => lock::command(&args, &global, output),
        Command::Explain(args) => explain::command(&args, &global, output),
        Command::Schema(args) => schema::command(&args, output),
        Command::Config(args) => config::command(&args, &global, output),
        Command::Env => env::command(output),
        Command::Init(args) => init::command(&args, output),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "llmatrix", &mut text);
            output.text(&String::from_utf8_lossy(&text));
            Ok(0)
        }
    }
}
