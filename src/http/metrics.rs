//! Counts and times requests by route.
//!
//! Route labels are the path templates of the API document and of the hub's pages, so that a caller
//! cannot create new ones. All other requests share one label.

use std::{collections::HashMap, time::Duration};

use actix_web::http::{Method, StatusCode};
use utoipa::openapi::{OpenApi as Document, path::PathItem};

use super::hub::routes::PAGES;
use crate::telemetry::{
    HttpMethod, Metrics, RouteMeter,
    metrics::{LabelValue, NO_ROUTE},
};

/// One meter for each route.
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

    /// Records an answered request. `route` is the template of its route, if one matched.
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

/// Maps a method to one that HTTP defines. All others become `Other`, so that no text of a caller
/// gets into a label or a log line.
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
