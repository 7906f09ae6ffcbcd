//! Dispatcher logic against a mock stack, under paused time.
