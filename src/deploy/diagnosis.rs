//! The one table from what an engine says as it fails to what that means: the class decides whether trying again makes
//! sense, the meaning says what to try. Pure text in, diagnosis out.

use std::sync::LazyLock;

use regex::{Captures, Regex, RegexSet};

use crate::event::FailureClass::{self, Deterministic, Infrastructure};

/// One cause that logs are known to show.
#[derive(Debug)]
pub struct Cause {
    /// Regular expression over one line.
    pub pattern: &'static str,
    pub class: FailureClass,
    /// An engine that says this while it starts will not become ready, also when its process stays.
    pub fatal: bool,
    /// What it is, and what to try; `$1` is the pattern's group.
    pub meaning: &'static str,
}

const fn fatal(pattern: &'static str, class: FailureClass, meaning: &'static str) -> Cause {
    Cause { pattern, class, fatal: true, meaning }
}

const fn cause(pattern: &'static str, class: FailureClass, meaning: &'static str) -> Cause {
    Cause { pattern, class, fatal: false, meaning }
}

/// All known causes. The first line of a log that any of them knows decides; in a line, the first of these.
pub const CAUSES: &[Cause] = &[
    fatal(
        r"CUDA out of memory|torch\.(cuda\.)?OutOfMemoryError|cudaErrorMemoryAllocation|HIP out of memory",
        Deterministic,
        "the GPU has too little memory: lower `gpu_memory_utilization`, `max_model_len` or `max_num_seqs`, or raise \
         `tensor_parallel`",
    ),
    fatal(
        r"No available memory for the cache blocks|Not enough memory\. Please try to increase --mem-fraction-static",
        Deterministic,
        "no GPU memory is left for the KV cache: raise `gpu_memory_utilization` or `tensor_parallel`",
    ),
    fatal(
        r"To serve at least one request with the model.*estimated maximum model length is (\d+)",
        Deterministic,
        "the KV cache is too small for one request: lower `max_model_len` to $1, or raise `gpu_memory_utilization`",
    ),
    fatal(
        r"To serve at least one request with the model",
        Deterministic,
        "the KV cache is too small for one request: lower `max_model_len`",
    ),
    fatal(
        r"is less than desired GPU memory utilization",
        Infrastructure,
        "another process holds GPU memory: find it with `nvidia-smi`",
    ),
    fatal(
        r"[Mm]ax_model_len.*greater than the derived max_model_len",
        Deterministic,
        "the model is not made for that `max_model_len`: lower it",
    ),
    fatal(
        r"Model architectures? .*(not supported for now|failed to be inspected)",
        Deterministic,
        "this image does not know the model's architecture: use a newer `image`",
    ),
    fatal(
        r"GatedRepoError|Cannot access gated repo",
        Deterministic,
        "the model is gated: accept its licence and set HF_TOKEN in the environment",
    ),
    cause(
        r"\b40[13] Client Error",
        Deterministic,
        "the hub refused the model: set HF_TOKEN in the environment to a token that may read it",
    ),
    fatal(
        r"LocalEntryNotFoundError|outgoing traffic has been disabled",
        Deterministic,
        "the engine is offline and its cache does not have the model: unset `env.HF_HUB_OFFLINE`, or download it first",
    ),
    fatal(
        r"RepositoryNotFoundError|RevisionNotFoundError|is not a local folder and is not a valid model identifier|Invalid repository ID or local directory|HFValidationError|does not appear to have a file named config\.json",
        Deterministic,
        "there is no such model or revision: check `model` and `revision`; a local directory needs a `config.json`",
    ),
    fatal(
        r"(?i)authentication error.*NGC|NGC_API_KEY.*(not set|missing|invalid)",
        Deterministic,
        "the NIM needs a key to get its model: set NGC_API_KEY in the environment",
    ),
    fatal(
        r"Cannot find any model weights|no file named [^ ]*model\.[^ ]*.* found in directory",
        Deterministic,
        "the model has no weights where the engine looks for them: check `model`, and that its download is complete",
    ),
    cause(
        r"trust_remote_code=True",
        Deterministic,
        "the model brings its own code: allow it with `engine_args.trust_remote_code = true`",
    ),
    fatal(
        r"unsatisfied condition: cuda|CUDA driver version is insufficient|forward compatibility was attempted",
        Deterministic,
        "the image needs a newer driver than this host has: use an older image, or update the driver",
    ),
    fatal(
        r"no kernel image is available for execution on the device",
        Deterministic,
        "the image is not built for this GPU: use a newer `image`",
    ),
    fatal(
        r"unrecognized arguments?: (.+)",
        Deterministic,
        "the engine does not know `$1`: check `engine_args` against the image's version",
    ),
    fatal(
        r"unrecognized option '(.+?)'",
        Deterministic,
        "the engine does not know `$1`: check `engine_args` against the image's version",
    ),
    fatal(
        r"Extra inputs are not permitted",
        Deterministic,
        "the engine does not know a setting of its file: check `engine_args` against the image's version",
    ),
    fatal(
        r"error: argument |Error: (No such option|Invalid value for|Option .* requires|Missing argument|Got unexpected)|error: unexpected argument|the following arguments are required|the simulator has no option",
        Deterministic,
        "the engine does not take an option: check `engine_args` against the image's version",
    ),
    cause(
        r"Insufficient space in /dev/shm|(?i:unable to initialize shared memory key)|Failed to increase the shared memory pool|Bus error",
        Deterministic,
        "the container's /dev/shm is too small: raise `container.shm_size`",
    ),
    cause(
        r"NCCL error|unhandled system error",
        Infrastructure,
        "the GPUs could not talk to each other: raise `container.shm_size`, look at `env.NCCL_DEBUG = \"INFO\"`",
    ),
    cause(r"No space left on device", Infrastructure, "a disk, or /dev/shm in the container, is full"),
    fatal(
        r"cannot listen to .* at the same address and port (\S+)",
        Deterministic,
        "two servers in the container are to listen on $1: give them ports of their own",
    ),
    fatal(
        r"(?i)address already in use|port is already allocated|Socket '.*' already in use|Failed to bind socket",
        Infrastructure,
        "the port is taken",
    ),
    fatal(
        r"World size .* is larger than the number of available GPUs|invalid device ordinal|unsupported gpu id",
        Deterministic,
        "the engine wants more GPUs than the container was given: check `gpus` and `tensor_parallel`",
    ),
    fatal(
        r"Failed to infer device type|No CUDA GPUs are available|Found no NVIDIA driver|No GPU devices found",
        Deterministic,
        "the engine sees no GPU in its container: check `gpus`, and the container toolkit of this host",
    ),
    fatal(
        r"Timed out waiting for engine core processes to start",
        Infrastructure,
        "the engine gave up waiting for its own start: raise `env.VLLM_ENGINE_READY_TIMEOUT_S`",
    ),
    fatal(
        r"creating server: .*failed to stat file (\S+)",
        Deterministic,
        "there is no model repository at `$1` in the container: check `container.command` and the template's files",
    ),
    fatal(
        r"creating server: .*--model-repository must be specified",
        Deterministic,
        "Triton was told of no model repository: check `container.command`",
    ),
    fatal(
        r"Error parsing text-format inference\.ModelConfig: (.+)",
        Deterministic,
        "the model's `config.pbtxt` is wrong: $1",
    ),
    fatal(r"UNAVAILABLE: (?:Internal|Invalid argument|Not found): (.+?)\s*\|?\s*$", Deterministic, "Triton says: $1"),
    fatal(
        r"failed to load all models",
        Deterministic,
        "Triton could not load the model: its log has the reason above this line",
    ),
    fatal(
        r"Stub process .*(is not healthy|unhealthy)|Failed to initialize stub",
        Infrastructure,
        "Triton's Python process died: raise `container.shm_size`, look for an import error above",
    ),
    fatal(
        r"Initialization failed\. warmup error|Scheduler hit an exception|SIGQUIT received",
        Infrastructure,
        "the engine's scheduler died: its log has the reason",
    ),
    cause(
        r"Permission denied.*/opt/nim/\.cache|/opt/nim/\.cache.*Permission denied",
        Deterministic,
        "the NIM cannot write its cache: set `container.user` to the owner of the cache directory",
    ),
    cause(
        r"(?i)no compatible profiles?|could not find a (?:valid|matching) profile",
        Deterministic,
        "the NIM has no profile for these GPUs: change the GPU count, `env.NIM_MODEL_PROFILE` or the image's tag",
    ),
    cause(
        r"No module named (sglang\S*|vllm\S*|tensorrt_llm\S*)",
        Deterministic,
        "the image has no `$1`: check `image` and `container.command`",
    ),
    cause(
        r"error setting rlimit",
        Deterministic,
        "this container engine may not raise limits: set `container.ulimits = {}`",
    ),
    cause(
        r"could not select device driver",
        Deterministic,
        "the container engine cannot hand out GPUs: install the NVIDIA container toolkit and restart the engine",
    ),
    cause(
        r"exec: .*(no such file|not found)|executable file not found",
        Deterministic,
        "the image has no such program: check `container.entrypoint` and the image",
    ),
    cause(
        r"manifest unknown|manifest for .* not found|repository .* not found|pull access denied|name unknown",
        Deterministic,
        "the registry has no such image, or does not show it without a login: check `image`, and `docker login`",
    ),
    cause(
        r"toomanyrequests|unauthorized|authentication required|no basic auth credentials|denied: ",
        Infrastructure,
        "the registry refused the pull: `docker login` to it (nvcr.io: user `$$oauthtoken`, password an NGC key)",
    ),
    cause(
        r"no such host|server misbehaving|connection refused|i/o timeout|TLS handshake timeout|network is unreachable|Client\.Timeout",
        Infrastructure,
        "the network did not get there",
    ),
];

/// What a text is known to mean.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnosis {
    pub class: FailureClass,
    pub fatal: bool,
    pub meaning: String,
    /// The line that shows it, trimmed.
    pub line: String,
}

static SET: LazyLock<RegexSet> =
    LazyLock::new(|| RegexSet::new(CAUSES.iter().map(|c| c.pattern)).expect("the table's patterns are valid"));
static EACH: LazyLock<Vec<Regex>> =
    LazyLock::new(|| CAUSES.iter().map(|c| Regex::new(c.pattern).expect("the table's patterns are valid")).collect());
/// The level that a line gives itself: Python logging, `WARNING:` prefixes, glog's first letter. Lines below an error are
/// hints of tuning, not causes.
static BENIGN: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^(?:\([^)]*\) *)?(?:\S+ +){0,5}?[\[(]?(?:DEBUG|INFO|WARN|WARNING|NOTICE)\b|^[IW]\d{4} |NCCL INFO")
        .expect("a valid pattern")
});
static EXCEPTION: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?:^|[\s:\]])[A-Za-z_][\w.]*(?:Error|Exception)\b:? \S").expect("a valid pattern"));
/// Complaints that name no exception. Engines that log a traceback line by line call each of its lines an error.
static COMPLAINT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?:^|[\s:\]])(?:(?:ERROR|panicked at)\b:? \S|[Ee]rror: \S)").expect("a valid pattern")
});
/// Generic words that point at a cause elsewhere, or that any server without a GPU says.
const POINTERS: &[&str] = &[
    "See root cause above",
    "Engine core initialization failed",
    "404 Client Error",
    "Error 404",
    "Failed to initialize NVML",
];

/// What one line means, where it is known to mean anything.
pub fn line(line: &str) -> Option<Diagnosis> {
    let index = SET.matches(line).into_iter().next()?;
    if BENIGN.is_match(line) {
        return None;
    }
    let captures: Captures<'_> = EACH[index].captures(line)?;
    let mut meaning = String::new();
    captures.expand(CAUSES[index].meaning, &mut meaning);
    let Cause { class, fatal, .. } = CAUSES[index];
    Some(Diagnosis { class, fatal, meaning, line: line.trim().to_string() })
}

/// The first known cause in a log.
pub fn find(log: &str) -> Option<Diagnosis> {
    log.lines().find_map(line)
}

/// The first line that names an exception, else the first that looks like an error, and is none of the generic ones that
/// end a log. For deaths of unknown cause.
pub fn first_error(log: &str) -> Option<&str> {
    let telling = |l: &&str| !BENIGN.is_match(l) && !POINTERS.iter().any(|p| l.contains(p));
    let first = |pattern: &Regex| log.lines().filter(telling).find(|l| pattern.is_match(l));
    first(&EXCEPTION).or_else(|| first(&COMPLAINT)).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cause_decides_and_warnings_do_not() {
        let log = "INFO start\nWARNING to avoid CUDA out of memory lower x\nERROR torch.OutOfMemoryError: CUDA out of \
                   memory. Tried 2 GiB\nRuntimeError: No space left on device\n";
        let found = find(log).unwrap();
        assert_eq!((found.class, found.fatal), (Deterministic, true));
        assert!(found.line.starts_with("ERROR torch.OutOfMemoryError"), "{}", found.line);
        assert!(find("all is well").is_none());
    }

    /// Lines as engines write them, and what each must mean.
    const LINES: &[(&str, FailureClass, &str)] = &[
        (
            "(EngineCore_0 pid=95) ERROR 11-24 06:15:00 [core.py:700] torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
            Deterministic,
            "too little memory",
        ),
        (
            "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`",
            Deterministic,
            "KV cache",
        ),
        (
            "ValueError: To serve at least one request with the models's max seq len (131072), (16.00 GiB KV cache is needed, which is larger than the available KV cache memory (9.1 GiB). Based on the available memory, the estimated maximum model length is 74496.",
            Deterministic,
            "to 74496",
        ),
        (
            "ValueError: Free memory on device cuda:0 (3.1/79.1 GiB) on startup is less than desired GPU memory utilization (0.92, 72.8 GiB).",
            Infrastructure,
            "nvidia-smi",
        ),
        (
            "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static. Current value: 0.5",
            Deterministic,
            "KV cache",
        ),
        (
            "ValueError: User-specified max_model_len (131072) is greater than the derived max_model_len (max_position_embeddings=8192)",
            Deterministic,
            "lower it",
        ),
        (
            "ValueError: Model architectures ['FooForCausalLM'] are not supported for now.",
            Deterministic,
            "newer `image`",
        ),
        ("huggingface_hub.errors.GatedRepoError: 403 Client Error.", Deterministic, "licence"),
        (
            "OSError: org/nope is not a local folder and is not a valid model identifier listed on 'https://huggingface.co/models'",
            Deterministic,
            "no such model",
        ),
        (
            "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.8, please update your driver",
            Deterministic,
            "driver",
        ),
        (
            "(Worker pid=31) ERROR 11-24 13:17:45 [multiproc_executor.py:953] RuntimeError: Cannot find any model weights with `/llmatrix/models/half`",
            Deterministic,
            "check `model`",
        ),
        ("OSError: [Errno 98] Address already in use", Infrastructure, "port"),
        (
            "OSError: Error no file named model.safetensors, or pytorch_model.bin, found in directory /llmatrix/models/half.",
            Deterministic,
            "check `model`",
        ),
        ("api_server.py: error: unrecognized arguments: --no-such-flag 3", Deterministic, "`--no-such-flag 3`"),
        ("Error: No such option: --kv_cache_frac", Deterministic, "engine_args"),
        ("RuntimeError: NCCL error: unhandled system error", Infrastructure, "shm_size"),
        (
            "OSError: [Errno 98] error while attempting to bind on address ('0.0.0.0', 8000): address already in use",
            Infrastructure,
            "port",
        ),
        (
            "E1124 13:11:36.069562 8 main.cc:257] \"failed to start HTTP service: Unavailable - Socket '0.0.0.0:8000' already in use \"",
            Infrastructure,
            "port",
        ),
        (
            "E1124 13:02:21.897258 7 model_lifecycle.cc:642] \"failed to load 'llm' version 1: Internal: Unable to initialize shared memory key 'triton_python_backend_shm_region_1' to requested size (1048576 bytes). Error: No space left on device\"",
            Deterministic,
            "shm_size",
        ),
        (
            "| llm   | 1       | UNAVAILABLE: Internal: TypeError: unexpected keyword argument 'foo' |",
            Deterministic,
            "unexpected keyword argument 'foo'",
        ),
        (
            "[2026-11-24 06:15:00 TP0] Scheduler hit an exception: Traceback (most recent call last):",
            Infrastructure,
            "scheduler",
        ),
        (
            "E1124 06:15:00.000000 1 pb_stub.cc:100] Stub process 'llm_0_0' is not healthy.",
            Infrastructure,
            "Python process",
        ),
        (
            "ValueError: Invalid repository ID or local directory specified: '/llmatrix/models/tiny'.",
            Deterministic,
            "config.json",
        ),
        ("Exception: Authentication Error: NGC_API_KEY is not set", Deterministic, "set NGC_API_KEY"),
        ("tritonserver: unrecognized option '--http-prot'", Deterministic, "`--http-prot`"),
        (
            "  Extra inputs are not permitted [type=extra_forbidden, input_value=4096, input_type=int]",
            Deterministic,
            "engine_args",
        ),
        (
            "RuntimeError: Insufficient space in /dev/shm for shared memory broadcast: 160 MiB required, 64 MiB free.",
            Deterministic,
            "container.shm_size",
        ),
        (
            "| llm   | 1       | UNAVAILABLE: Internal: Failed to initialize Python stub: unable to initialize shared memory key 'triton_python_backend_shm_region_1' to requested size (1048576 bytes). Error: No space left on device |",
            Deterministic,
            "container.shm_size",
        ),
        (
            "The server cannot listen to HTTP requests and metrics requests at the same address and port 0.0.0.0:8000",
            Deterministic,
            "0.0.0.0:8000",
        ),
        ("OSError: [Errno 98] Address already in use", Infrastructure, "port is taken"),
        (
            "ValueError: World size (4) is larger than the number of available GPUs (2) in this node.",
            Deterministic,
            "tensor_parallel",
        ),
        ("RuntimeError: Failed to infer device type, please set the environment variable", Deterministic, "no GPU"),
        ("error: creating server: Internal - failed to stat file /models", Deterministic, "`/models`"),
        (
            "Error parsing text-format inference.ModelConfig: 2:1: Message type \"inference.ModelConfig\" has no field named \"x\".",
            Deterministic,
            "config.pbtxt",
        ),
        ("/usr/bin/python3: No module named sglang.launch_server", Deterministic, "no `sglang.launch_server`"),
        (
            "huggingface_hub.errors.LocalEntryNotFoundError: Cannot find an appropriate cached snapshot folder and outgoing traffic has been disabled.",
            Deterministic,
            "HF_HUB_OFFLINE",
        ),
        (
            "PermissionError: [Errno 13] Permission denied: '/opt/nim/.cache/huggingface'",
            Deterministic,
            "container.user",
        ),
        ("toomanyrequests: You have reached your pull rate limit.", Infrastructure, "login"),
        ("unauthorized: authentication required", Infrastructure, "$oauthtoken"),
        (
            "manifest for vllm/vllm-openai:v0 not found: manifest unknown: manifest unknown",
            Deterministic,
            "no such image",
        ),
        (
            "Get \"https://registry-1.docker.io/v2/\": dial tcp: lookup registry-1.docker.io: no such host",
            Infrastructure,
            "network",
        ),
    ];

    #[test]
    fn what_engines_say_is_understood() {
        for (text, class, part) in LINES {
            let found = line(text).unwrap_or_else(|| panic!("not known: {text}"));
            assert_eq!(found.class, *class, "{text}");
            assert!(found.meaning.contains(part), "{text}: {}", found.meaning);
        }
    }

    #[test]
    fn every_pattern_is_shown_by_a_line_or_said_to_be_untested() {
        // Patterns whose wording is taken from sources without a captured line.
        const UNSEEN: usize = 13;
        let seen = |i: usize| LINES.iter().any(|(l, ..)| SET.matches(l).into_iter().next() == Some(i));
        let unseen = (0..CAUSES.len()).filter(|i| !seen(*i)).count();
        assert!(unseen <= UNSEEN, "{unseen} patterns are shown by no line");
    }

    #[test]
    fn look_alikes_are_harmless() {
        for text in [
            "INFO 11-24 06:15:00 [gpu_worker.py:1] to avoid CUDA out of memory, lower max_num_seqs",
            "(EngineCore_0 pid=95) WARNING 11-24 06:15:00 [x.py:1] CUDA out of memory may occur",
            "WARNING:root:No space left on device for the compile cache, going on without",
            "W1124 06:15:00.000000 1 server.cc:1] failed to load all models is what would be said",
            "node1:95:95 [0] NCCL INFO NCCL error handling is on",
            "huggingface_hub: 404 Client Error for an optional file",
        ] {
            assert_eq!(line(text), None, "{text}");
        }
    }

    #[test]
    fn an_unknown_death_is_told_by_its_first_error() {
        let log = "INFO 11-24 Error handling is on\nTraceback (most recent call last):\n  File \"x.py\"\nKeyError: 'rope'\n\
                   RuntimeError: Engine core initialization failed. See root cause above.\n";
        assert_eq!(first_error(log), Some("KeyError: 'rope'"));
        assert_eq!(first_error("all is well\nError: Failed to initialize NVML\n"), None);
        let traced = "(Worker pid=31) ERROR 11-24 13:17:45 [x.py:953] WorkerProc failed to start.\n\
                      (Worker pid=31) ERROR 11-24 13:17:45 [x.py:953] Traceback (most recent call last):\n\
                      (Worker pid=31) ERROR 11-24 13:17:45 [x.py:953] KeyError: 'rope'\n";
        assert!(first_error(traced).unwrap().ends_with("KeyError: 'rope'"));
        // Not an error, a help text.
        assert_eq!(first_error("  Exit the server if an error occurs during start\n"), None);
    }
}
