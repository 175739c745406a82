//! The slots in hand.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::rates::Slice;

/// Slots, in their order.
#[derive(Debug, Default)]
pub(super) struct Slots(VecDeque<Run>);

/// Slots of one draw.
#[derive(Debug)]
struct Run {
    /// When the next one has certainly come.
    next: Instant,
    spacing: Duration,
    left: u32,
    /// How long one is good for.
    good: Duration,
}

/// The last of the slots of a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Last {
    pub(super) at: Instant,
    pub(super) until: Instant,
}

impl Slots {
    /// Adds the slots of an answer after those that are owed.
    pub(super) fn add(&mut self, slice: Slice, first: Instant, units: u32, good: Duration) {
        self.0.push_back(Run {
            next: first,
            spacing: slice.spacing,
            left: units,
            good,
        });
    }

    pub(super) fn count(&self) -> u64 {
        self.0.iter().map(|run| u64::from(run.left)).sum()
    }

    pub(super) fn end(&self) -> Option<Instant> {
        self.0
            .back()
            .map(|run| run.slot(run.left.saturating_sub(1)).at)
    }

    pub(super) fn forget_lapsed(&mut self, now: Instant) {
        while let Some(run) = self.0.front_mut() {
            run.forget_lapsed(now);
            if run.left > 0 {
                return;
            }
            self.0.pop_front();
        }
    }

    /// Takes slots out, and returns the last of them.
    pub(super) fn take(&mut self, units: u32) -> Option<Last> {
        if self.count() < u64::from(units) {
            return None;
        }
        let mut missing = units;
        loop {
            let run = self.0.front_mut()?;
            let taken = missing.min(run.left);
            missing -= taken;
            let last = run.slot(taken.saturating_sub(1));
            run.next = run.slot(taken).at;
            run.left -= taken;
            if run.left == 0 {
                self.0.pop_front();
            }
            if missing == 0 {
                return Some(last);
            }
        }
    }
}

impl Run {
    fn slot(&self, number: u32) -> Last {
        // A run lasts for a slice of a second, or one call's requests.
        let after = self.spacing.checked_mul(number).unwrap_or(Duration::MAX);
        let at = self.next.checked_add(after).unwrap_or(self.next);
        Last {
            at,
            until: at.checked_add(self.good).unwrap_or(at),
        }
    }

    fn forget_lapsed(&mut self, now: Instant) {
        let late = now.saturating_duration_since(self.slot(0).until);
        if late.is_zero() {
            return;
        }
        let lapsed = match self.spacing.as_nanos() {
            0 => self.left,
            spacing => {
                let number = late.as_nanos().div_ceil(spacing);
                u32::try_from(number).unwrap_or(u32::MAX).min(self.left)
            }
        };
        self.next = self.slot(lapsed).at;
        self.left -= lapsed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn slots_that_lapse_are_not_used() {
        let now = Instant::now();
        let mut slots = Slots::default();
        let slice = Slice::new(MS, MS, MS * 10);
        slots.add(slice, now, 20, MS * 40);
        slots.forget_lapsed(now + MS * 105);
        // Those at 0 to 60 ms have lapsed at 105 ms.
        assert_eq!(slots.count(), 13);
        assert_eq!(slots.take(1).unwrap().at, now + MS * 70);
        assert!(slots.take(13).is_none());
        slots.forget_lapsed(now + MS * 1105);
        assert_eq!(slots.count(), 0);
    }
}
