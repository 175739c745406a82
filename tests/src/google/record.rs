//! What was asked.

use std::collections::BTreeMap;

/// A request that has been answered.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Request {
    /// The method of the interface, such as `AccessSecretVersion` or `Token`; `Unknown` if there is none.
    pub method: &'static str,
    /// The path, as it was sent.
    pub path: String,
    /// The status of the answer; 0 if the connection was cut instead.
    pub status: u16,
}

#[derive(Default)]
pub(super) struct Record {
    /// A place per request; filled when it is answered.
    pub(super) requests: Vec<Option<Request>>,
    pub(super) counts: BTreeMap<&'static str, usize>,
    pub(super) in_flight: usize,
    pub(super) in_flight_maximum: usize,
    /// Counts up whenever the requests are forgotten, so that none is entered in a place of another time.
    era: usize,
}

/// Where a request is entered when it is answered.
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
