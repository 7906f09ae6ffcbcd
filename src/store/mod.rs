//! Everything written under the artifacts directory.
