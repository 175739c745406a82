//! How the store is set up: types that hold only what has been checked.

use std::collections::BTreeMap;
use std::fmt;

use secret_persistence_core::settings;
use secret_persistence_core::{Error, ErrorKind, Operation, Owner, Recovery, Result, SecretValue};
use url::Url;

use crate::arn::Arn;
use crate::naming::Region;

/// The value of the tag whose key is the setting `tag-key`.
pub(crate) const TAG_VALUE: &str = "true";

/// The tag that says which installation wrote a secret.
pub const OWNER_TAG: &str = "secret-persistence:owner";

/// The tag that says when a secret may be removed: RFC 3339, UTC.
pub const EXPIRES_TAG: &str = "secret-persistence:expires";

/// What Secrets Manager shows beside every secret that we write.
pub(crate) const DESCRIPTION: &str = "Secret of a connector configuration";

/// The name under which the sessions of an assumed role stand in CloudTrail.
pub(crate) const SESSION_NAME: &str = "secret-persistence";

/// AWS allows 50 tags per secret.
/// <https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html>
const MAX_TAGS: usize = 50;

/// A complete, checked configuration.
///
/// ```
/// use secret_persistence_aws::Config;
///
/// let config = Config::builder("eu-west-1")
///     .with_tag_key("AirbyteManaged")
///     .with_tag("team", "data")
///     .with_recovery_window_days(7)
///     .build()?;
/// # let _ = config;
/// // What AWS would refuse later is refused here.
/// assert!(Config::builder("eu-west-1").with_tag("aws:team", "data").build().is_err());
/// assert!(Config::builder("").build().is_err());
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
    /// Starts a configuration for a region.
    pub fn builder(region: impl Into<String>) -> ConfigBuilder {
        ConfigBuilder::new(region)
    }

    /// The same configuration, marking what is written with this owner.
    #[must_use]
    pub fn with_owner(mut self, owner: Owner) -> Self {
        self.owner = Some(owner);
        self
    }
}

/// Collects a [`Config`]. Setters cannot fail, [`build`](Self::build) can.
#[derive(Clone)]
pub struct ConfigBuilder {
    pub(crate) region: String,
    pub(crate) credentials: Credentials,
    pub(crate) role: Option<AssumeRole>,
    pub(crate) kms_key: Option<String>,
    pub(crate) tags: Vec<(String, String)>,
    pub(crate) tag_key: Option<String>,
    pub(crate) owner: Option<Owner>,
    pub(crate) description: String,
    pub(crate) recovery_window_days: Option<u16>,
    pub(crate) force_delete: bool,
    pub(crate) unversioned_names: bool,
    pub(crate) endpoint: Option<String>,
    pub(crate) sts_endpoint: Option<String>,
    pub(crate) use_fips: bool,
    pub(crate) use_dualstack: bool,
}

impl ConfigBuilder {
    fn new(region: impl Into<String>) -> Self {
        Self {
            region: region.into(),
            credentials: Credentials::default(),
            role: None,
            kms_key: None,
            tags: Vec::new(),
            tag_key: None,
            owner: None,
            description: DESCRIPTION.to_owned(),
            recovery_window_days: None,
            force_delete: false,
            unversioned_names: false,
            endpoint: None,
            sts_endpoint: None,
            use_fips: false,
            use_dualstack: false,
        }
    }

    /// Where credentials come from; by default the SDK's chain.
    #[must_use]
    pub fn with_credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// The role to assume, with those credentials.
    #[must_use]
    pub fn with_role(mut self, role: AssumeRole) -> Self {
        self.role = Some(role);
        self
    }

    /// The KMS key that encrypts new secrets: ARN, id or alias.
    #[must_use]
    pub fn with_kms_key(mut self, key: impl Into<String>) -> Self {
        self.kms_key = Some(key.into());
        self
    }

    /// A tag of every new secret.
    #[must_use]
    pub fn with_tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.push((key.into(), value.into()));
        self
    }

    /// A tag whose value is `true` on every new secret, and by which listings are filtered.
    #[must_use]
    pub fn with_tag_key(mut self, key: impl Into<String>) -> Self {
        self.tag_key = Some(key.into());
        self
    }

    /// The installation that writes.
    #[must_use]
    pub fn with_owner(mut self, owner: Owner) -> Self {
        self.owner = Some(owner);
        self
    }

    /// What the console shows beside every new secret.
    #[must_use]
    pub fn with_description(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// For how many days a deleted secret can be restored: 7 to 30.
    #[must_use]
    pub fn with_recovery_window_days(mut self, days: u16) -> Self {
        self.recovery_window_days = Some(days);
        self
    }

    /// Whether deletes are immediate; excludes a window.
    #[must_use]
    pub fn with_force_delete(mut self, force: bool) -> Self {
        self.force_delete = force;
        self
    }

    /// Whether a secret that is not found is looked for without its version too.
    #[must_use]
    pub fn with_unversioned_names(mut self, unversioned: bool) -> Self {
        self.unversioned_names = unversioned;
        self
    }

    /// Another endpoint of Secrets Manager. Plain http works on loopback only.
    #[must_use]
    pub fn with_endpoint(mut self, url: impl Into<String>) -> Self {
        self.endpoint = Some(url.into());
        self
    }

    /// Another endpoint of STS. Plain http works on loopback only.
    #[must_use]
    pub fn with_sts_endpoint(mut self, url: impl Into<String>) -> Self {
        self.sts_endpoint = Some(url.into());
        self
    }

    /// Whether the FIPS endpoints are used.
    #[must_use]
    pub fn with_fips(mut self, fips: bool) -> Self {
        self.use_fips = fips;
        self
    }

    /// Whether the endpoints that have IPv6 too are used.
    #[must_use]
    pub fn with_dualstack(mut self, dualstack: bool) -> Self {
        self.use_dualstack = dualstack;
        self
    }

    /// Checks everything.
    ///
    /// # Errors
    /// `InvalidConfig`, naming the setting: a region, ARN, tag, window or endpoint that AWS would
    /// not take, or two settings that exclude each other.
    pub fn build(self) -> Result<Config> {
        let region = Region::parse(&self.region)?;
        if let Some(key) = &self.kms_key {
            check_kms_key(key, &region)?;
        }
        if let Some(role) = &self.role {
            role.check()?;
        }
        if self.description.chars().count() > 2048 {
            return Err(invalid("the description has at most 2,048 characters"));
        }
        let deletion = match (self.recovery_window_days, self.force_delete) {
            (Some(_), true) => {
                return Err(invalid(
                    "a recovery window and force-delete exclude each other",
                ));
            }
            (Some(days), false) => Deletion::window(days)?,
            (None, true) => Deletion::Immediate,
            (None, false) => Deletion::Default,
        };
        let endpoint = self
            .endpoint
            .as_deref()
            .map(settings::endpoint)
            .transpose()?;
        let sts_endpoint = match self.sts_endpoint.as_deref() {
            Some(url) => Some(settings::endpoint(url)?),
            // An endpoint on loopback is an emulator's, which serves STS as well; a VPC endpoint of
            // Secrets Manager does not.
            None => endpoint
                .clone()
                .filter(|url| url.host_str().is_some_and(settings::is_loopback)),
        };
        let tags = collect_tags(self.tags, self.tag_key.as_deref())?;
        Ok(Config {
            region,
            credentials: self.credentials,
            role: self.role,
            kms_key: self.kms_key,
            tags,
            tag_key: self.tag_key,
            owner: self.owner,
            description: self.description,
            deletion,
            unversioned_names: self.unversioned_names,
            endpoint,
            sts_endpoint,
            use_fips: self.use_fips,
            use_dualstack: self.use_dualstack,
        })
    }
}

/// Shows little: nothing is checked yet, and a password may stand in an endpoint.
impl fmt::Debug for ConfigBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigBuilder")
            .field("region", &self.region)
            .field("credentials", &self.credentials)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// Where credentials come from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Credentials {
    /// An access key.
    AccessKey(AccessKey),
    /// The AWS SDK's default chain: environment, profile (SSO, roles, processes), web identity
    /// (IRSA), container (ECS, EKS Pod Identity), instance metadata.
    DefaultChain {
        /// The profile, if not the one of `AWS_PROFILE`.
        profile: Option<String>,
    },
    /// The instance metadata service and nothing else.
    InstanceMetadata,
}

impl Default for Credentials {
    fn default() -> Self {
        Self::DefaultChain { profile: None }
    }
}

/// An access key, permanent or temporary. `Debug` shows none of it.
#[derive(Clone)]
pub struct AccessKey {
    pub(crate) id: SecretValue,
    pub(crate) secret: SecretValue,
    pub(crate) session_token: Option<SecretValue>,
}

impl AccessKey {
    /// A permanent access key.
    #[must_use]
    pub fn new(id: SecretValue, secret: SecretValue) -> Self {
        Self {
            id,
            secret,
            session_token: None,
        }
    }

    /// The same key as a temporary one.
    #[must_use]
    pub fn with_session_token(mut self, token: SecretValue) -> Self {
        self.session_token = Some(token);
        self
    }
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessKey(redacted)")
    }
}

/// A role to assume. `Debug` shows the role, not the external id.
#[derive(Clone)]
pub struct AssumeRole {
    pub(crate) arn: String,
    pub(crate) external_id: Option<String>,
    pub(crate) session_name: String,
}

impl AssumeRole {
    /// The role with this ARN.
    pub fn new(arn: impl Into<String>) -> Self {
        Self {
            arn: arn.into(),
            external_id: None,
            session_name: SESSION_NAME.to_owned(),
        }
    }

    /// With the external id that its trust policy asks for.
    #[must_use]
    pub fn with_external_id(mut self, id: impl Into<String>) -> Self {
        self.external_id = Some(id.into());
        self
    }

    /// With another name for its sessions in CloudTrail.
    #[must_use]
    pub fn with_session_name(mut self, name: impl Into<String>) -> Self {
        self.session_name = name.into();
        self
    }

    fn check(&self) -> Result<()> {
        check_role_arn(&self.arn)?;
        if let Some(id) = &self.external_id {
            check_external_id(id)?;
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
        if !(2..=64).contains(&self.session_name.len()) || !self.session_name.bytes().all(allowed) {
            return Err(invalid(
                "the session name has 2 to 64 of A-Z, a-z, 0-9 and _+=,.@-",
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

/// What becomes of a deleted secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deletion {
    /// As AWS has it: restorable for 30 days.
    Default,
    /// Gone.
    Immediate,
    /// Restorable for 7 to 30 days.
    Window(u16),
}

impl Deletion {
    /// What a call asks for, with the configured way for those that ask for nothing.
    pub(crate) fn of(recovery: Recovery, configured: Self) -> Result<Self> {
        match recovery {
            Recovery::Configured => Ok(configured),
            Recovery::Immediate => Ok(Self::Immediate),
            Recovery::Window { days } => Self::window(days),
            _ => Err(Error::new(
                ErrorKind::Unsupported,
                "this store knows no such recovery",
            )),
        }
    }

    /// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_DeleteSecret.html>
    fn window(days: u16) -> Result<Self> {
        if (7..=30).contains(&days) {
            return Ok(Self::Window(days));
        }
        Err(invalid("the recovery window has 7 to 30 days")
            .with_hint("set recovery-window-days, or force-delete=true to delete at once"))
    }
}

/// Refuses what AWS would: <https://docs.aws.amazon.com/tag-editor/latest/userguide/tagging.html>.
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
        return Err(invalid("tag keys that begin with `aws:` are AWS's own"));
    }
    if !fits(key, 1..=128) || !fits(value, 0..=256) {
        return Err(invalid(
            "a tag's key has 1 to 128 characters and its value at most 256, of letters, digits, \
             blanks and _.:/=+-@",
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
        "an external id has 2 to 1,224 of A-Z, a-z, 0-9 and _+=,.@:/-",
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
    // Owner and expiry come on top.
    if tags.len() + 2 > MAX_TAGS {
        return Err(invalid(
            "AWS allows 50 tags per secret, of which owner and expiry take two",
        ));
    }
    Ok(tags)
}

/// An id, an alias, or the ARN of either in this region: Secrets Manager takes no key of another.
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
                "the KMS key is of another AWS region than this store, which is {region}"
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

pub(crate) fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidConfig, message).with_operation(Operation::Open)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_emulators_endpoint_serves_sts_too() {
        let sts = |url: &str| {
            let config = Config::builder("eu-west-1")
                .with_endpoint(url)
                .build()
                .unwrap();
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
        let build = |change: &dyn Fn(ConfigBuilder) -> ConfigBuilder| {
            change(Config::builder("eu-west-1")).build()
        };
        let long = "x".repeat(129);
        let accepted: [&dyn Fn(ConfigBuilder) -> ConfigBuilder; 5] = [
            &|b| (0..48).fold(b, |b, n| b.with_tag(format!("k{n}"), "v")),
            &|b| b.with_tag("Ünïcode key", "v".repeat(256)),
            &|b| b.with_kms_key("alias/airbyte"),
            &|b| b.with_kms_key("mrk-1234567890abcdef1234567890abcdef"),
            &|b| b.with_kms_key("arn:aws:kms:eu-west-1:123456789012:alias/x"),
        ];
        for change in accepted {
            build(change).unwrap();
        }
        let refused: [&dyn Fn(ConfigBuilder) -> ConfigBuilder; 14] = [
            &|b| (0..49).fold(b, |b, n| b.with_tag(format!("k{n}"), "v")),
            &|b| b.with_tag(&long, "v"),
            &|b| b.with_tag("", "v"),
            &|b| b.with_tag("k", "v".repeat(257)),
            &|b| b.with_tag("k", "a,b"),
            &|b| b.with_tag("AWS:k", "v"),
            &|b| b.with_tag_key("aws:k"),
            &|b| b.with_tag("k", "1").with_tag("k", "2"),
            &|b| b.with_tag(OWNER_TAG, "x"),
            &|b| b.with_tag(EXPIRES_TAG, "x"),
            &|b| b.with_kms_key("arn:aws:kms:us-east-1:123456789012:key/1234"),
            &|b| b.with_kms_key("key"),
            &|b| b.with_description("x".repeat(2049)),
            &|b| {
                b.with_role(
                    AssumeRole::new("arn:aws:iam::123456789012:role/x").with_session_name("a b"),
                )
            },
        ];
        for (at, change) in refused.into_iter().enumerate() {
            let error = build(change).expect_err(&at.to_string());
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        }
    }

    #[test]
    fn debug_shows_no_credential() {
        let value = |text: &str| SecretValue::new(text.to_owned());
        let key = AccessKey::new(value("canary-id"), value("canary-secret"))
            .with_session_token(value("canary-token"));
        let builder = Config::builder("eu-west-1")
            .with_credentials(Credentials::AccessKey(key))
            .with_role(
                AssumeRole::new("arn:aws:iam::123456789012:role/x").with_external_id("canary-ext"),
            );
        let pasted = builder
            .clone()
            .with_endpoint("https://user:canary@vpce.example");
        let shown = format!("{pasted:?} {:?}", builder.build().unwrap());
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
