//! The arguments of every command.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Declarative experiment matrices for LLM serving stacks.
#[derive(Debug, Parser)]
#[command(name = "llmatrix", version, about, long_about = None, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Global {
    /// Machine-readable output on stdout
    #[arg(long, global = true)]
    pub json: bool,
    /// Print results and errors only
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Directory of results [default: artifacts]
    #[arg(long, global = true, value_name = "DIR")]
    pub artifacts: Option<PathBuf>,
    /// Directory of what containers keep between runs [default: .cache]
    #[arg(long, global = true, value_name = "DIR")]
    pub cache: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check experiment files and report every problem
    #[command(after_help = "Examples:\n  llmatrix validate experiments/\n  llmatrix validate --json nightly.toml")]
    Validate(ValidateArgs),
    /// Show what a run would do and why
    #[command(after_help = "Examples:\n  llmatrix plan experiments/quickstart.toml\n  llmatrix plan --base main experiments/nightly.toml\n  llmatrix plan --json --only 'engine=vllm,tokens.input>=1024' sweep.toml")]
    Plan(PlanArgs),
    /// Pin what an experiment refers to: images, models, assets, hardware
    #[command(after_help = "Examples:\n  llmatrix lock sweep.toml\n  llmatrix lock --update sweep.toml")]
    Lock(LockArgs),
    /// Everything about one unit: its cell, documents, status and reasons
    #[command(after_help = "Examples:\n  llmatrix explain 3fa9c2d1\n  llmatrix explain 3fa9c2d1 sweep.toml")]
    Explain(ExplainArgs),
    /// Print the JSON Schema of experiment files, or the parameters
    #[command(after_help = "Examples:\n  llmatrix schema > schemas/experiment.schema.json\n  llmatrix schema --params")]
    Schema(SchemaArgs),
    /// Print the machine settings and where each comes from
    #[command(after_help = "Examples:\n  llmatrix config\n  LLMATRIX_ARTIFACTS=/data/results llmatrix config --json")]
    Config(ConfigArgs),
    /// Write a commented experiment to start from
    #[command(after_help = "Examples:\n  llmatrix init\n  llmatrix init sweeps/first.toml")]
    Init(InitArgs),
    /// Print a shell completion script
    #[command(after_help = "Examples:\n  llmatrix completions bash > /etc/bash_completion.d/llmatrix")]
    Completions { shell: clap_complete::Shell },
}

#[derive(Debug, Args)]
pub struct ValidateArgs {
    /// Experiment files, or directories of them
    #[arg(required = true, value_name = "FILE|DIR")]
    pub paths: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Experiment files, or directories of them
    #[arg(required = true, value_name = "FILE|DIR")]
    pub paths: Vec<PathBuf>,
    #[command(flatten)]
    pub selection: SelectionArgs,
    #[command(flatten)]
    pub run: RunFlags,
    /// Compare with the experiment as it is at a git revision
    #[arg(long, value_name = "GIT_REF")]
    pub base: Option<String>,
}

/// Which cells.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Cells")]
pub struct SelectionArgs {
    /// Keep the cells that match, such as 'engine=vllm,tokens.input>=1024'; several: any of them
    #[arg(long, value_name = "RULE")]
    pub only: Vec<String>,
    /// Give a parameter one value in every cell, such as concurrency=8
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// The keys of `[run]` as flags; a flag stands over the file.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Run policy (as in [run])")]
pub struct RunFlags {
    /// Rehearse with the simulated engine in place of every stack
    #[arg(long)]
    pub simulate: bool,
    /// Add samples even where there are enough
    #[arg(long)]
    pub force: bool,
    /// Try again what failed for good: bad flags, out of memory, gated models
    #[arg(long)]
    pub retry_failed: bool,
    /// Stop at the first failure
    #[arg(long)]
    pub fail_fast: bool,
    /// Samples older than this do not count, such as 20h
    #[arg(long, value_name = "DURATION")]
    pub max_age: Option<String>,
    /// Start no new sample after this long, such as 6h
    #[arg(long, value_name = "DURATION")]
    pub budget: Option<String>,
    /// Use no network beyond the engines
    #[arg(long)]
    pub offline: bool,
    /// Compare with a baseline at the end; exit 6 on a regression
    #[arg(long, value_name = "BASELINE")]
    pub gate: Option<String>,
    /// Valid samples that make a unit cached
    #[arg(long, value_name = "N")]
    pub repeats: Option<u64>,
    /// Engine starts that the repeats are spread over
    #[arg(long, value_name = "N")]
    pub starts: Option<u64>,
    /// Tries at each sample
    #[arg(long, value_name = "N")]
    pub attempts: Option<u64>,
    /// From the start of an engine to its first token
    #[arg(long, value_name = "DURATION")]
    pub ready_timeout: Option<String>,
    /// A single request
    #[arg(long, value_name = "DURATION")]
    pub request_timeout: Option<String>,
    /// One sample, warm-up included
    #[arg(long, value_name = "DURATION")]
    pub measure_timeout: Option<String>,
    /// Pause between two samples
    #[arg(long, value_name = "DURATION")]
    pub settle: Option<String>,
    /// Share of failed requests above which a sample is invalid
    #[arg(long, value_name = "SHARE")]
    pub max_error_rate: Option<f64>,
    /// A larger plan needs --yes
    #[arg(long, value_name = "N")]
    pub max_units: Option<u64>,
    /// Deployments that measure at the same time
    #[arg(long, value_name = "N")]
    pub parallel: Option<u64>,
    /// GPUs to use, by UUID or index
    #[arg(long, value_name = "GPU", value_delimiter = ',')]
    pub devices: Vec<String>,
    /// References to resolve anew in this run, such as image
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub float: Vec<String>,
    /// Remove images and models that no later group needs
    #[arg(long)]
    pub evict: bool,
    /// Seed of the order within a round
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// URL that is told when the run ends
    #[arg(long, value_name = "URL")]
    pub webhook: Option<String>,
}

#[derive(Debug, Args)]
pub struct LockArgs {
    /// Experiment files, or directories of them
    #[arg(required = true, value_name = "FILE|DIR")]
    pub paths: Vec<PathBuf>,
    /// Resolve again what is locked already, and print the difference
    #[arg(long)]
    pub update: bool,
    /// Resolve nothing over the network
    #[arg(long)]
    pub offline: bool,
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The unit's id, or its first digits
    pub unit: String,
    /// Experiment files to look in; without any, the artifacts
    #[arg(value_name = "FILE|DIR")]
    pub paths: Vec<PathBuf>,
    /// Look among simulated results, or plan as `run --simulate` does
    #[arg(long)]
    pub simulate: bool,
}

#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// The parameters as a Markdown table
    #[arg(long)]
    pub params: bool,
}

#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Directory whose llmatrix.toml is read
    #[arg(default_value = ".", value_name = "DIR")]
    pub dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct InitArgs {
    /// File to write
    #[arg(default_value = "experiments/my-sweep.toml", value_name = "FILE")]
    pub file: PathBuf,
}
