//! Shows the engine's events as progress.

use parking_lot::Mutex;
use secret_persistence_migrate::{Event, Observer, Phase};

use crate::console::Progress;

/// Shows each phase.
#[derive(Debug, Default)]
pub(crate) struct Shown(Mutex<Vec<Running>>);

#[derive(Debug)]
struct Running {
    phase: Phase,
    told: u64,
    failed: u64,
    progress: Progress,
}

impl Observer for Shown {
    fn event(&self, event: &Event<'_>) {
        let mut running = self.0.lock();
        match event {
            Event::Began { phase, total } => running.push(Running {
                phase: *phase,
                told: 0,
                failed: 0,
                progress: Progress::begin(phase.as_str(), *total),
            }),
            Event::Advanced { phase, done } => {
                if let Some(shown) = running.iter_mut().find(|shown| shown.phase == *phase) {
                    shown.progress.advance(done.saturating_sub(shown.told));
                    shown.told = *done;
                }
            }
            Event::Ended { phase, done } => {
                if let Some(at) = running.iter().position(|shown| shown.phase == *phase) {
                    let shown = running.remove(at);
                    shown.progress.advance(done.saturating_sub(shown.told));
                    shown.progress.finish();
                }
            }
            // The report contains failures and findings, with their remedies.
            Event::Failed(_) => {
                if let Some(shown) = running.last_mut() {
                    shown.failed += 1;
                    shown.progress.failed(shown.failed);
                }
            }
            _ => {}
        }
    }
}
