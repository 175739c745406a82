//! Traces to an OpenTelemetry collector, with the variables that every OpenTelemetry SDK reads.

use std::env;
use std::error::Error;
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::{Layer, Registry};

/// The variables that name a collector; without one there are no traces.
const ENDPOINTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];

/// How long a batch may take. The SDK drops spans if the collector is slower for long.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends spans to the collector of the environment, if it names one.
pub(crate) fn provider() -> Result<Option<SdkTracerProvider>, Box<dyn Error + Send + Sync>> {
    let is_set = |name: &&str| env::var_os(name).is_some_and(|value| !value.is_empty());
    if !ENDPOINTS.iter().any(is_set) {
        return Ok(None);
    }
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Sender {
            client: reqwest::Client::builder().timeout(TIMEOUT).build()?,
            runtime: Handle::current(),
        })
        .build()?;
    let mut resource = Resource::builder();
    if !is_set(&"OTEL_SERVICE_NAME") {
        resource = resource.with_service_name("secret-gateway");
    }
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    Ok(Some(
        SdkTracerProvider::builder()
            .with_resource(resource.build())
            .with_batch_exporter(exporter)
            .build(),
    ))
}

/// Only our own spans: those of an SDK may contain anything.
pub(crate) fn layer(provider: &SdkTracerProvider) -> impl Layer<Registry> + Send + Sync + use<> {
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("secret-gateway"))
        .with_location(false)
        .with_threads(false)
        .with_filter(
            filter_fn(|metadata| metadata.is_span() && metadata.target().starts_with("secret_"))
                .with_max_level_hint(LevelFilter::DEBUG),
        )
}

/// Sends what is left.
pub(crate) fn stop(provider: &SdkTracerProvider) {
    if let Err(error) = provider.shutdown() {
        tracing::warn!(target: "secret_gateway", %error, "the last traces were not sent");
    }
}

/// Sends batches with the client of everything else. The SDK's thread does not belong to the runtime that
/// the client needs.
#[derive(Debug)]
struct Sender {
    client: reqwest::Client,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = reqwest::Request::try_from(request)?;
        let client = self.client.clone();
        let sent = self.runtime.spawn(async move {
            let answer = client.execute(request).await?;
            let status = answer.status();
            Ok::<_, reqwest::Error>((status, answer.bytes().await?))
        });
        let (status, body) = sent.await??;
        Ok(Response::builder().status(status).body(body)?)
    }
}
