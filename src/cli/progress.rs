//! Progress of a walk on the terminal: pages, records and remaining time.

use std::{pin::Pin, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    error::{Error, Kind, WalkProgress},
    gateway::{Gateway, auth::OwnAccount},
    model::walks::WalkCounts,
};

const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Waits for an account's first walk to end, and shows its progress.
pub async fn await_first_walk(
    gateway: &Gateway,
    own: &OwnAccount,
    bar: Option<&Bar>,
) -> Result<WalkCounts, Error> {
    loop {
        let walked = gateway
            .directory()
            .await_directory(own, POLL_INTERVAL)
            .await;
        show(gateway, own, bar);
        match walked {
            Err(error) if error.kind() == Kind::DirectoryNotReady => {}
            ended => return ended,
        }
    }
}

/// Awaits a future that walks this account, and shows its progress.
pub async fn watched<T>(
    gateway: &Gateway,
    own: &OwnAccount,
    mut walking: Pin<&mut impl Future<Output = T>>,
    bar: Option<&Bar>,
) -> T {
    loop {
        tokio::select! {
            ended = &mut walking => return ended,
            () = gateway.clock().sleep(POLL_INTERVAL) => show(gateway, own, bar),
        }
    }
}

fn show(gateway: &Gateway, own: &OwnAccount, bar: Option<&Bar>) {
    if let (Some(bar), Some(progress)) = (bar, gateway.walks().walk_progress(&own.account)) {
        bar.show(progress);
    }
}

/// A progress bar on standard error; invisible if that is not a terminal.
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

    pub fn show(&self, progress: WalkProgress) {
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
