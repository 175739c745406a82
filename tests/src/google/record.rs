//! The requests that the server received.

use std::collections::BTreeMap;

/// An answered request.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Request {
    /// The method of the API, such as `AccessSecretVersion` or `Token`; `Unknown` if there is none.
    pub method: &'static str,
    /// The path in the request.
    pub path: String,
    /// The status of the response; 0 if the connection was cut.
    pub status: u16,
}

#[derive(Default)]
pub(super) struct Record {
    /// One entry per request, which is set when it is answered.
    pub(super) requests: Vec<Option<Request>>,
    pub(super) counts: BTreeMap<&'static str, usize>,
    pub(super) in_flight: usize,
    pub(super) in_flight_maximum: usize,
    /// Increases whenever the requests are forgotten, so that an old request does not set a new
    /// entry.
    era: usize,
}

/// The entry of a request.
#[derive(Clone, Copy)]
pub(super) struct Place {
    era: usize,
    index: usize,
}

impl Record {
    pub(super) fn arrive(&mut self, method: &'static str) -> Place {
        *self.counts.entry(method).or_default() += 1;
        self.in_flight += 1;
        self.in_flight_maximum = self.in_flight_maximum.max(self.in_flight);
        self.requests.push(None);
        Place {
            era: self.era,
            index: self.requests.len() - 1,
        }
    }

    pub(super) fn answer(&mut self, place: Place, request: Request) {
        if place.era == self.era {
            self.requests[place.index] = Some(request);
        }
    }

    pub(super) fn reset(&mut self) {
        *self = Self {
            in_flight: self.in_flight,
            in_flight_maximum: self.in_flight,
            era: self.era + 1,
            ..Self::default()
        };
    }
}
