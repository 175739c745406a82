//! The permissions of a caller, and the secrets that they apply to.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use secret_persistence::{Actor, Coordinate, Scope};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A permission of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The connector API without hydrate.
    Change,
    /// Hydrated configurations.
    Hydrate,
    /// Reading values by name.
    KvRead,
    /// Writing and deleting values by name.
    KvWrite,
    /// Stores, metrics, the page.
    Operate,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Change,
        Self::Hydrate,
        Self::KvRead,
        Self::KvWrite,
        Self::Operate,
    ];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Change => "change",
            Self::Hydrate => "hydrate",
            Self::KvRead => "kv-read",
            Self::KvWrite => "kv-write",
            Self::Operate => "operate",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or(UnknownRole)
    }
}

/// A text that is not a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownRole;

impl fmt::Display for UnknownRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown role; the roles are change, hydrate, kv-read, kv-write and operate")
    }
}

impl std::error::Error for UnknownRole {}

/// The secrets that a caller may see. Others do not exist for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// All secrets.
    All,
    /// The secrets of some workspaces, and those whose names have a prefix.
    To {
        /// The workspaces.
        workspaces: BTreeSet<Uuid>,
        /// The prefixes.
        prefixes: Vec<String>,
    },
}

impl Binding {
    /// Whether a secret of this name exists for the caller.
    #[must_use]
    pub fn sees(&self, coordinate: &Coordinate) -> bool {
        match self {
            Self::All => true,
            Self::To {
                workspaces,
                prefixes,
            } => {
                prefixes
                    .iter()
                    .any(|prefix| coordinate.as_str().starts_with(prefix.as_str()))
                    || coordinate.managed().is_some_and(|managed| {
                        workspaces
                            .iter()
                            .any(|id| Scope::workspace(*id).contains(managed))
                    })
            }
        }
    }

    /// Whether changes of this scope exist for the caller.
    #[must_use]
    pub fn sees_scope(&self, scope: &Scope) -> bool {
        match self {
            Self::All => true,
            Self::To {
                workspaces,
                prefixes,
            } => {
                // Every name of the scope has this prefix.
                let names = format!("{scope}_secret_");
                (*scope == Scope::workspace(scope.base_id())
                    && !scope.is_ephemeral()
                    && workspaces.contains(&scope.base_id()))
                    || prefixes
                        .iter()
                        .any(|prefix| names.starts_with(prefix.as_str()))
            }
        }
    }
}

/// A caller.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Principal {
    /// Its name in audit events.
    pub name: String,
    /// What it may do.
    pub roles: BTreeSet<Role>,
    /// The secrets it may see.
    pub binding: Binding,
    /// When it expires, in seconds since 1970.
    pub expires: Option<i64>,
}

impl Principal {
    /// Whether it has a role.
    #[must_use]
    pub fn may(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// Its name for audit events.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor::new(self.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Coordinate {
        Coordinate::parse(text).unwrap()
    }

    #[test]
    fn a_binding_sees_its_workspaces_and_prefixes_and_nothing_else() {
        let (ours, theirs, secret) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
        let bound = Binding::To {
            workspaces: BTreeSet::from([ours]),
            prefixes: vec!["team/".to_owned(), "airbyte_organization_7".to_owned()],
        };
        let coordinate = |id: Uuid| name(&format!("airbyte_workspace_{id}_secret_{secret}_v1"));
        assert!(bound.sees(&coordinate(ours)) && !bound.sees(&coordinate(theirs)));
        assert!(bound.sees(&name("team/x")) && !bound.sees(&name("teams")));
        assert!(bound.sees_scope(&Scope::workspace(ours)));
        assert!(!bound.sees_scope(&Scope::workspace(theirs)));
        assert!(!bound.sees_scope(&Scope::new("organization_", ours).unwrap()));
        assert!(!bound.sees_scope(&Scope::ephemeral()));
        assert!(
            Binding::All.sees(&coordinate(theirs)) && Binding::All.sees_scope(&Scope::ephemeral())
        );
        // A binding to nothing permits nothing.
        let nothing = Binding::To {
            workspaces: BTreeSet::new(),
            prefixes: Vec::new(),
        };
        assert!(!nothing.sees(&coordinate(ours)) && !nothing.sees_scope(&Scope::workspace(ours)));
    }

    #[test]
    fn names_of_roles_are_stable() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
            assert_eq!(serde_json::to_value(role).unwrap(), role.as_str());
        }
    }
}
