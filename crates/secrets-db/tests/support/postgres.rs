//! A real Postgres: from `TEST_POSTGRES_URL`, or started here.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Setup;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use sqlx::postgres::PgConnectOptions;

use super::Raw;

/// Creates a cluster and serves it until its standard input ends, which happens when the tests end
/// in any way. Then everything is deleted.
const SCRIPT: &str = r#"
set -eu
umask 077
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
printf %s "$TEST_PASSWORD" > "$folder/password"
printf %s "$TEST_CERTIFICATE" > "$folder/server.crt"
printf %s "$TEST_KEY" > "$folder/server.key"
"$TEST_BIN/initdb" -D "$folder/data" -U postgres -E UTF8 --no-locale -A scram-sha-256 \
    --pwfile "$folder/password" --no-sync > "$folder/log" 2>&1 || { cat "$folder/log"; exit 1; }
"$TEST_BIN/postgres" -D "$folder/data" -p "$TEST_PORT" -c listen_addresses=127.0.0.1 \
    -c unix_socket_directories= -c fsync=off -c max_connections=200 -c ssl=on \
    -c ssl_cert_file="$folder/server.crt" -c ssl_key_file="$folder/server.key" \
    < /dev/null >> "$folder/log" 2>&1 &
server=$!
echo started
cat > /dev/null
kill -INT $server
wait $server || true
"#;

pub(crate) struct Server {
    /// `postgres://user:password@host:port/database`
    options: PgConnectOptions,
    host: String,
    port: u16,
    user: String,
    password: String,
    /// The authority of the server's certificate in PEM form; empty if it was not started here.
    pub(crate) authority: String,
    /// Serves while its standard input is open.
    _alive: Option<Child>,
}

/// The server of this test binary. If it is missing, the test fails if `CI` is set, and otherwise
/// reports that it was skipped.
pub(crate) fn server(test: &str) -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    let server = SERVER.get_or_init(given).as_ref();
    server.or_else(|| own_server(test))
}

/// A server that is started here even if another one is given, for tests that depend on its roles,
/// passwords and certificate.
pub(crate) fn own_server(test: &str) -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    let server = SERVER.get_or_init(start).as_ref();
    if server.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "no Postgres: install it, or set TEST_POSTGRES_URL"
        );
        println!("SKIPPED {test}: no Postgres is installed, and TEST_POSTGRES_URL is not set");
    }
    server
}

/// A separate database for one test.
pub(crate) struct Home {
    server: &'static Server,
    pub(crate) database: String,
    pub(crate) raw: Raw,
}

impl Server {
    pub(crate) async fn home(&'static self) -> Home {
        self.home_with("").await
    }

    pub(crate) async fn home_with(&'static self, options: &str) -> Home {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let database = format!(
            "test_{}_{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let raw = self.raw(None).await;
        raw.run(&format!("CREATE DATABASE {database} {options}"))
            .await
            .unwrap();
        raw.close().await;
        Home {
            server: self,
            raw: self.raw(Some(&database)).await,
            database,
        }
    }

    async fn raw(&self, database: Option<&str>) -> Raw {
        let mut options = self.options.clone();
        if let Some(database) = database {
            options = options.database(database);
        }
        // A server that was just started does not listen yet.
        for _ in 0..300 {
            if let Ok(pool) = sqlx::PgPool::connect_with(options.clone()).await {
                return Raw::Postgres(pool);
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        Raw::Postgres(sqlx::PgPool::connect_with(options).await.unwrap())
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn password(&self) -> &str {
        &self.password
    }
}

impl Home {
    /// As the owner of everything.
    pub(crate) fn config(&self) -> Setup {
        self.config_as(&self.server.user, &self.server.password)
    }

    /// For a separate process: a URL, and its environment.
    pub(crate) fn address(&self) -> (String, Vec<(&'static str, String)>) {
        let Server {
            host,
            port,
            user,
            password,
            ..
        } = self.server;
        (
            format!("postgres://{host}:{port}/{}", self.database),
            vec![
                ("DATABASE_USER", user.clone()),
                ("DATABASE_PASSWORD", password.clone()),
            ],
        )
    }

    pub(crate) fn config_as(&self, user: &str, password: &str) -> Setup {
        self.config_at(&self.server.host)
            .set("user", user)
            .set("password", password)
    }

    pub(crate) fn config_at(&self, host: &str) -> Setup {
        Setup::of_url(&format!(
            "postgres://{host}:{}/{}",
            self.server.port, self.database
        ))
    }

    /// A role with only these permissions on the existing tables.
    pub(crate) async fn role(&self, name: &str, rights: &str) -> Setup {
        let role = format!("{name}_{}", self.database);
        self.raw
            .run(&format!(
                "CREATE ROLE {role} LOGIN PASSWORD 'role-password'; \
                 GRANT USAGE ON SCHEMA public TO {role}; \
                 GRANT {rights} ON ALL TABLES IN SCHEMA public TO {role}"
            ))
            .await
            .unwrap();
        self.config_as(&role, "role-password")
    }
}

fn given() -> Option<Server> {
    let url = std::env::var("TEST_POSTGRES_URL").ok()?;
    let parsed = url::Url::parse(&url).expect("TEST_POSTGRES_URL is no URL");
    Some(Server {
        options: url
            .parse()
            .expect("TEST_POSTGRES_URL is no URL of Postgres"),
        host: parsed.host_str().unwrap_or("localhost").to_owned(),
        port: parsed.port().unwrap_or(5432),
        user: parsed.username().to_owned(),
        password: parsed.password().unwrap_or_default().to_owned(),
        authority: String::new(),
        _alive: None,
    })
}

fn start() -> Option<Server> {
    let bin = newest_bin()?;
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    // Not for the address, so that there is also a certificate for another name.
    let certificate = CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .signed_by(&key, &authority)
        .unwrap();
    let password = format!("pw-{port}-{}", std::process::id());
    // The server refuses to run as root.
    let root = std::fs::metadata("/proc/self")
        .is_ok_and(|process| std::os::unix::fs::MetadataExt::uid(&process) == 0);
    let mut command = if root {
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid",
            "postgres",
            "--regid",
            "postgres",
            "--init-groups",
            "sh",
        ]);
        command
    } else {
        Command::new("sh")
    };
    let mut child = command
        .args(["-c", SCRIPT])
        .current_dir("/")
        .env("TEST_BIN", bin)
        .env("TEST_PORT", port.to_string())
        .env("TEST_PASSWORD", &password)
        .env("TEST_CERTIFICATE", certificate.pem())
        .env("TEST_KEY", key.serialize_pem())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("setpriv is part of util-linux");
    let mut said = String::new();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    loop {
        let before = said.len();
        output.read_line(&mut said).unwrap();
        if said.ends_with("started\n") {
            break;
        }
        assert!(said.len() > before, "Postgres did not start: {said}");
    }
    Some(Server {
        options: PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(port)
            .username("postgres")
            .password(&password)
            .database("postgres"),
        host: "127.0.0.1".to_owned(),
        port,
        user: "postgres".to_owned(),
        password,
        authority: authority.as_ref().pem(),
        _alive: Some(child),
    })
}

fn newest_bin() -> Option<PathBuf> {
    std::fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|bin| bin.join("initdb").exists())
        .max()
}
