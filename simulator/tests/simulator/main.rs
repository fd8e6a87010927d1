//! The simulator over real HTTP: each test starts its own, on a free port.

#![cfg(test)]

mod assume_user;
mod binary;
mod clients;
mod control;
mod errors;
mod faults;
mod house;
mod limits;
mod oauth;
mod reads;
mod switches;
mod token_faults;
mod world;
mod writes;
