//! The settings that all stores share: owner, layers and audit.

use std::ops::RangeInclusive;
use std::time::Duration;

use secret_persistence_core::layer::{CacheOptions, LimitOptions, RetryOptions};
use secret_persistence_core::settings::{Setting, SettingMap};
use secret_persistence_core::{AuditMode, ManagedPrefix, Result};

use super::{Settings, invalid};

/// The key table of the settings that all stores share. In a URL, they are parameters like the
/// store's own settings.
pub const COMMON: &[Setting] = &[
    Setting::new("owner", "the id of this installation, written with every secret: a-z, 0-9, _ and -")
        .with_env(&["SECRETS_OWNER"])
        .with_helm(&["owner"]),
    Setting::new("metrics", "`true` counts and times every call with the `metrics` crate")
        .with_env(&["SECRETS_METRICS"])
        .with_helm(&["metrics"])
        .with_default("true"),
    Setting::new("read-only", "`true` refuses every change before any request")
        .with_env(&["SECRETS_READ_ONLY"])
        .with_helm(&["readOnly"])
        .with_default("false"),
    Setting::new("cache", "`true` caches read values in memory")
        .with_env(&["SECRETS_CACHE"])
        .with_helm(&["cache"])
        .with_default("false"),
    Setting::new(
        "cache-ttl-seconds",
        "how long a value is served without asking the store, 1 to 86400; a value that another \
        process deleted is served for this long too",
    )
    .with_env(&["SECRETS_CACHE_TTL_SECONDS"])
    .with_helm(&["cacheTtlSeconds"])
    .with_default("300"),
    Setting::new(
        "cache-stale-seconds",
        "how much longer a value is served while the store does not respond, 0 to 604800",
    )
    .with_env(&["SECRETS_CACHE_STALE_SECONDS"])
    .with_helm(&["cacheStaleSeconds"])
    .with_default("3600"),
    Setting::new("cache-max-bytes", "the maximum memory for cached values")
        .with_env(&["SECRETS_CACHE_MAX_BYTES"])
        .with_helm(&["cacheMaxBytes"])
        .with_default("67108864"),
    Setting::new("retry", "`true` retries transient failures, and times out requests")
        .with_env(&["SECRETS_RETRY"])
        .with_helm(&["retry"])
        .with_default("true"),
    Setting::new("retry-attempts", "the maximum attempts of one call, 1 to 100")
        .with_env(&["SECRETS_RETRY_ATTEMPTS"])
        .with_helm(&["retryAttempts"])
        .with_default("8"),
    Setting::new(
        "retry-deadline-seconds",
        "how long one call with all its attempts may take, 1 to 3600",
    )
    .with_env(&["SECRETS_RETRY_DEADLINE_SECONDS"])
    .with_helm(&["retryDeadlineSeconds"])
    .with_default("60"),
    Setting::new("request-timeout-seconds", "how long one request may take, 1 to 600; with `retry`")
        .with_env(&["SECRETS_REQUEST_TIMEOUT_SECONDS"])
        .with_helm(&["requestTimeoutSeconds"])
        .with_default("10"),
    Setting::new(
        "limit",
        "`true` limits requests to a share of the store's quota; by default if the provider documents one",
    )
    .with_env(&["SECRETS_LIMIT"])
    .with_helm(&["limit"]),
    Setting::new(
        "limit-share",
        "the part of the quota that this installation may use, 0.001 to 1, because others may use the account too",
    )
    .with_env(&["SECRETS_LIMIT_SHARE"])
    .with_helm(&["limitShare"])
    .with_default("0.5"),
    Setting::new(
        "replicas",
        "how many processes like this one divide that share, 1 to 10000; with `limit-shared`, while its \
        database cannot be reached",
    )
        .with_env(&["SECRETS_REPLICAS"])
        .with_helm(&["replicas"])
        .with_default("1"),
    Setting::new(
        LIMIT_SHARED,
        "a Postgres URL with credentials: all processes with this database share `limit-share` of the \
        quota by demand, through its table secret_rates",
    )
    .with_env(&["SECRETS_LIMIT_SHARED"])
    .with_helm(&["limitShared"])
    .secret()
    .operator_only(),
    Setting::new(
        "limit-reads-per-second",
        "the quota for reads in requests per second, instead of the documented one",
    )
    .with_env(&["SECRETS_LIMIT_READS_PER_SECOND"])
    .with_helm(&["limitReadsPerSecond"]),
    Setting::new(
        "limit-writes-per-second",
        "the quota for writes and deletes in requests per second, instead of the documented one",
    )
    .with_env(&["SECRETS_LIMIT_WRITES_PER_SECOND"])
    .with_helm(&["limitWritesPerSecond"]),
    Setting::new(
        "limit-lists-per-second",
        "the quota for lists in requests per second, instead of the documented one",
    )
    .with_env(&["SECRETS_LIMIT_LISTS_PER_SECOND"])
    .with_helm(&["limitListsPerSecond"]),
    Setting::new(
        "mirror",
        "the URL of a second store that mirrors this one: it is read if this one does not have the \
        secret, and written and deleted first. Settings that its URL lacks come from variables prefixed with MIRROR_",
    )
    .with_env(&["SECRETS_MIRROR"])
    .with_helm(&["mirror"]),
    Setting::new(
        "audit",
        "`required`: an operation fails before it returns any value if its audit events cannot be \
        recorded; `best_effort`: the failure is counted and logged; for `stores`",
    )
    .with_env(&["SECRETS_AUDIT"])
    .with_helm(&["audit"]),
    Setting::new("audit-file", "the file for audit events, one JSON object per line")
        .with_env(&["SECRETS_AUDIT_FILE"])
        .with_helm(&["auditFile"])
        .operator_only(),
    Setting::new(
        "ledger",
        "the read ledger: the URL of its SQLite or Postgres database or of its folder, in place of \
        `audit-file`. Settings that its URL lacks come from variables prefixed with LEDGER_",
    )
    .with_env(&["SECRETS_LEDGER"])
    .with_helm(&["ledger"])
    .operator_only(),
    Setting::new(
        MANAGED_PREFIX,
        "what managed names begin with, for platforms that are not Airbyte: the programs follow the \
        variable; a setting that differs from what the process follows is an error",
    )
    .with_env(&[MANAGED_PREFIX_VARIABLE])
    .with_helm(&["managedPrefix"])
    .operator_only(),
];

pub(crate) const LIMIT_SHARED: &str = "limit-shared";

pub(super) const MANAGED_PREFIX: &str = "managed-prefix";

pub(super) const MANAGED_PREFIX_VARIABLE: &str = "SECRETS_MANAGED_PREFIX";

/// The layers in the settings.
#[derive(Debug, PartialEq)]
pub(crate) struct Layering {
    pub(crate) metrics: bool,
    pub(crate) read_only: bool,
    pub(crate) cache: Option<CacheOptions>,
    pub(crate) retry: Option<RetryOptions>,
    pub(crate) limit: Option<LimitOptions>,
    /// How many processes divide the limit.
    pub(crate) replicas: u32,
}

impl Layering {
    /// Reads the layers, with the store's quotas as defaults. The share of the limit is divided among the
    /// replicas, unless its rates are shared.
    pub(crate) fn of(settings: &Settings) -> Result<Self> {
        let quotas = settings.quotas()?;
        Self::read(&settings.common, quotas).map_err(|error| settings.name_as_written(error))
    }

    /// The limit of this process, where nobody else's requests are known.
    pub(crate) fn divided(&self) -> Option<LimitOptions> {
        let limit = self.limit.clone()?;
        let share = limit.share / f64::from(self.replicas);
        Some(limit.with_share(share))
    }

    fn read(values: &SettingMap, quotas: Option<LimitOptions>) -> Result<Self> {
        check_managed_prefix(values)?;
        Ok(Self {
            metrics: values.flag("metrics")?,
            read_only: values.flag("read-only")?,
            cache: cache(values)?,
            retry: retry(values)?,
            limit: limit(values, quotas)?,
            replicas: values.number("replicas", 1..=10_000)?,
        })
    }
}

/// A process has one prefix, so a setting cannot change it. Ignoring the setting would write names
/// that the operator does not expect.
fn check_managed_prefix(values: &SettingMap) -> Result<()> {
    let Some(wanted) = values.parse::<ManagedPrefix>(MANAGED_PREFIX)? else {
        return Ok(());
    };
    let current = ManagedPrefix::current();
    if wanted == *current {
        return Ok(());
    }
    Err(invalid(format!(
        "`{MANAGED_PREFIX}` is {wanted}, but managed names of this process begin with {current}"
    ))
    .with_hint(
        "set SECRETS_MANAGED_PREFIX, without a prefix for one store, for programs; call \
         ManagedPrefix::install first in a program of yours",
    ))
}

/// What happens if audit events cannot be recorded; `None` without audit.
pub(crate) fn audit_mode(values: &SettingMap) -> Result<Option<AuditMode>> {
    let modes = [
        ("required", AuditMode::Required),
        ("best_effort", AuditMode::BestEffort),
    ];
    let set = values.is_set("audit");
    set.then(|| values.choice("audit", &modes)).transpose()
}

fn cache(values: &SettingMap) -> Result<Option<CacheOptions>> {
    // Settings of disabled layers are checked too, because a layer may be enabled later.
    let options = CacheOptions::default()
        .with_ttl(seconds(values, "cache-ttl-seconds", 1..=86_400)?)
        .with_stale(seconds(values, "cache-stale-seconds", 0..=604_800)?)
        .with_max_bytes(values.number("cache-max-bytes", 1..=u64::MAX)?);
    Ok(values.flag("cache")?.then_some(options))
}

fn retry(values: &SettingMap) -> Result<Option<RetryOptions>> {
    let options = RetryOptions::default()
        .with_attempts(values.number("retry-attempts", 1..=100)?)
        .with_deadline(seconds(values, "retry-deadline-seconds", 1..=3600)?)
        .with_request_timeout(seconds(values, "request-timeout-seconds", 1..=600)?);
    Ok(values.flag("retry")?.then_some(options))
}

const RATES: [&str; 3] = [
    "limit-reads-per-second",
    "limit-writes-per-second",
    "limit-lists-per-second",
];

/// The limit of all processes together.
fn limit(values: &SettingMap, quotas: Option<LimitOptions>) -> Result<Option<LimitOptions>> {
    let wanted = values.parse("limit")?;
    let mut given = RATES.into_iter().chain([LIMIT_SHARED]);
    let given = given.find(|name| values.is_set(name));
    if let (Some(false), Some(name)) = (wanted, given) {
        return Err(invalid(format!(
            "`{name}` has no effect if `limit` is false"
        )));
    }
    let wanted = wanted.unwrap_or(quotas.is_some() || given.is_some());
    let mut options = quotas.unwrap_or_default();
    let classes = [&mut options.read, &mut options.write, &mut options.list];
    for (name, class) in RATES.into_iter().zip(classes) {
        if values.is_set(name) {
            class.per_second = values.number(name, 0.001..=1_000_000.0)?;
        }
    }
    let share: f64 = values.number("limit-share", 0.001..=1.0)?;
    Ok(wanted.then(|| options.with_share(share)))
}

fn seconds(values: &SettingMap, name: &str, range: RangeInclusive<u64>) -> Result<Duration> {
    values.number(name, range).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, &str)]) -> SettingMap {
        let mut values = SettingMap::new(COMMON);
        for (name, value) in pairs {
            values.set(name, *value).unwrap();
        }
        values
    }

    fn quotas() -> LimitOptions {
        let mut quotas = LimitOptions::default();
        quotas.read.per_second = 800.0;
        quotas
    }

    #[test]
    fn a_share_of_the_quota_is_divided_among_the_replicas() {
        let limit = |pairs: &[(&str, &str)]| limit(&values(pairs), Some(quotas())).unwrap();
        let layering =
            |pairs: &[(&str, &str)]| Layering::read(&values(pairs), Some(quotas())).unwrap();
        let share = |pairs: &[(&str, &str)]| layering(pairs).divided().unwrap().share;
        assert_eq!(share(&[]), 0.5);
        assert_eq!(share(&[("replicas", "5")]), 0.1);
        assert_eq!(share(&[("replicas", "4"), ("limit-share", "1")]), 0.25);
        let shared = layering(&[
            ("replicas", "4"),
            ("limit-shared", "postgres://u:p@localhost/x"),
        ]);
        assert_eq!((shared.limit.unwrap().share, shared.replicas), (0.5, 4));
        let own = limit(&[("limit-reads-per-second", "120")]).unwrap();
        assert_eq!((own.read.per_second, own.write), (120.0, quotas().write));
        assert_eq!(limit(&[("limit", "false")]), None);
    }

    #[test]
    fn without_a_documented_quota_only_who_asks_is_limited() {
        let limit = |pairs: &[(&str, &str)]| limit(&values(pairs), None).unwrap();
        assert_eq!(limit(&[]), None);
        assert!(limit(&[("limit", "true")]).is_some());
        assert!(limit(&[("limit-writes-per-second", "3")]).is_some());
        assert!(limit(&[("limit-shared", "postgres://u:p@localhost/x")]).is_some());
    }

    /// The documentation of the layers matches the table of settings.
    #[test]
    fn the_tables_defaults_are_those_of_the_layers() {
        let unset = values(&[("cache", "true")]);
        assert_eq!(cache(&unset).unwrap(), Some(CacheOptions::default()));
        assert_eq!(retry(&unset).unwrap(), Some(RetryOptions::default()));
        let limit = limit(&unset, Some(quotas())).unwrap();
        assert_eq!(limit, Some(quotas().with_share(0.5)));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (name, text) in [
            ("metrics", "yes"),
            ("cache-ttl-seconds", "0"),
            ("retry-attempts", "0"),
            ("retry-deadline-seconds", "3601"),
            ("replicas", "0"),
            ("limit-share", "0"),
            ("limit-share", "1.1"),
            ("limit-share", "NaN"),
            ("limit-reads-per-second", "-1"),
        ] {
            let values = values(&[("cache", "true"), (name, text)]);
            let refused = Layering::read(&values, Some(quotas()));
            assert!(refused.is_err(), "{name}={text}");
        }
        let both = values(&[("limit", "false"), ("limit-reads-per-second", "1")]);
        assert!(limit(&both, None).is_err());
        assert!(audit_mode(&values(&[("audit", "maybe")])).is_err());
    }

    #[test]
    #[cfg(all(feature = "postgres", feature = "sqlite", feature = "vault"))]
    fn an_error_names_what_the_user_wrote() {
        use crate::{Environment, KubernetesSecrets};

        let helm = "global: {secretPersistence: {retryAttempts: 0, limit: 'false', \
                    limitReadsPerSecond: 3}}";
        let json = r#"{"address": "https://vault.example", "token": "t", "prefix": "kv/"}"#;
        let variable = Environment::from_iter([
            ("DATABASE_URL", "sqlite:a.db"),
            ("SECRETS_RETRY_ATTEMPTS", "0"),
        ]);
        let none = Environment::empty();
        let in_helm = |values: &str| {
            let values = format!("{values}\nexternalDatabase: {{host: h, user: u, database: d}}");
            Settings::from_helm(&values, &KubernetesSecrets::none(), &none).unwrap()
        };
        for (settings, named) in [
            (
                in_helm(helm),
                "`global.secretPersistence.retryAttempts` is 1 to 100",
            ),
            (
                in_helm(&helm.replace("retryAttempts: 0", "metrics: true")),
                "`global.secretPersistence.limitReadsPerSecond` has no effect if \
                 `global.secretPersistence.limit` is false",
            ),
            (
                in_helm("global: {secretPersistence: {audit: maybe}}"),
                "`global.secretPersistence.audit` must be one of",
            ),
            (
                Settings::from_env(&variable).unwrap(),
                "`SECRETS_RETRY_ATTEMPTS` is 1 to 100",
            ),
            // In a file, but of the environment.
            (
                Settings::from_json(json, &variable).unwrap(),
                "`SECRETS_RETRY_ATTEMPTS` is 1 to 100",
            ),
            (
                Settings::from_url("sqlite:a.db?retry-attempts=0", &none).unwrap(),
                "`retry-attempts` is 1 to 100",
            ),
        ] {
            let error = settings.check().unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
