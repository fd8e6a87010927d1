//! The route table: tells which methods a path has, for 405 and `Allow`.
//!
//! It is collected from the API document, plus `/openapi.json`, which the document leaves out. The
//! hub's pages are not in it.

use utoipa::openapi::{OpenApi, path::PathItem};

/// Path templates with their methods.
pub struct RouteTable(Vec<(Vec<Segment>, Vec<&'static str>)>);

enum Segment {
    Fixed(String),
    Any,
}

impl RouteTable {
    pub fn of(document: &OpenApi) -> Self {
        let routes = document.paths.paths.iter().map(|(path, item)| {
            let segments = path
                .split('/')
                .map(|segment| {
                    if segment.starts_with('{') {
                        Segment::Any
                    } else {
                        Segment::Fixed(segment.to_owned())
                    }
                })
                .collect();
            (segments, methods(item))
        });
        let own = (
            vec![
                Segment::Fixed(String::new()),
                Segment::Fixed("openapi.json".to_owned()),
            ],
            vec!["GET", "HEAD"],
        );
        Self(routes.chain([own]).collect())
    }

    /// The methods of all routes that match `path`; empty if none does.
    pub fn methods(&self, path: &str) -> Vec<&'static str> {
        // `/unified/iam` has the same routes as `/iam`.
        let path = path
            .strip_prefix("/unified")
            .filter(|rest| rest.starts_with("/iam"))
            .unwrap_or(path);
        let asked: Vec<_> = path.split('/').collect();
        let matching = self.0.iter().filter(|(segments, _)| {
            segments.len() == asked.len()
                && segments
                    .iter()
                    .zip(&asked)
                    .all(|(segment, asked)| match segment {
                        Segment::Fixed(fixed) => fixed == asked,
                        Segment::Any => !asked.is_empty(),
                    })
        });
        let mut methods: Vec<_> = matching.flat_map(|(_, methods)| methods.clone()).collect();
        methods.sort_unstable();
        methods.dedup();
        methods
    }
}

fn methods(item: &PathItem) -> Vec<&'static str> {
    [
        ("DELETE", &item.delete),
        ("GET", &item.get),
        // Every resource that answers GET answers HEAD too (RFC 9110, 9.3.2).
        ("HEAD", &item.get),
        ("PATCH", &item.patch),
        ("POST", &item.post),
        ("PUT", &item.put),
    ]
    .into_iter()
    .filter_map(|(method, operation)| operation.as_ref().map(|_| method))
    .collect()
}
