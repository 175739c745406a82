//! What stores behind a network need: their SDKs repeat nothing by themselves here.

use std::sync::Arc;

use secrets_core::SecretPersistence;
use secrets_core::layer::{Layers, RetryOptions, Stack};

/// A stack that repeats what fails for a moment. How fast it goes is the operator's to say (`--rate`).
pub(super) fn layered(stack: Stack) -> Arc<dyn SecretPersistence> {
    Layers::over(stack.with_retry(RetryOptions::default())).build()
}
