//! Properties of the whole, over worlds made by chance.

mod paging;
mod provider;
mod rules;
mod sealing;
mod size;
