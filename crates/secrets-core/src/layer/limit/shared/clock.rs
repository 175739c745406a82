//! What is known of the source's clock.

use std::time::Duration;

use tokio::time::Instant;

/// How far two clocks drift apart within this many of the same, in both directions: 500 millionths, the
/// most that NTP corrects a clock by.
const DRIFT: i128 = 2000;

/// The bounds between which the source's clock certainly is, from all answers so far.
///
/// The source reads its clock between a question and its answer. A quick answer therefore says almost
/// exactly what time it is there; the bounds of a slow one are as wide as it took, and add nothing to what
/// is known from a quick one. So the slots of a late answer have the times that they were given for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// Where this process's times begin.
    began: Instant,
    /// The least and the most that a time here is ahead of the same time there, in nanoseconds.
    least: i128,
    most: i128,
    read: Instant,
}

impl Clock {
    /// The clock of the first answer.
    pub(super) fn new(asked: Instant, answered: Instant, there: Duration) -> Self {
        let there = nanoseconds(there);
        Self {
            began: asked,
            least: -there,
            most: nanoseconds(answered - asked) - there,
            read: answered,
        }
    }

    /// The clock after another answer.
    pub(super) fn after(self, asked: Instant, answered: Instant, there: Duration) -> Self {
        let there = nanoseconds(there);
        let drift = self.drift(answered);
        let told = (self.here(asked) - there, self.here(answered) - there);
        let both = (
            told.0.max(self.least - drift),
            told.1.min(self.most + drift),
        );
        // Otherwise a clock was set.
        let (least, most) = if both.0 <= both.1 { both } else { told };
        Self {
            least,
            most,
            read: answered,
            ..self
        }
    }

    /// When this time of the source has certainly come. It came earlier by the
    /// [uncertainty](Self::uncertainty) at most.
    pub(super) fn here_at(&self, there: Duration) -> Instant {
        let here = u64::try_from(nanoseconds(there) + self.most).unwrap_or(0);
        let here = self.began.checked_add(Duration::from_nanos(here));
        here.unwrap_or(self.began)
    }

    pub(super) fn uncertainty(&self, now: Instant) -> Duration {
        let width = self.most - self.least + 2 * self.drift(now);
        Duration::from_nanos(u64::try_from(width).unwrap_or(u64::MAX))
    }

    fn here(&self, time: Instant) -> i128 {
        nanoseconds(time.saturating_duration_since(self.began))
    }

    fn drift(&self, now: Instant) -> i128 {
        nanoseconds(now.saturating_duration_since(self.read)) / DRIFT
    }
}

/// No duration has too many for this.
fn nanoseconds(duration: Duration) -> i128 {
    i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn a_slow_answer_takes_nothing_from_what_a_quick_one_said() {
        let began = Instant::now();
        // The other clock is a thousand seconds ahead, and is read in the middle.
        let there = |at: Duration| SECOND * 1000 + at;
        let slow = Clock::new(began, began + SECOND, there(SECOND / 2));
        assert_eq!(slow.uncertainty(began + SECOND), SECOND);
        assert_eq!(slow.here_at(there(SECOND)), began + SECOND * 3 / 2);

        let quick = slow.after(began + SECOND, began + SECOND + MS * 2, there(SECOND + MS));
        let now = began + SECOND + MS * 2;
        assert_eq!(quick.uncertainty(now), MS * 2);
        assert_eq!(quick.here_at(there(SECOND)), began + SECOND + MS);

        // Two seconds later, half of them for a late answer.
        let now = now + SECOND * 2;
        let late = quick.after(now - SECOND, now, there(now - began - SECOND / 3));
        assert_eq!(late.uncertainty(now), MS * 4);
        let at = late.here_at(there(SECOND * 3));
        assert!(at >= began + SECOND * 3 && at <= began + SECOND * 3 + MS * 2);
        // An hour later, nothing is known but that it may have been.
        assert!(late.uncertainty(now + SECOND * 3600) > SECOND * 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_was_set_is_believed() {
        let began = Instant::now();
        let clock = Clock::new(began, began + MS, SECOND * 1000);
        for there in [SECOND * 10, SECOND * 5000] {
            let now = began + SECOND;
            let set = clock.after(now, now + MS, there);
            assert_eq!(set.uncertainty(now + MS), MS);
            assert_eq!(set.here_at(there), now + MS);
        }
    }
}
