//! Tests of the mapping, and of the whole connector against the simulator.

mod mapping;
mod simulated;
