//! The gateway's own settings: one table for environment, file and flags.

/// One setting of the gateway. docs/settings.md lists the store's settings.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Setting {
    /// Its name: the flag without `--`, and the key in the file. The environment variable has the
    /// prefix `SECRET_GATEWAY_` and is in upper case with `_` for `-`.
    pub name: &'static str,
    /// The default, as text.
    pub default: Option<&'static str>,
    /// Whether it contains a credential. Then there is no flag, because other users can see a
    /// process's flags.
    pub secret: bool,
    /// Its description.
    pub text: &'static str,
}

const fn setting(name: &'static str, default: Option<&'static str>, text: &'static str) -> Setting {
    Setting {
        name,
        default,
        secret: false,
        text,
    }
}

/// Every setting, in the order of the documentation.
pub const TABLE: &[Setting] = &[
    setting(
        "listen",
        Some("127.0.0.1:8220"),
        "address and port; beyond loopback only with TLS or `behind-proxy`",
    ),
    setting(
        "data-folder",
        Some("secret-gateway-data"),
        "the folder for files that the gateway creates at its first start: key ring, tokens, database, outbox; mode 0700",
    ),
    setting(
        "store",
        None,
        "the URL of the store, without credentials; by default the store in `store-settings`, otherwise in the environment (`SECRET_PERSISTENCE`), otherwise an encrypted SQLite file in the data folder",
    ),
    setting(
        "store-settings",
        None,
        "a file with the settings of the store: JSON, Helm values or environment variables",
    ),
    setting(
        "storages-file",
        None,
        "a JSON file of further stores by storage id: the JSON for external secret management, credentials as pointers to secrets of the first store; reread when it changes",
    ),
    setting(
        "migration-journal",
        None,
        "the journal of a migration whose progress the page shows, as `secret-migrate --journal` takes it; a file cannot be read while `secret-migrate` runs, a Postgres database can; credentials in variables that begin with `JOURNAL_`",
    ),
    setting(
        "configurations-file",
        None,
        "a JSON file with the sources of all configurations of the platform, `{\"sources\": [address, …], \"references\": address}`, as `secret-migrate --configs` and `--references` take them: for the collector, and for `ages`, `affected` and `restore`; credentials in variables that begin with `CONFIG_`; read at start",
    ),
    setting(
        "collect-journal",
        None,
        "what the collector has seen, as `secret-migrate collect --journal` takes it, by default `collect.db` in the data folder; replicas need a Postgres database; credentials in variables that begin with `JOURNAL_`",
    ),
    setting(
        "tokens-file",
        None,
        "the file with token hashes, by default `tokens.json` in the data folder; reread when it changes",
    ),
    setting(
        "tls-cert-file",
        None,
        "PEM certificates of the server, reread when they change",
    ),
    setting("tls-key-file", None, "PEM private key of the server"),
    setting(
        "client-ca-file",
        None,
        "PEM authorities of client certificates, which can be granted roles like tokens",
    ),
    setting(
        "behind-proxy",
        Some("false"),
        "`true` allows plain HTTP beyond loopback, for a proxy that terminates TLS; logged at every start",
    ),
    setting(
        "allowed-hosts",
        None,
        "the host names that requests may use, comma-separated, with their port unless it is the scheme's default; on loopback, loopback names are allowed; otherwise at least one name is required",
    ),
    setting(
        "max-body-bytes",
        Some("4194304"),
        "the largest request, 1024 to 67108864",
    ),
    setting(
        "request-timeout-seconds",
        Some("75"),
        "how long one request may take, 1 to 600; set the store's `retry-deadline-seconds` lower",
    ),
    setting(
        "concurrency",
        Some("256"),
        "maximum concurrent requests, 1 to 65536; more get 503 with Retry-After; bodies that are still arriving count apart: half as many from one caller, as many from all",
    ),
    setting(
        "shutdown-seconds",
        Some("30"),
        "how long running requests may continue after SIGTERM, 1 to 600",
    ),
    setting(
        "kv-mount",
        Some("secret"),
        "the mount of the KV API, one path segment",
    ),
    setting(
        "kv-prefix",
        Some(""),
        "the text between the mount and the coordinate, unchanged: end a folder with /",
    ),
    setting(
        "kv-version",
        Some("2"),
        "the version of the KV protocol, 1 or 2",
    ),
    setting(
        "external-prefixes",
        None,
        "prefixes of external names that may be read, comma-separated; none by default",
    ),
    setting(
        "guarded-places",
        None,
        "JSON Pointers, comma-separated: if one of these places changes, masks and kept pointers are refused",
    ),
    setting(
        "jwks-file",
        None,
        "the public keys of the platform's JWTs, reread when the file changes",
    ),
    setting(
        "jwks-url",
        None,
        "their URL, https (or http on loopback), fetched again for an unknown key",
    ),
    setting("jwt-issuer", None, "the `iss` that JWTs must have"),
    setting("jwt-audience", None, "the `aud` that JWTs must have"),
    setting(
        "jwt-role-claim",
        Some("secret_gateway_role"),
        "the claim with the roles: a string or an array; `/` leads into objects",
    ),
    setting(
        "jwt-workspace-claim",
        Some("secret_gateway_workspace"),
        "the claim with the workspaces: a string or an array of ids, or `*`; a JWT without it is refused",
    ),
    Setting {
        name: "outbox-url",
        default: None,
        secret: true,
        text: "the Postgres database of an outbox that several replicas share, `postgres://…`; TLS is fully verified and can be disabled only on loopback; by default `outbox.db` in the data folder, for a single process",
    },
    setting(
        "key-file",
        None,
        "the file with the 32 random bytes that key the digests in the outbox, by default `gateway.key` in the data folder, created if missing; the same for all replicas",
    ),
    setting(
        "retention-seconds",
        None,
        "how long secrets that a committed change superseded are kept; by default they are deleted on commit",
    ),
    setting(
        "changes-kept-seconds",
        Some("604800"),
        "how long ended changes are kept, for retries with their idempotency key",
    ),
    setting(
        "log",
        Some("json"),
        "`json` or `text`, to standard error; SECRET_GATEWAY_LOG_FILTER filters",
    ),
];

/// The environment variable of a setting.
#[must_use]
pub fn variable(name: &str) -> String {
    format!(
        "SECRET_GATEWAY_{}",
        name.to_ascii_uppercase().replace('-', "_")
    )
}
