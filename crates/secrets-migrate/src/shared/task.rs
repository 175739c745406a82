//! The commands that processes share, and what each does with a page.
use crate::independence::Sides;
use crate::session::{Session, Unit};
use crate::{MigrateResult, Phase, Select};

/// A command that processes share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    Copy,
    Verify,
    Rollback,
    Retire,
}

impl Task {
    pub(super) const fn command(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Verify => "verify",
            Self::Rollback => "rollback",
            Self::Retire => "retire",
        }
    }

    pub(super) const fn phase(self) -> Phase {
        match self {
            Self::Copy => Phase::Copy,
            Self::Verify => Phase::Compare,
            Self::Rollback | Self::Retire => Phase::Delete,
        }
    }

    /// The secrets of the pages.
    pub(super) fn select(self) -> Select {
        match self {
            Self::Copy => Select::all().with_states(&Session::TO_COPY),
            Self::Verify => Select::all().with_states(&Session::TO_VERIFY),
            Self::Rollback => Session::to_roll_back(),
            Self::Retire => Select::all(),
        }
    }

    /// Whether something has to be done after all secrets.
    pub(super) const fn has_last(self) -> bool {
        matches!(self, Self::Verify | Self::Retire)
    }

    /// Whether the first secret that a process deletes is looked at before it deletes more.
    pub(super) const fn deletes(self) -> bool {
        matches!(self, Self::Rollback | Self::Retire)
    }
}

impl Session<'_> {
    /// What comes before the secrets, for all processes. Returns the number of the scan, or 0.
    pub(super) async fn begin_task(&self, task: Task) -> MigrateResult<u64> {
        match task {
            Task::Copy => {
                self.settle_copies().await?;
                let scan = self.scan().await?;
                self.tracker.decide();
                Ok(scan)
            }
            Task::Verify => Ok(0),
            Task::Rollback => self.prepare_rollback().await.map(|()| 0),
            Task::Retire => self.prepare_retire().await.map(|()| 0),
        }
    }

    /// What is done with the secrets of a page.
    pub(super) async fn do_task(&self, task: Task, scan: u64, unit: Unit<'_>) -> MigrateResult<()> {
        match task {
            Task::Copy => self.copy_unit(scan, unit).await,
            Task::Verify => self.verify_unit(unit).await,
            Task::Rollback => self.rollback_unit(unit).await,
            Task::Retire => self.retire_unit(unit).await,
        }
    }

    /// What comes after all secrets, for all processes.
    pub(super) async fn end_task(&self, task: Task) -> MigrateResult<()> {
        match task {
            Task::Copy | Task::Rollback => Ok(()),
            Task::Verify => self.verify_rest().await,
            Task::Retire => self.count_remaining().await,
        }
    }

    /// The stores of a command that deletes.
    pub(super) fn sides_of(&self, task: Task) -> Option<Sides<'_>> {
        match task {
            Task::Copy | Task::Verify => None,
            Task::Rollback => Some(self.emptying_target()),
            Task::Retire => Some(self.emptying_source()),
        }
    }
}
