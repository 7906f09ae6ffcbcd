//! Everything that is written under `artifacts/`: units with their samples, the tidy CSV of each run, journals and locks.
//! The tree is the database; there is no index beside it.

pub mod record;
