//! The rate budgets of access tokens that several processes share, kept in their common store.

use async_trait::async_trait;

use crate::{
    error::Error,
    model::budgets::{Settlement, SharedBudget, SliceAnswer, SliceOrder, Throttling},
    outbound::{SharedQuota, SharedQuotaError},
    store::Store,
};

/// Implements [`SharedQuota`] with a store.
#[derive(Debug, Clone)]
pub struct SharedBudgets(Store);

impl SharedBudgets {
    pub const fn new(store: Store) -> Self {
        Self(store)
    }
}

#[async_trait]
impl SharedQuota for SharedBudgets {
    async fn take(
        &self,
        budget: &SharedBudget,
        order: &SliceOrder,
    ) -> Result<SliceAnswer, SharedQuotaError> {
        self.0.take_slice(budget, order).await.map_err(unshared)
    }

    async fn settle(
        &self,
        budget: &SharedBudget,
        settlement: &Settlement,
    ) -> Result<(), SharedQuotaError> {
        self.0
            .settle_slice(budget, settlement)
            .await
            .map_err(unshared)
    }

    async fn pause(
        &self,
        budget: &SharedBudget,
        throttling: &Throttling,
    ) -> Result<(), SharedQuotaError> {
        self.0
            .pause_budget(budget, throttling)
            .await
            .map_err(unshared)
    }
}

fn unshared(error: Error) -> SharedQuotaError {
    SharedQuotaError {
        retry_after: error.retry_after(),
        detail: error.to_string(),
    }
}
