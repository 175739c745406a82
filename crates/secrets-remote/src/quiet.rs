//! Runs an SDK's code without its logs.

use std::future::Future;
use std::sync::LazyLock;

use tracing::dispatcher::Dispatch;
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;

/// Hears nothing. A dispatcher of its own and not `Dispatch::none()`: with that, a place in the code
/// that first logs while we are silent would be taken for one that nobody wants to hear, and stay
/// silent for other users of the same libraries in this process.
static SILENCE: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(NoSubscriber::default()));

/// Runs SDK code without its logs.
///
/// At TRACE the AWS SDK prints access key ids, the commands of credential processes and answers, and
/// every request where `LOG_SIGNABLE_BODY` or `LOG_SENSITIVE_BODIES` is set; Google's prints requests
/// where `GOOGLE_CLOUD_RUST_LOGGING` is set; Azure's prints headers and queries by lists of its own.
/// What is logged must depend neither on a filter nor on a variable, so an SDK sees no subscriber, and
/// the stores log their own events instead.
pub fn quiet<F: Future>(future: F) -> impl Future<Output = F::Output> {
    future.with_subscriber(SILENCE.clone())
}
