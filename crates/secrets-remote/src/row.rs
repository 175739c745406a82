//! A line of a provider's table of codes.

use secret_persistence_core::ErrorKind;

/// Codes that mean the same, what we make of them and what to tell the user.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The codes as the provider spells them.
    pub codes: &'static [&'static str],
    /// What we call it.
    pub kind: ErrorKind,
    /// Whether trying again may help; `None` is what the kind says.
    pub retryable: Option<bool>,
    /// What is wrong, without a capital and without a full stop.
    pub message: &'static str,
    /// What the user can do; empty where the table of rights says it.
    pub hint: &'static str,
}

impl Row {
    /// A row whose kind says whether trying again may help.
    #[must_use]
    pub const fn new(
        codes: &'static [&'static str],
        kind: ErrorKind,
        message: &'static str,
        hint: &'static str,
    ) -> Self {
        Self {
            codes,
            kind,
            retryable: None,
            message,
            hint,
        }
    }

    /// The same row, where trying again helps although its kind says that it does not, or the other
    /// way round.
    #[must_use]
    pub const fn with_retryable(mut self, retryable: bool) -> Self {
        self.retryable = Some(retryable);
        self
    }

    /// Whether it says that a right is missing, which the table of rights explains.
    #[must_use]
    pub fn is_denial(&self) -> bool {
        self.kind == ErrorKind::PermissionDenied && self.hint.is_empty()
    }

    /// Looks a code up in a table.
    #[must_use]
    pub fn of<'a>(rows: &'a [Self], code: &str) -> Option<&'a Self> {
        rows.iter().find(|row| row.codes.contains(&code))
    }
}
