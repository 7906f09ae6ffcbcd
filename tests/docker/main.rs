//! Containers on a real container engine: the binary driven as a user does, against images that stand in for the engines'
//! real ones (`tests/images/build.sh`). Without an engine on the host nothing is tested, which is said loudly; under `CI`
//! it is a failure.

mod by_hand;
mod daemon;
mod downloads;
mod failures;
mod gpus;
mod image;
mod kills;
mod leftovers;
mod lock;
mod real;
mod registry;
mod rerun;
mod restart;
mod stacks;
#[path = "../../src/hub/model/stand_in.rs"]
mod stand_in;
mod workspace;
