//! Reads the audit log of a project for the project's own API keys. [`crate::store`] writes the
//! entries.

use super::{Gateway, auth::Caller};
use crate::{
    error::Result,
    model::audit_log::{AuditEntry, AuditFilter},
};

impl Gateway {
    /// At most `limit` entries of the audit log of the caller's project, newest first, starting
    /// after the entry `before`.
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
