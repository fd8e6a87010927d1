//! The progress of the first walk: as a page, and as the JSON that the page's script polls. Both
//! use the same texts.

use askama::Template;
use serde::Serialize;

use super::{page::HubPage, theme::Theme, words};
use crate::error::WalkProgress;

#[derive(Template)]
#[template(path = "progress.html")]
pub struct ProgressPage<'a> {
    pub theme: &'a Theme,
    /// The organization's name, as in [`Done`](super::done::Done).
    pub organization: &'a str,
    pub walk: FirstWalk,
}

/// The state of an account's first walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstWalk {
    /// No walk runs in this process, and none has ended.
    Waiting,
    Running(WalkProgress),
    /// The account has a sealed directory.
    Sealed,
    /// The last walk ended without a directory. The account stays linked and is walked again.
    Failed,
}

impl FirstWalk {
    const fn state(self) -> &'static str {
        match self {
            FirstWalk::Waiting => "waiting",
            FirstWalk::Running(_) => "running",
            FirstWalk::Sealed => "sealed",
            FirstWalk::Failed => "failed",
        }
    }

    fn counts(self) -> WalkProgress {
        match self {
            FirstWalk::Running(counts) => counts,
            FirstWalk::Waiting | FirstWalk::Sealed | FirstWalk::Failed => WalkProgress::default(),
        }
    }
}

/// The body of `GET /connect/progress.json`.
#[derive(Debug, Serialize)]
pub struct ProgressOut {
    /// `waiting`, `running`, `sealed` or `failed`.
    pub state: &'static str,
    pub pages: u64,
    pub pages_total: Option<u64>,
    pub records: u64,
    pub eta_seconds: Option<u64>,
    pub words: Words,
}

/// The same numbers as text.
#[derive(Debug, Serialize)]
pub struct Words {
    pub pages: String,
    pub records: String,
    pub left: String,
    /// One sentence for screen readers.
    pub summary: String,
}

impl From<FirstWalk> for ProgressOut {
    fn from(walk: FirstWalk) -> Self {
        let counts = walk.counts();
        Self {
            state: walk.state(),
            pages: counts.pages,
            pages_total: counts.pages_total,
            records: counts.records,
            eta_seconds: counts.eta_seconds,
            words: Words::of(walk),
        }
    }
}

impl Words {
    fn of(walk: FirstWalk) -> Self {
        let counts = walk.counts();
        let pages = match counts.pages_total {
            Some(total) => format!("{} of {}", words::count(counts.pages), words::count(total)),
            None => words::count(counts.pages),
        };
        let records = words::count(counts.records);
        let left = counts
            .eta_seconds
            .map_or_else(|| "not known yet".to_owned(), words::duration);
        let summary = match walk {
            FirstWalk::Waiting => "Reading is about to begin.".to_owned(),
            FirstWalk::Running(WalkProgress {
                eta_seconds: Some(_),
                ..
            }) => format!("Page {pages} read, about {left} left."),
            FirstWalk::Running(_) => format!("Page {pages} read."),
            FirstWalk::Sealed => "Everything is read.".to_owned(),
            FirstWalk::Failed => "Reading did not finish.".to_owned(),
        };
        Self {
            pages,
            records,
            left,
            summary,
        }
    }
}

impl ProgressPage<'_> {
    fn out(&self) -> ProgressOut {
        self.walk.into()
    }

    fn is_moving(&self) -> bool {
        matches!(self.walk, FirstWalk::Waiting | FirstWalk::Running(_))
    }
}

impl HubPage for ProgressPage<'_> {
    fn polls(&self) -> bool {
        self.is_moving()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn progress_is_told_in_figures_and_in_words() {
        let walk = FirstWalk::Running(WalkProgress {
            pages: 12,
            pages_total: Some(1_060),
            records: 1_150,
            eta_seconds: Some(95),
        });
        assert_eq!(
            serde_json::to_value(ProgressOut::from(walk)).unwrap(),
            json!({
                "state": "running", "pages": 12, "pages_total": 1060, "records": 1150,
                "eta_seconds": 95,
                "words": {
                    "pages": "12 of 1,060", "records": "1,150", "left": "2 minutes",
                    "summary": "Page 12 of 1,060 read, about 2 minutes left.",
                },
            })
        );
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        let walk = FirstWalk::Running(WalkProgress {
            pages: 3,
            records: 250,
            ..WalkProgress::default()
        });
        let words = Words::of(walk);
        assert_eq!(
            (words.pages.as_str(), words.left.as_str()),
            ("3", "not known yet")
        );
        assert_eq!(words.summary, "Page 3 read.");
        for (walk, state) in [
            (FirstWalk::Waiting, "waiting"),
            (FirstWalk::Sealed, "sealed"),
            (FirstWalk::Failed, "failed"),
        ] {
            assert_eq!(ProgressOut::from(walk).state, state);
        }
    }
}
