//! The hub: the pages that a customer's admin sees while they link an account.
//!
//! A page is a struct of what is to be said, and a template in `templates/` that says it; it does
//! not know how any of it came about. Pages work without JavaScript, but for progress that moves
//! by itself, and fetch nothing from anywhere else. What a customer, a provider or an operator
//! called something is only ever text: no template marks anything as safe.
//!
//! * In the order of a customer's way: [`start`], then [`token`], [`own_app`] or the provider's own
//!   sign-in, [`review`], [`progress`], [`done`]; and [`error_page`] for all that can go wrong.
//! * [`theme`]: name, logo, colours, and the files that pages need.
//! * [`page`]: how a page is sent, and what it may do in a browser.
//! * [`routes`]: where they are, and who serves each; `context`: what all of them need; `cookie`,
//!   `form`: what a browser keeps and sends; `refusal`: which problem an error is.
//! * [`region`], [`field_access`], [`words`]: regions, what will be served, and numbers, in a customer's words.

mod callback;
mod context;
mod cookie;
pub mod done;
pub mod error_page;
pub mod field_access;
mod form;
mod link_methods;
pub mod own_app;
pub mod page;
pub mod progress;
mod refusal;
pub mod region;
mod result_pages;
pub mod review;
pub mod routes;
pub mod start;
#[cfg(test)]
mod tests;
pub mod theme;
pub mod token;
pub mod words;
