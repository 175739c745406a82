//! Rules: which requests have which fault.

use std::time::Duration;

use super::{Answer, operation};

/// The fault of a request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// The server executes the request, and the connection closes without a response.
    CutAfterWork,
    /// The connection closes without a response, and the server never receives the request.
    CutBeforeWork,
    /// The request is forwarded after this time, in addition to the proxy's delay.
    Delay(Duration),
    /// The server executes the request, and the connection closes after half of the response's
    /// body.
    HalfAnswer,
    /// The server executes the request, and there is never a response.
    HangAfterWork,
    /// There is never a response, and the server never receives the request.
    HangBeforeWork,
    /// The proxy responds itself, and the server never receives the request.
    Respond(Answer),
}

/// A fault and its requests: by default all of them.
#[derive(Clone, Debug)]
pub struct Rule {
    fault: Fault,
    pattern: String,
    after: usize,
    every: usize,
    times: usize,
    seen: usize,
    acted: usize,
}

impl Rule {
    /// A rule for all requests.
    pub fn new(fault: Fault) -> Self {
        Self {
            fault,
            pattern: "*".into(),
            after: 0,
            every: 1,
            times: usize::MAX,
            seen: 0,
            acted: 0,
        }
    }

    /// Restricts the rule to this operation, or to those that begin with the pattern if it ends
    /// with `*`.
    #[must_use]
    pub fn on(mut self, pattern: impl Into<String>) -> Self {
        self.pattern = pattern.into();
        self
    }

    /// Skips the first `count` such requests.
    #[must_use]
    pub fn after(mut self, count: usize) -> Self {
        self.after = count;
        self
    }

    /// Applies only to every `n`-th of the remaining ones: 3 skips two, then applies.
    ///
    /// # Panics
    ///
    /// If `n` is 0.
    #[must_use]
    pub fn every(mut self, n: usize) -> Self {
        assert!(n > 0, "there is no 0-th request");
        self.every = n;
        self
    }

    /// Applies at most this often.
    #[must_use]
    pub fn times(mut self, count: usize) -> Self {
        self.times = count;
        self
    }

    /// Counts the request and returns its fault, if any.
    pub(super) fn meet(&mut self, operation: &str) -> Option<Fault> {
        if !operation::matches(operation, &self.pattern) {
            return None;
        }
        self.seen += 1;
        let due = self.seen > self.after && (self.seen - self.after).is_multiple_of(self.every);
        if !due || self.acted == self.times {
            return None;
        }
        self.acted += 1;
        Some(self.fault.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acts(mut rule: Rule, operations: &[&str]) -> Vec<bool> {
        operations
            .iter()
            .map(|operation| rule.meet(operation).is_some())
            .collect()
    }

    #[test]
    fn every_third_after_one_twice() {
        let rule = Rule::new(Fault::CutBeforeWork).after(1).every(3).times(2);
        let met = acts(rule, &["a"; 12]);
        let expected: Vec<_> = (1..=12).map(|n| n == 4 || n == 7).collect();
        assert_eq!(met, expected);
    }

    #[test]
    fn other_operations_do_not_count() {
        let rule = Rule::new(Fault::CutBeforeWork).on("a").every(2);
        assert_eq!(
            acts(rule, &["a", "b", "b", "a", "b", "a"]),
            [false, false, false, true, false, false]
        );
    }
}
