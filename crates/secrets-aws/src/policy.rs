//! The permissions of this store: one table for the IAM policy and for the hints in errors.
//!
//! ```
//! use secret_persistence_aws::policy::{PolicyOptions, iam_policy};
//!
//! let options = PolicyOptions::new("eu-west-1", "123456789012").with_tag_key("AirbyteManaged");
//! let policy = iam_policy(&options)?;
//! assert_eq!(policy["Version"], "2012-10-17");
//! // Wildcards and policy variables would widen the policy, so they are refused.
//! assert!(iam_policy(&PolicyOptions::new("eu-west-1", "*")).is_err());
//! # Ok::<(), secret_persistence_core::Error>(())
//! ```

use secret_persistence_core::{Error, ErrorKind, ManagedPrefix, Operation, Result};
use serde_json::{Map, Value, json};

use crate::arn::{Arn, is_account};
use crate::config::{TAG_VALUE, check_external_id, check_tag};
use crate::naming::Region;

/// Options of the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PolicyOptions {
    /// The region of the secrets.
    pub region: String,
    /// The account of the secrets: 12 digits.
    pub account: String,
    /// The tag key whose value is `true` on every managed secret, if permissions are scoped by it.
    pub tag_key: Option<String>,
    /// The ARN of the customer's KMS key, if there is one. A policy cannot contain an alias.
    pub kms_key: Option<String>,
    /// Prefixes of the names of external secrets that may be read.
    pub externals: Vec<String>,
    /// Whether the store only reads.
    pub read_only: bool,
}

impl PolicyOptions {
    /// Reading and writing, without a tag and with Secrets Manager's own key.
    pub fn new(region: impl Into<String>, account: impl Into<String>) -> Self {
        Self {
            region: region.into(),
            account: account.into(),
            tag_key: None,
            kms_key: None,
            externals: Vec::new(),
            read_only: false,
        }
    }

    /// Restricts permissions to secrets with this tag.
    #[must_use]
    pub fn with_tag_key(mut self, key: impl Into<String>) -> Self {
        self.tag_key = Some(key.into());
        self
    }

    /// Adds permissions for the customer's key.
    #[must_use]
    pub fn with_kms_key(mut self, arn: impl Into<String>) -> Self {
        self.kms_key = Some(arn.into());
        self
    }

    /// Permits reading external secrets whose names begin with this prefix.
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

/// Generates the minimal IAM policy for a configuration.
///
/// # Errors
/// `InvalidConfig` if an option is invalid; wildcards and `${…}` always are.
pub fn iam_policy(options: &PolicyOptions) -> Result<Value> {
    let scope = PolicyScope::parse(options)?;
    let mut statements = Vec::new();
    for (sid, level, condition) in STATEMENTS {
        let actions: Vec<&str> = RULES
            .iter()
            .filter(|rule| rule.level == level && rule.condition == condition)
            .filter(|rule| rule.is_needed(options.read_only))
            .map(|rule| rule.action.as_str())
            .collect();
        let Some(resource) = scope.resource(level) else {
            continue;
        };
        if !actions.is_empty() {
            statements.push(statement(
                sid,
                &actions,
                resource,
                scope.condition(condition),
            ));
        }
    }
    if !scope.externals.is_empty() {
        statements.push(statement(
            "ReadExternalSecrets",
            &[Action::GetSecretValue.as_str()],
            scope.externals.clone().into(),
            None,
        ));
    }
    Ok(json!({ "Version": "2012-10-17", "Statement": statements }))
}

/// Generates the trust policy that lets one principal assume the store's role.
///
/// `principal` is the ARN of a role, a user or an account's root. If the role does not belong to
/// the principal's owner, an external id prevents others from using the principal against the
/// role's owner:
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/confused-deputy.html>
///
/// # Errors
/// `InvalidConfig` if an argument is invalid; wildcards and `${…}` always are.
pub fn trust_policy(principal: &str, external_id: Option<&str>) -> Result<Value> {
    check_principal(principal)?;
    external_id.map_or(Ok(()), check_external_id)?;
    let mut statement = json!({
        "Sid": "AssumeForSecrets",
        "Effect": "Allow",
        "Principal": { "AWS": principal },
        "Action": Action::AssumeRole.as_str(),
    });
    if let Some(id) = external_id {
        statement["Condition"] = json!({ "StringEquals": { "sts:ExternalId": id } });
    }
    Ok(json!({ "Version": "2012-10-17", "Statement": [statement] }))
}

/// A request to an AWS service, or a permission that another request also needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    AssumeRole,
    AssumeRoleWithWebIdentity,
    BatchGetSecretValue,
    CreateSecret,
    Decrypt,
    DeleteSecret,
    DescribeSecret,
    GenerateDataKey,
    GetCallerIdentity,
    GetSecretValue,
    ListSecrets,
    RestoreSecret,
    TagResource,
}

impl Action {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::AssumeRole => "sts:AssumeRole",
            Self::AssumeRoleWithWebIdentity => "sts:AssumeRoleWithWebIdentity",
            Self::BatchGetSecretValue => "secretsmanager:BatchGetSecretValue",
            Self::CreateSecret => "secretsmanager:CreateSecret",
            Self::Decrypt => "kms:Decrypt",
            Self::DeleteSecret => "secretsmanager:DeleteSecret",
            Self::DescribeSecret => "secretsmanager:DescribeSecret",
            Self::GenerateDataKey => "kms:GenerateDataKey",
            Self::GetCallerIdentity => "sts:GetCallerIdentity",
            Self::GetSecretValue => "secretsmanager:GetSecretValue",
            Self::ListSecrets => "secretsmanager:ListSecrets",
            Self::RestoreSecret => "secretsmanager:RestoreSecret",
            Self::TagResource => "secretsmanager:TagResource",
        }
    }
}

/// A denied request, for the hint in the error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Denial<'a> {
    pub(crate) action: Action,
    pub(crate) region: &'a Region,
    /// The name of the secret, or the ARN of the role.
    pub(crate) resource: Option<&'a str>,
    pub(crate) tag_key: Option<&'a str>,
    pub(crate) kms_key: Option<&'a str>,
}

impl Denial<'_> {
    /// The message about the denial, and the permission to grant.
    pub(crate) fn advice(self) -> (String, String) {
        let action = self.action.as_str();
        if self.action == Action::AssumeRole {
            return (
                format!(
                    "the principal may not perform {action} on {}",
                    self.resource.unwrap_or("the role")
                ),
                format!(
                    "name the principal in the role's trust policy, with the same external id if \
                     it requires one, and allow {action} in the principal's own policy; see {ROLE_PAGE}"
                ),
            );
        }
        if self.action == Action::AssumeRoleWithWebIdentity {
            return (
                format!("the service account may not perform {action} on the role"),
                format!(
                    "compare the service account's eks.amazonaws.com/role-arn annotation with the \
                     role, and issuer, subject and audience in its trust policy with the token; see \
                     {WEB_IDENTITY_PAGE}"
                ),
            );
        }
        let Some(rule) = RULES.iter().find(|rule| rule.action == self.action) else {
            return (
                format!("the principal may not perform {action}"),
                "check for an explicit deny, for example in a service control policy".to_owned(),
            );
        };
        let resource = match self.resource {
            Some(name) => format!("the secret `{name}` in {}", self.region),
            None => format!("the secrets in {}", self.region),
        };
        let mut hint = format!("allow it on {}", self.grant_on(rule));
        // External names are granted without a tag.
        let tag_key = self.tag_key.filter(|_| self.is_ours());
        match (rule.condition, tag_key) {
            (Condition::RequestTag, Some(key)) => {
                hint += &format!(" if aws:RequestTag/{key} is {TAG_VALUE}");
            }
            (Condition::ResourceTag, Some(key)) => {
                hint += &format!(
                    " if secretsmanager:ResourceTag/{key} is {TAG_VALUE}, and check that the \
                     secret has that tag"
                );
            }
            _ => {}
        }
        let companions: Vec<&str> = rule
            .with
            .iter()
            .filter(|action| self.kms_key.is_some() || !action.is_for_key())
            .map(|action| action.as_str())
            .collect();
        if !companions.is_empty() {
            hint += &format!("; it also needs {}", companions.join(", "));
        } else if self.action == Action::GetSecretValue {
            hint += "; if the secret has its own KMS key, it also needs kms:Decrypt on that key";
        }
        hint += &format!(
            "; `secret-migrate policy aws` prints the whole policy; see {}",
            rule.page
        );
        (
            format!("the principal may not perform {action} on {resource}"),
            hint,
        )
    }

    fn is_ours(&self) -> bool {
        self.resource
            .is_none_or(|name| name.starts_with(ManagedPrefix::current().as_str()))
    }

    fn grant_on(&self, rule: &Rule) -> String {
        let (partition, region) = (self.region.partition(), self.region);
        match (rule.level, self.resource) {
            (Level::Any | Level::Key, _) => "*".to_owned(),
            (Level::Secret, Some(name)) if !self.is_ours() => {
                if name.starts_with("arn:") {
                    name.to_owned()
                } else {
                    format!("arn:{partition}:secretsmanager:{region}:<account>:secret:{name}-*")
                }
            }
            (Level::Secret, _) => {
                let ours = ManagedPrefix::current();
                format!("arn:{partition}:secretsmanager:{region}:<account>:secret:{ours}*")
            }
        }
    }
}

/// One permission: the operations that need it, its resource and its condition.
struct Rule {
    action: Action,
    /// The operations of the trait that may need it.
    operations: &'static [Operation],
    level: Level,
    condition: Condition,
    /// Further permissions that the same request needs.
    with: &'static [Action],
    /// The page of AWS's documentation.
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

/// The resources on which an action can be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// Only on `*`.
    Any,
    /// The customer's key.
    Key,
    /// Secrets.
    Secret,
}

/// The condition under which an action can be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    None,
    /// `aws:RequestTag`: the tags in the request, for new secrets.
    RequestTag,
    /// `secretsmanager:ResourceTag`: the tags of the secret.
    ResourceTag,
    /// `kms:ViaService`: only through Secrets Manager.
    ViaService,
}

const ACTIONS_PAGE: &str = "https://docs.aws.amazon.com/service-authorization/latest/reference/list_awssecretsmanager.html";
const BATCH_PAGE: &str =
    "https://docs.aws.amazon.com/secretsmanager/latest/userguide/retrieving-secrets_batch.html";
const KEY_PAGE: &str =
    "https://docs.aws.amazon.com/secretsmanager/latest/userguide/security-encryption.html";
const ROLE_PAGE: &str = "https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_roles.html";
const WEB_IDENTITY_PAGE: &str =
    "https://docs.aws.amazon.com/eks/latest/userguide/associate-service-account-role.html";

/// From the service authorization reference, which lists the resources of each action, and from the
/// documentation of the KMS permissions that Secrets Manager needs.
const RULES: &[Rule] = &[
    Rule {
        action: Action::BatchGetSecretValue,
        operations: &[Operation::Read],
        level: Level::Any,
        condition: Condition::None,
        with: &[Action::GetSecretValue, Action::Decrypt],
        page: BATCH_PAGE,
    },
    Rule {
        action: Action::ListSecrets,
        operations: &[Operation::List],
        level: Level::Any,
        condition: Condition::None,
        with: &[],
        page: ACTIONS_PAGE,
    },
    Rule {
        action: Action::CreateSecret,
        operations: &[Operation::Write],
        level: Level::Secret,
        condition: Condition::RequestTag,
        with: &[
            Action::TagResource,
            Action::GenerateDataKey,
            Action::Decrypt,
        ],
        page: ACTIONS_PAGE,
    },
    // Never a request itself: a create with tags needs it.
    Rule {
        action: Action::TagResource,
        operations: &[Operation::Write],
        level: Level::Secret,
        condition: Condition::RequestTag,
        with: &[],
        page: ACTIONS_PAGE,
    },
    // A write also needs it, to compare the value of an existing name.
    Rule {
        action: Action::GetSecretValue,
        operations: &[Operation::Read, Operation::Write],
        level: Level::Secret,
        condition: Condition::ResourceTag,
        with: &[Action::Decrypt],
        page: ACTIONS_PAGE,
    },
    // Distinguishes a scheduled deletion from other states that AWS refuses, and a missing secret
    // from another owner's. There is no condition, because a missing secret has no tag. It reveals
    // nothing that ListSecrets, which supports no condition, does not reveal.
    Rule {
        action: Action::DescribeSecret,
        operations: &[
            Operation::Delete,
            Operation::Describe,
            Operation::Read,
            Operation::Restore,
            Operation::Write,
        ],
        level: Level::Secret,
        condition: Condition::None,
        with: &[],
        page: ACTIONS_PAGE,
    },
    Rule {
        action: Action::DeleteSecret,
        operations: &[Operation::Delete],
        level: Level::Secret,
        condition: Condition::ResourceTag,
        with: &[],
        page: ACTIONS_PAGE,
    },
    Rule {
        action: Action::RestoreSecret,
        operations: &[Operation::Restore],
        level: Level::Secret,
        condition: Condition::ResourceTag,
        with: &[],
        page: ACTIONS_PAGE,
    },
    Rule {
        action: Action::Decrypt,
        operations: &[Operation::Read, Operation::Write],
        level: Level::Key,
        condition: Condition::ViaService,
        with: &[],
        page: KEY_PAGE,
    },
    Rule {
        action: Action::GenerateDataKey,
        operations: &[Operation::Write],
        level: Level::Key,
        condition: Condition::ViaService,
        with: &[],
        page: KEY_PAGE,
    },
];

/// The statements of the policy. Each one groups actions with the same level and condition.
const STATEMENTS: [(&str, Level, Condition); 5] = [
    ("ReadBatchesAndList", Level::Any, Condition::None),
    ("DescribeSecrets", Level::Secret, Condition::None),
    ("CreateSecrets", Level::Secret, Condition::RequestTag),
    ("UseSecrets", Level::Secret, Condition::ResourceTag),
    ("UseKey", Level::Key, Condition::ViaService),
];

impl Action {
    const fn is_for_key(self) -> bool {
        matches!(self, Self::Decrypt | Self::GenerateDataKey)
    }
}

/// Valid options.
struct PolicyScope {
    region: Region,
    secrets: String,
    externals: Vec<String>,
    tag_key: Option<String>,
    kms_key: Option<String>,
}

impl PolicyScope {
    fn parse(options: &PolicyOptions) -> Result<Self> {
        let region = Region::parse(&options.region)?;
        if !is_account(&options.account) {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "an AWS account must have 12 digits",
            ));
        }
        if let Some(key) = &options.tag_key {
            check_tag(key, TAG_VALUE)?;
        }
        if let Some(arn) = &options.kms_key {
            check_key_arn(arn, &region)?;
        }
        let secret = |name: &str| {
            format!(
                "arn:{}:secretsmanager:{region}:{}:secret:{name}*",
                region.partition(),
                options.account
            )
        };
        let externals = options
            .externals
            .iter()
            .map(|prefix| {
                let allowed =
                    |byte: u8| byte.is_ascii_alphanumeric() || b"/_+=.@-!".contains(&byte);
                if prefix.is_empty() || prefix.len() > 512 || !prefix.bytes().all(allowed) {
                    return Err(Error::new(
                        ErrorKind::InvalidConfig,
                        "the prefix of external names must have 1 to 512 of A-Z, a-z, 0-9 and /_+=.@-!",
                    ));
                }
                Ok(secret(prefix))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            secrets: secret(ManagedPrefix::current().as_str()),
            externals,
            tag_key: options.tag_key.clone(),
            kms_key: options.kms_key.clone(),
            region,
        })
    }

    fn resource(&self, level: Level) -> Option<Value> {
        match level {
            Level::Any => Some("*".into()),
            Level::Key => self.kms_key.clone().map(Value::from),
            Level::Secret => Some(self.secrets.clone().into()),
        }
    }

    fn condition(&self, condition: Condition) -> Option<Value> {
        let tag = |prefix: &str| {
            let key = self.tag_key.as_ref()?;
            Some(equals(&format!("{prefix}/{key}"), json!(TAG_VALUE)))
        };
        match condition {
            Condition::None => None,
            Condition::RequestTag => tag("aws:RequestTag"),
            Condition::ResourceTag => tag("secretsmanager:ResourceTag"),
            Condition::ViaService => {
                let service = format!("secretsmanager.{}.amazonaws.com", self.region);
                let services = if self.region.partition() == "aws-cn" {
                    // The documentation has two spellings for China.
                    json!([service, format!("{service}.cn")])
                } else {
                    json!(service)
                };
                Some(equals("kms:ViaService", services))
            }
        }
    }
}

fn equals(key: &str, value: Value) -> Value {
    let mut pair = Map::new();
    pair.insert(key.to_owned(), value);
    json!({ "StringEquals": pair })
}

fn statement(sid: &str, actions: &[&str], resource: Value, condition: Option<Value>) -> Value {
    let mut statement = json!({
        "Sid": sid,
        "Effect": "Allow",
        "Action": actions,
        "Resource": resource,
    });
    if let Some(condition) = condition {
        statement["Condition"] = condition;
    }
    statement
}

/// Checks the ARN of a key. IAM does not resolve aliases.
/// <https://docs.aws.amazon.com/kms/latest/developerguide/alias-authorization.html>
fn check_key_arn(arn: &str, region: &Region) -> Result<()> {
    let key = |resource: &str| {
        resource.strip_prefix("key/").is_some_and(|id| {
            !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
    };
    match Arn::parse(arn) {
        Some(arn)
            if arn.service == "kms"
                && arn.partition == region.partition()
                && arn.region == region.as_str()
                && !arn.account.is_empty()
                && key(arn.resource) =>
        {
            Ok(())
        }
        _ => Err(Error::new(
            ErrorKind::InvalidConfig,
            "the policy needs the ARN of a KMS key of this region, not its id and not an alias",
        )
        .with_hint("write arn:aws:kms:<region>:<account>:key/<id>")),
    }
}

fn check_principal(arn: &str) -> Result<()> {
    let is_principal = Arn::parse(arn).is_some_and(|arn| {
        (arn.is_iam() && arn.resource == "root")
            || arn.iam_name("user").is_some()
            || arn.iam_name("role").is_some()
    });
    if is_principal {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidConfig,
        "the principal is not the ARN of a role, a user or an account's root",
    )
    .with_hint("write arn:aws:iam::<account>:role/<name>"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> PolicyOptions {
        PolicyOptions::new("eu-west-1", "123456789012")
    }

    #[test]
    fn every_rule_belongs_to_exactly_one_statement() {
        for rule in RULES {
            let statements = STATEMENTS
                .iter()
                .filter(|(_, level, condition)| {
                    *level == rule.level && *condition == rule.condition
                })
                .count();
            assert_eq!(statements, 1, "{}", rule.action.as_str());
        }
    }

    #[test]
    fn wildcards_and_variables_are_refused_everywhere() {
        let key = "arn:aws:kms:eu-west-1:123456789012:key/";
        for bad in ["*", "?", "${aws:username}", "a*b", "", "x:y*"] {
            for options in [
                PolicyOptions::new(bad, "123456789012"),
                PolicyOptions::new("eu-west-1", bad),
                options().with_tag_key(bad),
                options().with_kms_key(bad),
                options().with_kms_key(format!("{key}{bad}")),
                options().with_external(bad),
            ] {
                let error = iam_policy(&options).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{options:?}");
            }
            assert!(trust_policy(bad, None).is_err());
            assert!(trust_policy(&format!("arn:aws:iam::123456789012:role/{bad}"), None).is_err());
            assert!(trust_policy("arn:aws:iam::123456789012:root", Some(bad)).is_err());
        }
        for alias in [
            "arn:aws:kms:eu-west-1:123456789012:alias/airbyte",
            "arn:aws:kms:us-east-1:123456789012:key/1234",
            "11111111-2222-3333-4444-555555555555",
        ] {
            assert!(
                iam_policy(&options().with_kms_key(alias)).is_err(),
                "{alias}"
            );
        }
    }

    #[test]
    fn a_read_only_policy_has_no_right_to_change() {
        let policy = iam_policy(
            &options()
                .with_read_only(true)
                .with_kms_key("arn:aws:kms:eu-west-1:123456789012:key/1234"),
        )
        .unwrap()
        .to_string();
        for action in ["Create", "Delete", "Restore", "Tag", "GenerateDataKey"] {
            assert!(!policy.contains(&format!(":{action}")), "{action}");
        }
        for action in [
            "BatchGetSecretValue",
            "GetSecretValue",
            "ListSecrets",
            "kms:Decrypt",
        ] {
            assert!(policy.contains(action), "{action}");
        }
    }

    #[test]
    fn the_trust_policy_asks_for_the_external_id() {
        let policy = trust_policy(
            "arn:aws:iam::123456789012:role/airbyte/worker",
            Some("ext-1"),
        )
        .unwrap();
        let statement = &policy["Statement"][0];
        assert_eq!(
            statement["Condition"]["StringEquals"]["sts:ExternalId"],
            "ext-1"
        );
        assert_eq!(statement["Action"], "sts:AssumeRole");
        let open = trust_policy("arn:aws:iam::123456789012:root", None).unwrap();
        assert!(open["Statement"][0].get("Condition").is_none());
    }

    #[test]
    fn advice_names_action_resource_condition_and_companions() {
        let region = Region::parse("eu-west-1").unwrap();
        let denial = |action, resource| Denial {
            action,
            region: &region,
            resource,
            tag_key: Some("AirbyteManaged"),
            kms_key: Some("alias/x"),
        };
        let (message, hint) = denial(Action::CreateSecret, Some("airbyte_x_v1")).advice();
        assert!(message.contains("secretsmanager:CreateSecret on the secret `airbyte_x_v1`"));
        for part in [
            "secret:airbyte_*",
            "aws:RequestTag/AirbyteManaged is true",
            "secretsmanager:TagResource",
            "kms:GenerateDataKey",
            "secret-migrate policy aws",
            "https://docs.aws.amazon.com/",
        ] {
            assert!(hint.contains(part), "{hint}");
        }
        let (_, hint) = denial(Action::GetSecretValue, Some("team/db")).advice();
        assert!(hint.contains("secret:team/db-*"), "{hint}");
        assert!(!hint.contains("ResourceTag"), "{hint}");
        let (_, hint) = denial(Action::GetSecretValue, Some("airbyte_x_v1")).advice();
        assert!(hint.contains("has that tag"), "{hint}");
        let (message, hint) = denial(Action::AssumeRole, Some("arn:aws:iam::1:role/x")).advice();
        assert!(message.contains("arn:aws:iam::1:role/x") && hint.contains("trust policy"));
    }
}
