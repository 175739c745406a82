//! The requests that the proxy received.

use std::{collections::BTreeMap, fmt, time::Instant};

use bytes::Bytes;
use hyper::{HeaderMap, Method, StatusCode, Uri};

use super::operation;

/// One request, as received.
#[derive(Clone)]
#[non_exhaustive]
pub struct Request {
    /// The name of its operation.
    pub operation: String,
    /// The method.
    pub method: Method,
    /// The path and the query.
    pub uri: Uri,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// When it arrived.
    pub at: Instant,
    /// The status of the response, if one was sent.
    pub status: Option<StatusCode>,
}

/// Hides the body and the values of headers, which contain tokens and secrets.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("operation", &self.operation)
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
pub(super) struct Record {
    pub(super) requests: Vec<Request>,
    pub(super) connections: usize,
    pub(super) in_flight: usize,
    pub(super) in_flight_maximum: usize,
    /// Increases with each reset, so that an earlier request does not mark a later one as answered.
    generation: usize,
}

/// The position of a request in the record.
#[derive(Clone, Copy)]
pub(super) struct Place {
    generation: usize,
    index: usize,
}

impl Record {
    pub(super) fn arrive(&mut self, request: Request) -> Place {
        self.in_flight += 1;
        self.in_flight_maximum = self.in_flight_maximum.max(self.in_flight);
        self.requests.push(request);
        Place {
            generation: self.generation,
            index: self.requests.len() - 1,
        }
    }

    pub(super) fn answer(&mut self, place: Place, status: StatusCode) {
        if place.generation == self.generation {
            self.requests[place.index].status = Some(status);
        }
    }

    pub(super) fn count(&self, pattern: &str) -> usize {
        let matching = |request: &&Request| operation::matches(&request.operation, pattern);
        self.requests.iter().filter(matching).count()
    }

    pub(super) fn counts(&self) -> Vec<(String, usize)> {
        let mut counts = BTreeMap::<&str, usize>::new();
        for request in &self.requests {
            *counts.entry(&request.operation).or_default() += 1;
        }
        counts
            .into_iter()
            .map(|(operation, count)| (operation.to_owned(), count))
            .collect()
    }

    pub(super) fn reset(&mut self) {
        self.requests.clear();
        self.connections = 0;
        self.in_flight_maximum = self.in_flight;
        self.generation += 1;
    }
}
