//! The hub: the pages on which a customer's admin links an account.
//!
//! Each page is a struct with its data and a template in `templates/` that renders it; a page does
//! not know how its data was obtained. Pages work without JavaScript (the progress page then
//! reloads itself every 5 seconds) and load nothing from another origin. Names from a customer, a
//! provider or an operator are rendered as text only: no template marks a value as safe.
//!
//! * The pages, in a customer's order: [`start`]; [`token`], [`own_app`] or the provider's own
//!   sign-in; [`review`]; [`progress`]; [`done`]. [`error_page`] covers every failure.
//! * [`theme`]: the brand and the static files. [`page`]: the response headers of a page.
//! * [`routes`]: the paths and their handlers, which are in `link_methods`, `callback` and
//!   `result_pages`. `context`: the context of a request. `cookie` and `form`: the session cookie
//!   and posted forms. `refusal`: the problem that belongs to each error.
//! * [`region`], [`field_access`], [`words`]: regions, readable fields and numbers in a customer's
//!   words.

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
