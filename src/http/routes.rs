//! The table of what is served, read off the API document (which leaves out only itself): it
//! answers which methods a path has.

use utoipa::openapi::{OpenApi, path::PathItem};

/// Path templates and their methods.
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

    /// The methods of the routes that match `path`; empty if there is none.
    pub fn methods(&self, path: &str) -> Vec<&'static str> {
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
        // Whatever can be got can be asked for its head (RFC 9110, 9.3.2).
        ("HEAD", &item.get),
        ("PATCH", &item.patch),
        ("POST", &item.post),
        ("PUT", &item.put),
    ]
    .into_iter()
    .filter_map(|(method, operation)| operation.as_ref().map(|_| method))
    .collect()
}
