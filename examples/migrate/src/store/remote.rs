//! What stores behind a network need: their SDKs repeat nothing by themselves here.

#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
use std::num::NonZeroU32;
use std::sync::Arc;

use secret_persistence_core::SecretPersistence;
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
use secret_persistence_core::layer::LimitOptions;
use secret_persistence_core::layer::{Layers, RetryOptions, Stack};

/// A stack that keeps to the quotas that the provider documents, unless the operator has said how fast it goes: `--rate`
/// holds for the command as a whole, and whoever gives it may have had the quotas raised.
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
pub(super) fn limited(
    stack: Stack,
    quotas: LimitOptions,
    rate: Option<NonZeroU32>,
) -> Arc<dyn SecretPersistence> {
    layered(match rate {
        None => stack.with_limit(quotas),
        Some(_) => stack,
    })
}

/// A stack that repeats what fails for a moment.
pub(super) fn layered(stack: Stack) -> Arc<dyn SecretPersistence> {
    Layers::over(stack.with_retry(RetryOptions::default())).build()
}
