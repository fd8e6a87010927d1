//! Requests, counted and timed by route.
//!
//! The routes are those of the API document and the hub's pages, so a caller can make no new one up; whatever else was
//! asked for is told apart by its status alone.

use std::{collections::HashMap, time::Duration};

use actix_web::http::{Method, StatusCode};
use utoipa::openapi::{OpenApi as Document, path::PathItem};

use super::hub::routes::PAGES;
use crate::telemetry::{
    HttpMethod, Metrics, RouteMeter,
    metrics::{LabelValue, NO_ROUTE},
};

/// A meter for each route.
pub struct Meters {
    routes: HashMap<String, RouteMeter>,
    others: RouteMeter,
}

impl Meters {
    pub fn of(document: &Document, metrics: &Metrics) -> Self {
        let templates = document.paths.paths.iter().flat_map(|(path, item)| {
            let unified = path.starts_with("/iam").then(|| format!("/unified{path}"));
            let paths = [path.clone()].into_iter().chain(unified);
            paths.map(|path| (path, methods_of(item)))
        });
        let pages = ["/openapi.json"].iter().chain(&PAGES);
        let pages = pages.map(|&page| (page.to_owned(), vec![HttpMethod::Get, HttpMethod::Post]));
        Self {
            routes: templates
                .chain(pages)
                .map(|(template, methods)| {
                    let meter = metrics.route(&template, &methods);
                    (template, meter)
                })
                .collect(),
            others: metrics.route(NO_ROUTE, HttpMethod::ALL),
        }
    }

    /// A request to the route of this template, as far as one was found, was answered.
    pub fn note(&self, route: Option<&str>, method: &Method, status: StatusCode, took: Duration) {
        route
            .and_then(|route| self.routes.get(route))
            .unwrap_or(&self.others)
            .answered(known(method), status.as_u16(), took);
    }
}

fn methods_of(item: &PathItem) -> Vec<HttpMethod> {
    let methods = [
        (&item.get, HttpMethod::Get),
        (&item.get, HttpMethod::Head),
        (&item.post, HttpMethod::Post),
        (&item.put, HttpMethod::Put),
        (&item.patch, HttpMethod::Patch),
        (&item.delete, HttpMethod::Delete),
    ];
    let served = methods
        .into_iter()
        .filter(|(operation, _)| operation.is_some());
    served.map(|(_, method)| method).collect()
}

/// A method that HTTP knows; any other word is the caller's, and no word of the caller's is noted.
pub fn known(method: &Method) -> HttpMethod {
    match *method {
        Method::GET => HttpMethod::Get,
        Method::HEAD => HttpMethod::Head,
        Method::POST => HttpMethod::Post,
        Method::PUT => HttpMethod::Put,
        Method::PATCH => HttpMethod::Patch,
        Method::DELETE => HttpMethod::Delete,
        Method::OPTIONS => HttpMethod::Options,
        _ => HttpMethod::Other,
    }
}
