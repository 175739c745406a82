//! The database of a `values.yaml`: `global.database` of the current chart, `externalDatabase` of
//! the previous one, or the chart's bundled Postgres.

use secret_persistence_core::settings::SettingMap;
use secret_persistence_core::{Error, Result, SecretValue};
use serde_json::{Map, Value};

use super::super::Warning;
use super::block::Block;
use super::{COMMON, KubernetesSecrets, Settings, invalid, secret_names, text, tree};
use crate::backend;
use crate::kind::Kind;

const PRESENT: &str = "global.database";
const FORMER: &str = "externalDatabase";

/// Additional keys beside those of the key table. `type` says who runs the server. The replica is
/// not used.
const KEYS: &[&str] = &[
    "databaseSecretKey",
    "existingSecret",
    "existingSecretPasswordKey",
    "hostSecretKey",
    "nameSecretKey",
    "portSecretKey",
    "replica",
    "secretName",
    "secretValue",
    "type",
];

/// What the Secret may contain besides user and password.
const OF_SECRET: &[(&str, &str)] = &[
    ("host", "hostSecretKey"),
    ("port", "portSecretKey"),
    ("database", "databaseSecretKey"),
    ("database", "nameSecretKey"),
];

/// Other names of `passwordSecretKey`: of the former block, and of charts 0.4x.
const PASSWORD_KEYS: &[&str] = &["existingSecretPasswordKey", "secretValue"];

/// Hosts in the charts' own values that mean no server: `test` in 0.40, `example.com` in 1.x.
const NOBODYS: &[&str] = &["example.com", "test"];

/// The database and user of every version of the chart.
const DEFAULT_DATABASE: &str = "db-airbyte";
const DEFAULT_USER: &str = "airbyte";

/// The service of the bundled Postgres, in every version.
const BUNDLED_HOST: &str = "airbyte-db-svc";

pub(super) fn settings(
    root: &Value,
    global: Option<&Map<String, Value>>,
    secrets: &KubernetesSecrets,
) -> Result<Settings> {
    let bundled = match root.pointer("/postgresql/enabled") {
        Some(value) => tree::flag("postgresql.enabled", value)?,
        None => None,
    };
    let for_all = text(
        "global.secretName",
        global.and_then(|global| global.get("secretName")),
    )?;
    let present = tree::entries(PRESENT, global.and_then(|global| global.get("database")))?;
    let former = tree::entries(FORMER, root.get(FORMER))?;
    let present = present.map(|entries| Source::of(PRESENT, entries));
    let former = former.map(|entries| Source::of(FORMER, entries));
    let (present, former) = (present.transpose()?, former.transpose()?);
    // If the file does not say who runs the server, a host from the chart's own values does not say
    // so either.
    let is_real = |source: &&Source<'_>| match source.host.as_deref() {
        _ if source.has("jdbcUrl") => true,
        Some("localhost" | "127.0.0.1") if source.place == FORMER => bundled == Some(false),
        Some(host) => !NOBODYS.contains(&host),
        None => source.has("hostSecretKey"),
    };
    let real: Vec<&Source<'_>> = [&present, &former]
        .into_iter()
        .flatten()
        .filter(is_real)
        .collect();
    let is_internal = present
        .as_ref()
        .is_some_and(|source| source.kind.as_deref() == Some("internal"));
    if bundled == Some(true) {
        return match real.iter().find(|source| !source.has("jdbcUrl")) {
            None if real.is_empty() => of_chart(root, secrets),
            // In charts 0.4x the URL has precedence over `postgresql.enabled`; no other chart has
            // it.
            None => external(&real, for_all, secrets),
            Some(source) => Err(invalid(format!(
                "`postgresql.enabled` selects the bundled database, but `{}` names another one",
                source.place
            ))
            .with_hint("set postgresql.enabled to false, or remove the host")),
        };
    }
    if !real.is_empty() {
        // In charts 0.4x, the current block's Secret applies to the former one too.
        let mut sources = real;
        if let Some(source) = &present
            && !is_real(&source)
            && (source.has("secretName") || source.has("secretValue"))
        {
            sources.push(source);
        }
        return external(&sources, for_all, secrets);
    }
    let chart_decides = former.is_some() && bundled.is_none();
    match chart_decides || is_internal {
        true => of_chart(root, secrets),
        false => Err(invalid("the values file does not name a store").with_hint(format!(
            "set global.secretsManager.type, or the host of `{PRESENT}`: the chart's bundled database \
             has no address outside the cluster"
        ))),
    }
}

/// One of the two blocks.
struct Source<'a> {
    place: &'static str,
    entries: &'a Map<String, Value>,
    host: Option<String>,
    kind: Option<String>,
}

impl<'a> Source<'a> {
    fn of(place: &'static str, entries: &'a Map<String, Value>) -> Result<Self> {
        let of = |key: &str| text(&format!("{place}.{key}"), entries.get(key));
        Ok(Self {
            place,
            entries,
            host: of("host")?,
            kind: of("type")?,
        })
    }

    fn has(&self, key: &str) -> bool {
        self.entries
            .get(key)
            .is_some_and(|value| !tree::is_unset(value))
    }

    fn text(&self, key: &str) -> Result<Option<String>> {
        text(&format!("{}.{key}", self.place), self.entries.get(key))
    }

    /// Whether the block contains the password, or the name of its key.
    fn says_password(&self) -> bool {
        let mut keys = ["password", "passwordSecretKey"]
            .iter()
            .chain(PASSWORD_KEYS);
        keys.any(|key| self.has(key))
    }

    /// The Secret in the block.
    fn secret(&self) -> Result<Option<String>> {
        match (self.text("existingSecret")?, self.text("secretName")?) {
            (Some(one), Some(other)) if one != other => Err(invalid(
                "`existingSecret` and `secretName` name different Secrets",
            )
            .with_store(self.place)
            .with_hint("they have the same meaning: remove one")),
            (one, other) => Ok(one.or(other)),
        }
    }
}

/// An external database. Both blocks may describe it, if they agree.
fn external(
    sources: &[&Source<'_>],
    for_all: Option<String>,
    secrets: &KubernetesSecrets,
) -> Result<Settings> {
    let backend = backend::of(Kind::Database)?;
    let rows = backend.settings.rows();
    let mut values = SettingMap::new(rows);
    let mut warnings = Vec::new();
    let mut missing: Option<Error> = None;
    let mut named: Option<String> = None;
    for source in sources {
        match (&named, source.secret()?) {
            (Some(one), Some(other)) if *one != other => return Err(two(sources, "secretName")),
            (_, Some(name)) => named = Some(name),
            (_, None) => {}
        }
    }
    for source in sources {
        let url = credentials_of_url(source)?;
        let given: Vec<&str> = ["password", "existingSecret", "jdbcUrl"]
            .into_iter()
            .filter(|key| source.has(key))
            .filter(|key| *key != "jdbcUrl" || url.password)
            .collect();
        if given.len() > 1 {
            return Err(
                invalid(format!("`{}` exclude each other", given.join("` and `")))
                    .with_store(source.place)
                    .with_hint("a password must come from one place"),
            );
        }
        let names = match (&named, &for_all) {
            (Some(name), _) => vec![name.clone()],
            (None, for_all) => secret_names(for_all.clone(), secrets)?,
        };
        let mut block = Block::new(source.place.to_owned(), source.entries, names, secrets)
            .with_aliases("passwordSecretKey", PASSWORD_KEYS);
        block.refuse_unknown(rows, KEYS)?;
        // A URL names the whole location, and a host of the chart's own values means no server.
        if source.has("jdbcUrl")
            || source
                .host
                .as_deref()
                .is_some_and(|host| NOBODYS.contains(&host))
        {
            block = block.without(&["host", "port", "database"]);
        } else {
            of_secret(source, &block, &mut values, sources)?;
        }
        if url.user {
            block = block.without(&["user"]);
        }
        // If the other block says where the password is, this block's documented key does not
        // count.
        if !source.says_password() && sources.iter().any(|source| source.says_password()) {
            block = block.without(&["password"]);
        }
        // A URL with a password is complete: nothing is looked up.
        let looks_up =
            !url.password && !source.has("password") && (named.is_some() || for_all.is_some());
        let mut own = SettingMap::new(rows);
        block.fill(&mut own, looks_up)?;
        merge(&mut values, &own, sources)?;
        if source.secret()?.is_some() && !url.password {
            missing = Some(block.no_credential(
                rows,
                "password",
                "name its key with `existingSecretPasswordKey` or `passwordSecretKey`",
            ));
        }
        warnings.extend(block.into_warnings());
    }
    if let Some(error) = missing.filter(|_| !values.is_set("password")) {
        return Err(error);
    }
    let (has_url, has_user) = (values.is_set("url"), values.is_set("user"));
    let url_has_user = sources
        .iter()
        .map(|source| credentials_of_url(source))
        .collect::<Result<Vec<_>>>()?
        .iter()
        .any(|url| url.user);
    if !has_url && !values.is_set("database") {
        values.set("database", DEFAULT_DATABASE)?;
    }
    if !has_user && !url_has_user {
        values.set("user", DEFAULT_USER)?;
    }
    let place = sources.first().map_or(PRESENT, |source| source.place);
    let settings = Settings::new(Kind::Database, values, SettingMap::new(COMMON));
    Ok(settings.with_warnings(warnings).of_helm(place.to_owned()))
}

/// The location in the Secret.
fn of_secret(
    source: &Source<'_>,
    block: &Block<'_>,
    values: &mut SettingMap,
    sources: &[&Source<'_>],
) -> Result<()> {
    for (setting, at) in OF_SECRET {
        let Some(key) = source.text(at)? else {
            continue;
        };
        let inline = if *setting == "database" {
            "database"
        } else {
            setting
        };
        if source.has(inline) || (*setting == "database" && source.has("name")) {
            return Err(invalid(format!("`{inline}` and `{at}` exclude each other"))
                .with_store(source.place)
                .with_hint("put it in the file or in the Kubernetes Secret, not in both"));
        }
        let value = block.of_secret(at, &key)?;
        values
            .set(setting, value.expose())
            .map_err(|_| two(sources, at))?;
    }
    Ok(())
}

fn merge(values: &mut SettingMap, own: &SettingMap, sources: &[&Source<'_>]) -> Result<()> {
    for name in own.names() {
        if let Some(value) = own.secret(name) {
            values
                .set(name, value.expose())
                .map_err(|_| two(sources, name))?;
        }
    }
    Ok(())
}

fn two(sources: &[&Source<'_>], name: &str) -> Error {
    let places: Vec<&str> = sources.iter().map(|source| source.place).collect();
    invalid(format!(
        "`{}` name different databases: they differ in `{name}`",
        places.join("` and `")
    ))
    .with_hint("remove one of them")
}

/// The credentials in a `jdbcUrl`.
#[derive(Clone, Copy, Default)]
struct InUrl {
    user: bool,
    password: bool,
}

fn credentials_of_url(source: &Source<'_>) -> Result<InUrl> {
    let Some(url) = source.text("jdbcUrl")? else {
        return Ok(InUrl::default());
    };
    let url = SecretValue::new(url);
    let (place, query) = url.expose().split_once('?').unwrap_or((url.expose(), ""));
    let authority = place.split_once("//").map_or("", |(_, rest)| rest);
    let login = authority.rsplit_once('@').map(|(login, _)| login);
    let asks = |name: &str| {
        query.split('&').any(|pair| {
            pair.split_once('=')
                .is_some_and(|(key, value)| key == name && !value.is_empty())
        })
    };
    Ok(InUrl {
        user: login.is_some_and(|login| !login.is_empty()) || asks("user"),
        password: login.is_some_and(|login| login.contains(':')) || asks("password"),
    })
}

/// The bundled Postgres. Its service has a name only within the cluster.
fn of_chart(root: &Value, secrets: &KubernetesSecrets) -> Result<Settings> {
    let place = "postgresql";
    let of = |key: &str| {
        text(
            &format!("{place}.{key}"),
            root.pointer(&format!("/{place}/{key}")),
        )
    };
    let backend = backend::of(Kind::Database)?;
    let mut values = SettingMap::new(backend.settings.rows());
    let database = of("postgresqlDatabase")?.unwrap_or_else(|| DEFAULT_DATABASE.to_owned());
    values.set("host", BUNDLED_HOST)?;
    values.set("port", "5432")?;
    values.set("database", database.as_str())?;
    let user = of("postgresqlUsername")?;
    values.set("user", user.unwrap_or_else(|| DEFAULT_USER.to_owned()))?;
    let password = match (of("postgresqlPassword")?, of("existingSecret")?) {
        (Some(password), _) => Some(SecretValue::new(password)),
        (None, Some(name)) => secrets.get(&name, "postgresql-password")?,
        (None, None) => Some(SecretValue::new(DEFAULT_USER.to_owned())),
    };
    if let Some(password) = password {
        values.set("password", password.expose())?;
    }
    let warning = Warning::new(format!(
        "the values select the chart's bundled Postgres, whose service {BUNDLED_HOST} is known \
         only within the cluster and has no TLS: outside of it, run `kubectl port-forward \
         svc/{BUNDLED_HOST} 5432`, and use the URL postgres://localhost:5432/{database} with DATABASE_USER \
         and DATABASE_PASSWORD"
    ));
    let settings = Settings::new(Kind::Database, values, SettingMap::new(COMMON));
    Ok(settings
        .with_warnings(vec![warning])
        .of_helm(PRESENT.to_owned()))
}
