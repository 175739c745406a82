//! Layers: stores that wrap a store, and the builder that stacks them in the one right order.
//!
//! Outside in: metrics, read-only, then one stack of cache, retry, limit and a backend, or a mirror
//! of two such stacks.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use secrets_core::Memory;
//! use secrets_core::layer::{CacheOptions, Layers, LimitOptions, RetryOptions, Stack};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let stack = Stack::over(Arc::new(Memory::new()))
//!     .with_cache(CacheOptions::default().with_ttl(Duration::from_secs(60)))
//!     .with_retry(RetryOptions::default())
//!     .with_limit(LimitOptions::default().with_share(0.25));
//! let store = Layers::over(stack).with_metrics(true).build();
//! assert_eq!(store.to_string(), "metrics(cache(retry(limit(timeout(memory)))))");
//! # }
//! ```

mod cache;
mod limit;
mod metrics;
#[cfg(test)]
pub(crate) mod probe;
mod read_only;
#[cfg(test)]
pub(crate) mod recorder;
mod retry;
mod stack;
mod timeout;

pub use cache::CacheOptions;
pub use limit::{ClassLimit, LimitOptions};
pub use retry::RetryOptions;
pub use stack::{Layers, Stack};

use crate::{Capabilities, ListOptions};

/// How many entries a page is taken to have where the caller names no size.
const USUAL_PAGE: u32 = 100;

/// The most requests that one page of a listing costs.
fn list_cost(capabilities: &Capabilities, options: &ListOptions) -> u32 {
    let cost = capabilities.cost;
    if !options.details {
        return cost.list;
    }
    let entries = options
        .page_size
        .map_or(USUAL_PAGE, |size| u32::try_from(size).unwrap_or(u32::MAX));
    cost.list
        .saturating_add(cost.list_detail.saturating_mul(entries))
}
