//! The checked configuration of the store.

use std::collections::BTreeMap;
use std::fmt;

use secret_persistence_core::settings::{SettingMap, endpoint, invalid, is_loopback};
use secret_persistence_core::{Error, ErrorKind, Owner, Recovery, Result, SecretValue};
use url::Url;

use crate::arn::Arn;
use crate::naming::Region;

/// The value of the tag whose key is the setting `tag-key`.
pub(crate) const TAG_VALUE: &str = "true";

/// The tag that contains the owner of a secret.
pub const OWNER_TAG: &str = "secret-persistence:owner";

/// The tag that contains the expiry of a secret: RFC 3339, UTC.
pub const EXPIRES_TAG: &str = "secret-persistence:expires";

/// The default description of every secret that this store writes.
pub(crate) const DESCRIPTION: &str = "Secret of a connector configuration";

/// The default session name of an assumed role in CloudTrail.
pub(crate) const SESSION_NAME: &str = "secret-persistence";

/// AWS allows 50 tags per secret.
/// <https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html>
const MAX_TAGS: usize = 50;

/// A complete, checked configuration.
///
/// ```
/// use secret_persistence_aws::{Config, SETTINGS};
///
/// let config = Config::from_settings(&SETTINGS.from_pairs([
///     ("region", "eu-west-1"),
///     ("tag-key", "AirbyteManaged"),
///     ("tags", "team=data"),
///     ("recovery-window-days", "7"),
/// ])?)?;
/// # let _ = config;
/// // What AWS would refuse later is refused here.
/// let reserved = SETTINGS.from_pairs([("region", "eu-west-1"), ("tags", "aws:team=data")])?;
/// assert!(Config::from_settings(&reserved).is_err());
/// # Ok::<(), secret_persistence_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) region: Region,
    pub(crate) credentials: Credentials,
    pub(crate) role: Option<AssumeRole>,
    pub(crate) kms_key: Option<String>,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) tag_key: Option<String>,
    pub(crate) owner: Option<Owner>,
    pub(crate) description: String,
    pub(crate) deletion: Deletion,
    pub(crate) unversioned_names: bool,
    pub(crate) endpoint: Option<Url>,
    pub(crate) sts_endpoint: Option<Url>,
    pub(crate) use_fips: bool,
    pub(crate) use_dualstack: bool,
}

impl Config {
    /// Checks settings of [`SETTINGS`](crate::SETTINGS), from any form. The owner is not a setting
    /// of the store: add it with [`with_owner`](Self::with_owner).
    ///
    /// # Errors
    /// `InvalidConfig` if a setting is missing, contradicts another one, or is outside AWS's
    /// limits. Also if a tenant's settings would use this process's credentials, or a role without
    /// the external id that the operator assigned to this tenant.
    pub fn from_settings(settings: &SettingMap) -> Result<Self> {
        let text = |name| settings.text(name).filter(|text| !text.is_empty());
        let region = Region::parse(text("region").unwrap_or_default())?;
        let (role, credentials) = identity(settings)?;
        if let Some(key) = text("kms-key-arn") {
            check_kms_key(key, &region)?;
        }
        let description = text("description").unwrap_or(DESCRIPTION);
        if description.chars().count() > 2048 {
            return Err(invalid(
                "the description must have at most 2,048 characters",
            ));
        }
        let window = settings.parse::<u16>("recovery-window-days")?;
        let deletion = match (window, settings.flag("force-delete")?) {
            (Some(_), true) => {
                return Err(invalid(
                    "a recovery window and force-delete exclude each other",
                ));
            }
            (Some(days), false) => Deletion::window(days)?,
            (None, true) => Deletion::Immediate,
            (None, false) => Deletion::Default,
        };
        let endpoint = text("endpoint-url").map(endpoint).transpose()?;
        let sts_endpoint = match text("sts-endpoint-url") {
            Some(url) => Some(self::endpoint(url)?),
            // An endpoint on loopback is an emulator, which also serves STS. A VPC endpoint of
            // Secrets Manager does not.
            None => endpoint
                .clone()
                .filter(|url| url.host_str().is_some_and(is_loopback)),
        };
        Ok(Self {
            region,
            credentials,
            role,
            kms_key: text("kms-key-arn").map(str::to_owned),
            tags: collect_tags(settings.pairs("tags")?, text("tag-key"))?,
            tag_key: text("tag-key").map(str::to_owned),
            owner: None,
            description: description.to_owned(),
            deletion,
            unversioned_names: settings.flag("unversioned-names")?,
            endpoint,
            sts_endpoint,
            use_fips: settings.flag("use-fips")?,
            use_dualstack: settings.flag("use-dualstack")?,
        })
    }

    /// Sets the owner of written secrets.
    #[must_use]
    pub fn with_owner(mut self, owner: Owner) -> Self {
        self.owner = Some(owner);
        self
    }
}

/// The role to assume, if any, and the initial credentials.
fn identity(settings: &SettingMap) -> Result<(Option<AssumeRole>, Credentials)> {
    let text = |name| settings.text(name).filter(|text| !text.is_empty());
    let own_key = access_key(
        settings.secret("access-key-id"),
        settings.secret("secret-access-key"),
        settings.secret("session-token"),
        "access-key-id and secret-access-key",
    )?;
    let base_key = access_key(
        settings.secret("assume-role-access-key-id"),
        settings.secret("assume-role-secret-access-key"),
        None,
        "assume-role-access-key-id and assume-role-secret-access-key",
    )?;
    let role = text("role-arn").map(|arn| AssumeRole {
        arn: arn.to_owned(),
        external_id: text("external-id").map(str::to_owned),
        session_name: text("session-name").unwrap_or(SESSION_NAME).to_owned(),
    });
    if role.is_none() && text("external-id").is_some() {
        return Err(invalid("an external id requires role-arn"));
    }
    let key = if role.is_some() {
        base_key.or(own_key)
    } else {
        own_key
    };
    if settings.trust().is_tenant() {
        if key.is_none() {
            return Err(invalid(
                "a tenant's store needs an access key: a tenant must not use this process's credentials",
            )
            .with_hint(
                "set access-key-id and secret-access-key, or have the operator set AWS_ASSUME_ROLE_ACCESS_KEY_ID \
                 and AWS_ASSUME_ROLE_SECRET_ACCESS_KEY for role-arn",
            ));
        }
        if role.as_ref().is_some_and(|role| role.external_id.is_none()) {
            return Err(invalid(
                "a tenant's role is assumed only with the external id that the operator assigned to this tenant",
            )
            .with_hint(
                "without it, any tenant could use another tenant's role; set it in this storage's registration",
            ));
        }
    }
    let credentials = match (key, text("credentials"), text("profile")) {
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) => {
            return Err(invalid(
                "an access key excludes the settings `credentials` and `profile`",
            ));
        }
        (Some(key), None, None) => Credentials::AccessKey(key),
        (None, Some("default") | None, profile) => Credentials::DefaultChain {
            profile: profile.map(str::to_owned),
        },
        (None, Some("imds"), None) => Credentials::InstanceMetadata,
        (None, Some("imds"), Some(_)) => {
            return Err(invalid("`credentials=imds` excludes the setting `profile`"));
        }
        (None, Some(_), _) => {
            return Err(invalid(
                "the setting `credentials` must be `default` or `imds`",
            ));
        }
    };
    if let Some(role) = &role {
        role.check()?;
    }
    Ok((role, credentials))
}

/// Both halves of an access key, or neither.
fn access_key(
    id: Option<SecretValue>,
    secret: Option<SecretValue>,
    session_token: Option<SecretValue>,
    names: &'static str,
) -> Result<Option<AccessKey>> {
    let id = id.filter(|id| !id.is_empty());
    let secret = secret.filter(|secret| !secret.is_empty());
    match (id, secret) {
        (None, None) if session_token.is_none() => Ok(None),
        (Some(id), Some(secret)) => Ok(Some(AccessKey {
            id,
            secret,
            session_token,
        })),
        _ => Err(invalid(format!("{names} must be set together"))),
    }
}

/// The source of the credentials.
#[derive(Clone, Debug)]
pub(crate) enum Credentials {
    /// An access key.
    AccessKey(AccessKey),
    /// The AWS SDK's default chain: environment, profile (SSO, roles, processes), web identity
    /// (IRSA), container (ECS, EKS Pod Identity), instance metadata.
    DefaultChain {
        /// The profile, if it is not the one in `AWS_PROFILE`.
        profile: Option<String>,
    },
    /// Only the instance metadata service.
    InstanceMetadata,
}

/// An access key, permanent or temporary. `Debug` hides it.
#[derive(Clone)]
pub(crate) struct AccessKey {
    pub(crate) id: SecretValue,
    pub(crate) secret: SecretValue,
    pub(crate) session_token: Option<SecretValue>,
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessKey(redacted)")
    }
}

/// A role to assume. `Debug` shows the role and hides the external id.
#[derive(Clone)]
pub(crate) struct AssumeRole {
    pub(crate) arn: String,
    pub(crate) external_id: Option<String>,
    pub(crate) session_name: String,
}

impl AssumeRole {
    fn check(&self) -> Result<()> {
        check_role_arn(&self.arn)?;
        if let Some(id) = &self.external_id {
            check_external_id(id)?;
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
        if !(2..=64).contains(&self.session_name.len()) || !self.session_name.bytes().all(allowed) {
            return Err(invalid(
                "the session name must have 2 to 64 of A-Z, a-z, 0-9 and _+=,.@-",
            ));
        }
        Ok(())
    }
}

impl fmt::Debug for AssumeRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AssumeRole")
            .field("arn", &self.arn)
            .field(
                "external_id",
                &self.external_id.as_ref().map(|_| "redacted"),
            )
            .field("session_name", &self.session_name)
            .finish()
    }
}

/// How secrets are deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deletion {
    /// With AWS's default recovery window of 30 days.
    Default,
    /// Immediately.
    Immediate,
    /// With a recovery window of 7 to 30 days.
    Window(u16),
}

impl Deletion {
    /// The deletion that a call requests, or the configured one by default.
    pub(crate) fn of(recovery: Recovery, configured: Self) -> Result<Self> {
        match recovery {
            Recovery::Configured => Ok(configured),
            Recovery::Immediate => Ok(Self::Immediate),
            Recovery::Window { days } => Self::window(days),
            _ => Err(Error::new(
                ErrorKind::Unsupported,
                "this store does not support this recovery",
            )),
        }
    }

    /// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_DeleteSecret.html>
    fn window(days: u16) -> Result<Self> {
        if (7..=30).contains(&days) {
            return Ok(Self::Window(days));
        }
        Err(invalid("the recovery window must be 7 to 30 days")
            .with_hint("set recovery-window-days, or force-delete=true to delete immediately"))
    }
}

/// Checks AWS's rules for tags:
/// <https://docs.aws.amazon.com/tag-editor/latest/userguide/tagging.html>.
pub(crate) fn check_tag(key: &str, value: &str) -> Result<()> {
    let allowed = |text: &str| {
        text.chars()
            .all(|char| char.is_alphanumeric() || char == ' ' || "_.:/=+-@".contains(char))
    };
    let fits = |text: &str, range: std::ops::RangeInclusive<usize>| {
        range.contains(&text.chars().count()) && allowed(text)
    };
    if key
        .get(..4)
        .is_some_and(|start| start.eq_ignore_ascii_case("aws:"))
    {
        return Err(invalid(
            "tag keys that begin with `aws:` are reserved by AWS",
        ));
    }
    if !fits(key, 1..=128) || !fits(value, 0..=256) {
        return Err(invalid(
            "a tag's key must have 1 to 128 characters and its value at most 256, of letters, digits, \
             spaces and _.:/=+-@",
        ));
    }
    Ok(())
}

/// `arn:<partition>:iam::<account>:role/<path and name>`.
pub(crate) fn check_role_arn(arn: &str) -> Result<()> {
    match Arn::parse(arn).and_then(|arn| arn.iam_name("role")) {
        Some(_) => Ok(()),
        None => Err(invalid("the role is not the ARN of an IAM role")
            .with_hint("write arn:aws:iam::<account>:role/<name>")),
    }
}

/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>
pub(crate) fn check_external_id(id: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@:/-".contains(&byte);
    if (2..=1224).contains(&id.len()) && id.bytes().all(allowed) {
        return Ok(());
    }
    Err(invalid(
        "an external id must have 2 to 1,224 of A-Z, a-z, 0-9 and _+=,.@:/-",
    ))
}

fn collect_tags(
    pairs: Vec<(String, String)>,
    tag_key: Option<&str>,
) -> Result<BTreeMap<String, String>> {
    let marker = tag_key.map(|key| (key.to_owned(), TAG_VALUE.to_owned()));
    let mut tags = BTreeMap::new();
    for (key, value) in pairs.into_iter().chain(marker) {
        check_tag(&key, &value)?;
        if key == OWNER_TAG || key == EXPIRES_TAG {
            return Err(invalid(format!("the tag `{key}` is written by this store")));
        }
        match tags.insert(key.clone(), value) {
            Some(previous) if tags.get(&key) != Some(&previous) => {
                return Err(invalid(format!("the tag `{key}` is set twice")));
            }
            _ => {}
        }
    }
    // Owner and expiry need two more.
    if tags.len() + 2 > MAX_TAGS {
        return Err(invalid(
            "AWS allows 50 tags per secret, of which owner and expiry take two",
        ));
    }
    Ok(tags)
}

/// Checks an id, an alias, or an ARN of this region: Secrets Manager does not accept keys of other
/// regions.
/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_CreateSecret.html>
fn check_kms_key(key: &str, region: &Region) -> Result<()> {
    let name = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"/_-".contains(&byte))
    };
    let resource = |text: &str| {
        text.strip_prefix("key/")
            .or_else(|| text.strip_prefix("alias/"))
            .is_some_and(name)
    };
    let is_key = match Arn::parse(key) {
        Some(arn) if arn.service == "kms" && arn.region != region.as_str() => {
            return Err(invalid(format!(
                "the KMS key is in another AWS region than this store, which is in {region}"
            ))
            .with_hint("use a key of this region, or a replica of a multi-region key"));
        }
        Some(arn) => {
            arn.service == "kms"
                && arn.partition == region.partition()
                && !arn.account.is_empty()
                && resource(arn.resource)
        }
        None if key.starts_with("alias/") => name(key),
        None => key.len() >= 32 && !key.contains('/') && name(key),
    };
    if is_key {
        return Ok(());
    }
    Err(
        invalid("the KMS key is neither an ARN, nor an id, nor an alias")
            .with_hint("write arn:aws:kms:<region>:<account>:key/<id>, or alias/<name>"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SETTINGS;

    fn config(more: &[(&str, &str)]) -> Result<Config> {
        let region = [("region", "eu-west-1")];
        Config::from_settings(&SETTINGS.from_pairs(region.iter().chain(more).copied())?)
    }

    #[test]
    fn only_an_emulators_endpoint_serves_sts_too() {
        let sts = |url: &str| {
            let config = config(&[("endpoint-url", url)]).unwrap();
            config.sts_endpoint.map(|url| url.to_string())
        };
        assert_eq!(
            sts("http://127.0.0.1:4566").as_deref(),
            Some("http://127.0.0.1:4566/")
        );
        assert_eq!(
            sts("http://[::1]:4566").as_deref(),
            Some("http://[::1]:4566/")
        );
        assert_eq!(
            sts("https://vpce-1.secretsmanager.eu-west-1.vpce.amazonaws.com"),
            None
        );
    }

    #[test]
    fn limits_of_aws_are_ours_to_enforce() {
        let tags = |count: usize| -> String {
            let tags: Vec<String> = (0..count).map(|n| format!("k{n}=v")).collect();
            tags.join(",")
        };
        let long = |count: usize| "x".repeat(count);
        for (name, value) in [
            ("tags", tags(48)),
            ("tags", format!("Ünïcode key={}", long(256))),
            ("kms-key-arn", "alias/airbyte".to_owned()),
            (
                "kms-key-arn",
                "mrk-1234567890abcdef1234567890abcdef".to_owned(),
            ),
            (
                "kms-key-arn",
                "arn:aws:kms:eu-west-1:123456789012:alias/x".to_owned(),
            ),
            ("description", long(2048)),
        ] {
            config(&[(name, &value)]).unwrap();
        }
        for (name, value) in [
            ("tags", tags(49)),
            ("tags", format!("{}=v", long(129))),
            ("tags", "=v".to_owned()),
            ("tags", format!("k={}", long(257))),
            ("tags", "k=a;b".to_owned()),
            ("tags", "AWS:k=v".to_owned()),
            ("tag-key", "aws:k".to_owned()),
            ("tags", "k=1,k=2".to_owned()),
            ("tags", format!("{OWNER_TAG}=x")),
            ("tags", format!("{EXPIRES_TAG}=x")),
            (
                "kms-key-arn",
                "arn:aws:kms:us-east-1:123456789012:key/1234".to_owned(),
            ),
            ("kms-key-arn", "key".to_owned()),
            ("description", long(2049)),
        ] {
            let error = config(&[(name, &value)]).expect_err(&value);
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{value}");
        }
        let role = ("role-arn", "arn:aws:iam::123456789012:role/x");
        assert!(config(&[role, ("session-name", "a-b")]).is_ok());
        assert!(config(&[role, ("session-name", "a b")]).is_err());
    }

    #[test]
    fn debug_shows_no_credential() {
        let identity = [
            ("access-key-id", "canary-id"),
            ("secret-access-key", "canary-secret"),
            ("session-token", "canary-token"),
            ("role-arn", "arn:aws:iam::123456789012:role/x"),
            ("external-id", "canary-ext"),
        ];
        let pasted = config(&[("endpoint-url", "https://user:canary@vpce.example")]);
        let shown = format!("{:?} {:?}", pasted.unwrap_err(), config(&identity).unwrap());
        assert!(
            shown.contains("role/x") && !shown.contains("canary"),
            "{shown}"
        );
    }

    #[test]
    fn a_call_overrules_the_configured_recovery() {
        let of = |recovery| Deletion::of(recovery, Deletion::Window(9));
        assert_eq!(of(Recovery::Configured).unwrap(), Deletion::Window(9));
        assert_eq!(of(Recovery::Immediate).unwrap(), Deletion::Immediate);
        assert_eq!(
            of(Recovery::Window { days: 30 }).unwrap(),
            Deletion::Window(30)
        );
        assert!(of(Recovery::Window { days: 6 }).is_err());
    }
}
