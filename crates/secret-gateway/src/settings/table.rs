//! The gateway's own settings: one table for environment, file and flags.

/// One setting of the gateway itself. The store's own are in docs/settings.md.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Setting {
    /// Its name: the flag without `--`, and the key in the file. In the environment `SECRET_GATEWAY_`
    /// stands before it, upper case, `_` for `-`.
    pub name: &'static str,
    /// What holds where it is not set, as text.
    pub default: Option<&'static str>,
    /// Whether it holds a credential: then it has no flag, because others see the flags of a process.
    pub secret: bool,
    /// What it is.
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
        "the folder of what the gateway makes at its first start: key ring, tokens, database, outbox; mode 0700",
    ),
    setting(
        "store",
        None,
        "the URL of the store, without credentials; without it the store of `store-settings`, else of the environment (`SECRET_PERSISTENCE`), else an encrypted SQLite file in the data folder",
    ),
    setting(
        "store-settings",
        None,
        "a file with the settings of the store: JSON, Helm values or environment variables",
    ),
    setting(
        "storages-file",
        None,
        "a JSON file of further stores by storage id: the JSON for external secret management, credentials as pointers to secrets of the first store; read again when it changes",
    ),
    setting(
        "migration-journal",
        None,
        "the journal of a migration whose progress the page shows, as `migrate --journal` takes it; a file cannot be read while `migrate` runs, a Postgres database can; credentials in variables that begin with `JOURNAL_`",
    ),
    setting(
        "tokens-file",
        None,
        "the file of token hashes, `tokens.json` in the data folder unless told; read again when it changes",
    ),
    setting(
        "tls-cert-file",
        None,
        "PEM certificates of the server, read again when they change",
    ),
    setting("tls-key-file", None, "PEM private key of the server"),
    setting(
        "client-ca-file",
        None,
        "PEM authorities of client certificates: one that a token names stands for it",
    ),
    setting(
        "behind-proxy",
        Some("false"),
        "`true` allows plain http beyond loopback, for a proxy that ends TLS; said at every start",
    ),
    setting(
        "allowed-hosts",
        None,
        "the names, with port where it is not the scheme's, that requests may ask for, comma separated; loopback names are allowed where the gateway listens on loopback, and beyond it at least one is needed",
    ),
    setting(
        "max-body-bytes",
        Some("4194304"),
        "the largest request, 1024 to 67108864",
    ),
    setting(
        "request-timeout-seconds",
        Some("75"),
        "how long one request may take, 1 to 600; give the store's `retry-deadline-seconds` less",
    ),
    setting(
        "concurrency",
        Some("256"),
        "requests at once, 1 to 65536; beyond it 503 with Retry-After",
    ),
    setting(
        "shutdown-seconds",
        Some("30"),
        "how long requests under way may go on after SIGTERM, 1 to 600",
    ),
    setting(
        "kv-mount",
        Some("secret"),
        "the mount of the KV face, one path segment",
    ),
    setting(
        "kv-prefix",
        Some(""),
        "what stands between the mount and the coordinate, as it is: end a folder in /",
    ),
    setting(
        "kv-version",
        Some("2"),
        "the version of the KV engine that is spoken, 1 or 2",
    ),
    setting(
        "external-prefixes",
        None,
        "prefixes of names of others that may be read, comma separated; none unless told",
    ),
    setting(
        "guarded-places",
        None,
        "JSON Pointers, comma separated: where one of them changes, masks and kept pointers are refused",
    ),
    setting(
        "jwks-file",
        None,
        "the public keys of the platform's JWTs, read again when the file changes",
    ),
    setting(
        "jwks-url",
        None,
        "the same by https (or http on loopback), fetched again for a key that is not known",
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
        "the claim with the workspaces: a string or an array of ids, or `*`; without it a JWT is refused",
    ),
    Setting {
        name: "outbox-url",
        default: None,
        secret: true,
        text: "the Postgres database of an outbox that several replicas share, `postgres://…`; TLS is verified in full and may be switched off on loopback only; without it `outbox.db` in the data folder, which one process has",
    },
    setting(
        "key-file",
        None,
        "the 32 random bytes that digests in the outbox are keyed with, `gateway.key` in the data folder unless told, made where it is missing; the same for all replicas",
    ),
    setting(
        "retention-seconds",
        None,
        "for how long secrets that a committed change superseded are kept; deleted on commit unless told",
    ),
    setting(
        "changes-kept-seconds",
        Some("604800"),
        "for how long changes that have ended are kept, for retries by idempotency key",
    ),
    setting(
        "log",
        Some("json"),
        "`json` or `text`, to standard error; SECRET_GATEWAY_LOG_FILTER filters",
    ),
];

/// The variable of a setting.
#[must_use]
pub fn variable(name: &str) -> String {
    format!(
        "SECRET_GATEWAY_{}",
        name.to_ascii_uppercase().replace('-', "_")
    )
}
