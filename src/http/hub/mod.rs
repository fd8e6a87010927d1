//! The hub: the pages that a customer's admin sees while they link an account.
//!
//! A page is a struct of what is to be said, and a template in `templates/` that says it; it does
//! not know how any of it came about. Pages work without JavaScript, but for progress that moves
//! by itself, and fetch nothing from anywhere else. What a customer, a provider or an operator
//! called something is only ever text: no template marks anything as safe.
//!
//! * In the order of a customer's way: [`start`], then [`token`], [`own_app`] or the provider's own
//!   sign-in, [`review`], [`progress`], [`done`]; and [`problem`] for all that can go wrong.
//! * [`look`]: name, logo, colours, and the files that pages need.
//! * [`page`]: how a page is sent, and what it may do in a browser.
//! * [`routes`]: where they are, and who serves each; `desk`: what all of them need; `cookie`,
//!   `form`: what a browser keeps and sends; `refusal`: which problem an error is.
//! * [`place`], [`sight`], [`words`]: regions, what will be served, and numbers, in a customer's words.

mod after;
mod callback;
mod choose;
mod cookie;
mod desk;
pub mod done;
mod form;
pub mod look;
pub mod own_app;
pub mod page;
pub mod place;
pub mod problem;
pub mod progress;
mod refusal;
pub mod review;
pub mod routes;
pub mod sight;
pub mod start;
#[cfg(test)]
mod tests;
pub mod token;
pub mod words;
