//! Maps a path below the mount to a coordinate, and lists the names in a folder.

use secret_persistence::{Coordinate, ManagedCoordinate, ManagedPrefix};

use super::answer::KvError;
use crate::server::ProblemKind;

/// The coordinate of a path, for reading: managed, or an external name that the operator allows.
///
/// # Errors
/// 404 for a name that cannot exist, 400 for an invalid managed name.
pub(super) fn readable(
    prefix: &str,
    allowed: &[String],
    path: &str,
) -> Result<Coordinate, KvError> {
    // A name without the prefix is never managed, but may be external.
    let name = path.strip_prefix(prefix).unwrap_or(path);
    match Coordinate::parse(name) {
        Ok(Coordinate::Managed(managed)) if path.starts_with(prefix) => {
            Ok(Coordinate::Managed(managed))
        }
        Ok(Coordinate::Managed(_)) => Err(KvError::not_found()),
        Ok(Coordinate::External(_)) => match Coordinate::parse(path) {
            Ok(external)
                if allowed
                    .iter()
                    .any(|allowed| path.starts_with(allowed.as_str())) =>
            {
                Ok(external)
            }
            _ => Err(KvError::not_found()),
        },
        Err(error) => Err(KvError::new(ProblemKind::NameNotManaged, error.to_string())),
    }
}

/// The coordinate of a path, for writing and deleting: managed.
///
/// # Errors
/// 400, with the reason.
pub(super) fn managed(prefix: &str, path: &str) -> Result<ManagedCoordinate, KvError> {
    let Some(name) = path.strip_prefix(prefix) else {
        return Err(KvError::new(
            ProblemKind::NameNotManaged,
            format!("names must begin with `{prefix}`"),
        ));
    };
    ManagedCoordinate::parse(name).map_err(|error| {
        KvError::new(
            ProblemKind::NameNotManaged,
            format!(
                "only managed names, {}…_secret_<uuid>_v<version>, can be written or deleted: {}",
                ManagedPrefix::current(),
                error.message()
            ),
        )
    })
}

/// The content of a folder.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Folder {
    /// The names of secrets, with this prefix.
    Names(String),
    /// One folder.
    Sub(String),
    /// Nothing.
    Empty,
}

/// The content of a path's folder, given the prefix of all names.
pub(super) fn folder(prefix: &str, path: &str) -> Folder {
    let path = path.trim_matches('/');
    let path = if path.is_empty() {
        String::new()
    } else {
        format!("{path}/")
    };
    // The folder that contains the names, and the part of the prefix before each name.
    let (home, stem) = prefix.split_at(prefix.rfind('/').map_or(0, |at| at + 1));
    if home == path {
        return Folder::Names(stem.to_owned());
    }
    match home
        .strip_prefix(&path)
        .and_then(|rest| rest.split_once('/'))
    {
        Some((next, _)) => Folder::Sub(format!("{next}/")),
        None => Folder::Empty,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_lead_to_the_names() {
        let names = |stem: &str| Folder::Names(stem.to_owned());
        let sub = |name: &str| Folder::Sub(name.to_owned());
        for (prefix, path, shown) in [
            ("", "", names("")),
            ("", "/", names("")),
            ("", "a", Folder::Empty),
            ("team/airbyte/", "", sub("team/")),
            ("team/airbyte/", "team", sub("airbyte/")),
            ("team/airbyte/", "team/", sub("airbyte/")),
            ("team/airbyte/", "team/airbyte/", names("")),
            ("team/airbyte/", "tea", Folder::Empty),
            ("team/app-", "team", names("app-")),
            ("app-", "", names("app-")),
        ] {
            assert_eq!(folder(prefix, path), shown, "{prefix:?} {path:?}");
        }
    }

    #[test]
    fn only_managed_names_behind_the_prefix_can_be_written() {
        let name = "airbyte_workspace_1_secret_2_v1";
        assert_eq!(managed("p/", &format!("p/{name}")).unwrap().as_str(), name);
        for (prefix, path) in [
            ("p/", name.to_owned()),
            ("", "other".to_owned()),
            ("", format!("{name}/")),
            ("", "airbyte_x".to_owned()),
            ("", format!("../{name}")),
        ] {
            assert!(managed(prefix, &path).is_err(), "{prefix} {path}");
        }
    }

    #[test]
    fn names_of_others_are_read_where_the_list_allows_it() {
        let allowed = ["team/".to_owned()];
        assert_eq!(
            readable("", &allowed, "team/db").unwrap().as_str(),
            "team/db"
        );
        assert_eq!(
            readable("p/", &allowed, "team/db").unwrap().as_str(),
            "team/db"
        );
        let name = "airbyte_workspace_1_secret_2_v1";
        assert_eq!(
            readable("p/", &allowed, &format!("p/{name}"))
                .unwrap()
                .as_str(),
            name
        );
        for (prefix, path) in [
            ("", "other"),
            ("p/", "p/db"),
            ("p/", name),
            ("", "team"),
            ("p/", "team/airbyte_x_v1"),
            ("", "airbyte_x"),
        ] {
            assert!(readable(prefix, &allowed, path).is_err(), "{prefix} {path}");
        }
    }
}
