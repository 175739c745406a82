//! Key tables: one row per setting of a backend, for every form of settings.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use url::Url;

use crate::{Error, ErrorKind, Operation, Result, SecretValue};

mod endpoint;
mod key_table;
mod trust;

pub use endpoint::{endpoint, is_loopback};
pub use key_table::{KeyTable, Variables};
pub use trust::{Trust, is_public};

/// One setting of a backend: a row of its key table.
///
/// A backend defines its table as a `const`. URL, environment, map and documentation are all
/// derived from it:
///
/// ```
/// use secret_persistence_core::settings::Setting;
///
/// const SETTINGS: &[Setting] = &[
///     Setting::new("region", "the region the secrets are in").with_env(&["AWS_SECRET_MANAGER_REGION"]),
///     Setting::new("endpoint", "another endpoint than Amazon's").operator_only(),
///     Setting::new("secret-access-key", "the secret half of the access key").secret(),
///     Setting::new("recovery-days", "how long a deleted secret can be restored").with_default("30"),
/// ];
/// # assert!(SETTINGS[2].secret);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Setting {
    /// Its name in kebab-case, as in the query of a URL and as a key of a map.
    pub name: &'static str,
    /// One line for people, in lower case and without a full stop.
    pub doc: &'static str,
    /// Its environment variables; the first one that is set and not empty is used.
    pub env: &'static [&'static str],
    /// Its keys in the store's block of a Helm `values.yaml`, such as `kmsKeyArn`.
    pub helm: &'static [&'static str],
    /// Its keys in a Kubernetes Secret if the file does not name one; the first existing key is
    /// used. If there are any, the block may name another one as `<first key>SecretKey`.
    pub helm_secret: &'static [&'static str],
    /// Its keys in the JSON for external secret management, such as `awsRegion`.
    pub json: &'static [&'static str],
    /// The default, as text. `None` if there is none, or if `doc` describes it.
    pub default: Option<&'static str>,
    /// Whether its value is a secret: never part of a URL, never shown.
    pub secret: bool,
    /// Whether only the operator may set it and never a tenant: files, endpoints, credential
    /// chains.
    pub operator_only: bool,
}

impl Setting {
    /// Creates a setting without environment variable and default, neither secret nor
    /// operator-only.
    #[must_use]
    pub const fn new(name: &'static str, doc: &'static str) -> Self {
        Self {
            name,
            doc,
            env: &[],
            helm: &[],
            helm_secret: &[],
            json: &[],
            default: None,
            secret: false,
            operator_only: false,
        }
    }

    /// Adds environment variables.
    #[must_use]
    pub const fn with_env(mut self, names: &'static [&'static str]) -> Self {
        self.env = names;
        self
    }

    /// Adds keys in the store's block of a Helm `values.yaml`.
    #[must_use]
    pub const fn with_helm(mut self, keys: &'static [&'static str]) -> Self {
        self.helm = keys;
        self
    }

    /// Adds keys in the Kubernetes Secret of a Helm installation: the value is under the key that
    /// `<first key of the block>SecretKey` names, otherwise under the first of these that exists.
    #[must_use]
    pub const fn with_helm_secret(mut self, keys: &'static [&'static str]) -> Self {
        self.helm_secret = keys;
        self
    }

    /// Adds keys in the JSON for external secret management.
    #[must_use]
    pub const fn with_json(mut self, keys: &'static [&'static str]) -> Self {
        self.json = keys;
        self
    }

    /// Sets the documented default, which [`flag`](SettingMap::flag) and
    /// [`number`](SettingMap::number) apply.
    #[must_use]
    pub const fn with_default(mut self, text: &'static str) -> Self {
        self.default = Some(text);
        self
    }

    /// Marks the setting as secret.
    #[must_use]
    pub const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// Marks the setting as operator-only: it is refused in a tenant's settings.
    #[must_use]
    pub const fn operator_only(mut self) -> Self {
        self.operator_only = true;
        self
    }
}

/// The values of the settings of one table, from any form.
///
/// The first value of a setting is kept: explicit values precede the environment. `Debug` shows no
/// secret.
///
/// ```
/// use secret_persistence_core::ErrorKind;
/// use secret_persistence_core::settings::{Setting, SettingMap, StoreUrl};
///
/// const TABLE: &[Setting] = &[
///     Setting::new("table", "the table").with_default("secrets"),
///     Setting::new("password", "the password").with_env(&["DATABASE_PASSWORD"]).secret(),
/// ];
/// let mut settings = SettingMap::new(TABLE);
/// settings.set_query(&StoreUrl::parse("postgres://localhost/airbyte?table=public.secrets")?)?;
/// settings.set_env(|name| (name == "DATABASE_PASSWORD").then(|| "hunter2".to_owned()));
/// assert_eq!(settings.text("table"), Some("public.secrets"));
/// assert!(!format!("{settings:?}").contains("hunter2"));
/// // Unknown names are errors that suggest the nearest known name.
/// let error = settings.set("tabel", "x").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidConfig);
/// assert!(error.hint().unwrap().contains("`table`"));
/// # Ok::<(), secret_persistence_core::Error>(())
/// ```
#[derive(Clone)]
pub struct SettingMap {
    table: &'static [Setting],
    values: BTreeMap<&'static str, SecretValue>,
    /// The environment variables that values were read from.
    variables: BTreeMap<&'static str, &'static str>,
    trust: Trust,
}

impl SettingMap {
    /// Creates a map without values.
    #[must_use]
    pub fn new(table: &'static [Setting]) -> Self {
        Self {
            table,
            values: BTreeMap::new(),
            variables: BTreeMap::new(),
            trust: Trust::Operator,
        }
    }

    /// Creates a map without values, for settings of the operator or of a tenant.
    #[must_use]
    pub fn with_trust(table: &'static [Setting], trust: Trust) -> Self {
        Self {
            trust,
            ..Self::new(table)
        }
    }

    /// Whose settings they are. For a tenant, a backend also refuses what its table cannot express:
    /// ambient credentials, and hosts that are not allowed.
    #[must_use]
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The table of the values.
    #[must_use]
    pub fn table(&self) -> &'static [Setting] {
        self.table
    }

    /// Sets a value by its name. A second, equal value is allowed.
    ///
    /// # Errors
    /// `InvalidConfig` for an unknown name, with the nearest known name; for a second, different
    /// value; and for an operator-only setting in a tenant's settings, unless the operator has set
    /// the same value.
    pub fn set(&mut self, name: &str, value: impl Into<String>) -> Result<()> {
        let setting = self.lookup(name)?;
        let value = SecretValue::new(value.into());
        if setting.operator_only
            && self.trust.is_tenant()
            && self.values.get(setting.name) != Some(&value)
        {
            return Err(invalid(format!(
                "only the operator may set `{}`, not a tenant",
                setting.name
            ))
            .with_hint("remove it"));
        }
        self.insert(setting, value)
    }

    /// Sets a value on behalf of the operator in any settings: the external id of a role, the
    /// access key that assumes it.
    ///
    /// # Errors
    /// `InvalidConfig` for an unknown name, and for a second, different value.
    pub fn set_by_operator(&mut self, name: &str, value: impl Into<SecretValue>) -> Result<()> {
        let setting = self.lookup(name)?;
        self.insert(setting, value.into())
    }

    fn insert(&mut self, setting: &'static Setting, value: SecretValue) -> Result<()> {
        match self.values.get(setting.name) {
            Some(present) if *present != value => {
                Err(invalid(format!("`{}` is set twice", setting.name)))
            }
            _ => {
                self.values.insert(setting.name, value);
                Ok(())
            }
        }
    }

    /// Sets the values in a URL's query.
    ///
    /// # Errors
    /// As for [`set`](Self::set); and `InvalidConfig` for a secret setting, which must not be in a
    /// URL.
    pub fn set_query(&mut self, url: &StoreUrl) -> Result<()> {
        for (name, value) in url.query() {
            let setting = self.lookup(&name)?;
            if setting.secret {
                return Err(
                    invalid(format!("`{name}` is a secret and must not be in a URL")).with_hint(
                        match setting.env.first() {
                            Some(variable) => format!("set {variable} in the environment"),
                            None => String::from("pass it as a separate setting"),
                        },
                    ),
                );
            }
            self.set(&name, value)?;
        }
        Ok(())
    }

    /// Sets missing values from the environment, which `variable` reads, so that the caller handles
    /// prefixes. An empty variable counts as unset. The environment belongs to the operator, so a
    /// tenant's settings do not use it.
    ///
    /// For a store's settings use [`KeyTable::read_env`], which ignores variables that do not apply
    /// together with others.
    pub fn set_env(&mut self, variable: impl Fn(&str) -> Option<String>) {
        if self.trust.is_tenant() {
            return;
        }
        for setting in self.table {
            if self.values.contains_key(setting.name) {
                continue;
            }
            let found = setting.env.iter().find_map(|name| {
                let value = variable(name).filter(|value| !value.is_empty())?;
                Some((*name, value))
            });
            if let Some((name, value)) = found {
                self.values.insert(setting.name, SecretValue::new(value));
                self.variables.insert(setting.name, name);
            }
        }
    }

    /// A value that is not secret, unchanged; `None` if it is unset or secret.
    ///
    /// Like every reader of a value, it panics for an unknown name in builds with debug assertions:
    /// this is a mistake in the code, and would otherwise always read as "unset".
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        let setting = self.row(name)?;
        if setting.secret {
            return None;
        }
        self.values.get(name).map(SecretValue::expose)
    }

    /// A value, secret or not.
    #[must_use]
    pub fn secret(&self, name: &str) -> Option<SecretValue> {
        let setting = self.row(name)?;
        self.values.get(setting.name).cloned()
    }

    /// Whether there is a value, secret or not.
    #[must_use]
    pub fn is_set(&self, name: &str) -> bool {
        self.row(name)
            .is_some_and(|setting| self.values.contains_key(setting.name))
    }

    /// The environment variable that a value was read from, without a prefix; `None` if it was set
    /// in another way or is unset.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&'static str> {
        let setting = self.row(name)?;
        self.variables.get(setting.name).copied()
    }

    /// A value that is not secret, parsed.
    ///
    /// # Errors
    /// `InvalidConfig` with the setting and its description. The value is not shown.
    pub fn parse<T: FromStr>(&self, name: &str) -> Result<Option<T>> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        text.parse()
            .map(Some)
            .map_err(|_| self.not_understood(name))
    }

    /// `true` or `false`, with the table's default, otherwise `false`.
    ///
    /// # Errors
    /// `InvalidConfig` with the setting, for any other value.
    pub fn flag(&self, name: &str) -> Result<bool> {
        let default = self.row(name).and_then(|setting| setting.default);
        Ok(self.parse(name)?.unwrap_or(default == Some("true")))
    }

    /// A number within a range, with the table's default.
    ///
    /// # Errors
    /// `InvalidConfig` with the setting and the range, for any other value.
    pub fn number<T>(&self, name: &str, range: RangeInclusive<T>) -> Result<T>
    where
        T: FromStr + PartialOrd + fmt::Display,
    {
        let default = self.row(name).and_then(|setting| setting.default);
        let text = self.text(name).or(default).unwrap_or_default();
        let number: T = text.parse().map_err(|_| self.not_understood(name))?;
        if range.contains(&number) {
            return Ok(number);
        }
        let (least, most) = (range.start(), range.end());
        Err(invalid(format!("`{name}` is {least} to {most}")))
    }

    /// One of these words; the first one if it is unset.
    ///
    /// # Errors
    /// `InvalidConfig` with the setting and the words, for any other value.
    pub fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<T> {
        let text = self.text(name).filter(|text| !text.is_empty());
        choices
            .iter()
            .find(|(word, _)| text.is_none_or(|text| *word == text))
            .map(|(_, choice)| *choice)
            .ok_or_else(|| {
                let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
                invalid(format!("`{name}` must be one of {}", words.join(", ")))
            })
    }

    /// Parses a value of the form `key=value,key=value`; a value may contain `=`. Empty if it is
    /// unset.
    ///
    /// # Errors
    /// `InvalidConfig` with the setting and its variable, for a part without `=`. The part is not
    /// shown.
    pub fn pairs(&self, name: &str) -> Result<Vec<(String, String)>> {
        self.text(name)
            .unwrap_or_default()
            .split(',')
            .map(str::trim)
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                pair.split_once('=')
                    .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
                    .ok_or_else(|| self.no_pairs(name))
            })
            .collect()
    }

    /// The names of the settings that have a value, in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.values.keys().copied()
    }

    fn not_understood(&self, name: &str) -> Error {
        let doc = self.row(name).map_or("", |setting| setting.doc);
        invalid(format!("`{name}` cannot be understood")).with_hint(format!("it says {doc}"))
    }

    fn no_pairs(&self, name: &str) -> Error {
        let hint = match self.row(name).and_then(|setting| setting.env.first()) {
            Some(variable) => format!("write key=value,key=value ({variable})"),
            None => String::from("write key=value,key=value"),
        };
        invalid(format!("`{name}` cannot be understood")).with_hint(hint)
    }

    /// The row of a setting that the code reads.
    fn row(&self, name: &str) -> Option<&'static Setting> {
        let row = self.table.iter().find(|setting| setting.name == name);
        debug_assert!(row.is_some(), "`{name}` is in no row of this key table");
        row
    }

    fn lookup(&self, name: &str) -> Result<&'static Setting> {
        self.table
            .iter()
            .find(|setting| setting.name == name)
            .ok_or_else(|| unknown(name, self.table.iter().map(|setting| setting.name)))
    }
}

impl fmt::Debug for SettingMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(
                self.names()
                    .map(|name| (name, self.text(name).unwrap_or("redacted"))),
            )
            .finish()
    }
}

/// The error for an unknown name, with the nearest known one.
///
/// The name is shown only if it looks like one: it may be a pasted secret.
pub fn unknown(name: &str, known: impl Iterator<Item = &'static str> + Clone) -> Error {
    let looks_like_a_name = (1..=40).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphabetic() || b"-_.".contains(&byte));
    let message = if looks_like_a_name {
        format!("unknown setting `{name}`")
    } else {
        String::from("unknown setting")
    };
    let nearest = known
        .clone()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .min()
        .filter(|(distance, candidate)| looks_like_a_name && *distance <= candidate.len() / 2);
    let hint = match nearest {
        Some((_, candidate)) => format!("did you mean `{candidate}`?"),
        None => format!("known names: {}", known.collect::<Vec<_>>().join(", ")),
    };
    invalid(message).with_hint(hint)
}

/// The URL of a store: scheme, host, port, path and query, without credentials.
///
/// ```
/// use secret_persistence_core::settings::StoreUrl;
///
/// let url = StoreUrl::parse("vault://vault.example:8200/secret/airbyte/?namespace=team")?;
/// assert_eq!((url.scheme(), url.host(), url.port()), ("vault", Some("vault.example"), Some(8200)));
/// assert_eq!(url.path(), "/secret/airbyte/");
/// // A URL with a password is refused and not shown.
/// let error = StoreUrl::parse("postgres://airbyte:hunter2@db/airbyte").unwrap_err();
/// assert!(!format!("{error} {error:?}").contains("hunter2"));
/// # Ok::<(), secret_persistence_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl {
    url: Url,
    path: String,
}

impl StoreUrl {
    /// Parses a URL.
    ///
    /// # Errors
    /// `InvalidConfig` for an invalid URL, a URL with a user or a password, and a URL with a
    /// fragment. The text is never shown, because it may contain a credential.
    pub fn parse(text: &str) -> Result<Self> {
        let credentials = || {
            invalid("this URL contains a user or a password, and is not shown here")
                .with_hint(
                    "remove and change them, and set them in the environment, like DATABASE_USER and \
                    DATABASE_PASSWORD; write an @ in a path as %40",
                )
                .with_operation(Operation::Open)
        };
        // A slash in a password ends the host, so the password may be in any part. Both texts: the
        // one with the user's mistakes, and the one that is shown, which differs in slashes and
        // control characters.
        if before_query(text).contains('@') {
            return Err(credentials());
        }
        let url = Url::parse(text).map_err(|_| {
            invalid("this is not the URL of a store")
                .with_hint("write it like sqlite:///path/to/file or aws://us-east-1")
        })?;
        if before_query(url.as_str()).contains('@') {
            return Err(credentials());
        }
        if url.fragment().is_some() {
            return Err(invalid("a store's URL must not have a fragment")
                .with_hint("write `#` in a path or a value as %23"));
        }
        // Without a query, a URL has no spaces at its end.
        let path = percent_decode_str(without_query(&url).path())
            .decode_utf8()
            .map_err(|_| invalid("the path of a store's URL is not UTF-8"))?
            .into_owned();
        Ok(Self { url, path })
    }

    /// The scheme, in lower case, which determines the backend.
    #[must_use]
    pub fn scheme(&self) -> &str {
        self.url.scheme()
    }

    /// The host, if there is one. An IPv6 address has its brackets.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.url.host_str().filter(|host| !host.is_empty())
    }

    /// The port, if any.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.url.port()
    }

    /// The path, percent-decoded, with its leading slash.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether the scheme is followed by `//`.
    #[must_use]
    pub fn has_authority(&self) -> bool {
        self.url.has_authority()
    }

    /// The file of `sqlite:///absolute`, `sqlite:/absolute`, `sqlite://relative` or
    /// `sqlite:relative`.
    ///
    /// # Errors
    /// `InvalidConfig` if no file is named, and for `:memory:`, which keeps nothing.
    pub fn file(&self) -> Result<String> {
        let path = format!("{}{}", self.host().unwrap_or_default(), self.path);
        if self.port().is_some() || path.is_empty() || path.ends_with('/') || path.contains('\0') {
            return Err(invalid("the URL names no file")
                .with_hint("write sqlite:///absolute/path or sqlite://relative/path"));
        }
        if path == ":memory:" {
            return Err(
                invalid("a database in memory keeps nothing").with_hint("name a file instead")
            );
        }
        Ok(path)
    }

    /// The names and values of the query, decoded, in order.
    pub fn query(&self) -> impl Iterator<Item = (String, String)> {
        self.url
            .query_pairs()
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
    }
}

/// Scheme, host, port and path. Not the query, which may contain a pasted secret. Parses again, to
/// a URL with the same parts and without a query.
impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", without_query(&self.url))
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreUrl({self})")
    }
}

fn before_query(text: &str) -> &str {
    text.find('?').map_or(text, |at| &text[..at])
}

fn without_query(url: &Url) -> Url {
    let mut url = url.clone();
    url.set_query(None);
    url
}

/// The error for a setting that is refused: `InvalidConfig`, of the operation `Open`.
pub fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidConfig, message).with_operation(Operation::Open)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Setting] = &[
        Setting::new("mode", "plain or encrypted").with_env(&["MODE", "OLD_MODE"]),
        Setting::new("password", "the password")
            .with_env(&["PASSWORD"])
            .secret(),
        Setting::new("pool-size", "how many connections"),
    ];

    #[test]
    fn a_password_in_a_url_is_refused_without_being_repeated() {
        for text in [
            "postgres://user:hunter2@host/db",
            "postgres://user:hun/ter2@host/db",
            "postgres://user:12/hunter2@host/db",
            "postgres://user:12#hunter2@host/db",
            "postgres://user:12?hunter2@host/db",
            "postgres://hunter2@host/db",
            "postgres://:hunter2@host/db",
            "sqlite://user:hunter2@host/db",
            "aws://key:hunter2@us-east-1",
            "postgres://us er:hunter2",
            // The URL parser adds slashes, and drops tabs and newlines.
            "https:user:12/hunter2@host/db",
            "postgres:user:12/hunter2@host/db",
            "postgres:/\n/user:12/hunter2@host/db",
            "x:/\t/host/hunter2@b",
            "http:host/hunter2@b",
            "\\\\user:12/hunter2@host/db",
        ] {
            let refused =
                StoreUrl::parse(text).and_then(|url| SettingMap::new(&[]).set_query(&url));
            let error = refused.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{text}");
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("ter2"), "{text}: {shown}");
        }
        let file = StoreUrl::parse("sqlite:///srv/me%40here/a.db").unwrap();
        assert_eq!(file.path(), "/srv/me@here/a.db");
    }

    #[test]
    fn explicit_values_come_before_the_environment_and_first_variables_before_later_ones() {
        let mut settings = SettingMap::new(TABLE);
        settings.set("pool-size", "3").unwrap();
        settings.set_env(|name| match name {
            "MODE" => Some(String::new()),
            "OLD_MODE" => Some("plain".to_owned()),
            _ => None,
        });
        assert_eq!(settings.text("mode"), Some("plain"));
        assert_eq!(settings.variable("mode"), Some("OLD_MODE"));
        assert_eq!(settings.variable("pool-size"), None);
        assert_eq!(settings.parse::<u32>("pool-size").unwrap(), Some(3));
        settings.set("mode", "plain").unwrap();
        assert!(settings.set("mode", "encrypted").is_err());
    }

    #[test]
    fn flags_numbers_and_words_take_the_tables_default_and_refuse_the_rest() {
        const TABLE: &[Setting] = &[
            Setting::new("on", "a flag").with_default("true"),
            Setting::new("off", "a flag"),
            Setting::new("count", "a number").with_default("10"),
            Setting::new("word", "a or b"),
        ];
        let choices = [("a", 1), ("b", 2)];
        let none = SettingMap::new(TABLE);
        assert!(none.flag("on").unwrap() && !none.flag("off").unwrap());
        assert_eq!(none.number("count", 1..=20u32).unwrap(), 10);
        assert_eq!(none.choice("word", &choices).unwrap(), 1);
        let with = |name: &str, value: &str| {
            let mut settings = SettingMap::new(TABLE);
            settings.set(name, value).unwrap();
            settings
        };
        assert!(!with("on", "false").flag("on").unwrap());
        assert_eq!(with("count", "20").number("count", 1..=20u32).unwrap(), 20);
        assert_eq!(with("word", "b").choice("word", &choices).unwrap(), 2);
        assert!(with("on", "yes").flag("on").is_err());
        for number in ["0", "21", "-1", "x"] {
            assert!(with("count", number).number("count", 1..=20u32).is_err());
        }
        let error = with("word", "canary").choice("word", &choices).unwrap_err();
        assert!(error.message().contains("a, b") && !format!("{error:?}").contains("canary"));
    }

    /// Without it, a misspelt name in a backend would read as a setting that is never set.
    #[test]
    #[cfg(debug_assertions)]
    fn a_name_that_is_in_no_table_is_a_mistake_of_the_code() {
        let readers: [fn(&SettingMap) -> bool; 7] = [
            |settings| settings.text("mdoe").is_some(),
            |settings| settings.secret("mdoe").is_some(),
            |settings| settings.is_set("mdoe"),
            |settings| settings.parse::<u8>("mdoe").is_ok(),
            |settings| settings.pairs("mdoe").is_ok(),
            |settings| settings.flag("mdoe").is_ok(),
            |settings| settings.choice("mdoe", &[("a", 1)]).is_ok(),
        ];
        for (at, reader) in readers.into_iter().enumerate() {
            let read = std::panic::catch_unwind(|| reader(&SettingMap::new(TABLE)));
            assert!(read.is_err(), "reader {at}");
        }
    }

    #[test]
    fn pairs_are_taken_apart_or_refused_without_an_echo() {
        let of = |text: &str| {
            let mut settings = SettingMap::new(TABLE);
            settings.set("mode", text).unwrap();
            settings.pairs("mode")
        };
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            of(" a = b=c ,, d=").unwrap(),
            [pair("a", "b=c"), pair("d", "")]
        );
        assert_eq!(SettingMap::new(TABLE).pairs("mode").unwrap(), []);
        let error = of("a=b,canary").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.message().contains("`mode`") && error.hint().unwrap().contains("MODE"));
        assert!(!format!("{error} {error:?}").contains("canary"));
    }

    #[test]
    fn secrets_stay_out_of_urls_debug_and_errors() {
        let mut settings = SettingMap::new(TABLE);
        let url = StoreUrl::parse("x://host/?password=canary").unwrap();
        let error = settings.set_query(&url).unwrap_err();
        assert!(error.hint().unwrap().contains("PASSWORD"));
        settings.set("password", "canary").unwrap();
        assert_eq!(settings.text("password"), None);
        let pasted = settings.set("canary=12", "x").unwrap_err();
        for shown in [
            format!("{url} {url:?}"),
            format!("{error} {error:?}"),
            format!("{settings:?}"),
            format!("{pasted} {pasted:?}"),
        ] {
            assert!(!shown.contains("canary"), "{shown}");
        }
    }

    #[test]
    fn files_are_absolute_or_relative_as_written() {
        for (text, path) in [
            ("sqlite:///srv/a%20b.db?mode=plain", "/srv/a b.db"),
            ("sqlite:/srv/s.db", "/srv/s.db"),
            ("sqlite:s.db", "s.db"),
            ("sqlite://s.db", "s.db"),
            ("sqlite://folder/s.db", "folder/s.db"),
        ] {
            let file = StoreUrl::parse(text).unwrap().file().unwrap();
            assert_eq!(file, path, "{text}");
        }
        for text in [
            "sqlite:",
            "sqlite::memory:",
            "sqlite:///",
            "sqlite://folder/",
            "sqlite://host:1/a.db",
            "sqlite:///a%00b",
        ] {
            let error = StoreUrl::parse(text).unwrap().file().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{text}");
        }
    }

    #[test]
    fn urls_are_taken_apart_or_refused() {
        for (text, host, port, path) in [
            ("sqlite:///var/lib/a%20b.db", None, None, "/var/lib/a b.db"),
            ("sqlite://data.db", Some("data.db"), None, ""),
            ("aws://eu-west-1", Some("eu-west-1"), None, ""),
            ("vault://[::1]:8200/kv/", Some("[::1]"), Some(8200), "/kv/"),
        ] {
            let url = StoreUrl::parse(text).unwrap();
            assert_eq!((url.host(), url.port(), url.path()), (host, port, path));
        }
        for text in [
            "",
            "/path",
            "postgres://user:canary@host/db",
            "postgres://canary@host/db",
            "vault://:canary@host",
            "sqlite:///a#canary",
            "sqlite:///%ff?canary",
            "postgres://host:canary/",
        ] {
            let error = StoreUrl::parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(!format!("{error} {error:?}").contains("canary"));
        }
    }
}
