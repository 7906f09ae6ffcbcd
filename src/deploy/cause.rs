//! The one table from what an engine's log says to what it means: the class decides whether trying again makes sense.

use crate::event::FailureClass::{self, Deterministic, Infrastructure};

/// One cause that logs are known to show.
#[derive(Debug)]
pub struct Cause {
    /// Any of these in one line.
    pub patterns: &'static [&'static str],
    pub class: FailureClass,
    /// What it is, and what to try.
    pub meaning: &'static str,
}

const fn cause(patterns: &'static [&'static str], class: FailureClass, meaning: &'static str) -> Cause {
    Cause { patterns, class, meaning }
}

/// All known causes. The first line of a log that any of them knows decides.
pub const CAUSES: &[Cause] = &[
    cause(
        &["CUDA out of memory", "torch.OutOfMemoryError", "torch.cuda.OutOfMemoryError", "cudaErrorMemoryAllocation"],
        Deterministic,
        "the GPU has too little memory: lower `gpu_memory_utilization`, `max_model_len` or `max_num_seqs`, or raise \
         `tensor_parallel`",
    ),
    cause(
        &["No available memory for the cache blocks", "Not enough memory. Please try to increase --mem-fraction-static"],
        Deterministic,
        "no GPU memory is left for the KV cache: raise `gpu_memory_utilization` or `tensor_parallel`",
    ),
    cause(
        &["To serve at least one request with the model"],
        Deterministic,
        "the KV cache is too small for one request: lower `max_model_len`",
    ),
    cause(
        &["is less than desired GPU memory utilization"],
        Infrastructure,
        "another process holds GPU memory: find it with `nvidia-smi`",
    ),
    cause(
        &["greater than the derived max_model_len"],
        Deterministic,
        "the model is not made for that `max_model_len`: lower it",
    ),
    cause(
        &["are not supported for now", "failed to be inspected"],
        Deterministic,
        "this image does not know the model's architecture: use a newer `image`",
    ),
    cause(
        &["GatedRepoError", "Cannot access gated repo", "401 Client Error", "403 Client Error"],
        Deterministic,
        "the model is gated: accept its licence and hand in a token (`env.HF_TOKEN = \"${HF_TOKEN}\"`)",
    ),
    cause(
        &["RepositoryNotFoundError", "RevisionNotFoundError", "is not a local folder and is not a valid model identifier"],
        Deterministic,
        "there is no such model or revision: check `model` and `revision`",
    ),
    cause(
        &["trust_remote_code=True"],
        Deterministic,
        "the model brings its own code: allow it with `engine_args.trust_remote_code = true`",
    ),
    cause(
        &["unsatisfied condition: cuda", "CUDA driver version is insufficient", "forward compatibility was attempted"],
        Deterministic,
        "the image needs a newer driver than this host has: use an older image, or update the driver",
    ),
    cause(
        &["no kernel image is available for execution on the device"],
        Deterministic,
        "the image is not built for this GPU: use a newer `image`",
    ),
    cause(
        &["unrecognized arguments", "error: argument", "Error: No such option"],
        Deterministic,
        "the engine does not know an option: check `engine_args` against the image's version",
    ),
    cause(
        &["NCCL error", "unhandled system error", "Bus error"],
        Infrastructure,
        "the GPUs could not talk to each other: raise `container.shm_size`, look at `NCCL_DEBUG=INFO`",
    ),
    cause(&["No space left on device"], Infrastructure, "a disk, or /dev/shm in the container, is full"),
    cause(&["address already in use", "Failed to bind socket"], Infrastructure, "the port is taken"),
    cause(
        &["Timed out waiting for engine core processes to start"],
        Infrastructure,
        "the engine gave up waiting for its own start: the model loads slowly",
    ),
    cause(
        &["failed to load all models"],
        Deterministic,
        "Triton could not load the model: its log has the reason above this line",
    ),
    cause(
        &["Stub process", "Failed to initialize stub"],
        Infrastructure,
        "Triton's Python process died: raise `container.shm_size`, look for an import error above",
    ),
    cause(
        &["Initialization failed. warmup error", "Scheduler hit an exception"],
        Infrastructure,
        "the engine's scheduler died: its log has the reason",
    ),
    cause(
        &["toomanyrequests", "unauthorized: authentication required"],
        Infrastructure,
        "the registry refused the pull: log in to it",
    ),
];

/// The first known cause in a log, with the line that shows it. Lines that only warn are hints of tuning, not causes.
pub fn find(log: &str) -> Option<(&'static Cause, &str)> {
    log.lines().filter(|line| !line.contains("WARN")).find_map(|line| {
        let known = CAUSES.iter().find(|c| c.patterns.iter().any(|p| line.contains(p)))?;
        Some((known, line.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cause_decides_and_warnings_do_not() {
        let log = "INFO start\nWARNING to avoid CUDA out of memory lower x\nERROR torch.OutOfMemoryError: CUDA out of \
                   memory. Tried 2 GiB\nRuntimeError: No space left on device\n";
        let (cause, line) = find(log).unwrap();
        assert_eq!(cause.class, Deterministic);
        assert!(line.starts_with("ERROR torch.OutOfMemoryError"), "{line}");
        assert!(find("all is well").is_none());
    }
}
