//! Layers: stores that wrap a store, and the builder that stacks them in the right order.
//!
//! From the outside in: metrics, read-only, then one stack of cache, retry, limit and a backend, or
//! a mirror of two such stacks.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use secret_persistence_core::Memory;
//! use secret_persistence_core::layer::{CacheOptions, Layers, LimitOptions, RetryOptions, Stack};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let stack = Stack::over(Arc::new(Memory::new()))
//!     .with_cache(CacheOptions::default().with_ttl(Duration::from_secs(60)))
//!     .with_retry(RetryOptions::default())
//!     .with_limit(LimitOptions::default().with_share(0.25));
//! let store = Layers::over(stack).with_metrics(true).build();
//! // Errors, reports and messages name the store; `{:#}` shows the layers too.
//! assert_eq!(store.to_string(), "memory");
//! assert_eq!(format!("{store:#}"), "metrics(cache(retry(limit(timeout(memory)))))");
//! # }
//! ```
//!
//! # What each layer does
//!
//! - *cache*: n callers who ask for one name make one request, and a batch asks only for what is
//!   missing. There are no negative entries. A delete beats a load in flight. Values are wiped when
//!   they go. Within the TTL a value is served without asking, so one that *another* process deleted
//!   is served for at most the TTL. Beyond it the value is loaded again, and only where that ends in
//!   `Unavailable` or `Throttled` is a managed value, which cannot change, served for the stale time.
//!   An entry never outlives an expiry that the store told; ephemeral secrets are not kept.
//! - *retry*: repeats what failed in a retryable way, of a batch only those entries, after a pause
//!   of full jitter and not before Retry-After. Each attempt has a timeout for all its requests, and
//!   the call a deadline.
//! - *limit*: a share of the provider's quota, in requests per second and calls at once, for each of
//!   reading, writing and listing. No second contains more requests than the share; up to that, calls
//!   are not delayed. Slower while the provider throttles, and back by and by. Several processes may
//!   [share](Stack::with_shared_rates) one quota.
//! - *mirror*: two stores kept alike, the live half of a migration; see [`Layers::mirror`].
//! - *read-only*: every change is `PermissionDenied`, before any request.
//! - *metrics*: counts, times and traces what the caller sees.
//!
//! # Metrics
//!
//! Through the `metrics` facade. Labels, spans and events never contain coordinates or values.
//!
//! | name | labels | counts |
//! |---|---|---|
//! | `secrets_calls_total` | store, operation | calls |
//! | `secrets_call_duration_seconds` | store, operation | how long they took (a histogram) |
//! | `secrets_outcomes_total` | store, operation, outcome | entries of batches, and other calls, by `ok`, the kind of the error, or `cancelled` |
//! | `secrets_cache_total` | result | entries by `hit`, `joined` (another caller's load), `loaded`, `stale` |
//! | `secrets_attempts_total` | store, operation | attempts that retry made, the first of each call included |
//! | `secrets_retries_total` | store, operation, kind | repeated attempts by what they failed with |
//! | `secrets_limit_permits_total` | store, class | requests that were let through |
//! | `secrets_limit_slowed_total` | store, class | how often the pace was lowered |
//! | `secrets_limit_unshared_total` | store, class | how often the source of shared rates could not be used |
//! | `secrets_mirror_fallbacks_total` | kind | reads that the secondary answered, by why it was asked |
//!
//! Calls are counted in the outermost layer, including those that the cache serves. `tracing` gets
//! a span `secrets` per call and an event at its end, at level debug.

mod cache;
mod limit;
pub(crate) mod meter;
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

use std::fmt;

use crate::{Capabilities, ListOptions};

/// Displays the store that a layer wraps; the alternate form shows the layer too.
fn show(f: &mut fmt::Formatter<'_>, layer: &str, inner: &dyn fmt::Display) -> fmt::Result {
    if f.alternate() {
        write!(f, "{layer}({inner:#})")
    } else {
        inner.fmt(f)
    }
}

/// The assumed page size if the caller sets none.
const USUAL_PAGE: u32 = 100;

/// Maximum requests of one page of a listing.
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
