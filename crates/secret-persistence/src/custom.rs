//! Backends of the caller, which settings open by the scheme of a URL.

use std::fmt;
use std::sync::Arc;

use secret_persistence_core::settings::{KeyTable, SettingMap};
use secret_persistence_core::{Owner, Result, SecretPersistence};

use crate::backend::{self, Opening};
use crate::kind::Kind;
use crate::settings::{COMMON, invalid};

type Open = dyn Fn(SettingMap, Option<Owner>) -> Opening<'static> + Send + Sync;

/// A backend of your own: the schemes of its URLs, its settings, and how it opens.
///
/// [`Environment::with_backend`](crate::Environment::with_backend) registers it. Then its URLs are
/// valid wherever a URL names a store: in [`Settings::from_url`](crate::Settings::from_url), in the
/// setting `mirror`, and in the options of `secret-migrate` and the gateway, if these are built
/// with it. Other forms of settings name only the stores of this crate.
///
/// The common settings apply to it as to any store. It has no documented quotas, so requests are
/// limited only if a setting says so. Clones open the same backend.
///
/// ```
/// use std::sync::Arc;
///
/// use secret_persistence::{
///     CustomBackend, Environment, KeyTable, Memory, SecretPersistence, Setting, Settings,
/// };
///
/// const TABLE: KeyTable = KeyTable::new(
///     &["acme"],
///     &[
///         Setting::new("region", "the region; the host of the URL"),
///         Setting::new("token", "the token").with_env(&["ACME_TOKEN"]).secret(),
///     ],
///     |url, settings| match url.host() {
///         Some(region) => settings.set("region", region),
///         None => Ok(()),
///     },
/// );
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> secret_persistence::Result<()> {
/// let acme = CustomBackend::new(TABLE, |settings, owner| async move {
///     assert_eq!(settings.text("region"), Some("north"));
///     // Here `Acme::connect(…)`, with the token and the owner.
///     let (_token, _owner) = (settings.secret("token"), owner);
///     Ok(Arc::new(Memory::new()) as Arc<dyn SecretPersistence>)
/// })?;
/// let environment = Environment::from_iter([("ACME_TOKEN", "hunter2")]).with_backend(acme);
/// let settings = Settings::from_url("acme://north?cache=true", &environment)?;
/// let store = secret_persistence::connect(settings).await?;
/// # let _ = store;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct CustomBackend {
    scheme: &'static str,
    table: KeyTable,
    open: Arc<Open>,
}

impl CustomBackend {
    /// Creates a backend from its key table and the function that opens a store with the settings
    /// of one URL. The function gets the installation, if it is set, for a store that records the
    /// owner of each secret.
    ///
    /// # Errors
    /// `InvalidConfig` for a table without a scheme, a scheme that is not in lower case or shorter
    /// than two characters, a scheme of this crate's stores, and a setting with the name of one in
    /// [`COMMON`].
    pub fn new<Opened>(
        table: KeyTable,
        open: impl Fn(SettingMap, Option<Owner>) -> Opened + Send + Sync + 'static,
    ) -> Result<Self>
    where
        Opened: Future<Output = Result<Arc<dyn SecretPersistence>>> + Send + 'static,
    {
        let schemes = table.schemes();
        let Some(&scheme) = schemes.first() else {
            return Err(invalid("a backend needs a scheme for its URLs"));
        };
        if let Some(scheme) = schemes.iter().find(|scheme| !is_scheme(scheme)) {
            return Err(invalid(format!("`{scheme}` cannot be a scheme"))
                .with_hint("use two or more characters of a-z, 0-9, +, - and ., a letter first"));
        }
        if let Some(scheme) = schemes.iter().find(|scheme| backend::is_ours(scheme)) {
            return Err(
                invalid(format!("`{scheme}` is the scheme of another store"))
                    .with_hint("choose a scheme of your own"),
            );
        }
        let is_common = |name: &str| COMMON.iter().any(|common| common.name == name);
        if let Some(row) = table.rows().iter().find(|row| is_common(row.name)) {
            return Err(
                invalid(format!("`{}` is a setting of all stores", row.name))
                    .with_hint("choose another name for the setting"),
            );
        }
        Ok(Self {
            scheme,
            table,
            open: Arc::new(move |settings, owner| Box::pin(open(settings, owner))),
        })
    }

    pub(crate) fn kind(&self) -> Kind {
        Kind::Custom(self.scheme)
    }

    pub(crate) fn table(&self) -> &KeyTable {
        &self.table
    }

    pub(crate) fn open(&self, settings: &SettingMap, owner: Option<Owner>) -> Opening<'static> {
        (self.open)(settings.clone(), owner)
    }
}

impl fmt::Debug for CustomBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CustomBackend")
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}

/// Whether a URL can have this scheme as written. A single letter would be a drive.
fn is_scheme(text: &str) -> bool {
    let rest =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
    text.len() > 1
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(rest)
}
