//! Which requests meet which fault.

use std::time::Duration;

use super::{Answer, operation};

/// What happens to a request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// The server does the work, and the connection closes without an answer.
    CutAfterWork,
    /// The connection closes without an answer, and the server never hears of the request.
    CutBeforeWork,
    /// The request is passed on after this time, beside the delay of the proxy.
    Delay(Duration),
    /// The server does the work, and the connection closes after half of the answer's body.
    HalfAnswer,
    /// The server does the work, and no answer ever comes.
    HangAfterWork,
    /// No answer ever comes, and the server never hears of the request.
    HangBeforeWork,
    /// The proxy answers itself, and the server never hears of the request.
    Respond(Answer),
}

/// A fault and the requests that meet it: all of them, unless it says otherwise.
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

    /// Only for this operation, or those that begin with the pattern if it ends with `*`.
    #[must_use]
    pub fn on(mut self, pattern: impl Into<String>) -> Self {
        self.pattern = pattern.into();
        self
    }

    /// Lets the first `count` such requests pass.
    #[must_use]
    pub fn after(mut self, count: usize) -> Self {
        self.after = count;
        self
    }

    /// Acts on every `n`-th of the rest only: 3 lets two pass, then acts.
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

    /// Acts at most so often.
    #[must_use]
    pub fn times(mut self, count: usize) -> Self {
        self.times = count;
        self
    }

    /// Counts the request and returns the fault that it meets, if any.
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
