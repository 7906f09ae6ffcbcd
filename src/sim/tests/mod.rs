//! The simulator as its clients see it: real requests over loopback.

mod client;
mod faults;
mod openai;
mod serving;
mod triton;

use super::{Flavor, SimOptions, SimServer, start};

/// A server that is ready, with fixed timing that takes no time.
fn instant(flavor: Flavor, change: impl FnOnce(&mut SimOptions)) -> SimServer {
    let zero = std::time::Duration::ZERO;
    ready(SimOptions::new(flavor, "m-8B").with_fixed(zero, zero), change)
}

/// A server that is ready.
fn ready(mut options: SimOptions, change: impl FnOnce(&mut SimOptions)) -> SimServer {
    change(&mut options);
    let server = start(options).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(server.wait_loaded()), super::Status::Ready);
    server
}
