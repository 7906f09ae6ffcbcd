//! The arguments of every command.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::digest::UnitId;

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
    #[arg(long, global = true, value_name = "DIR", num_args = 0..=1, default_missing_value = "")]
    pub artifacts: Option<PathBuf>,
    /// Directory of what containers keep between runs [default: .cache]
    #[arg(long, global = true, value_name = "DIR")]
    pub cache: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Plan, deploy, measure, resume
    #[command(
        after_help = "Examples:\n  llmatrix run experiments/quickstart.toml\n  llmatrix run --simulate experiments/hf-shootout.toml\n  llmatrix run --only 'engine=vllm' --repeats 3 sweep.toml"
    )]
    Run(RunArgs),
    /// Measure one cell, ad hoc
    #[command(
        after_help = "Examples:\n  llmatrix one sim vllm\n  llmatrix one hf vllm Qwen/Qwen3-8B --concurrency 8\n  llmatrix one --simulate triton python"
    )]
    One(OneArgs),
    /// Measure a running server
    #[command(
        after_help = "Examples:\n  llmatrix measure --endpoint http://127.0.0.1:8000\n  llmatrix measure --endpoint http://127.0.0.1:8000 --engine vllm --concurrency 16 --requests 200\n  llmatrix measure --endpoint https://host/v1x --api chat --header 'Authorization: Bearer ${API_KEY}' --json"
    )]
    Measure(Box<MeasureArgs>),
    /// Find out what this host can measure without being the bottleneck
    #[command(after_help = "Examples:\n  llmatrix calibrate\n  llmatrix calibrate --streams 256 --json")]
    Calibrate(CalibrateArgs),
    /// Show a run as a table, Markdown, HTML, CSV, JSON lines or JUnit
    #[command(
        after_help = "Examples:\n  llmatrix report\n  llmatrix report last --columns engine,concurrency,p99_ttft_ms --sort=-output_throughput\n  llmatrix report nightly --group engine --slo ttft=300ms\n  llmatrix report --format html -o report.html --plots plots/"
    )]
    Report(ReportArgs),
    /// Compare runs, baselines or other tools' files; the gate; steps over nights
    #[command(
        after_help = "Examples:\n  llmatrix compare last-good last\n  llmatrix compare main my-branch --metrics p99_ttft,output_throughput\n  llmatrix compare --gate baselines/nightly.json last --limit p95_ttft=+10%\n  llmatrix compare last vllm-bench.json\n  llmatrix compare --history 60 nightly"
    )]
    Compare(CompareArgs),
    /// Keep what was measured under a name, to compare with
    #[command(
        after_help = "Examples:\n  llmatrix baseline set v1 last\n  llmatrix baseline list\n  llmatrix baseline export v1 -o baselines/v1.json\n  llmatrix baseline rm v1"
    )]
    Baseline(BaselineArgs),
    /// Write the results of a run for other tools
    #[command(
        after_help = "Examples:\n  llmatrix export --format csv -o results.csv\n  llmatrix export nightly --format parquet -o nightly.parquet\n  llmatrix export --format vllm-bench --only 'engine=vllm' -o bench/\n  llmatrix export --duckdb-sql > results.sql"
    )]
    Export(ExportArgs),
    /// Write or print a timer or workflow that starts a run by itself
    #[command(
        after_help = "Examples:\n  llmatrix schedule experiments/nightly.toml --at 02:00\n  llmatrix schedule experiments/nightly.toml --on 'Sun 02:00' --cron\n  llmatrix schedule experiments/nightly.toml --at 02:00 --github -o .github/workflows/\n  llmatrix schedule experiments/nightly.toml --at 02:00 --max-age 20h --budget 6h --gate last-good"
    )]
    Schedule(ScheduleArgs),
    /// Start one stack in a container and leave it running
    #[command(
        after_help = "Examples:\n  llmatrix start --method hf --engine vllm --model Qwen/Qwen3-8B\n  llmatrix start --method nim --engine vllm --model meta/llama-3.1-8b-instruct --set tensor_parallel=2 --name trial"
    )]
    Start(StartArgs),
    /// Show one container
    #[command(after_help = "Examples:\n  llmatrix status --container-name Qwen--Qwen3-8B-hf-vllm --json")]
    Status(StatusArgs),
    /// Print what a container logged
    #[command(after_help = "Examples:\n  llmatrix logs -f Qwen--Qwen3-8B-hf-vllm")]
    Logs(LogsArgs),
    /// Stop containers and remove what they left
    #[command(after_help = "Examples:\n  llmatrix stop Qwen--Qwen3-8B-hf-vllm")]
    Stop(StopArgs),
    /// List the containers of this host that are ours
    #[command(after_help = "Examples:\n  llmatrix ps\n  llmatrix ps --json")]
    Ps,
    /// Remove what dead runs left behind: half-written results, containers
    #[command(after_help = "Examples:\n  llmatrix clean --dry-run\n  llmatrix clean")]
    Clean(CleanArgs),
    /// Remove old runs, and results that no run refers to any more
    #[command(
        after_help = "Examples:\n  llmatrix gc --keep-last 10 --unreferenced --dry-run\n  llmatrix gc --keep-last 10 --unreferenced\n  llmatrix gc --damaged"
    )]
    Gc(GcArgs),
    /// Serve the simulated engine, impersonating a stack
    #[command(after_help = super::sim::options_help())]
    Sim(SimArgs),
    /// Check experiment files and report every problem
    #[command(
        after_help = "Examples:\n  llmatrix validate experiments/\n  llmatrix validate --json nightly.toml\n  llmatrix validate --artifacts"
    )]
    Validate(ValidateArgs),
    /// Show what a run would do and why
    #[command(
        after_help = "Examples:\n  llmatrix plan experiments/quickstart.toml\n  llmatrix plan --base main experiments/nightly.toml\n  llmatrix plan --json --only 'engine=vllm,tokens.input>=1024' sweep.toml"
    )]
    Plan(PlanArgs),
    /// Pin what an experiment refers to: images, models, assets, hardware
    #[command(after_help = "Examples:\n  llmatrix lock sweep.toml\n  llmatrix lock --update sweep.toml")]
    Lock(LockArgs),
    /// Everything about one unit: its cell, documents, status and reasons
    #[command(
        after_help = "Examples:\n  llmatrix explain 3fa9c2d1\n  llmatrix explain 3fa9c2d1 sweep.toml\n  llmatrix explain 3fa9c2d1 --rerun | bash"
    )]
    Explain(ExplainArgs),
    /// Print the JSON Schema of experiment files, or the parameters
    #[command(after_help = "Examples:\n  llmatrix schema > schemas/experiment.schema.json\n  llmatrix schema --params")]
    Schema(SchemaArgs),
    /// Print the machine settings and where each comes from
    #[command(after_help = "Examples:\n  llmatrix config\n  LLMATRIX_ARTIFACTS=/data/results llmatrix config --json")]
    Config(ConfigArgs),
    /// Print what this host is, as results record it
    #[command(after_help = "Examples:\n  llmatrix env\n  llmatrix env --json")]
    Env,
    /// Write a commented experiment to start from
    #[command(after_help = "Examples:\n  llmatrix init\n  llmatrix init sweeps/first.toml")]
    Init(InitArgs),
    /// Print a shell completion script
    #[command(after_help = "Examples:\n  llmatrix completions bash > /etc/bash_completion.d/llmatrix")]
    Completions { shell: clap_complete::Shell },
}

#[derive(Debug, Args)]
pub struct ValidateArgs {
    /// Experiment files, or directories of them; without any, or with --artifacts, every file of the results is read
    #[arg(value_name = "FILE|DIR")]
    pub paths: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub struct GcArgs {
    /// Of each experiment, keep the newest N runs and the last that ended well; remove the others with their results files
    #[arg(long, value_name = "N")]
    pub keep_last: Option<u32>,
    /// Remove units that no run refers to
    #[arg(long)]
    pub unreferenced: bool,
    /// Remove what was found damaged and set aside
    #[arg(long)]
    pub damaged: bool,
    /// Show what would be removed
    #[arg(long)]
    pub dry_run: bool,
    /// Simulated results in place of real ones
    #[arg(long)]
    pub simulated: bool,
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
    /// What becomes of an engine that answers with nonsense: off, warn or require
    #[arg(long, value_name = "WORD")]
    pub sanity: Option<String>,
    /// Deployments that measure at the same time
    #[arg(long, value_name = "N")]
    pub parallel: Option<u64>,
    /// GPUs to use, by UUID or index
    #[arg(long, value_name = "GPU", value_delimiter = ',')]
    pub devices: Vec<String>,
    /// References to resolve anew in this run, such as image
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub float: Vec<String>,
    /// Remove what the run downloaded once no later deployment needs it; `all`: what was there before, too
    #[arg(long, value_name = "all", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub evict: Option<String>,
    /// Download what the next deployment needs while one is measured: true or false
    #[arg(long, value_name = "BOOL")]
    pub prefetch: Option<bool>,
    /// Seed of the order within a round
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Between two looks at the engine's metrics, the GPUs and the host; 0s: only before and after a sample
    #[arg(long, value_name = "DURATION")]
    pub scrape_interval: Option<String>,
    /// DCGM exporter that tells of the GPUs, in place of this host's own library
    #[arg(long, value_name = "URL")]
    pub dcgm: Option<String>,
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
    /// Print a script instead: the commands that start, measure and remove by hand what the unit is
    #[arg(long)]
    pub rerun: bool,
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

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Experiment files, or directories of them
    #[arg(required = true, value_name = "FILE|DIR")]
    pub paths: Vec<PathBuf>,
    #[command(flatten)]
    pub selection: SelectionArgs,
    #[command(flatten)]
    pub run: RunFlags,
    /// Do not ask, whatever the size of the plan
    #[arg(long, short)]
    pub yes: bool,
    /// Measure only the cells that differ from the experiment as it is at a git revision
    #[arg(long, value_name = "GIT_REF")]
    pub base: Option<String>,
    /// Keep a Markdown summary in this file: of the run's beginning, and of its end, whatever that is
    #[arg(long, value_name = "FILE")]
    pub summary: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct OneArgs {
    /// How the model is served
    #[arg(default_value = "hf")]
    pub method: String,
    /// What serves it
    #[arg(default_value = "vllm")]
    pub engine: String,
    /// Model to serve [default: the configured one]
    pub model: Option<String>,
    #[command(flatten)]
    pub load: LoadFlags,
    /// Any other parameter, such as tensor_parallel=2
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Rehearse with the simulated engine
    #[arg(long)]
    pub simulate: bool,
    /// Measure again even where there are enough samples
    #[arg(long)]
    pub force: bool,
    /// Try again what failed for good
    #[arg(long)]
    pub retry_failed: bool,
    /// Samples to take
    #[arg(long, value_name = "N")]
    pub repeats: Option<u64>,
    /// From the start of the engine to its first token
    #[arg(long, value_name = "DURATION")]
    pub ready_timeout: Option<String>,
}

#[derive(Debug, Args)]
pub struct MeasureArgs {
    /// URL of the server, without the API's path
    #[arg(long, value_name = "URL")]
    pub endpoint: String,
    /// How it is served; with --engine it decides the dialect
    #[arg(long, default_value = "external")]
    pub method: String,
    /// What serves it
    #[arg(long, default_value = "openai")]
    pub engine: String,
    /// Name of the model [default: the first that the server lists]
    #[arg(long)]
    pub model: Option<String>,
    /// The model's own tokenizer, for text of exact lengths: a tokenizer.json or a directory with one
    #[arg(long, value_name = "PATH")]
    pub tokenizer: Option<PathBuf>,
    #[command(flatten)]
    pub load: LoadFlags,
    /// A header of every request; ${NAME} is read from the environment
    #[arg(long, value_name = "NAME: VALUE")]
    pub header: Vec<String>,
    /// Certificate authority file
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Client certificate file
    #[arg(long, value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// Client key file
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Accept any server certificate
    #[arg(long)]
    pub insecure: bool,
    /// Where the server takes OpenAI's batch jobs, such as /v1/batches: `--api batch` then hands the whole job over
    #[arg(long, value_name = "PATH", conflicts_with = "concurrency")]
    pub batch_path: Option<String>,
    /// A limit that requests must meet to count as goodput, such as ttft=500ms
    #[arg(long, value_name = "METRIC=DURATION")]
    pub slo: Vec<String>,
    /// Find out what the client's own error is on this host, even after a measurement of less than 5 s
    #[arg(long)]
    pub calibrate: bool,
    /// Number of the sample: each has prompts of its own
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub sample: u32,
    /// DCGM exporter that tells of the server's GPUs
    #[arg(long, value_name = "URL")]
    pub dcgm: Option<String>,
    /// Send the prompts of this unit, by its whole id, instead of the measurement's own
    #[arg(long, value_name = "UNIT")]
    pub prompts_of: Option<UnitId>,
    /// Write every request to this CSV file
    #[arg(long, value_name = "FILE")]
    pub requests_csv: Option<PathBuf>,
    /// Any other parameter
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

#[derive(Debug, Args)]
pub struct CalibrateArgs {
    /// Calibrate at this many streams only
    #[arg(long, value_name = "N")]
    pub streams: Option<u32>,
}

/// The unit parameters as flags.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Load")]
pub struct LoadFlags {
    /// Input sequence length (ISL), mean [default: 512]
    #[arg(long, alias = "tokens-input", value_name = "N")]
    pub input_tokens_mean: Option<u64>,
    /// Output sequence length (OSL), mean [default: 128]
    #[arg(long, alias = "tokens-output", value_name = "N")]
    pub output_tokens_mean: Option<u64>,
    /// Standard deviation of the ISL
    #[arg(long, value_name = "X")]
    pub input_tokens_stddev: Option<f64>,
    /// Standard deviation of the OSL
    #[arg(long, value_name = "X")]
    pub output_tokens_stddev: Option<f64>,
    /// Uniform ISL between two lengths, such as 100,200
    #[arg(long, value_name = "LOW,HIGH", conflicts_with = "input_tokens_mean")]
    pub input_tokens_range: Option<String>,
    /// Tokens at the start of the input that a group of requests shares
    #[arg(long, value_name = "N")]
    pub shared_prefix: Option<u64>,
    /// Number of distinct shared prefixes
    #[arg(long, value_name = "N")]
    pub prefix_groups: Option<u64>,
    /// Turns of a conversation
    #[arg(long, value_name = "N")]
    pub turns: Option<u64>,
    /// Requests in flight (closed loop); with --rate, a cap [default: 1]
    #[arg(long, value_name = "N")]
    pub concurrency: Option<u64>,
    /// Requests per second (open loop)
    #[arg(long, value_name = "X")]
    pub rate: Option<f64>,
    /// When open-loop requests start: poisson, constant, gamma
    #[arg(long)]
    pub arrival: Option<String>,
    /// Shape of the gamma arrival process
    #[arg(long, value_name = "X")]
    pub burstiness: Option<f64>,
    /// Measured requests [default: 10 × concurrency, at least 100]
    #[arg(long, value_name = "N")]
    pub requests: Option<u64>,
    /// Length of the measurement, such as 60s
    #[arg(long)]
    pub duration: Option<String>,
    /// Load that changes, such as [{rate=2,duration="30s"},{rate=2,to=8,duration="1m"}]
    #[arg(long, value_name = "LIST", conflicts_with_all = ["rate", "duration", "ramp"])]
    pub stages: Option<String>,
    /// Time over which the load rises linearly from zero
    #[arg(long, value_name = "DURATION")]
    pub ramp: Option<String>,
    /// How much faster a trace is replayed than it was recorded [default: 1]
    #[arg(long, value_name = "X")]
    pub replay_speed: Option<f64>,
    /// Share of requests that are given up before their end [default: 0]
    #[arg(long, value_name = "X")]
    pub cancel_rate: Option<f64>,
    /// After how many token events, or after which time, they are [default: 1]
    #[arg(long, value_name = "N or DURATION")]
    pub cancel_after: Option<String>,
    /// Requests sent before the measurement and discarded
    #[arg(long, value_name = "N")]
    pub warmup: Option<u64>,
    /// Seed of prompts and arrivals
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// File of prompts
    #[arg(long, value_name = "FILE")]
    pub dataset: Option<String>,
    /// Format of the data set: jsonl, sharegpt, trace, azure
    #[arg(long)]
    pub format: Option<String>,
    /// chat, completions, generate or batch [default: the stack's own]
    #[arg(long)]
    pub api: Option<String>,
    /// Sampling temperature
    #[arg(long, value_name = "X")]
    pub temperature: Option<f64>,
    /// Generate exactly the asked number of tokens [default: true]
    #[arg(long, value_name = "BOOL")]
    pub ignore_eos: Option<bool>,
}

#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Run: its name, the beginning of it, an experiment's newest, or `last`
    #[arg(default_value = "last")]
    pub run: String,
    #[arg(long, value_enum, default_value_t = ReportFormat::Table)]
    pub format: ReportFormat,
    /// Columns of the results, parameters or labelled axes
    #[arg(long, value_delimiter = ',', value_name = "COLUMN")]
    pub columns: Vec<String>,
    /// Columns to sort by; a leading - reverses
    #[arg(long, value_delimiter = ',', value_name = "COLUMN", allow_hyphen_values = true)]
    pub sort: Vec<String>,
    /// Columns by whose values the rows are put into groups
    #[arg(long, value_delimiter = ',', value_name = "COLUMN")]
    pub group: Vec<String>,
    #[command(flatten)]
    pub which: WhichArgs,
    #[command(flatten)]
    pub judge: JudgeArgs,
    /// One row per sample
    #[arg(long)]
    pub samples: bool,
    /// Write every plot to this directory, as SVG
    #[arg(long, value_name = "DIR")]
    pub plots: Option<PathBuf>,
    /// Write to a file
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Which runs and units.
#[derive(Clone, Debug, Default, Args)]
pub struct WhichArgs {
    /// Keep the units that match, such as 'engine=vllm'
    #[arg(long, value_name = "RULE")]
    pub only: Vec<String>,
    /// Look among simulated runs
    #[arg(long)]
    pub simulated: bool,
}

/// By what results are judged, in place of the run's own `[slo]` and `[cost]`.
#[derive(Clone, Debug, Default, Args)]
pub struct JudgeArgs {
    /// Limits of a request that counts as goodput, such as ttft=300ms,tpot=50ms [default: those of the run]
    #[arg(long, value_delimiter = ',', value_name = "METRIC=DURATION")]
    pub slo: Vec<String>,
    /// Price of a GPU and hour by hardware class, such as h100=2.49 [default: those of the run]
    #[arg(long, value_delimiter = ',', value_name = "CLASS=USD")]
    pub gpu_hour_usd: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ReportFormat {
    Table,
    #[value(alias = "md")]
    Markdown,
    /// The whole of `summary.md`: table, failures, provenance
    Summary,
    Html,
    Csv,
    Json,
    Junit,
}

#[derive(Debug, Args)]
pub struct CompareArgs {
    /// What to compare with: a run, its timestamp, a git revision, `last`, `last-good`, a baseline, a file [default: last-good]
    pub a: Option<String>,
    /// What is compared; with --history, unused [default: last]
    pub b: Option<String>,
    /// End with 6 on a regression and with 9 where nothing can be decided
    #[arg(long)]
    pub gate: bool,
    /// Take [gate] from this experiment file [default: that of the compared run]
    #[arg(long, value_name = "FILE")]
    pub experiment: Option<PathBuf>,
    /// A metric and what it may lose, or its worst value, such as p95_ttft=+10%; stands over [gate]
    #[arg(long, value_name = "METRIC=LIMIT")]
    pub limit: Vec<String>,
    /// Metrics to compare [default: p50_ttft,p99_ttft,p50_tpot,output_throughput,request_throughput]
    #[arg(long, value_delimiter = ',', value_name = "METRIC", conflicts_with = "gate")]
    pub metrics: Vec<String>,
    /// The smallest change that matters [default: 5%]
    #[arg(long, value_name = "SHARE", conflicts_with = "gate")]
    pub min_effect: Option<String>,
    /// Share of what is called worse that may be so by chance [default: 1%]
    #[arg(long, value_name = "SHARE")]
    pub fdr: Option<String>,
    /// Which repeats tell how numbers scatter [default: starts]
    #[arg(long, value_enum)]
    pub error: Option<ErrorFlag>,
    /// Compare within one run: each cell with the one that has these values, such as method=hf
    #[arg(long, value_name = "KEY=VALUE,…", conflicts_with = "b")]
    pub against: Option<String>,
    /// Good runs up to a run that it stands on too
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub nights: Option<u32>,
    /// Look for steps over the last N runs of an experiment (A: its name, a run, or a baseline file)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), conflicts_with_all = ["gate", "b", "against"])]
    pub history: Option<u32>,
    /// Keep the cells that match, such as 'engine=vllm'
    #[arg(long, value_name = "RULE")]
    pub only: Vec<String>,
    /// Show what is the same, too
    #[arg(long)]
    pub all: bool,
    /// Look among simulated runs first
    #[arg(long)]
    pub simulated: bool,
    #[arg(long, value_enum, default_value_t = CompareFormat::Table)]
    pub format: CompareFormat,
    /// Write to a file
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Also write JUnit to this file
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Also write Markdown, for a comment, to this file
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// Also POST the verdict to this URL, as JSON that Slack takes; ${NAME} is read from the environment
    #[arg(long, value_name = "URL")]
    pub webhook: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ErrorFlag {
    /// Engine starts, or nights
    Starts,
    /// Samples, whatever start they are of
    Samples,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum CompareFormat {
    Table,
    Markdown,
    Json,
    Junit,
}

#[derive(Debug, Args)]
pub struct BaselineArgs {
    #[command(subcommand)]
    pub action: BaselineAction,
    /// Look among simulated runs first
    #[arg(long, global = true)]
    pub simulated: bool,
}

#[derive(Debug, Subcommand)]
pub enum BaselineAction {
    /// Keep what a run measured under a name
    Set {
        name: String,
        /// The run: its name, timestamp, experiment, git revision, `last`, `last-good`, or a file
        #[arg(default_value = "last")]
        run: String,
        /// Good runs up to it that the baseline stands on too
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        nights: Option<u32>,
    },
    /// List the baselines
    List,
    /// Remove a baseline
    Rm { name: String },
    /// Print a baseline, or a run as one, as JSON to commit
    Export {
        name: String,
        /// Write to a file
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Good runs up to a run that it stands on too
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        nights: Option<u32>,
    },
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Run: its name, the beginning of it, an experiment's newest, or `last`
    #[arg(default_value = "last")]
    pub run: String,
    #[arg(long, value_enum, required_unless_present = "duckdb_sql")]
    pub format: Option<ExportFormat>,
    #[command(flatten)]
    pub which: WhichArgs,
    #[command(flatten)]
    pub judge: JudgeArgs,
    /// Every request too, as arrays (vllm-bench)
    #[arg(long)]
    pub details: bool,
    /// File to write; for vllm-bench and aiperf of several samples, a directory
    #[arg(long, short, value_name = "FILE|DIR")]
    pub output: Option<PathBuf>,
    /// Print SQL with which DuckDB reads all results in place
    #[arg(long, conflicts_with_all = ["format", "output", "only", "details"])]
    pub duckdb_sql: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ExportFormat {
    /// A row per sample and failed attempt
    Csv,
    /// The same as JSON lines
    Json,
    /// The same as Parquet
    Parquet,
    /// A result file of `vllm bench serve` per sample
    VllmBench,
    /// A result file of AIPerf per sample
    Aiperf,
}

#[derive(Debug, Args)]
pub struct ScheduleArgs {
    /// Experiment file to run
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Every day at this time
    #[arg(long, value_name = "HH:MM", required_unless_present = "on", conflicts_with = "on")]
    pub at: Option<String>,
    /// On these days of the week at this time, such as 'Sun 02:00', 'Mon..Fri 22:30' or 'Mon,Thu 02:00'
    #[arg(long, value_name = "DAYS HH:MM")]
    pub on: Option<String>,
    /// A systemd service and timer [default]
    #[arg(long)]
    pub systemd: bool,
    /// A line for crontab
    #[arg(long, conflicts_with = "systemd")]
    pub cron: bool,
    /// A GitHub Actions workflow for a self-hosted runner; times are UTC there
    #[arg(long, conflicts_with_all = ["systemd", "cron"])]
    pub github: bool,
    /// Samples older than this do not count, such as 20h
    #[arg(long, value_name = "DURATION")]
    pub max_age: Option<String>,
    /// Start no new sample after this long, such as 6h
    #[arg(long, value_name = "DURATION")]
    pub budget: Option<String>,
    /// Baseline to compare with at the end
    #[arg(long, value_name = "BASELINE")]
    pub gate: Option<String>,
    /// References to resolve anew in each run, such as image
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub float: Vec<String>,
    /// Rehearse with the simulated engine in place of every stack
    #[arg(long)]
    pub simulate: bool,
    /// Name of the units, the lock and the workflow [default: llmatrix-EXPERIMENT]
    #[arg(long)]
    pub name: Option<String>,
    /// Write the files to this directory instead of printing them
    #[arg(long, short, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct SimArgs {
    /// The stack to impersonate: hf-vllm, hf-sglang, hf-trtllm, triton-vllm, triton-python, triton-trtllm, nim-vllm, unim-vllm
    #[arg(long, value_name = "METHOD-ENGINE")]
    pub flavor: String,
    /// Simulator options, listed below; after --as-image, the command line of the stack's real image
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
    pub options: Vec<String>,
}

#[derive(Debug, Args)]
pub struct StartArgs {
    /// How the model is served
    #[arg(long, default_value = "hf")]
    pub method: String,
    /// What serves it
    #[arg(long, default_value = "vllm")]
    pub engine: String,
    /// Model to serve [default: the configured one]
    #[arg(long)]
    pub model: Option<String>,
    /// Any other deploy parameter, such as tensor_parallel=2
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Name of the container [default: MODEL-METHOD-ENGINE]
    #[arg(long)]
    pub name: Option<String>,
    /// From the start to the first token
    #[arg(long, value_name = "DURATION", default_value = "20m")]
    pub ready_timeout: String,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Name or id of the container
    #[arg(long, value_name = "NAME")]
    pub container_name: String,
}

#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Name or id of the container
    pub container: String,
    /// Go on as more is logged
    #[arg(long, short)]
    pub follow: bool,
    /// The last so many lines only
    #[arg(long, value_name = "N")]
    pub tail: Option<u64>,
}

#[derive(Debug, Args)]
pub struct StopArgs {
    /// Names or ids of containers
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
    /// Also one that a living run measures
    #[arg(long)]
    pub force: bool,
    /// Seconds it may take to end by itself
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub grace: i32,
}

#[derive(Debug, Args)]
pub struct CleanArgs {
    /// Show what would be removed
    #[arg(long)]
    pub dry_run: bool,
    /// Also containers of processes on other hosts or in other containers, which cannot be seen from here
    #[arg(long)]
    pub elsewhere: bool,
}
