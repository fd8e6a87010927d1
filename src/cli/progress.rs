//! A first walk, as people like to watch it: pages, people, and how long it still takes.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::error::Progress;

/// A bar on standard error; nothing where that is no terminal.
pub struct Bar(ProgressBar);

impl Bar {
    pub fn new(title: &str) -> Self {
        let style = ProgressStyle::with_template("{prefix:24} [{bar:30}] {pos}/{len} reads {msg}")
            .expect("the template is well formed")
            .progress_chars("=> ");
        let bar = ProgressBar::new(0)
            .with_style(style)
            .with_prefix(title.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    pub fn show(&self, progress: Progress) {
        if let Some(total) = progress.pages_total {
            self.0.set_length(total);
        }
        self.0.set_position(progress.pages);
        let eta = progress
            .eta_seconds
            .map(|eta| format!(", {eta} s to go"))
            .unwrap_or_default();
        self.0
            .set_message(format!("{} records{eta}", progress.records));
    }

    pub fn finish(&self, message: &str) {
        self.0.finish_with_message(message.to_owned());
    }
}
