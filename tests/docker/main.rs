//! Containers on a real container engine: the binary driven as a user does, against an image that holds the simulated
//! engine. Without an engine on the host nothing is tested, which is said loudly; under `CI` it is a failure.

mod by_hand;
mod failures;
mod gpus;
mod image;
mod leftovers;
mod lock;
mod registry;
mod stacks;
mod workspace;
