//! What the client of every store offers a server, byte for byte: nothing that FIPS does not
//! approve. The SDKs build these clients, so no configuration of ours could be asked instead.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::crypto::aws_lc_rs as provider;
use rustls::server::Acceptor;
use rustls::{CipherSuite, ClientConfig, ClientConnection, NamedGroup, RootCertStore};
use secret_persistence::{
    Coordinate, Environment, FipsModule, SecretPersistenceExt as _, Settings, connect,
};
use serde_json::json;

/// A certificate that signs nothing: every connection ends before one is asked for.
const AUTHORITY: &str = "\
-----BEGIN CERTIFICATE-----
MIIBfzCCASWgAwIBAgIUeVTqnrxjNSeFrvaQptV+Ff/dh50wCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyOTEzNDgxNFoYDzIxMjYxMTA1
MTM0ODE0WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAASP2HC48FUfTvzAe5WGXmyYDQ7ESNOyrPV8YcEihBDa9oR6hMkdxL2N
AjlpV7xhEuwaoyg1aHX5cuEKzBPoabCqo1MwUTAdBgNVHQ4EFgQUyEFhjIxskFNC
ff0jrphFP0OiGkQwHwYDVR0jBBgwFoAUyEFhjIxskFNCff0jrphFP0OiGkQwDwYD
VR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiEA1izgB6KHyt99FCA9JzLC
8li1ieeaXwcrEq2JV1KGE3kCIDIDRCnJFJ1Od5XxLjYQuGljOaTNVJP3JZQyFicG
vLqp
-----END CERTIFICATE-----
";

#[derive(Debug)]
struct Offer {
    suites: Vec<CipherSuite>,
    groups: Vec<NamedGroup>,
}

impl Offer {
    fn is_approved(&self) -> bool {
        let suites = self.suites.iter().all(|suite| {
            // The second is a signal, and no suite.
            suite.as_str().is_some_and(|name| name.contains("_AES_"))
                || *suite == CipherSuite::TLS_EMPTY_RENEGOTIATION_INFO_SCSV
        });
        // Of a hybrid group, one half is approved.
        let approved = [
            NamedGroup::secp256r1,
            NamedGroup::secp384r1,
            NamedGroup::secp521r1,
            NamedGroup::secp256r1MLKEM768,
            NamedGroup::X25519MLKEM768,
        ];
        let groups = self.groups.iter().all(|group| approved.contains(group));
        suites && groups && !self.suites.is_empty() && !self.groups.is_empty()
    }
}

/// A server that reads the first message of every connection, and closes it.
struct Server {
    port: u16,
    offers: Arc<Mutex<Vec<Offer>>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("localhost:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let offers = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&offers);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if let Ok(offer) = stream.and_then(read) {
                    seen.lock().unwrap().push(offer);
                }
            }
        });
        Self { port, offers }
    }

    fn take(&self) -> Vec<Offer> {
        std::mem::take(&mut *self.offers.lock().unwrap())
    }
}

fn read(mut stream: TcpStream) -> io::Result<Offer> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut first = [0];
    stream.peek(&mut first)?;
    // Postgres asks first whether there is TLS.
    if first != [0x16] {
        stream.read_exact(&mut [0; 8])?;
        stream.write_all(b"S")?;
    }
    let mut acceptor = Acceptor::default();
    loop {
        acceptor.read_tls(&mut stream)?;
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                return Ok(Offer {
                    suites: hello.cipher_suites().to_vec(),
                    groups: hello.named_groups().unwrap_or_default().to_vec(),
                });
            }
            Err((error, _)) => return Err(io::Error::other(error)),
        }
    }
}

#[tokio::test]
async fn every_store_offers_what_fips_approves() {
    FipsModule::require().unwrap();
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("authority.pem");
    std::fs::write(&authority, AUTHORITY).unwrap();
    let here = format!("https://localhost:{}", server.port);
    let place = format!("localhost:{}", server.port);
    let (authority, quick) = (authority.display(), "retry=false");
    let azure = format!("azure://{place}?authority-host={here}&verify-challenge=false&{quick}");
    let environment = Environment::from_iter([
        ("AWS_SECRET_MANAGER_ACCESS_KEY_ID", "AKIAEXAMPLE"),
        ("AWS_SECRET_MANAGER_SECRET_ACCESS_KEY", "example"),
        (
            "AB_AZURE_KEY_VAULT_TENANT_ID",
            "00000000-0000-0000-0000-000000000001",
        ),
        (
            "AB_AZURE_KEY_VAULT_CLIENT_ID",
            "00000000-0000-0000-0000-000000000002",
        ),
        ("AB_AZURE_KEY_VAULT_CLIENT_SECRET", "example"),
        ("SECRET_STORE_GCP_CREDENTIALS", &service_account()),
        ("VAULT_AUTH_TOKEN", "example"),
        ("DATABASE_USER", "example"),
        ("DATABASE_PASSWORD", "example"),
    ]);
    for url in [
        format!("aws://us-east-1?endpoint-url={here}&{quick}"),
        format!("{azure}&ca-file={authority}"),
        azure,
        format!("gcp://example?endpoint-url={here}&{quick}"),
        format!("vault://{place}/secret/?ca-file={authority}&{quick}"),
        format!("vault://{place}/secret/?{quick}"),
        format!("postgres://{place}/example?mode=plain&sslmode=verify-full&{quick}"),
    ] {
        let settings = Settings::from_url(&url, &environment).unwrap();
        let reading = async {
            // Some stores connect now, some at the first call. Both fail: nobody answers.
            let store = connect(settings).await?;
            store.read(&"example".parse::<Coordinate>()?).await
        };
        let read = tokio::time::timeout(Duration::from_secs(120), reading).await;
        assert!(!matches!(read, Ok(Ok(_))), "{url}");
        let offers = server.take();
        assert!(!offers.is_empty(), "{url} did not connect: {read:?}");
        for offer in &offers {
            assert!(offer.is_approved(), "{url}: {offer:?}");
        }
    }
}

/// The server tells a client that offers more.
#[test]
fn an_offer_of_more_is_seen() {
    let server = Server::start();
    for (group, approved) in [
        (provider::kx_group::X25519, false),
        (provider::kx_group::SECP256R1, true),
    ] {
        let mut more = provider::default_provider();
        more.kx_groups = vec![group];
        let config = ClientConfig::builder_with_provider(Arc::new(more))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        assert_eq!(config.fips(), approved);
        let name = "localhost".try_into().unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = TcpStream::connect(("localhost", server.port)).unwrap();
        connection.write_tls(&mut stream).unwrap();
        // The server closes it after it has noted the offer.
        let _ = stream.read(&mut [0]);
        let offers = loop {
            let offers = server.take();
            if !offers.is_empty() {
                break offers;
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        assert!(
            offers.iter().all(|offer| offer.is_approved() == approved),
            "{offers:?}"
        );
    }
}

/// The credentials of a service account that exists nowhere. Its key signs a token, in the module.
fn service_account() -> String {
    let key = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let key: Pkcs8V1Der<'_> = key.as_der().unwrap();
    let lines = STANDARD.encode(key.as_ref());
    json!({
        "type": "service_account",
        "project_id": "example",
        "private_key_id": "example",
        "private_key": format!("-----BEGIN PRIVATE KEY-----\n{lines}\n-----END PRIVATE KEY-----\n"),
        "client_email": "example@example.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": "https://oauth2.googleapis.com/token",
    })
    .to_string()
}
