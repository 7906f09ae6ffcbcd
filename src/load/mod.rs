//! The load generator: streaming client, pacer, sample buffers.
