//! Settings from a URL without credentials.

use secret_persistence_core::Result;
use secret_persistence_core::settings::{SettingMap, StoreUrl, unknown};
use url::Url;

use super::{COMMON, Environment, Settings, invalid, placeholders};
use crate::backend;

/// The prefix of a mirror's variables.
const MIRROR: &str = "MIRROR_";

impl Settings {
    /// Reads a URL, such as `aws://eu-west-1?tag-key=AirbyteManaged&cache=true`: the scheme names
    /// the kind of store, or a [registered backend](Environment::with_backend); the query contains settings of its key table and of [`COMMON`]. Settings
    /// that the URL lacks come from the environment, and credentials only from there.
    ///
    /// # Errors
    /// `InvalidConfig` for a URL with credentials, which the error does not repeat, for a scheme
    /// without a backend, and for unknown or secret settings in the query.
    pub fn from_url(text: &str, environment: &Environment) -> Result<Self> {
        placeholders::refuse_any("the URL", text)?;
        let whole = StoreUrl::parse(text)?;
        let custom = environment.backend(whole.scheme()).cloned();
        let (kind, table) = match &custom {
            Some(custom) => (custom.kind(), *custom.table()),
            None => {
                let backend = backend::of_scheme(&whole, environment.schemes())?;
                (backend.kind, backend.settings)
            }
        };
        let mut common = SettingMap::new(COMMON);
        let (ours, of_store): (Vec<_>, Vec<_>) = whole
            .query()
            .partition(|(name, _)| COMMON.iter().any(|setting| setting.name == name));
        // The backend would search only its own table for the nearest name.
        let known = table.rows().iter().chain(COMMON).map(|row| row.name);
        if let Some((name, _)) = of_store
            .iter()
            .find(|(name, _)| !known.clone().any(|known| known == name))
        {
            return Err(unknown(name, known));
        }
        for (name, value) in ours {
            refuse_secret(&name)?;
            common.set(&name, value)?;
        }
        let url = with_query(text, &of_store)?;
        let store = table.from_url(&url, &|name| environment.get(name))?;
        let mut settings = Self::new(kind, store, common);
        settings.custom = custom;
        settings.with_environment(environment)
    }

    /// The second store: the URL in the setting `mirror`, with the variables that have the mirror's
    /// prefix.
    pub(super) fn mirror_of(url: &str, environment: &Environment) -> Result<Self> {
        // Only settings of the store itself: a mirror of a mirror would never end.
        let variables = environment.with_prefix(MIRROR);
        let names: Vec<&str> = COMMON.iter().flat_map(|row| row.env).copied().collect();
        let variables = variables.without(&names);
        let settings =
            Self::from_url(url, &variables).map_err(|error| error.with_store("mirror"))?;
        let outer = [
            "owner",
            "metrics",
            "read-only",
            "mirror",
            "audit",
            "audit-file",
            "ledger",
        ];
        let outside = settings.common.names().find(|name| outer.contains(name));
        match outside {
            Some(name) => Err(invalid(format!(
                "`{name}` applies to both stores and is not allowed in the mirror's URL"
            ))
            .with_hint("set it next to `mirror`")),
            None => Ok(settings),
        }
    }
}

/// No URL contains a credential.
fn refuse_secret(name: &str) -> Result<()> {
    match COMMON.iter().find(|row| row.name == name && row.secret) {
        None => Ok(()),
        Some(row) => Err(
            invalid(format!("`{name}` is a secret and must not be in a URL")).with_hint(format!(
                "set {} in the environment",
                row.env.first().unwrap_or(&"it")
            )),
        ),
    }
}

/// The same URL with another query.
fn with_query(text: &str, pairs: &[(String, String)]) -> Result<StoreUrl> {
    // It has been parsed before, so this cannot fail.
    let mut url = Url::parse(text).map_err(|_| invalid("this is not the URL of a store"))?;
    url.set_query(None);
    if !pairs.is_empty() {
        url.query_pairs_mut().extend_pairs(pairs);
    }
    StoreUrl::parse(url.as_str())
}
