//! The summary of a directory: record counts, age, staleness and hidden fields.

use std::sync::Arc;

use serde::Serialize;

use super::{
    DirectoryReader, MaxAge, ReadResponse,
    page_cache::{CachedPage, etag},
};
use crate::gateway::auth::OwnAccount;
use crate::{
    clock::since,
    error::{Error, Result},
    model::schema::{RecordCounts, Summary},
};

impl DirectoryReader<'_> {
    /// The summary of the directory of the caller's account. It waits like a page, and is as fresh
    /// as one.
    ///
    /// # Errors
    /// `directory_not_ready`, `account_inactive`, and the error of a failed first walk.
    pub async fn summary(
        self,
        own: &OwnAccount,
        max_age: MaxAge,
        is_known: impl Fn(&str) -> bool,
    ) -> Result<ReadResponse> {
        let account = &own.account;
        let head = self.head(own, &self.live(account), max_age).await?;
        let stale = self.staleness(own, &head);
        let age = since(self.gateway.0.clock.now(), head.verified_at);
        // The age does not change the ETag: a header states it, also with a 304.
        let etag = etag(
            head.version,
            &(
                "summary",
                (account.id, head.version, head.verified_at),
                (stale, head.quarantined, account.held_walk),
            ),
        );
        let page = if is_known(&etag) {
            None
        } else {
            let held = self.version(account, head.version).await?;
            let held = held.ok_or_else(|| Error::internal("the version in force is not held"))?;
            let counts = held.directory.counts();
            let data = Summary {
                counts: RecordCounts {
                    users: counts.users,
                    roles: counts.roles,
                    groups: head.visibility.groups.then_some(counts.groups),
                },
                directory_version: head.version.to_string(),
                sealed_at: head.sealed_at,
                verified_at: head.verified_at,
                age_seconds: age.as_secs(),
                stale: stale.map(|stale| stale.as_str()),
                warnings: head.visibility.hidden_fields(),
                quarantined: head.quarantined,
                held_walk: account.held_walk,
            };
            Some(Arc::new(CachedPage::new(Arc::clone(&etag), record(&data)?)))
        };
        Ok(ReadResponse {
            etag,
            page,
            version: head.version,
            age,
            sealed_at: head.sealed_at,
            stale,
        })
    }
}

fn record(data: &Summary) -> Result<Vec<u8>> {
    #[derive(Serialize)]
    struct SummaryBody<'a> {
        data: &'a Summary,
    }
    serde_json::to_vec(&SummaryBody { data }).map_err(Error::internal)
}
