//! What a worker does in each phase of a sample: open its connections, warm up, send the load.

mod closed;
mod opening;
mod scheduled;
mod single;
mod warm_up;

pub use closed::Closed;
pub use opening::Opening;
pub use scheduled::Scheduled;
pub use single::Single;
pub use warm_up::WarmUp;
