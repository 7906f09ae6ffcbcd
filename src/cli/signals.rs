//! Ctrl-C and SIGTERM, heard from the first experiment file to the last: once a process listens, a signal that nobody
//! waits for is lost.

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::Failure;
use crate::exec::Cancel;

/// Hears signals until it is dropped: the first interrupt ends what runs in good order, the second at once.
pub struct Signals {
    cancel: Cancel,
    /// Its one thread listens.
    _runtime: Runtime,
}

impl Signals {
    /// Listens from now on.
    pub fn listen() -> Result<Signals, Failure> {
        let cannot = |e: std::io::Error| Failure::Environment(format!("cannot listen for signals: {e}"));
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(cannot)?;
        let cancel = Cancel::default();
        let heard = {
            let _inside = runtime.enter();
            (signal(SignalKind::interrupt()).map_err(cannot)?, signal(SignalKind::terminate()).map_err(cannot)?)
        };
        runtime.spawn(forward(heard, cancel.clone()));
        Ok(Signals { cancel, _runtime: runtime })
    }

    /// What is told of them.
    pub fn cancel(&self) -> Cancel {
        self.cancel.clone()
    }
}

async fn forward((mut interrupt, mut terminate): (Signal, Signal), cancel: Cancel) {
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        cancel.interrupt();
    }
}
