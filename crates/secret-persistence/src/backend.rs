//! The registry of backends: one row per kind of store, each in its own file and behind its
//! feature.

#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "azure")]
mod azure;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod database;
#[cfg(feature = "gcp")]
mod google;
#[cfg(feature = "vault")]
mod vault;

use std::sync::Arc;

use futures::future::BoxFuture;
use secret_persistence_core::layer::LimitOptions;
use secret_persistence_core::settings::{KeyTable, SettingMap, StoreUrl};
use secret_persistence_core::{Error, Owner, Result, SecretPersistence};

use crate::kind::Kind;
use crate::settings::invalid;

/// A future that opens a store.
pub(crate) type Opening<'a> = BoxFuture<'a, Result<Arc<dyn SecretPersistence>>>;

/// The façade's description of a backend.
pub(crate) struct Backend {
    pub(crate) kind: Kind,
    /// Its key table.
    pub(crate) settings: KeyTable,
    /// The forms of its JSON. A database has none.
    pub(crate) json: &'static [JsonForm],
    /// The quotas that the provider documents.
    pub(crate) quotas: Option<fn() -> LimitOptions>,
    /// What the provider counts requests for, as far as the settings say, where the name of the store
    /// does not say it.
    pub(crate) account: Option<fn(&SettingMap) -> Option<String>>,
    /// Checks settings without opening anything. Backends read the files that settings name.
    pub(crate) check: fn(&SettingMap) -> Result<()>,
    /// Opens the store with this owner for written secrets.
    pub(crate) open: for<'a> fn(&'a SettingMap, Option<Owner>) -> Opening<'a>,
}

/// Opens a store with its configuration. All five backends open in the same way, each with its own
/// types.
#[cfg(any(
    feature = "aws",
    feature = "azure",
    feature = "gcp",
    feature = "postgres",
    feature = "sqlite",
    feature = "vault"
))]
async fn open<Config, Store, Connecting>(
    config: Result<Config>,
    owner: Option<Owner>,
    with_owner: fn(Config, Owner) -> Config,
    connect: impl FnOnce(Config) -> Connecting,
) -> Result<Arc<dyn SecretPersistence>>
where
    Store: SecretPersistence,
    Connecting: Future<Output = Result<Store>>,
{
    let config = match owner {
        Some(owner) => with_owner(config?, owner),
        None => config?,
    };
    Ok(Arc::new(connect(config).await?))
}

/// One form of the JSON for external secret management.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JsonForm {
    /// The value of `auth_type`, if the kind has several forms. The first form is the default.
    pub(crate) auth_type: Option<&'static str>,
    /// The keys that identify it.
    pub(crate) required: &'static [&'static str],
    /// The optional keys.
    pub(crate) optional: &'static [&'static str],
}

/// Every backend that is built in.
pub(crate) fn built_in() -> Vec<Backend> {
    vec![
        #[cfg(feature = "aws")]
        aws::BACKEND,
        #[cfg(feature = "azure")]
        azure::BACKEND,
        #[cfg(any(feature = "postgres", feature = "sqlite"))]
        database::BACKEND,
        #[cfg(feature = "gcp")]
        google::BACKEND,
        #[cfg(feature = "vault")]
        vault::BACKEND,
    ]
}

/// The backend of a kind.
///
/// # Errors
/// `InvalidConfig` if it is not built in.
pub(crate) fn of(kind: Kind) -> Result<Backend> {
    let found = built_in().into_iter().find(|backend| backend.kind == kind);
    found.ok_or_else(|| match kind.feature() {
        Some(feature) => invalid(format!("the backend for {kind} is not built in"))
            .with_hint(format!("build with --features {feature}")),
        None => invalid(format!("the backend for {kind} is not one of this crate")),
    })
}

/// The backend of a URL. `others` are schemes that would be valid too, for the hint.
///
/// # Errors
/// `InvalidConfig` for a scheme without a backend.
pub(crate) fn of_scheme(
    url: &StoreUrl,
    others: impl Iterator<Item = &'static str>,
) -> Result<Backend> {
    let scheme = url.scheme();
    let mut backends = built_in();
    match backends
        .iter()
        .position(|backend| backend.settings.schemes().contains(&scheme))
    {
        Some(at) => Ok(backends.swap_remove(at)),
        None => Err(no_scheme(scheme, &backends, others)),
    }
}

/// Schemes, and the features that build their backends.
const FEATURES: [(&str, &str); 7] = [
    ("aws", "aws"),
    ("azure", "azure"),
    ("gcp", "gcp"),
    ("postgres", "postgres"),
    ("postgresql", "postgres"),
    ("sqlite", "sqlite"),
    ("vault", "vault"),
];

/// Whether a scheme belongs to a store of this crate, built in or not.
pub(crate) fn is_ours(scheme: &str) -> bool {
    FEATURES.iter().any(|(known, _)| *known == scheme)
}

fn no_scheme(
    scheme: &str,
    backends: &[Backend],
    others: impl Iterator<Item = &'static str>,
) -> Error {
    if let Some((_, feature)) = FEATURES.iter().find(|(known, _)| *known == scheme) {
        return invalid(format!("the backend for {scheme} is not built in"))
            .with_hint(format!("build with --features {feature}"));
    }
    if ["openbao", "bao", "hashicorp"].contains(&scheme) {
        return invalid(format!("`{scheme}` is not a store"))
            .with_hint("OpenBao has the same API as HashiCorp Vault: write vault://…");
    }
    let schemes: Vec<&str> = backends
        .iter()
        .flat_map(|backend| backend.settings.schemes())
        .copied()
        .chain(others)
        .collect();
    // Shows only short words, because a longer text may be a pasted credential.
    let shown = scheme.len() <= 12 && scheme.bytes().all(|byte| byte.is_ascii_lowercase());
    invalid(match shown {
        true => format!("no built-in store has the scheme `{scheme}`"),
        false => "no built-in store has this scheme".to_owned(),
    })
    .with_hint(format!("use one of {}", schemes.join(", ")))
}
