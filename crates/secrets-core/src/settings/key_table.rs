//! The settings of one kind of store, read from a URL and the environment.

use std::fmt;

use super::{Setting, SettingMap, StoreUrl, invalid};
use crate::Result;

/// Reads an environment variable; prefixes are already handled.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The key table of one kind of store. Each backend has one, and its configuration is built from
/// the values. A new setting is one row here and one use in the configuration.
///
/// ```
/// use secret_persistence_core::settings::{KeyTable, Setting, StoreUrl};
///
/// const SETTINGS: KeyTable = KeyTable::new(
///     &["acme"],
///     &[
///         Setting::new("region", "the region; the host of the URL").with_env(&["ACME_REGION"]),
///         Setting::new("token", "the token").with_env(&["ACME_TOKEN"]).secret(),
///     ],
///     |url, settings| match url.host() {
///         Some(region) => settings.set("region", region),
///         None => Ok(()),
///     },
/// );
/// let variable = |name: &str| (name == "ACME_TOKEN").then(|| "hunter2".to_owned());
/// let settings = SETTINGS.from_url(&StoreUrl::parse("acme://north")?, &variable)?;
/// assert_eq!(settings.text("region"), Some("north"));
/// assert!(settings.is_set("token"));
/// assert!(SETTINGS.from_pairs([("regoin", "north")]).is_err());
/// # Ok::<(), secret_persistence_core::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct KeyTable {
    schemes: &'static [&'static str],
    rows: &'static [Setting],
    url: fn(&StoreUrl, &mut SettingMap) -> Result<()>,
    reads: fn(&SettingMap, Variables<'_>, &str) -> bool,
}

impl KeyTable {
    /// The schemes of a store's URLs, its settings, and a function that sets those in the host,
    /// port and path of a URL. It is called after the query has been read, for a URL with one of
    /// the schemes.
    #[must_use]
    pub const fn new(
        schemes: &'static [&'static str],
        rows: &'static [Setting],
        url: fn(&StoreUrl, &mut SettingMap) -> Result<()>,
    ) -> Self {
        Self {
            schemes,
            rows,
            url,
            reads: |_, _, _| true,
        }
    }

    /// Adds a filter for variables that do not always apply: given the settings so far, the
    /// environment and the name of a variable, `reads` decides whether that variable is for this
    /// store.
    #[must_use]
    pub const fn with_reads(mut self, reads: fn(&SettingMap, Variables<'_>, &str) -> bool) -> Self {
        self.reads = reads;
        self
    }

    /// The schemes of the store's URLs.
    #[must_use]
    pub const fn schemes(&self) -> &'static [&'static str] {
        self.schemes
    }

    /// The settings.
    #[must_use]
    pub const fn rows(&self) -> &'static [Setting] {
        self.rows
    }

    /// Reads a URL, and the environment for settings that the URL lacks: credentials are never in a
    /// URL.
    ///
    /// # Errors
    /// `InvalidConfig` for a URL of another store, and for an unknown or secret setting in it.
    pub fn from_url(&self, url: &StoreUrl, variable: Variables<'_>) -> Result<SettingMap> {
        if !self.schemes.contains(&url.scheme()) {
            return Err(
                invalid("this is not the URL of this kind of store").with_hint(format!(
                    "it must begin with {}:",
                    self.schemes.join(": or ")
                )),
            );
        }
        let mut settings = SettingMap::new(self.rows);
        settings.set_query(url)?;
        (self.url)(url, &mut settings)?;
        self.read_env(&mut settings, variable);
        Ok(settings)
    }

    /// Reads the environment.
    #[must_use]
    pub fn from_env(&self, variable: Variables<'_>) -> SettingMap {
        let mut settings = SettingMap::new(self.rows);
        self.read_env(&mut settings, variable);
        settings
    }

    /// Reads settings by name.
    ///
    /// # Errors
    /// As for [`SettingMap::set`].
    pub fn from_pairs<N: AsRef<str>, V: Into<String>>(
        &self,
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Result<SettingMap> {
        let mut settings = SettingMap::new(self.rows);
        for (name, value) in pairs {
            settings.set(name.as_ref(), value)?;
        }
        Ok(settings)
    }

    /// Sets missing values from the environment, without the variables that are for something else.
    pub fn read_env(&self, settings: &mut SettingMap, variable: Variables<'_>) {
        let explicit = settings.clone();
        settings.set_env(|name| variable(name).filter(|_| (self.reads)(&explicit, variable, name)));
    }
}

impl fmt::Debug for KeyTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyTable")
            .field("schemes", &self.schemes)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: &[Setting] = &[
        Setting::new("place", "where").with_env(&["PLACE"]),
        Setting::new("id", "who").with_env(&["ID"]),
        Setting::new("token", "the token")
            .with_env(&["TOKEN"])
            .secret(),
    ];

    const TABLE: KeyTable = KeyTable::new(&["x", "y"], ROWS, |url, settings| {
        settings.set("place", url.host().unwrap_or("nowhere"))
    })
    .with_reads(|explicit, _, name| name != "ID" || !explicit.is_set("token"));

    fn variable(name: &str) -> Option<String> {
        Some(format!("{name} of the environment"))
    }

    #[test]
    fn a_url_comes_before_the_environment_and_the_query_before_the_rest_of_it() {
        let of = |text: &str| TABLE.from_url(&StoreUrl::parse(text)?, &variable);
        let settings = of("y://here?id=me").unwrap();
        assert_eq!(settings.text("place"), Some("here"));
        assert_eq!(settings.text("id"), Some("me"));
        assert!(settings.is_set("token"));
        for wrong in [
            "z://here",
            "x://here?token=canary",
            "x://here?nope=1",
            "x://here?place=there",
        ] {
            let error = of(wrong).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("canary"), "{wrong}");
        }
    }

    #[test]
    fn a_variable_that_does_not_count_is_left_out() {
        let mut settings = TABLE.from_pairs([("token", "t")]).unwrap();
        TABLE.read_env(&mut settings, &variable);
        assert!(settings.is_set("place") && !settings.is_set("id"));
        assert!(TABLE.from_env(&variable).is_set("id"));
    }
}
