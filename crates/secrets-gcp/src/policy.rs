//! The permissions of this store: one table for the custom roles, their conditions and the hints in
//! errors.
//!
//! ```
//! use secret_persistence_gcp::policy::{PolicyOptions, commands, roles};
//!
//! let options = PolicyOptions::new("123456789012").with_region("europe-west3");
//! let policy = roles(&options)?;
//! assert_eq!(policy["roles"][0]["includedPermissions"][0], "secretmanager.secrets.create");
//! assert!(commands(&options)?.contains("gcloud iam roles create"));
//! // Quotes and wildcards would widen a condition, so they are refused.
//! assert!(roles(&PolicyOptions::new("*")).is_err());
//! # Ok::<(), secret_persistence_core::Error>(())
//! ```

use std::fmt::Write as _;

use secret_persistence_core::{Error, ErrorKind, ManagedPrefix, Operation, Result};
use serde_json::{Value, json};

use crate::config::{check_kms_key, check_service_account};
use crate::naming::{Place, Project, Region, is_project_number};

/// The placeholder for an unknown project id.
const SOME_PROJECT: &str = "PROJECT_ID";

/// The placeholder for an unknown principal.
const SOME_MEMBER: &str = "MEMBER";

/// Options of the roles.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PolicyOptions {
    /// The number of the secrets' project, which conditions contain instead of the id.
    pub project_number: String,
    /// The id of that project. Without it, the commands ask Google.
    pub project: Option<String>,
    /// The region, for regional secrets.
    pub region: Option<String>,
    /// The resource name of the customer's key, if there is one.
    pub kms_key: Option<String>,
    /// The principal that gets the roles: `serviceAccount:<email>`, or a `principal://…` of
    /// workload identity.
    pub member: Option<String>,
    /// Prefixes of the ids of external secrets that may be read.
    pub externals: Vec<String>,
    /// Whether the store only reads.
    pub read_only: bool,
}

impl PolicyOptions {
    /// Reading and writing global secrets, with Google's own key.
    pub fn new(project_number: impl Into<String>) -> Self {
        Self {
            project_number: project_number.into(),
            project: None,
            region: None,
            kms_key: None,
            member: None,
            externals: Vec::new(),
            read_only: false,
        }
    }

    /// Sets the project's id.
    #[must_use]
    pub fn with_project(mut self, id: impl Into<String>) -> Self {
        self.project = Some(id.into());
        self
    }

    /// Adds permissions for the regional secrets of this region.
    #[must_use]
    pub fn with_region(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// Adds the grant on the customer's key.
    #[must_use]
    pub fn with_kms_key(mut self, key: impl Into<String>) -> Self {
        self.kms_key = Some(key.into());
        self
    }

    /// Sets the principal that gets the roles.
    #[must_use]
    pub fn with_member(mut self, member: impl Into<String>) -> Self {
        self.member = Some(member.into());
        self
    }

    /// Permits reading external secrets whose ids begin with this prefix.
    #[must_use]
    pub fn with_external(mut self, prefix: impl Into<String>) -> Self {
        self.externals.push(prefix.into());
        self
    }

    /// Sets whether the store only reads.
    #[must_use]
    pub fn with_read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }
}

/// Generates the minimal roles, their bindings and the grant on the key, in the form of Google's
/// APIs.
///
/// `roles` are custom roles of the project, `bindings` belong into its policy, `keys` into the
/// policies of keys. Without these options, `PROJECT_ID` and `MEMBER` are placeholders for the
/// project's id and the principal.
///
/// # Errors
/// `InvalidConfig` if an option is invalid; quotes and wildcards always are.
pub fn roles(options: &PolicyOptions) -> Result<Value> {
    let scope = PolicyScope::parse(options)?;
    let roles: Vec<Value> = scope
        .roles
        .iter()
        .map(|role| {
            json!({
                "roleId": role.id,
                "title": role.title,
                "description": role.description,
                "stage": "GA",
                "includedPermissions": role.permissions,
            })
        })
        .collect();
    let bindings: Vec<Value> = scope
        .roles
        .iter()
        .map(|role| {
            let mut binding = json!({
                "role": format!("projects/{}/roles/{}", scope.project, role.id),
                "members": [scope.member],
            });
            if let Some(expression) = &role.expression {
                binding["condition"] = json!({
                    "title": role.condition,
                    "description": role.description,
                    "expression": expression,
                });
            }
            binding
        })
        .collect();
    let mut policy = json!({ "roles": roles, "bindings": bindings });
    if let Some(key) = &options.kms_key {
        policy["keys"] = json!([{
            "key": key,
            "role": KEY_ROLE,
            "members": [format!("serviceAccount:{}", scope.service_agent())],
        }]);
    }
    Ok(policy)
}

/// The gcloud commands that create and bind the [`roles`].
///
/// # Errors
/// As [`roles`].
pub fn commands(options: &PolicyOptions) -> Result<String> {
    let scope = PolicyScope::parse(options)?;
    let mut script = String::new();
    let number = &options.project_number;
    let mut line = |text: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(script, "{text}");
    };
    match &options.project {
        Some(id) => line(format!("PROJECT_ID='{id}'")),
        None => line(format!(
            "PROJECT_ID=\"$(gcloud projects describe {number} --format='value(projectId)')\""
        )),
    }
    match &options.member {
        Some(member) => line(format!("MEMBER='{member}'")),
        None => line(
            "MEMBER='serviceAccount:NAME@PROJECT.iam.gserviceaccount.com' # the platform's principal"
                .to_owned(),
        ),
    }
    for role in &scope.roles {
        line(format!(
            "gcloud iam roles create {} --project=\"$PROJECT_ID\" --title='{}' --stage=GA --permissions={}",
            role.id,
            role.title,
            role.permissions.join(",")
        ));
    }
    for role in &scope.roles {
        let condition = match &role.expression {
            None => "None".to_owned(),
            Some(expression) => format!("'title={},expression={expression}'", role.condition),
        };
        line(format!(
            "gcloud projects add-iam-policy-binding \"$PROJECT_ID\" --member=\"$MEMBER\" \
             --role=\"projects/$PROJECT_ID/roles/{}\" --condition={condition}",
            role.id
        ));
    }
    if let Some(key) = &options.kms_key {
        line(
            "gcloud services identity create --service=secretmanager.googleapis.com \
             --project=\"$PROJECT_ID\""
                .to_owned(),
        );
        line(format!(
            "gcloud kms keys add-iam-policy-binding '{key}' --member='serviceAccount:{}' --role={KEY_ROLE}",
            scope.service_agent()
        ));
    }
    Ok(script)
}

/// A request to Google, by the permission that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    AccessVersion,
    AddVersion,
    CreateSecret,
    DeleteSecret,
    GetSecret,
    GetVersion,
    ListSecrets,
}

impl Action {
    /// The permission.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::AccessVersion => "secretmanager.versions.access",
            Self::AddVersion => "secretmanager.versions.add",
            Self::CreateSecret => "secretmanager.secrets.create",
            Self::DeleteSecret => "secretmanager.secrets.delete",
            Self::GetSecret => "secretmanager.secrets.get",
            Self::GetVersion => "secretmanager.versions.get",
            Self::ListSecrets => "secretmanager.secrets.list",
        }
    }
}

/// A denied request, for the hint in the error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Denial<'a> {
    pub(crate) action: Action,
    pub(crate) place: &'a Place,
    /// The resource name in the request.
    pub(crate) resource: &'a str,
    /// The missing permission, if Google named it.
    pub(crate) permission: Option<&'a str>,
}

impl Denial<'_> {
    /// The message about the denial, and the permission to grant.
    pub(crate) fn advice(self) -> (String, String) {
        let permission = self.permission.unwrap_or(self.action.as_str());
        let message = format!(
            "the principal lacks the permission {permission} on {}",
            self.resource
        );
        if permission.starts_with("cloudkms.") {
            let hint = format!(
                "grant the service agent service-<project number>@{SERVICE_AGENT} {KEY_ROLE} on the \
                 key; `secret-migrate policy gcp --kms-key …` prints the command; see {KEY_PAGE}"
            );
            return (message, hint);
        }
        let page = RULES
            .iter()
            .find(|rule| rule.action == self.action)
            .map_or(ROLES_PAGE, |rule| rule.page);
        let grant = match self.level() {
            Level::Project => format!(
                "grant it on project {}, without a condition on names, which would never match",
                self.place.project
            ),
            Level::Secret if self.is_ours() => format!(
                "grant it on project {} where resource.name.startsWith(\"{}{}\")",
                self.place.project,
                prefix("<project number>", self.place.region.as_ref()),
                ManagedPrefix::current()
            ),
            Level::Secret => format!("grant it on {}", self.resource),
        };
        let hint = format!(
            "{grant}; check the project too, because Google returns the same for one that does not \
             exist; `secret-migrate policy gcp` prints the roles; see {page}"
        );
        (message, hint)
    }

    fn level(self) -> Level {
        RULES
            .iter()
            .find(|rule| rule.action == self.action)
            .map_or(Level::Project, |rule| rule.level)
    }

    fn is_ours(self) -> bool {
        self.resource
            .starts_with(&self.place.secret(ManagedPrefix::current().as_str()))
    }
}

/// One permission: the operations that need it, and its resource.
struct Rule {
    action: Action,
    operations: &'static [Operation],
    level: Level,
    /// The page of Google's documentation.
    page: &'static str,
}

impl Rule {
    fn is_needed(&self, read_only: bool) -> bool {
        const READING: [Operation; 3] = [Operation::Describe, Operation::List, Operation::Read];
        !read_only
            || self
                .operations
                .iter()
                .any(|needed| READING.contains(needed))
    }
}

/// The resource on which a permission is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// The project: a condition on a secret's name never matches.
    Project,
    /// The secret, whose name a condition can restrict.
    Secret,
}

const ROLES_PAGE: &str = "https://cloud.google.com/secret-manager/docs/access-control";
const CONDITIONS_PAGE: &str = "https://cloud.google.com/iam/docs/conditions-resource-attributes";
const KEY_PAGE: &str = "https://cloud.google.com/secret-manager/docs/cmek";
const KEY_ROLE: &str = "roles/cloudkms.cryptoKeyEncrypterDecrypter";
const SERVICE_AGENT: &str = "gcp-sa-secretmanager.iam.gserviceaccount.com";

/// From the reference of permissions, and the page on conditions, which lists the resource of each.
const RULES: &[Rule] = &[
    Rule {
        action: Action::CreateSecret,
        operations: &[Operation::Write],
        level: Level::Project,
        page: CONDITIONS_PAGE,
    },
    Rule {
        action: Action::ListSecrets,
        operations: &[Operation::List],
        level: Level::Project,
        page: CONDITIONS_PAGE,
    },
    // A write also needs it, to compare the value of an existing name.
    Rule {
        action: Action::AccessVersion,
        operations: &[Operation::Read, Operation::Write],
        level: Level::Secret,
        page: ROLES_PAGE,
    },
    Rule {
        action: Action::AddVersion,
        operations: &[Operation::Write],
        level: Level::Secret,
        page: ROLES_PAGE,
    },
    // Distinguishes a disabled version from a destroyed one: access refuses both with the same
    // code.
    Rule {
        action: Action::GetVersion,
        operations: &[Operation::Read, Operation::Write],
        level: Level::Secret,
        page: ROLES_PAGE,
    },
    Rule {
        action: Action::GetSecret,
        operations: &[Operation::Describe],
        level: Level::Secret,
        page: ROLES_PAGE,
    },
    Rule {
        action: Action::DeleteSecret,
        operations: &[Operation::Delete],
        level: Level::Secret,
        page: ROLES_PAGE,
    },
];

/// A custom role, and the condition of its binding.
struct Role {
    id: &'static str,
    title: &'static str,
    description: &'static str,
    permissions: Vec<&'static str>,
    condition: &'static str,
    expression: Option<String>,
}

/// Valid options, and the roles they result in.
struct PolicyScope {
    project: String,
    member: String,
    number: String,
    roles: Vec<Role>,
}

impl PolicyScope {
    fn parse(options: &PolicyOptions) -> Result<Self> {
        let number = &options.project_number;
        if !is_project_number(number) {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "a project's number must consist of digits",
            )
            .with_hint(
                "`gcloud projects describe <project> --format='value(projectNumber)'` prints it; \
                 conditions name projects by number, never by id",
            ));
        }
        if let Some(project) = &options.project {
            Project::parse(project)?;
        }
        let region = options.region.as_deref().map(Region::parse).transpose()?;
        if let Some(key) = &options.kms_key {
            check_kms_key(key, region.as_ref().map_or("global", Region::as_str))?;
        }
        if let Some(member) = &options.member {
            check_member(member)?;
        }
        for external in &options.externals {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
            if external.is_empty() || external.len() > 255 || !external.bytes().all(allowed) {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    "the prefix of external ids must have 1 to 255 of A-Z, a-z, 0-9, _ and -",
                ));
            }
        }
        let permissions = |level| -> Vec<&'static str> {
            RULES
                .iter()
                .filter(|rule| rule.level == level && rule.is_needed(options.read_only))
                .map(|rule| rule.action.as_str())
                .collect()
        };
        let expression = |prefixes: &[&str]| {
            let forms: Vec<String> = prefixes
                .iter()
                .flat_map(|id| {
                    let regional = region.as_ref().map(|region| prefix(number, Some(region)));
                    [Some(prefix(number, None)), regional]
                        .into_iter()
                        .flatten()
                        .map(move |place| format!("resource.name.startsWith(\"{place}{id}\")"))
                })
                .collect();
            forms.join(" || ")
        };
        let mut roles = vec![
            Role {
                id: "secretPersistenceProject",
                title: "Secret persistence: project",
                description: "Permissions on the project, which conditions on names cannot restrict",
                permissions: permissions(Level::Project),
                condition: "",
                expression: None,
            },
            Role {
                id: "secretPersistenceSecrets",
                title: "Secret persistence: secrets",
                description: "Use of the secrets of connectors",
                permissions: permissions(Level::Secret),
                condition: "connector-secrets",
                expression: Some(expression(&[ManagedPrefix::current().as_str()])),
            },
        ];
        if !options.externals.is_empty() {
            let externals: Vec<&str> = options.externals.iter().map(String::as_str).collect();
            roles.push(Role {
                id: "secretPersistenceExternal",
                title: "Secret persistence: external secrets",
                description: "Reading of external secrets that connectors refer to",
                permissions: vec![Action::AccessVersion.as_str(), Action::GetVersion.as_str()],
                condition: "external-secrets",
                expression: Some(expression(&externals)),
            });
        }
        Ok(Self {
            project: options
                .project
                .clone()
                .unwrap_or_else(|| SOME_PROJECT.to_owned()),
            member: options
                .member
                .clone()
                .unwrap_or_else(|| SOME_MEMBER.to_owned()),
            number: number.clone(),
            roles,
        })
    }

    /// The principal that uses the key: Secret Manager itself, not ours.
    fn service_agent(&self) -> String {
        format!("service-{}@{SERVICE_AGENT}", self.number)
    }
}

/// The prefix of secrets' names in conditions, which contain project numbers.
/// <https://cloud.google.com/iam/docs/conditions-resource-attributes#resource-name>
fn prefix(number: &str, region: Option<&Region>) -> String {
    match region {
        None => format!("projects/{number}/secrets/"),
        Some(region) => format!("projects/{number}/locations/{region}/secrets/"),
    }
}

/// <https://cloud.google.com/iam/docs/principal-identifiers>
fn check_member(member: &str) -> Result<()> {
    let refused = || {
        Err(Error::new(
            ErrorKind::InvalidConfig,
            "the member is not a principal that can be granted roles",
        )
        .with_hint(
            "write serviceAccount:<email>, user:<email>, group:<email>, or the principal:// or \
             principalSet:// of a workload identity pool",
        ))
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"@._-+:/".contains(&byte);
    if member.len() > 1024 || !member.bytes().all(allowed) {
        return refused();
    }
    match member.split_once(':') {
        Some(("serviceAccount", email)) => check_service_account(email),
        Some(("user" | "group", email)) if email.contains('@') => Ok(()),
        Some(("principal" | "principalSet", rest))
            if rest.starts_with("//iam.googleapis.com/projects/") =>
        {
            Ok(())
        }
        _ => refused(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBER: &str = "123456789012";
    const KEY: &str = "projects/my-project/locations/global/keyRings/r/cryptoKeys/k";

    fn permissions(policy: &Value) -> Vec<Vec<String>> {
        let roles = policy["roles"].as_array().unwrap();
        roles
            .iter()
            .map(|role| {
                let list = role["includedPermissions"].as_array().unwrap();
                list.iter()
                    .map(|permission| permission.as_str().unwrap().to_owned())
                    .collect()
            })
            .collect()
    }

    #[test]
    fn two_roles_one_of_them_under_a_condition() {
        let options = PolicyOptions::new(NUMBER)
            .with_project("my-project")
            .with_member("serviceAccount:x@my-project.iam.gserviceaccount.com")
            .with_region("europe-west3");
        let policy = roles(&options).unwrap();
        assert_eq!(
            permissions(&policy),
            [
                vec!["secretmanager.secrets.create", "secretmanager.secrets.list"],
                vec![
                    "secretmanager.versions.access",
                    "secretmanager.versions.add",
                    "secretmanager.versions.get",
                    "secretmanager.secrets.get",
                    "secretmanager.secrets.delete",
                ],
            ]
        );
        let bindings = policy["bindings"].as_array().unwrap();
        assert!(bindings[0].get("condition").is_none());
        assert_eq!(
            bindings[1]["condition"]["expression"],
            "resource.name.startsWith(\"projects/123456789012/secrets/airbyte_\") || \
             resource.name.startsWith(\"projects/123456789012/locations/europe-west3/secrets/airbyte_\")"
        );
        assert_eq!(
            bindings[1]["role"],
            "projects/my-project/roles/secretPersistenceSecrets"
        );
        assert!(policy.get("keys").is_none());
    }

    #[test]
    fn a_read_only_policy_has_no_right_to_change() {
        let policy = roles(&PolicyOptions::new(NUMBER).with_read_only(true)).unwrap();
        assert_eq!(
            permissions(&policy),
            [
                vec!["secretmanager.secrets.list"],
                vec![
                    "secretmanager.versions.access",
                    "secretmanager.versions.get",
                    "secretmanager.secrets.get",
                ],
            ]
        );
    }

    #[test]
    fn the_key_is_granted_to_the_service_agent() {
        let options = PolicyOptions::new(NUMBER).with_kms_key(KEY);
        let agent =
            "serviceAccount:service-123456789012@gcp-sa-secretmanager.iam.gserviceaccount.com";
        let policy = roles(&options).unwrap();
        assert_eq!(policy["keys"][0]["members"][0], agent);
        let commands = commands(&options).unwrap();
        assert!(
            commands.contains(&format!("'{KEY}' --member='{agent}'")),
            "{commands}"
        );
    }

    #[test]
    fn commands_work_from_the_number_alone_and_say_what_the_roles_say() {
        let options = PolicyOptions::new(NUMBER).with_external("team-");
        let text = commands(&options).unwrap();
        assert!(
            text.contains("gcloud projects describe 123456789012"),
            "{text}"
        );
        let policy = roles(&options).unwrap();
        for (role, binding) in policy["roles"]
            .as_array()
            .unwrap()
            .iter()
            .zip(policy["bindings"].as_array().unwrap())
        {
            let id = role["roleId"].as_str().unwrap();
            let list = permissions(&json!({ "roles": [role] })).remove(0).join(",");
            assert!(
                text.lines()
                    .any(|line| line.contains(&format!("create {id} ")) && line.ends_with(&list)),
                "{text}"
            );
            let condition = match binding["condition"]["expression"].as_str() {
                // Commas would end the expression, and such quotes the argument.
                Some(expression) if !expression.contains([',', '\'']) => {
                    format!("expression={expression}'")
                }
                Some(expression) => panic!("{expression}"),
                None => "--condition=None".to_owned(),
            };
            assert!(
                text.lines()
                    .any(|line| line.contains(&format!("/{id}\"")) && line.ends_with(&condition)),
                "{text}"
            );
        }
    }

    #[test]
    fn quotes_wildcards_and_commands_are_refused_everywhere() {
        for bad in [
            "*",
            "",
            "x\") || true || (\"",
            "x'; rm -rf /",
            "$(id)",
            "a b",
            "my-project\n",
            "`id`",
            "../x",
        ] {
            let options = || PolicyOptions::new(NUMBER);
            for options in [
                PolicyOptions::new(bad),
                PolicyOptions::new(format!("{NUMBER}{bad} ")),
                options().with_project(bad),
                options().with_region(bad),
                options().with_kms_key(bad),
                options().with_kms_key(format!("{KEY}{bad}/")),
                options().with_external(bad),
                options().with_member(bad),
                options().with_member(format!("serviceAccount:{bad}")),
                options().with_member(format!("user:{bad}'@x")),
            ] {
                let error = roles(&options).expect_err(&format!("{options:?}"));
                assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{options:?}");
                assert!(commands(&options).is_err());
            }
        }
        let by_id = roles(&PolicyOptions::new("my-project")).unwrap_err();
        assert!(by_id.hint().unwrap().contains("projectNumber"));
    }

    #[test]
    fn advice_names_permission_resource_and_condition() {
        let place = Place {
            project: Project::parse("my-project").unwrap(),
            region: Some(Region::parse("europe-west3").unwrap()),
        };
        let ours = place.secret("airbyte_x_v1");
        let denial = |action, resource| Denial {
            action,
            place: &place,
            resource,
            permission: None,
        };
        let (message, hint) = denial(Action::AccessVersion, &ours).advice();
        assert!(
            message.contains("secretmanager.versions.access on projects/my-project/locations/"),
            "{message}"
        );
        for part in [
            "\"projects/<project number>/locations/europe-west3/secrets/airbyte_\"",
            "secret-migrate policy gcp",
            "https://cloud.google.com/",
        ] {
            assert!(hint.contains(part), "{hint}");
        }
        let parent = place.parent();
        let (_, hint) = denial(Action::CreateSecret, &parent).advice();
        assert!(hint.contains("without a condition"), "{hint}");
        let theirs = place.secret("db");
        let (_, hint) = denial(Action::AccessVersion, &theirs).advice();
        assert!(hint.contains("secrets/db"), "{hint}");
        let key = Denial {
            permission: Some("cloudkms.cryptoKeyVersions.useToEncrypt"),
            ..denial(Action::AddVersion, &ours)
        };
        let (message, hint) = key.advice();
        assert!(
            message.contains("cloudkms.") && hint.contains("service agent"),
            "{hint}"
        );
    }
}
