//! How the store is set up: the key table, and types that hold only what has been checked.

use std::collections::BTreeMap;
use std::fmt;

use secrets_core::settings::{Setting, Settings, StoreUrl};
use secrets_core::{Error, ErrorKind, Operation, Owner, Recovery, Result, SecretValue};
use url::{Host, Url};

use crate::naming::Region;

/// The value of the tag whose key is the setting `tag-key`.
pub(crate) const TAG_VALUE: &str = "true";

/// The tag that says which installation wrote a secret.
pub const OWNER_TAG: &str = "secret-persistence:owner";

/// The tag that says when a secret may be removed: RFC 3339, UTC.
pub const EXPIRES_TAG: &str = "secret-persistence:expires";

/// What Secrets Manager shows beside every secret that we write.
const DESCRIPTION: &str = "Secret of a connector configuration";

/// The name under which the sessions of an assumed role stand in CloudTrail.
const SESSION_NAME: &str = "secret-persistence";

/// AWS allows 50 tags per secret.
/// <https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html>
const MAX_TAGS: usize = 50;

/// Every setting of this store, for every source they come from.
pub const SETTINGS: &[Setting] = &[
    Setting::new(
        "region",
        "the AWS region that holds the secrets; the host of the URL",
    )
    .with_env(&["AWS_SECRET_MANAGER_REGION"]),
    Setting::new(
        "access-key-id",
        "the id of an access key; together with the secret access key",
    )
    .with_env(&["AWS_SECRET_MANAGER_ACCESS_KEY_ID", "AWS_ACCESS_KEY"])
    .secret(),
    Setting::new("secret-access-key", "the secret half of the access key")
        .with_env(&[
            "AWS_SECRET_MANAGER_SECRET_ACCESS_KEY",
            "AWS_SECRET_ACCESS_KEY",
        ])
        .secret(),
    Setting::new(
        "session-token",
        "the session token of a temporary access key",
    )
    .with_env(&["AWS_SECRET_MANAGER_SESSION_TOKEN"])
    .secret(),
    Setting::new(
        "credentials",
        "where credentials come from if no access key is set: `default`, the chain of the AWS SDK \
         (environment, profile, SSO, web identity, container, instance metadata), or `imds`, the \
         instance metadata service only",
    )
    .with_default("default")
    .operator_only(),
    Setting::new("profile", "the profile of the AWS configuration files").operator_only(),
    Setting::new(
        "role-arn",
        "a role to assume, with whatever credentials there are",
    )
    .with_env(&["AWS_ASSUME_ROLE_ARN"]),
    Setting::new(
        "external-id",
        "the external id that the role's trust policy asks for",
    )
    .with_env(&["AWS_ASSUME_ROLE_EXTERNAL_ID"]),
    Setting::new(
        "session-name",
        "the name of the role's sessions in CloudTrail",
    )
    .with_env(&["AWS_ASSUME_ROLE_SESSION_NAME"])
    .with_default(SESSION_NAME),
    Setting::new(
        "assume-role-access-key-id",
        "the id of the access key that assumes the role, if not the store's own",
    )
    .with_env(&["AWS_ASSUME_ROLE_ACCESS_KEY_ID"])
    .secret(),
    Setting::new(
        "assume-role-secret-access-key",
        "the secret half of that access key",
    )
    .with_env(&["AWS_ASSUME_ROLE_SECRET_ACCESS_KEY"])
    .secret(),
    Setting::new(
        "kms-key-arn",
        "the KMS key that encrypts new secrets: ARN, id or alias; by default Secrets Manager's own",
    )
    .with_env(&["AWS_KMS_KEY_ARN"]),
    Setting::new(
        "tags",
        "tags of new secrets, as `key=value,key=value`; a value may hold `=`",
    )
    .with_env(&["AWS_SECRET_MANAGER_SECRET_TAGS"]),
    Setting::new(
        "tag-key",
        "a tag whose value is `true` on every new secret, for policies that are scoped by it; \
         listings leave out what has it not",
    )
    .with_env(&["AWS_SECRET_MANAGER_TAG_KEY"]),
    Setting::new(
        "description",
        "what the console shows beside every new secret",
    )
    .with_default(DESCRIPTION),
    Setting::new(
        "recovery-window-days",
        "for how many days a deleted secret can be restored: 7 to 30; by default AWS's 30",
    ),
    Setting::new(
        "force-delete",
        "`true` deletes at once, without recovery window",
    )
    .with_default("false"),
    Setting::new(
        "unversioned-names",
        "`true` looks for a secret that is not found under its name without the version too, as \
         Airbyte once stored it",
    )
    .with_default("false"),
    Setting::new(
        "endpoint-url",
        "another endpoint of Secrets Manager, such as a VPC endpoint",
    )
    .with_env(&["AWS_ENDPOINT_URL_SECRETS_MANAGER", "AWS_ENDPOINT_URL"])
    .operator_only(),
    Setting::new(
        "sts-endpoint-url",
        "another endpoint of STS; where endpoint-url is on loopback, by default the same",
    )
    .with_env(&["AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL"])
    .operator_only(),
    Setting::new("use-fips", "`true` uses the FIPS endpoints")
        .with_env(&["AWS_USE_FIPS_ENDPOINT"])
        .with_default("false"),
    Setting::new(
        "use-dualstack",
        "`true` uses the endpoints that have IPv6 too",
    )
    .with_env(&["AWS_USE_DUALSTACK_ENDPOINT"])
    .with_default("false"),
];

/// A complete, checked configuration.
///
/// ```
/// use secrets_aws::Config;
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
/// # Ok::<(), secrets_core::Error>(())
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

    /// Reads `aws://<region>?kms-key-arn=…&tag-key=…`, with the environment for what the URL does
    /// not say: credentials never stand in a URL. `variable` looks a variable up, so that the caller
    /// decides about prefixes.
    ///
    /// # Errors
    /// As [`from_settings`](Self::from_settings); and `InvalidConfig` for a URL of another form.
    pub fn from_url(url: &StoreUrl, variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        if url.scheme() != "aws" || url.port().is_some() || !matches!(url.path(), "" | "/") {
            return Err(invalid("this is not the URL of an AWS store")
                .with_hint("write aws://<region>?<setting>=<value>&…"));
        }
        let mut settings = Settings::new(SETTINGS);
        if let Some(region) = url.host() {
            settings.set("region", region)?;
        }
        settings.set_query(url)?;
        set_env(&mut settings, variable);
        Self::from_settings(&settings)
    }

    /// Reads the environment alone.
    ///
    /// # Errors
    /// As [`from_settings`](Self::from_settings).
    pub fn from_env(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let mut settings = Settings::new(SETTINGS);
        set_env(&mut settings, variable);
        Self::from_settings(&settings)
    }

    /// Reads settings of [`SETTINGS`], wherever they came from. The owner is no setting of the
    /// store: add it with [`with_owner`](Self::with_owner).
    ///
    /// # Errors
    /// `InvalidConfig` where one is missing, contradicts another, or is beyond what AWS accepts.
    pub fn from_settings(settings: &Settings) -> Result<Self> {
        let text = |name| settings.text(name).filter(|text| !text.is_empty());
        let flag = |name| Ok::<_, Error>(settings.parse::<bool>(name)?.unwrap_or(false));
        let own_key = AccessKey::pair(
            settings.secret("access-key-id"),
            settings.secret("secret-access-key"),
            settings.secret("session-token"),
            "access-key-id and secret-access-key",
        )?;
        let base_key = AccessKey::pair(
            settings.secret("assume-role-access-key-id"),
            settings.secret("assume-role-secret-access-key"),
            None,
            "assume-role-access-key-id and assume-role-secret-access-key",
        )?;
        let role = text("role-arn").map(|arn| {
            let mut role = AssumeRole::new(arn);
            role.external_id = text("external-id").map(str::to_owned);
            if let Some(name) = text("session-name") {
                role.session_name = name.to_owned();
            }
            role
        });
        if role.is_none() && text("external-id").is_some() {
            return Err(invalid("an external id is of no use without role-arn"));
        }
        let key = if role.is_some() {
            base_key.or(own_key)
        } else {
            own_key
        };
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
                return Err(invalid("the setting `credentials` is `default` or `imds`"));
            }
        };
        let mut builder = Self::builder(text("region").unwrap_or_default())
            .with_credentials(credentials)
            .with_force_delete(flag("force-delete")?)
            .with_unversioned_names(flag("unversioned-names")?)
            .with_fips(flag("use-fips")?)
            .with_dualstack(flag("use-dualstack")?);
        builder.role = role;
        builder.kms_key = text("kms-key-arn").map(str::to_owned);
        builder.tags = text("tags").map_or_else(|| Ok(Vec::new()), parse_tags)?;
        builder.tag_key = text("tag-key").map(str::to_owned);
        builder.recovery_window_days = settings.parse("recovery-window-days")?;
        builder.endpoint = text("endpoint-url").map(str::to_owned);
        builder.sts_endpoint = text("sts-endpoint-url").map(str::to_owned);
        if let Some(description) = text("description") {
            builder.description = description.to_owned();
        }
        builder.build()
    }

    /// The same configuration, marking what is written with this owner.
    #[must_use]
    pub fn with_owner(mut self, owner: Owner) -> Self {
        self.owner = Some(owner);
        self
    }
}

/// Collects a [`Config`]. Setters cannot fail, [`build`](Self::build) can.
#[derive(Clone, Debug)]
pub struct ConfigBuilder {
    region: String,
    credentials: Credentials,
    role: Option<AssumeRole>,
    kms_key: Option<String>,
    tags: Vec<(String, String)>,
    tag_key: Option<String>,
    owner: Option<Owner>,
    description: String,
    recovery_window_days: Option<u16>,
    force_delete: bool,
    unversioned_names: bool,
    endpoint: Option<String>,
    sts_endpoint: Option<String>,
    use_fips: bool,
    use_dualstack: bool,
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
        let endpoint = self.endpoint.as_deref().map(check_endpoint).transpose()?;
        let sts_endpoint = match self.sts_endpoint.as_deref() {
            Some(url) => Some(check_endpoint(url)?),
            // An endpoint on loopback is an emulator's, which serves STS as well; a VPC endpoint of
            // Secrets Manager does not.
            None => endpoint.clone().filter(is_loopback),
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

    fn pair(
        id: Option<SecretValue>,
        secret: Option<SecretValue>,
        session_token: Option<SecretValue>,
        names: &'static str,
    ) -> Result<Option<Self>> {
        let id = id.filter(|id| !id.is_empty());
        let secret = secret.filter(|secret| !secret.is_empty());
        match (id, secret) {
            (None, None) if session_token.is_none() => Ok(None),
            (Some(id), Some(secret)) => Ok(Some(Self {
                id,
                secret,
                session_token,
            })),
            _ => Err(invalid(format!("{names} must be set together"))),
        }
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
    let parts: Vec<&str> = arn.split(':').collect();
    let name = |resource: &str| {
        resource.strip_prefix("role/").is_some_and(|name| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"_+=,.@/-".contains(&byte))
        })
    };
    match parts[..] {
        ["arn", partition, "iam", "", account, resource]
            if partition.starts_with("aws")
                && partition
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b == b'-')
                && account.len() == 12
                && account.bytes().all(|byte| byte.is_ascii_digit())
                && name(resource) =>
        {
            Ok(())
        }
        _ => Err(invalid("the role is not the ARN of an IAM role")
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

/// Reads the environment, leaving the SDK's own variables to its chain: `AWS_SECRET_ACCESS_KEY` is
/// an old name of ours, but without one of our ids it belongs to `AWS_ACCESS_KEY_ID`, which the
/// chain reads.
fn set_env(settings: &mut Settings, variable: impl Fn(&str) -> Option<String>) {
    let is_set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
    let has_id = settings.secret("access-key-id").is_some()
        || is_set("AWS_SECRET_MANAGER_ACCESS_KEY_ID")
        || is_set("AWS_ACCESS_KEY");
    settings.set_env(|name| match name {
        "AWS_SECRET_ACCESS_KEY" if !has_id => None,
        _ => variable(name),
    });
}

fn parse_tags(text: &str) -> Result<Vec<(String, String)>> {
    text.split(',')
        .map(str::trim)
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            pair.split_once('=')
                .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
                .ok_or_else(|| {
                    invalid("`tags` cannot be understood")
                        .with_hint("write key=value,key=value (AWS_SECRET_MANAGER_SECRET_TAGS)")
                })
        })
        .collect()
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
    let parts: Vec<&str> = key.split(':').collect();
    match parts[..] {
        ["arn", _, "kms", place, _, _] if place != region.as_str() => Err(invalid(format!(
            "the KMS key is of another AWS region than this store, which is {region}"
        ))
        .with_hint("use a key of this region, or a replica of a multi-region key")),
        ["arn", partition, "kms", _, account, key]
            if partition == region.partition()
                && account.len() == 12
                && account.bytes().all(|byte| byte.is_ascii_digit())
                && resource(key) =>
        {
            Ok(())
        }
        [alias] if alias.starts_with("alias/") && name(alias) => Ok(()),
        [id] if id.len() >= 32 && !id.contains('/') && name(id) => Ok(()),
        _ => Err(
            invalid("the KMS key is neither an ARN, nor an id, nor an alias")
                .with_hint("write arn:aws:kms:<region>:<account>:key/<id>, or alias/<name>"),
        ),
    }
}

fn check_endpoint(text: &str) -> Result<Url> {
    // The text is not echoed: a URL is where people paste passwords.
    let url = Url::parse(text).map_err(|_| invalid("the endpoint is not a URL"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("an endpoint must not hold credentials"));
    }
    if url.query().is_some() || url.fragment().is_some() || url.host().is_none() {
        return Err(invalid(
            "an endpoint has a scheme, a host, a port and no more",
        ));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        "http" => Err(invalid("an endpoint outside loopback must be https")),
        _ => Err(invalid("an endpoint is https, or http on loopback")),
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidConfig, message).with_operation(Operation::Open)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_env(pairs: &[(&str, &str)]) -> Result<Config> {
        Config::from_env(|name| {
            let found = pairs.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn from_url(text: &str) -> Result<Config> {
        Config::from_url(&StoreUrl::parse(text)?, |_| None)
    }

    const REGION: (&str, &str) = ("AWS_SECRET_MANAGER_REGION", "eu-west-1");

    fn key_of(config: &Config) -> Option<(&str, &str)> {
        match &config.credentials {
            Credentials::AccessKey(key) => Some((key.id.expose(), key.secret.expose())),
            _ => None,
        }
    }

    #[test]
    fn the_environment_is_read_under_its_documented_names() {
        let config = from_env(&[
            REGION,
            ("AWS_SECRET_MANAGER_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_MANAGER_SECRET_ACCESS_KEY", "secret"),
            ("AWS_SECRET_MANAGER_SECRET_TAGS", "team=data, cost=a=b"),
            (
                "AWS_KMS_KEY_ARN",
                "arn:aws:kms:eu-west-1:123456789012:key/1234",
            ),
        ])
        .unwrap();
        assert_eq!(config.region.as_str(), "eu-west-1");
        assert_eq!(key_of(&config), Some(("id", "secret")));
        assert_eq!(config.tags["team"], "data");
        assert_eq!(config.tags["cost"], "a=b");
        assert!(config.kms_key.is_some() && config.deletion == Deletion::Default);

        let old = from_env(&[
            REGION,
            ("AWS_ACCESS_KEY", "id"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
        ]);
        assert_eq!(key_of(&old.unwrap()), Some(("id", "s")));
        // The SDK's own pair is left to its chain.
        let chain = from_env(&[
            REGION,
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
        ]);
        assert_eq!(key_of(&chain.unwrap()), None);
        let half = from_env(&[REGION, ("AWS_SECRET_MANAGER_ACCESS_KEY_ID", "id")]).unwrap_err();
        assert!(half.message().contains("together"));
        let missing = from_env(&[]).unwrap_err();
        assert!(missing.message().contains("region is missing"), "{missing}");
        assert!(
            missing
                .hint()
                .unwrap()
                .contains("AWS_SECRET_MANAGER_REGION")
        );
    }

    #[test]
    fn a_role_is_assumed_with_keys_of_its_own_where_there_are_any() {
        let role = (
            "AWS_ASSUME_ROLE_ARN",
            "arn:aws:iam::123456789012:role/airbyte/secrets",
        );
        let own = [
            ("AWS_SECRET_MANAGER_ACCESS_KEY_ID", "own"),
            ("AWS_SECRET_MANAGER_SECRET_ACCESS_KEY", "own secret"),
        ];
        let base = [
            ("AWS_ASSUME_ROLE_ACCESS_KEY_ID", "base"),
            ("AWS_ASSUME_ROLE_SECRET_ACCESS_KEY", "base secret"),
        ];
        let with = |pairs: &[&[(&'static str, &'static str)]]| {
            let config = from_env(&[&[REGION], pairs.concat().as_slice()].concat()).unwrap();
            (
                config.role.is_some(),
                key_of(&config).map(|(id, _)| id.to_owned()),
            )
        };
        assert_eq!(
            with(&[&[role], &own, &base]),
            (true, Some("base".to_owned()))
        );
        assert_eq!(with(&[&[role], &own]), (true, Some("own".to_owned())));
        assert_eq!(with(&[&[role]]), (true, None));
        assert_eq!(with(&[&own, &base]), (false, Some("own".to_owned())));
        let stray = from_env(&[REGION, ("AWS_ASSUME_ROLE_EXTERNAL_ID", "ext")]);
        assert!(stray.unwrap_err().message().contains("role-arn"));
    }

    #[test]
    fn urls_carry_every_option_and_no_credential() {
        let config = from_url(
            "aws://us-gov-west-1?tag-key=AirbyteManaged&recovery-window-days=7&credentials=imds\
             &unversioned-names=true&use-fips=true&description=ours\
             &role-arn=arn:aws-us-gov:iam::123456789012:role/x&external-id=ext-1",
        )
        .unwrap();
        assert_eq!(config.deletion, Deletion::Window(7));
        assert!(config.unversioned_names && config.use_fips && !config.use_dualstack);
        assert!(matches!(config.credentials, Credentials::InstanceMetadata));
        assert_eq!(config.tags["AirbyteManaged"], "true");
        assert_eq!(config.description, "ours");
        let role = config.role.unwrap();
        assert_eq!(role.session_name, "secret-persistence");
        assert_eq!(role.external_id.as_deref(), Some("ext-1"));
        for (url, expected) in [
            ("aws://eu-west-1?secret-access-key=canary", "secret"),
            ("aws://eu-west-1?kms-key=x", "unknown setting"),
            ("aws://eu-west-1:443", "not the URL"),
            ("aws://eu-west-1/path", "not the URL"),
            ("aws://", "region"),
            ("aws:eu-west-1", "not the URL"),
            ("aws://eu-west-1?region=us-east-1", "twice"),
            ("aws://eu-west-1?credentials=env", "`default` or `imds`"),
            ("aws://eu-west-1?credentials=imds&profile=x", "excludes"),
            (
                "aws://eu-west-1?recovery-window-days=7&force-delete=true",
                "exclude",
            ),
            ("aws://eu-west-1?recovery-window-days=6", "7 to 30"),
            ("aws://eu-west-1?recovery-window-days=31", "7 to 30"),
            ("aws://eu-west-1?force-delete=yes", "cannot be understood"),
            ("aws://eu-west-1?tags=a", "cannot be understood"),
            ("aws://eu-west-1?role-arn=airbyte", "not the ARN"),
            ("aws://eu-west-1?endpoint-url=http://vpce.example", "https"),
            (
                "aws://eu-west-1?endpoint-url=https://u:canary@vpce.example",
                "credentials",
            ),
            (
                "aws://eu-west-1?endpoint-url=https://vpce.example/?x=canary",
                "no more",
            ),
            ("aws://eu-west-1?endpoint-url=ftp://localhost", "https"),
        ] {
            let error = from_url(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{url}");
            assert!(error.to_string().contains(expected), "{url}: {error}");
            assert!(!format!("{error} {error:?}").contains("canary"), "{url}");
        }
    }

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
        let shown = format!("{builder:?} {:?}", builder.clone().build().unwrap());
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

    /// Every setting is documented, and what the table calls a default is one.
    #[test]
    fn the_key_table_is_complete_and_true() {
        for setting in SETTINGS {
            assert!(
                !setting.doc.is_empty() && !setting.doc.ends_with('.'),
                "{}",
                setting.name
            );
            let Some(default) = setting.default else {
                continue;
            };
            let mut settings = Settings::new(SETTINGS);
            settings.set("region", "eu-west-1").unwrap();
            settings.set(setting.name, default).unwrap();
            let mut explicit = Config::from_settings(&settings);
            if setting.name == "session-name" {
                explicit = Config::builder("eu-west-1").build();
            }
            let implicit = Config::builder("eu-west-1").build().unwrap();
            assert_eq!(
                format!("{:?}", explicit.unwrap()),
                format!("{implicit:?}"),
                "{}",
                setting.name
            );
        }
        assert_eq!(AssumeRole::new("x").session_name, SESSION_NAME);
    }
}
