//! The audit log of a project, for its own keys to look at. What is written to it, and how, is the
//! store's.

use super::{Gateway, auth::Caller};
use crate::{
    error::Result,
    model::audit_log::{AuditEntry, AuditFilter},
};

impl Gateway {
    /// At most `limit` entries of the audit log of the caller's own project, the newest first, from
    /// the one before `before` on.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn audit_log(
        &self,
        caller: &Caller,
        filter: &AuditFilter,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<AuditEntry>> {
        let project = caller.project();
        self.store_of(project)
            .audit_log(project, filter, before, limit)
            .await
    }
}
