//! State-machine tests without an execution engine.
