//! The page in a browser that nobody here wrote.

use std::path::Path;
use std::process::Output;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use e2e::Client;
use secret_gateway::{Grant, Role};
use secret_persistence::{
    DeleteOptions, ErrorKind, ManagedCoordinate, SecretPersistenceExt as _, SecretValue, Write,
};
use serde_json::{Value, json};

use crate::program::{Program, everything};
use crate::world::{World, configurations, name};

/// A name that would be markup, a script and a label of its own.
const HOSTILE: &str = r#"<img src=x onerror="document.title='owned'">"#;

/// The page as it stands after a while.
async fn dom(folder: &Path, mut flags: Vec<String>, url: String) -> Option<String> {
    flags.push("--dump-dom".to_owned());
    let output = browse(folder, flags, url).await?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

async fn browse(folder: &Path, flags: Vec<String>, url: String) -> Option<Output> {
    let folder = folder.to_owned();
    let browsed = tokio::task::spawn_blocking(move || browse_here(&folder, &flags, &url));
    browsed.await.unwrap()
}

fn browse_here(folder: &Path, flags: &[String], url: &str) -> Option<Output> {
    let mut browser = Client::Chromium.command()?;
    let profile = tempfile::tempdir_in(folder).unwrap();
    let output = browser
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
        ])
        .args([
            "--no-first-run",
            "--disable-background-networking",
            "--virtual-time-budget=8000",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(flags)
        .arg(url)
        .output()
        .unwrap();
    Some(output)
}

/// Serves the page's own files with a script beside them that types the token, as a person would, and lets
/// the gateway answer through the same origin.
#[derive(Clone)]
struct Shell {
    gateway: String,
    token: String,
    driver: &'static str,
}

async fn serve(shell: Shell) -> String {
    async fn page(State(shell): State<Shell>) -> impl IntoResponse {
        let page = reqwest::get(format!("{}/", shell.gateway)).await.unwrap();
        let policy = page.headers()["content-security-policy"].clone();
        let text = page.text().await.unwrap();
        // The narrow window is a frame, since the browser has none of its own.
        let policy = policy
            .to_str()
            .unwrap()
            .replace("frame-ancestors 'none'", "frame-ancestors 'self'");
        let driven = text.replace(
            "</head>",
            "<script src=\"/driver.js\" defer></script></head>",
        );
        ([(CONTENT_SECURITY_POLICY, policy)], Html(driven))
    }
    async fn driver(State(shell): State<Shell>) -> impl IntoResponse {
        let token = serde_json::to_string(&shell.token).unwrap();
        (
            [(CONTENT_TYPE, "text/javascript")],
            format!("const TOKEN = {token};\n{}", shell.driver),
        )
    }
    async fn pass(
        State(shell): State<Shell>,
        request: axum::extract::Request,
    ) -> impl IntoResponse {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let url = format!("{}{}", shell.gateway, parts.uri);
        let mut sent = reqwest::Client::new().request(parts.method, url).body(body);
        for name in ["authorization", "content-type"] {
            if let Some(value) = parts.headers.get(name) {
                sent = sent.header(name, value);
            }
        }
        let answer = sent.send().await.unwrap();
        let (status, kind) = (answer.status(), answer.headers().get(CONTENT_TYPE).cloned());
        let kind = kind.unwrap_or(axum::http::HeaderValue::from_static("text/plain"));
        (
            status,
            [(CONTENT_TYPE, kind)],
            answer.bytes().await.unwrap(),
        )
    }
    const NARROW: &str = "<body style='margin:0'><iframe src='/' style='width:360px;height:1400px;border:0'></iframe>";
    let router = Router::new()
        .route("/", get(page))
        .route("/narrow", get(|| async { Html(NARROW) }))
        .route("/driver.js", get(driver))
        .fallback(pass)
        .with_state(shell);
    listen(router).await
}

async fn listen(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

const LOG_IN: &str = r#"
document.getElementById("token").value = TOKEN;
document.getElementById("login").requestSubmit();
"#;

/// Lists the ages, then collects, as a person would.
#[cfg(feature = "sqlite")]
const COLLECT: &str = r#"
const at = (id) => document.getElementById(id);
const once = (test, then) => {
  const timer = setInterval(() => { if (test()) { clearInterval(timer); then(); } }, 50);
};
at("token").value = TOKEN;
at("login").requestSubmit();
once(() => !at("secrets").hidden && !at("collect").hidden, () => {
  at("look").requestSubmit();
  once(() => at("listed").textContent.includes("present"), () => {
    at("percent").value = "100";
    at("preview").requestSubmit();
    once(() => !at("delete").hidden, () => {
      document.body.dataset.asked = String(at("delete").disabled);
      at("all").click();
      at("delete").click();
    });
  });
});
"#;

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_lists_ages_and_collects_on_the_page() {
    use secret_persistence::database::KeyRingFile;
    use sqlx::Connection as _;

    let folder = tempfile::tempdir().unwrap();
    let token = everything(folder.path());
    let rows = [(HOSTILE, json!({"password": {"_secret": name(1, 1)}}))];
    let file = configurations(folder.path(), &rows);
    let ring = folder.path().join("ledger-ring");
    KeyRingFile::create(&ring, "1".parse().unwrap()).unwrap();
    let ledger = format!("sqlite://{}", folder.path().join("ledger.db").display());
    let variables = [
        ("SECRETS_OWNER", "prod".to_owned()),
        ("SECRETS_LEDGER", ledger),
        ("LEDGER_SECRETS_KEYRING_FILE", ring.display().to_string()),
    ];
    let flags = ["--configurations-file", &file];
    let gateway = Program::start_with(folder.path(), &flags, &variables);
    let client = reqwest::Client::new();
    let url = |secret| format!("{}/v1/secret/data/{}", gateway.base, name(1, secret));
    for secret in [1, 2] {
        let body = json!({"data": {"value": "canary-8d20"}}).to_string();
        let sent = client.post(url(secret)).header("x-vault-token", &token);
        assert_eq!(sent.body(body).send().await.unwrap().status(), 200);
    }
    let read = client.get(url(1)).header("x-vault-token", &token);
    assert_eq!(read.send().await.unwrap().status(), 200);
    // Both are of long ago, and one of them has expired.
    let database = folder.path().join("data").join("secrets.db");
    let database = format!("sqlite://{}", database.display());
    let mut connection = sqlx::SqliteConnection::connect(&database).await.unwrap();
    sqlx::query("UPDATE secrets SET created = 1000000000")
        .execute(&mut connection)
        .await
        .unwrap();
    sqlx::query("UPDATE secrets SET expires = 1100000000 WHERE coordinate = $1")
        .bind(name(1, 2))
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();

    let shell = Shell {
        gateway: gateway.base.clone(),
        token: token.clone(),
        driver: COLLECT,
    };
    let Some(dom) = dom(folder.path(), Vec::new(), serve(shell).await).await else {
        return;
    };
    // Nothing goes without a tick.
    assert!(dom.contains(r#"data-asked="true""#), "{dom}");
    assert!(dom.contains("2001-09-09T01:46:40Z"), "{dom}");
    // Who read it last: the caller of the only read.
    let read = dom.split(r#"data-name="Last read">"#).nth(1).unwrap();
    assert!(
        read.split('<').next().unwrap().contains("Z, everything"),
        "{dom}"
    );
    assert!(
        dom.contains("1 expired") && dom.contains("1 deleted"),
        "{dom}"
    );
    assert!(
        !dom.contains("<img") && !dom.contains("canary-8d20"),
        "{dom}"
    );
    let read = async |secret| {
        let read = client.get(url(secret)).header("x-vault-token", &token);
        read.send().await.unwrap().status()
    };
    assert_eq!((read(1).await.as_u16(), read(2).await.as_u16()), (200, 404));
}

/// Lists what a workspace lacks, types another workspace, and restores.
const RESTORE: &str = r#"
const at = (id) => document.getElementById(id);
const once = (test, then) => {
  const timer = setInterval(() => { if (test()) { clearInterval(timer); then(); } }, 50);
};
at("token").value = TOKEN;
at("login").requestSubmit();
once(() => !at("secrets").hidden, () => {
  at("what").value = "restore";
  at("what").dispatchEvent(new Event("change"));
  at("workspace").value = "00000000-0000-0000-0000-000000000001";
  at("look").requestSubmit();
  once(() => !at("restore").hidden, () => {
    at("workspace").value = "00000000-0000-0000-0000-000000000002";
    at("restore").click();
  });
});
"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_page_restores_what_it_has_listed() {
    let folder = tempfile::tempdir().unwrap();
    let file = configurations(folder.path(), &[]);
    let rows = [1, 2].map(|of| {
        let configuration = json!({"key": {"_secret": name(of, 1)}});
        let workspace = uuid::Uuid::from_u128(of);
        json!({"id": of.to_string(), "baseId": workspace, "configuration": configuration})
            .to_string()
    });
    std::fs::write(folder.path().join("configurations.jsonl"), rows.join("\n")).unwrap();
    let settings = [("configurations-file", file.as_str())];
    let world = World::over(Arc::default(), folder, &settings).await;
    let names = [1, 2].map(|of| ManagedCoordinate::parse(&name(of, 1)).unwrap());
    for name in &names {
        let value = SecretValue::new("canary-2b6e".to_owned());
        let write = Write::new(name.clone(), value);
        world.store.inner.write(write).await.unwrap();
        let options = DeleteOptions::default();
        world.store.inner.delete(name, &options).await.unwrap();
    }
    let token = world.token(Grant::new("operator", [Role::Operate]));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let shell = Shell {
        gateway: format!("http://{}", listener.local_addr().unwrap()),
        token: token.expose().to_owned(),
        driver: RESTORE,
    };
    tokio::spawn(secret_gateway::serve(
        world.gateway.clone(),
        listener,
        std::future::pending(),
    ));
    let Some(dom) = dom(world.folder.path(), Vec::new(), serve(shell).await).await else {
        return;
    };
    let [listed, typed] = names.map(Into::into);
    let listed = world.store.inner.read(&listed).await;
    assert!(listed.is_ok(), "{dom}");
    let typed = world.store.inner.read(&typed).await;
    assert_eq!(typed.unwrap_err().kind(), ErrorKind::PendingDeletion);
}

/// What the policy forbids, tried from within.
const BREAK_OUT: &str = r#"
const note = (text) => { document.body.dataset.tried = (document.body.dataset.tried || "") + text + ";"; };
document.addEventListener("securitypolicyviolation", (event) => note("refused " + event.effectiveDirective));
const inline = document.createElement("script");
inline.textContent = "document.title = 'owned'";
document.head.append(inline);
const image = document.createElement("img");
image.src = "http://127.0.0.1:9/x.png";
document.body.append(image);
fetch("http://127.0.0.1:9/steal").catch(() => note("no fetch"));
document.body.append(document.createElement("iframe"));
"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_hostile_names_as_text_and_keeps_its_token() {
    let folder = tempfile::tempdir().unwrap();
    let token = everything(folder.path());
    let gateway = Program::start(folder.path(), &[]);
    let client = reqwest::Client::new();
    // A failed write with a name of a stranger's choice in its value, and one that stands on the page.
    let good = format!("{}/v1/secret/data/{}", gateway.base, name(1, 1));
    for value in ["first", HOSTILE] {
        let body = json!({"data": {"value": value}}).to_string();
        let sent = client
            .post(&good)
            .header("x-vault-token", &token)
            .body(body);
        sent.send().await.unwrap();
    }
    // Who asks is shown too: a token's name may be anything.
    let tokens = secret_gateway::TokenFile::new(folder.path().join("data").join("tokens.json"));
    let grant = Grant::new(HOSTILE, [Role::KvWrite]);
    if let Ok(hostile) = tokens.create(&grant) {
        let body = json!({"data": {"value": "second"}}).to_string();
        let sent = client
            .post(&good)
            .header("x-vault-token", hostile.expose())
            .body(body);
        assert_eq!(sent.send().await.unwrap().status(), 400);
    }
    let shell = Shell {
        gateway: gateway.base.clone(),
        token: token.clone(),
        driver: LOG_IN,
    };
    let Some(dom) = dom(folder.path(), Vec::new(), serve(shell).await).await else {
        return;
    };
    assert!(
        dom.contains("answers") && dom.contains(&name(1, 1)),
        "{dom}"
    );
    assert!(dom.contains("already_exists"), "{dom}");
    assert!(
        !dom.contains("<img") && dom.contains("<title>Secret gateway</title>"),
        "{dom}"
    );
    assert!(!dom.contains(&token), "the token is in memory only");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_of_the_page_lets_nothing_out() {
    let folder = tempfile::tempdir().unwrap();
    let token = everything(folder.path());
    let gateway = Program::start(folder.path(), &[]);
    let shell = Shell {
        gateway: gateway.base.clone(),
        token,
        driver: BREAK_OUT,
    };
    let Some(dom) = dom(folder.path(), Vec::new(), serve(shell).await).await else {
        return;
    };
    for refused in [
        "refused script-src-elem",
        "refused img-src",
        "refused connect-src",
        "no fetch",
    ] {
        assert!(dom.contains(refused), "{refused}: {dom}");
    }
    assert!(dom.contains("<title>Secret gateway</title>"), "{dom}");
}

/// A page of another origin gets nothing, whatever it sends.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_reads_nothing() {
    async fn attack(State((gateway, token)): State<(String, String)>) -> impl IntoResponse {
        Html(format!(
            r#"<body><script>
            const note = (text) => {{ document.body.append(text + ";"); }};
            for (const [name, headers] of [["with", {{ "x-vault-token": "{token}" }}], ["without", {{}}]])
              fetch("{gateway}/api/v1/stores", {{ headers }})
                .then((answer) => answer.text())
                .then((text) => note("read " + name + text), () => note("nothing " + name));
            </script>"#
        ))
    }
    let folder = tempfile::tempdir().unwrap();
    let token = everything(folder.path());
    let gateway = Program::start(folder.path(), &[]);
    let router = Router::new()
        .route("/", get(attack))
        .with_state((gateway.base.clone(), token));
    let Some(dom) = dom(folder.path(), Vec::new(), listen(router).await).await else {
        return;
    };
    let body = dom.rsplit("</script>").next().unwrap();
    assert!(
        body.contains("nothing with;") && body.contains("nothing without;"),
        "{dom}"
    );
    assert!(!body.contains("read "), "{dom}");
}

/// Pictures for people, of both widths and both colours; that nothing is wider than the window is checked.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_fits_a_telephone_and_a_wide_screen() {
    const MEASURE: &str = r#"
document.getElementById("token").value = TOKEN;
document.getElementById("login").requestSubmit();
setTimeout(() => {
  const root = document.documentElement;
  top.document.body.dataset.measured = JSON.stringify({
    window: innerWidth, page: root.scrollWidth, shown: !document.getElementById("shown").hidden,
    back: getComputedStyle(document.body).backgroundColor,
  });
}, 4000);
"#;
    let folder = tempfile::tempdir().unwrap();
    let token = everything(folder.path());
    let file = configurations(folder.path(), &[("1", json!({}))]);
    let owner = [("SECRETS_OWNER", "prod".to_owned())];
    let gateway = Program::start_with(folder.path(), &["--configurations-file", &file], &owner);
    let shell = Shell {
        gateway: gateway.base.clone(),
        token,
        driver: MEASURE,
    };
    let url = serve(shell).await;
    let pictures = std::env::var_os("PAGE_PICTURES");
    let mut backs = std::collections::BTreeSet::new();
    for (path, dark) in [("/narrow", false), ("/", false), ("/", true)] {
        let url = format!("{url}{path}");
        let mut flags = vec!["--window-size=1600,1400".to_owned()];
        if dark {
            flags.push("--blink-settings=preferredColorScheme=0".to_owned());
        }
        if let Some(folder) = &pictures {
            let file = Path::new(folder).join(format!("page{}-{dark}.png", path.replace('/', "-")));
            let mut flags = flags.clone();
            flags.push(format!("--screenshot={}", file.display()));
            browse(Path::new(folder), flags, url.clone()).await;
        }
        let Some(dom) = dom(folder.path(), flags, url).await else {
            return;
        };
        let start = dom
            .find("data-measured=\"")
            .unwrap_or_else(|| panic!("{dom}"))
            + 15;
        let text = dom[start..]
            .split('"')
            .next()
            .unwrap()
            .replace("&quot;", "\"");
        let measured: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(measured["shown"], true, "{measured}");
        let width = measured["window"].as_u64().unwrap();
        assert_eq!(width, if path == "/" { 1600 } else { 360 });
        assert!(
            measured["page"].as_u64() <= measured["window"].as_u64(),
            "{measured}"
        );
        backs.insert(measured["back"].to_string());
    }
    assert_eq!(backs.len(), 2, "light and dark: {backs:?}");
}
