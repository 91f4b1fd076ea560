//! Traces of messages, exported by OTLP over HTTP.
//!
//! The lines that tell of a message (docs/LOGGING.md) become spans. A message's
//! id is its trace's id, and the lower half of it the id of its first span: so
//! the spans of all nodes meet in one trace, and nothing travels for it.
//!
//! Spans wait in a bounded queue for a thread of the exporter's own; what does
//! not fit is dropped. Nothing here holds a message up.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SpanData, SpanProcessor};
use tokio::runtime::Handle;
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::Context;
use url::Url;

use crate::client::http;
use crate::config::{Config, Env};
use crate::logging::{TraceLayer, milestone};

/// Where the collector is: the exporter's own variables, of which one must be
/// set for anything to be exported.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];

/// For one batch. Later: it is lost.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);

/// For what is left when the process ends.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(4);

/// Which line, by its name, is which span.
const SPANS: [(&str, &str, SpanKind); 3] = [
    (milestone::ACCEPTED, "accept", SpanKind::Producer),
    (milestone::DELIVERED, "deliver", SpanKind::Consumer),
    (milestone::CONFIRMED, "confirm", SpanKind::Consumer),
];

/// The way to the collector.
#[derive(Clone)]
pub struct Traces {
    processor: Arc<BatchSpanProcessor>,
    scope: InstrumentationScope,
}

impl Traces {
    /// Starts to export, if a collector is named. The requests run on `runtime`.
    ///
    /// # Errors
    /// When a variable of the exporter is wrong.
    pub fn start(config: &Config, env: Env<'_>, runtime: &Handle) -> anyhow::Result<Option<Self>> {
        if ENDPOINTS.iter().all(|name| env(name).is_none()) {
            return Ok(None);
        }
        let client = Client { runtime: runtime.clone() };
        let exporter = SpanExporter::builder().with_http().with_http_client(client).build()?;
        let exporter = Exporter { inner: exporter, has_failed: AtomicBool::new(false) };
        let mut processor = BatchSpanProcessor::builder(exporter).build();
        processor.set_resource(&resource(config));
        let scope = InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        Ok(Some(Self { processor: Arc::new(processor), scope }))
    }

    /// What makes spans of lines, whatever the log's filter says of them.
    #[must_use]
    pub fn layer(&self) -> TraceLayer {
        let tells_of_a_message =
            |metadata: &Metadata<'_>| SPANS.iter().any(|(line, ..)| *line == metadata.name());
        Box::new(self.clone().with_filter(filter_fn(tells_of_a_message)))
    }

    /// Exports what is left, within seconds. Blocks; the runtime must still run.
    pub fn shut_down(&self) {
        if let Err(error) = self.processor.shutdown_with_timeout(SHUTDOWN_TIMEOUT) {
            tracing::warn!(%error, "the last traces were not exported");
        }
    }
}

impl<S: Subscriber> Layer<S> for Traces {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        if let Some(span) = line.into_span(event.metadata().name(), self.scope.clone()) {
            self.processor.on_end(span);
        }
    }
}

fn resource(config: &Config) -> Resource {
    let region = config.node.region.clone().map(|region| KeyValue::new("cloud.region", region));
    Resource::builder()
        .with_service_name("claudemesh-broker")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", config.node.id.to_string()))
        .with_attributes(region)
        .build()
}

/// The fields of a line.
#[derive(Default)]
struct Line {
    texts: HashMap<&'static str, String>,
    numbers: HashMap<&'static str, i64>,
}

impl Line {
    fn into_span(mut self, line: &str, scope: InstrumentationScope) -> Option<SpanData> {
        let (_, name, kind) = SPANS.into_iter().find(|(named, ..)| *named == line)?;
        self.texts.remove("message");
        let message_id = self.texts.remove("message_id")?;
        let trace = TraceId::from_hex(&message_id).ok()?;
        let bytes = trace.to_bytes();
        let first = SpanId::from_bytes(*bytes.last_chunk()?);
        let is_first = name == "accept";
        let (id, parent) = if is_first {
            (first, SpanId::INVALID)
        } else {
            (SpanId::from_bytes(rand::random()), first)
        };
        let end_time = SystemTime::now();
        let began = self.numbers.remove("created_at").and_then(|ms| u64::try_from(ms).ok());
        let start_time = began.map(|ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms));
        let own = |name: &str| format!("claudemesh.{name}");
        let texts = self.texts.into_iter().map(|(name, text)| KeyValue::new(own(name), text));
        let numbers = self.numbers.into_iter().map(|(name, value)| KeyValue::new(own(name), value));
        let known = [
            KeyValue::new("messaging.system", "claudemesh"),
            KeyValue::new("messaging.operation.name", name),
            KeyValue::new("messaging.message.id", message_id),
        ];
        Some(SpanData {
            span_context: SpanContext::new(
                trace,
                id,
                TraceFlags::SAMPLED,
                false,
                TraceState::default(),
            ),
            parent_span_id: parent,
            parent_span_is_remote: !is_first,
            span_kind: kind,
            name: name.into(),
            // The clock may have been set back since.
            start_time: start_time.unwrap_or(end_time).min(end_time),
            end_time,
            attributes: known.into_iter().chain(texts).chain(numbers).collect(),
            dropped_attributes_count: 0,
            events: Default::default(),
            links: Default::default(),
            status: Status::Unset,
            instrumentation_scope: scope,
        })
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.texts.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.texts.insert(field.name(), value.to_owned());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.numbers.insert(field.name(), value);
    }
}

/// Says that the collector is away once, and once that it is back.
#[derive(Debug)]
struct Exporter {
    inner: SpanExporter,
    has_failed: AtomicBool,
}

impl opentelemetry_sdk::trace::SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let outcome = self.inner.export(batch).await;
        let had_failed = self.has_failed.swap(outcome.is_err(), Ordering::Relaxed);
        match &outcome {
            Err(error) if !had_failed => {
                tracing::warn!(%error, "traces are lost: the collector does not take them");
            }
            Ok(()) if had_failed => tracing::info!("the collector takes traces again"),
            _ => {}
        }
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// The exporter's thread waits for requests that the runtime makes.
#[derive(Debug)]
struct Client {
    runtime: Handle,
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(
        &self,
        request: ::http::Request<Bytes>,
    ) -> Result<::http::Response<Bytes>, HttpError> {
        let url = Url::parse(&request.uri().to_string())?;
        let calling =
            self.runtime.spawn(async move { http::send(&url, request, EXPORT_TIMEOUT).await });
        let (status, body) = calling.await??;
        Ok(::http::Response::builder().status(status).body(body)?)
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_sdk::trace::SpanExporter;
    use parking_lot::Mutex;
    use tracing_subscriber::Registry;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    const ID: &str = "01a2046f1e5673f791e9bd00adff4430";

    /// Keeps the names of the spans.
    #[derive(Clone, Debug, Default)]
    struct Kept(Arc<Mutex<Vec<String>>>);

    impl SpanExporter for Kept {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.0.lock().extend(batch.into_iter().map(|span| span.name.into_owned()));
            Ok(())
        }
    }

    fn spans_of(log: impl FnOnce()) -> Vec<String> {
        let kept = Kept::default();
        let processor = Arc::new(BatchSpanProcessor::builder(kept.clone()).build());
        let traces = Traces { processor, scope: InstrumentationScope::default() };
        tracing::subscriber::with_default(Registry::default().with(traces.layer()), log);
        traces.shut_down();
        std::mem::take(&mut *kept.0.lock())
    }

    #[test]
    fn a_line_is_a_span_by_its_name_whatever_it_says() {
        let spans = spans_of(|| {
            tracing::debug!(name: milestone::ACCEPTED, message_id = ID, "it is on disk");
            tracing::trace!(name: milestone::DELIVERED, message_id = ID, "it is on its way");
            tracing::info!(name: milestone::CONFIRMED, message_id = ID, "it has come");
        });
        assert_eq!(spans, ["accept", "deliver", "confirm"]);
    }

    #[test]
    fn a_line_of_no_name_is_none_whatever_it_says() {
        let spans = spans_of(|| tracing::debug!(message_id = ID, "message accepted"));
        assert_eq!(spans, [""; 0]);
    }
}
