//! Property tests of the directory as a whole, over random providers.

mod filter;
mod paging;
mod provider;
mod rules;
mod sealing;
mod size;
