//! Runs a plan: the dispatcher, deployment groups, samples.
