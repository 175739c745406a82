//! Projects, regions, and the resource names of secrets.

use std::fmt;

use secret_persistence_core::{Coordinate, Error, ErrorKind, ManagedPrefix, Result};

/// The longest secret id, in characters.
/// <https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets/create>
const MAX_ID_CHARS: usize = 255;

/// The version of a managed secret, which only has one.
pub(crate) const FIRST: &str = "1";

/// The newest version, whatever its state.
pub(crate) const LATEST: &str = "latest";

/// A valid project id or number, which can be inserted into a path.
/// <https://cloud.google.com/resource-manager/docs/creating-managing-projects>
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Project(String);

impl Project {
    /// Parses `my-project-1`, `example.com:my-project-1` or a project number.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let (domain, id) = text
            .rsplit_once(':')
            .map_or((None, text), |(domain, id)| (Some(domain), id));
        let is_id = (6..=30).contains(&id.len())
            && id.starts_with(|first: char| first.is_ascii_lowercase())
            && !id.ends_with('-')
            && id.bytes().all(is_label_byte);
        let is_domain = |domain: &str| {
            domain.len() <= 253
                && domain.contains('.')
                && domain
                    .split('.')
                    .all(|part| !part.is_empty() && part.bytes().all(is_label_byte))
        };
        if (is_id && domain.is_none_or(is_domain)) || is_project_number(text) {
            return Ok(Self(text.to_owned()));
        }
        let message = if text.is_empty() {
            "the Google Cloud project is missing"
        } else {
            "the Google Cloud project is not valid"
        };
        Err(Error::new(ErrorKind::InvalidConfig, message).with_hint(
            "set SECRET_STORE_GCP_PROJECT_ID, or the host of the URL as in `gcp://my-project`, to \
             the id of the project of the secrets (not its display name)",
        ))
    }
}

impl fmt::Display for Project {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A Google Cloud region with a valid name, so that it cannot redirect requests to another host.
/// <https://cloud.google.com/about/locations>
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Region(String);

impl Region {
    /// Parses names like `europe-west3`: words of lowercase letters, the last one with a number.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let is_word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase());
        let name = text.trim_end_matches(|last: char| last.is_ascii_digit());
        let digits = text.len() - name.len();
        let words = name.split('-').count();
        if text.len() <= 32
            && (1..=2).contains(&digits)
            && (2..=4).contains(&words)
            && name.split('-').all(is_word)
        {
            return Ok(Self(text.to_owned()));
        }
        Err(Error::new(
            ErrorKind::InvalidConfig,
            "the Google Cloud region is not valid",
        )
        .with_hint(
            "set SECRET_STORE_GCP_REGION, or the path of the URL as in \
             `gcp://my-project/europe-west3`, to a region (not a zone), or remove it",
        ))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The location of the secrets: a project, and a region for regional secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) project: Project,
    pub(crate) region: Option<Region>,
}

impl Place {
    /// The resource under which secrets are created and listed.
    pub(crate) fn parent(&self) -> String {
        match &self.region {
            None => format!("projects/{}", self.project),
            Some(region) => format!("projects/{}/locations/{region}", self.project),
        }
    }

    /// The resource name of a secret.
    pub(crate) fn secret(&self, id: &str) -> String {
        format!("{}/secrets/{id}", self.parent())
    }

    /// The resource name of a version of a coordinate's secret.
    ///
    /// Managed coordinates are valid ids. An external one is a secret's id or its full resource
    /// name, with or without a version; core has already refused every spelling that could mean a
    /// managed secret.
    pub(crate) fn version(&self, coordinate: &Coordinate) -> Result<Version> {
        let name = coordinate.as_str();
        if coordinate.managed().is_some() {
            return Ok(Version::new(self.secret(name), LATEST));
        }
        self.external(name)
            .map_err(|error| error.with_coordinate(coordinate.shared()))
    }

    fn external(&self, name: &str) -> Result<Version> {
        let parts: Vec<&str> = name.split('/').collect();
        let (secret, version) = match parts[..] {
            ["projects", project, "locations", region, "secrets", id] => {
                (self.foreign(project, Some(region), id)?, LATEST)
            }
            [
                "projects",
                project,
                "locations",
                region,
                "secrets",
                id,
                "versions",
                version,
            ] => (self.foreign(project, Some(region), id)?, version),
            ["projects", project, "secrets", id] => (self.foreign(project, None, id)?, LATEST),
            ["projects", project, "secrets", id, "versions", version] => {
                (self.foreign(project, None, id)?, version)
            }
            [id, "versions", version] => (self.secret(check_id(id)?), version),
            [id] => (self.secret(check_id(id)?), LATEST),
            _ => {
                return Err(invalid(
                    "this is neither a secret's id nor its resource name",
                ));
            }
        };
        check_version(version)?;
        Ok(Version::new(secret, version))
    }

    /// A secret in any project. It must have the same form as ours: regional endpoints do not serve
    /// global secrets, and only they serve regional secrets.
    fn foreign(&self, project: &str, region: Option<&str>, id: &str) -> Result<String> {
        let project = Project::parse(project)
            .map_err(|_| invalid("the project in the resource name is not valid"))?;
        if region != self.region.as_ref().map(Region::as_str) {
            let ours = match &self.region {
                Some(region) => format!("regional secrets in {region}"),
                None => "global secrets".to_owned(),
            };
            return Err(Error::new(
                ErrorKind::InvalidCoordinate,
                format!("the resource name is of another location than this store, which contains {ours}"),
            )
            .with_hint("open that location as a separate store"));
        }
        let place = Self {
            project,
            region: self.region.clone(),
        };
        Ok(place.secret(check_id(id)?))
    }
}

/// Shows `project P`, or `project P region R`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "project {}", self.project)?;
        match &self.region {
            None => Ok(()),
            Some(region) => write!(f, " region {region}"),
        }
    }
}

/// A version of a secret, by its resource name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    secret: String,
    version: String,
}

impl Version {
    pub(crate) fn new(secret: String, version: &str) -> Self {
        Self {
            secret,
            version: version.to_owned(),
        }
    }

    pub(crate) fn name(&self) -> String {
        format!("{}/versions/{}", self.secret, self.version)
    }

    pub(crate) fn secret(&self) -> &str {
        &self.secret
    }

    pub(crate) fn is_latest(&self) -> bool {
        self.version == LATEST
    }

    /// The first version of the same secret.
    pub(crate) fn first(&self) -> Self {
        Self::new(self.secret.clone(), FIRST)
    }

    /// Whether a returned version belongs to the requested secret, and is the requested version if
    /// that was a number. The project is not compared, because requests contain its id and
    /// responses its number.
    pub(crate) fn is_answered_by(&self, name: &str) -> bool {
        let tail = |name: &str| {
            let mut parts = name.splitn(3, '/');
            let is_project = parts.next() == Some("projects") && parts.next().is_some();
            parts
                .next()
                .filter(|_| is_project)
                .map(str::to_owned)
                .unwrap_or_default()
        };
        let (asked, answered) = (tail(&self.name()), tail(name));
        match (answered.rsplit_once('/'), asked.rsplit_once('/')) {
            (Some((secret, number)), Some((asked_secret, version))) => {
                let by_number = version.bytes().all(|byte| byte.is_ascii_digit());
                secret == asked_secret && (!by_number || number == version)
            }
            _ => false,
        }
    }
}

/// The number of a returned version, or `None` if it is not a number.
pub(crate) fn number(name: &str) -> Option<u64> {
    let (_, number) = name.rsplit_once("/versions/")?;
    number.parse().ok()
}

/// The id of a returned secret.
pub(crate) fn id(name: &str) -> Option<&str> {
    name.rsplit_once("/secrets/").map(|(_, id)| id)
}

/// Whether a listing with this prefix can contain a managed name. Only such a prefix becomes part
/// of a filter.
pub(crate) fn is_name_prefix(prefix: &str) -> bool {
    let managed = ManagedPrefix::current().as_str();
    prefix.len() <= MAX_ID_CHARS
        && prefix.bytes().all(is_id_byte)
        && (prefix.starts_with(managed) || managed.starts_with(prefix))
}

/// Whether the text is a project number, which identifies a project in conditions of IAM.
pub(crate) fn is_project_number(text: &str) -> bool {
    (6..=19).contains(&text.len())
        && !text.starts_with('0')
        && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn check_id(id: &str) -> Result<&str> {
    if (1..=MAX_ID_CHARS).contains(&id.len()) && id.bytes().all(is_id_byte) {
        return Ok(id);
    }
    Err(invalid(
        "the ids of secrets must have 1 to 255 of A-Z, a-z, 0-9, _ and -",
    ))
}

/// A number, `latest` or an alias.
/// <https://cloud.google.com/secret-manager/docs/assign-alias-to-secret-version>
fn check_version(version: &str) -> Result<()> {
    let is_number = version.bytes().all(|byte| byte.is_ascii_digit())
        && !version.starts_with('0')
        && version.len() <= 19;
    let is_alias = version.starts_with(|first: char| first.is_ascii_alphabetic())
        && version.len() <= 63
        && version.bytes().all(is_id_byte);
    if !version.is_empty() && (is_number || is_alias) {
        return Ok(());
    }
    Err(invalid(
        "a version must be a number from 1, `latest` or an alias",
    ))
}

fn is_id_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

fn is_label_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidCoordinate, message)
        .with_hint("write <id>, <id>/versions/<n>, or projects/<project>/secrets/<id>/versions/<n>")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(region: Option<&str>) -> Place {
        Place {
            project: Project::parse("my-project").unwrap(),
            region: region.map(|region| Region::parse(region).unwrap()),
        }
    }

    #[test]
    fn projects_follow_the_grammar() {
        for text in [
            "my-project",
            "a12345",
            "example.com:my-project",
            "123456789012",
        ] {
            assert_eq!(Project::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "short",
            "My-Project",
            "my_project",
            "my-project-",
            "-my-project",
            "1my-project",
            "my-project/secrets/x",
            "my-project?x",
            "my.project",
            "example.com:",
            "example..com:my-project",
            "com:my-project",
            "my project",
            "my-project\n",
            "0123456789",
            "a234567890123456789012345678901",
        ] {
            let error = Project::parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{text:?}");
            assert!(
                error
                    .hint()
                    .unwrap()
                    .contains("SECRET_STORE_GCP_PROJECT_ID")
            );
        }
    }

    #[test]
    fn regions_follow_the_grammar() {
        for text in [
            "us-central1",
            "europe-west12",
            "northamerica-northeast1",
            "u-germany-northeast1",
        ] {
            assert_eq!(Region::parse(text).unwrap().as_str(), text);
        }
        for text in [
            "",
            "us",
            "global",
            "us-central",
            "us-central123",
            "us-central1-a",
            "US-CENTRAL1",
            "us--central1",
            "us-central1.evil.example",
            "us-central1@evil",
            "us-central1/x",
            " us-central1",
            "us-central1\n",
            "us-cen1tral1",
        ] {
            let error = Region::parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{text:?}");
        }
    }

    #[test]
    fn managed_names_are_of_the_place_they_are_in() {
        let coordinate = Coordinate::parse("airbyte_workspace_1_secret_2_v1").unwrap();
        let global = place(None).version(&coordinate).unwrap();
        assert_eq!(
            global.name(),
            "projects/my-project/secrets/airbyte_workspace_1_secret_2_v1/versions/latest"
        );
        let regional = place(Some("us-central1")).version(&coordinate).unwrap();
        assert_eq!(
            regional.first().name(),
            "projects/my-project/locations/us-central1/secrets/airbyte_workspace_1_secret_2_v1/versions/1"
        );
    }

    #[test]
    fn names_of_others_may_name_a_version() {
        for (region, name, expected) in [
            (None, "db", "projects/my-project/secrets/db/versions/latest"),
            (
                None,
                "db/versions/3",
                "projects/my-project/secrets/db/versions/3",
            ),
            (
                None,
                "DB-1/versions/prod",
                "projects/my-project/secrets/DB-1/versions/prod",
            ),
            (
                None,
                "projects/other-project/secrets/db",
                "projects/other-project/secrets/db/versions/latest",
            ),
            (
                None,
                "projects/123456789012/secrets/db/versions/12",
                "projects/123456789012/secrets/db/versions/12",
            ),
            (
                Some("us-central1"),
                "db/versions/3",
                "projects/my-project/locations/us-central1/secrets/db/versions/3",
            ),
            (
                Some("us-central1"),
                "projects/other-project/locations/us-central1/secrets/db/versions/3",
                "projects/other-project/locations/us-central1/secrets/db/versions/3",
            ),
        ] {
            let coordinate = Coordinate::parse(name).unwrap();
            let version = place(region).version(&coordinate).unwrap();
            assert_eq!(version.name(), expected);
        }
    }

    /// Every spelling with which Secret Manager would find a managed secret, and every name that it
    /// refuses: core or this file rejects them before any request. Otherwise a managed secret could
    /// be read (but never written) as an external one.
    #[test]
    fn aliases_of_managed_secrets_and_foreign_places_are_refused() {
        let managed = "airbyte_workspace_1_secret_2_v1";
        for name in [
            // Aliases.
            format!("{managed}/versions/1"),
            format!("{managed}/versions/latest"),
            format!("projects/my-project/secrets/{managed}"),
            format!("projects/123456789012/secrets/{managed}/versions/1"),
            format!("projects/my-project/locations/us-central1/secrets/{managed}"),
            format!("PROJECTS/my-project/SECRETS/{managed}"),
            "airbyte_workspace_1_secret_2".into(),
            "airbyte-workspace-1-secret-2-v1".into(),
            "Airbyte_workspace_1_secret_2_v1".into(),
            "airbyte_x_v01".into(),
            // Other places.
            "projects/my-project/locations/us-central1/secrets/db".into(),
            "projects/my-project/locations/global/secrets/db".into(),
            "projects/My-Project/secrets/db".into(),
            "projects/-/secrets/db".into(),
            "//secretmanager.googleapis.com/projects/my-project/secrets/db".into(),
            "folders/1/secrets/db".into(),
            // Names that Secret Manager refuses, and path tricks.
            "".into(),
            "db/".into(),
            "/db".into(),
            "db/versions".into(),
            "db/versions/".into(),
            "db/versions/0".into(),
            "db/versions/01".into(),
            "db/versions/-1".into(),
            "db/versions/1:access".into(),
            "db/versions/1/x".into(),
            "db/3".into(),
            "db:access".into(),
            "db?x=y".into(),
            "db%2Fversions%2F1".into(),
            "db#password".into(),
            "team/../db".into(),
            "team db".into(),
            "ключ".into(),
            "db*".into(),
            "x".repeat(256),
        ] {
            let refused = Coordinate::parse(&name)
                .and_then(|coordinate| place(None).version(&coordinate).map(drop));
            assert_eq!(
                refused.unwrap_err().kind(),
                ErrorKind::InvalidCoordinate,
                "{name}"
            );
        }
        let global = Coordinate::parse("projects/my-project/secrets/db").unwrap();
        assert!(place(Some("us-central1")).version(&global).is_err());
    }

    #[test]
    fn answers_are_matched_by_secret_and_number() {
        let asked = |name: &str| {
            let coordinate = Coordinate::parse(name).unwrap();
            place(None).version(&coordinate).unwrap()
        };
        for (name, answer, expected) in [
            ("db", "projects/123456/secrets/db/versions/7", true),
            (
                "db/versions/7",
                "projects/123456/secrets/db/versions/7",
                true,
            ),
            (
                "db/versions/7",
                "projects/123456/secrets/db/versions/8",
                false,
            ),
            (
                "db/versions/prod",
                "projects/123456/secrets/db/versions/8",
                true,
            ),
            ("db", "projects/123456/secrets/db2/versions/7", false),
            (
                "db",
                "projects/123456/locations/us-central1/secrets/db/versions/7",
                false,
            ),
            ("db", "db/versions/7", false),
            ("db", "", false),
        ] {
            assert_eq!(
                asked(name).is_answered_by(answer),
                expected,
                "{name} {answer}"
            );
        }
        assert_eq!(number("projects/1/secrets/db/versions/7"), Some(7));
        assert_eq!(id("projects/1/secrets/db"), Some("db"));
    }

    #[test]
    fn only_managed_prefixes_are_listed() {
        for (prefix, expected) in [
            ("", true),
            ("air", true),
            ("airbyte_", true),
            ("airbyte_workspace_1", true),
            ("team", false),
            ("airbyte_ OR name:x", false),
            ("airbyte_\"", false),
        ] {
            assert_eq!(is_name_prefix(prefix), expected, "{prefix}");
        }
    }
}
