//! Limits the size of responses.

use std::mem;

use aws_sdk_secretsmanager::config::interceptors::BeforeDeserializationInterceptorContextMut;
use aws_sdk_secretsmanager::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_secretsmanager::error::BoxError;
use aws_smithy_types::body::SdkBody;
use http_body_util::Limited;

/// The largest valid response: a batch has twenty values of at most 64 KiB, and JSON needs up to six bytes for each.
const MAX_RESPONSE_BYTES: usize = 16 << 20;

/// Aborts responses that are larger. The SDK itself reads responses of any size into memory.
#[derive(Debug)]
pub(crate) struct Bounded;

impl Intercept for Bounded {
    fn name(&self) -> &'static str {
        "Bounded"
    }

    /// At this point only the head of the response has been read.
    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body = context.response_mut().body_mut();
        let unread = mem::replace(body, SdkBody::taken());
        *body = SdkBody::from_body_1_x(Limited::new(unread, MAX_RESPONSE_BYTES));
        Ok(())
    }
}
