//! Properties of the whole, over worlds made by chance.

mod filter;
mod paging;
mod provider;
mod rules;
mod sealing;
mod size;
