//! A hostile Postgres: whatever it sends, opening the store ends with a typed error, in bounded time.

use std::time::Duration;

use futures::future::join_all;
use secret_persistence_core::{Error, ErrorKind};
use secret_persistence_db::{Config, Database};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout},
};

/// Longer than the deadline of a connection, which the tests set to two seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a server sends without a pause: for longer than the deadline, and not for the rest of the tests.
const FLOOD: Duration = Duration::from_secs(15);

/// In messages of the server; no error may show it.
const CANARY: &str = "canary-of-the-server";

/// What a server does once a client is there.
#[derive(Clone, Debug)]
enum Misbehaviour {
    /// The connection is reset.
    Reset,
    /// These bytes, and then the end.
    Sends(Vec<u8>),
    /// The same bytes without a pause, for [`FLOOD`].
    Floods(Vec<u8>),
    /// No answer at all.
    Silent,
    /// A byte now and then.
    Slow(Vec<u8>),
}

use Misbehaviour::{Floods, Reset, Sends, Silent, Slow};

/// The type of a message, the length that it claims, and what follows.
fn message(kind: u8, length: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(length.to_be_bytes());
    bytes.extend(body);
    bytes
}

/// A message that is what it claims.
fn whole(kind: u8, body: &[u8]) -> Vec<u8> {
    message(kind, u32::try_from(body.len()).unwrap() + 4, body)
}

/// What a server says that lets everybody in.
fn welcome() -> Vec<u8> {
    [whole(b'R', &[0; 4]), whole(b'Z', b"I")].concat()
}

async fn misbehave(stream: &mut TcpStream, misbehaviour: &Misbehaviour) -> std::io::Result<()> {
    match misbehaviour {
        Reset => stream.set_zero_linger()?,
        Sends(bytes) => stream.write_all(bytes).await?,
        Floods(bytes) => {
            // More than the client reads at once, so that it never has to wait.
            let bytes = bytes.repeat(4096);
            let end = Instant::now() + FLOOD;
            while Instant::now() < end {
                stream.write_all(&bytes).await?;
            }
        }
        Silent => sleep(PATIENCE).await,
        Slow(bytes) => {
            for byte in bytes.iter().cycle() {
                stream.write_all(&[*byte]).await?;
                sleep(Duration::from_millis(300)).await;
            }
        }
    }
    Ok(())
}

/// Opens a store on a server that misbehaves at once, or after it has let the client in.
async fn open(misbehaviour: Misbehaviour, lets_in: bool) -> Result<Database, Error> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let misbehaviour = misbehaviour.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 8192];
                let _any = stream.read(&mut buffer).await?;
                if lets_in {
                    stream.write_all(&welcome()).await?;
                    let _any = stream.read(&mut buffer).await?;
                }
                misbehave(&mut stream, &misbehaviour).await
            });
        }
    });
    let url = format!("postgres://127.0.0.1:{port}/db?user=u&mode=plain&connect-timeout=2");
    let url = secret_persistence_core::settings::StoreUrl::parse(&url).unwrap();
    let settings = secret_persistence_db::SETTINGS
        .from_url(&url, &|_: &str| None)
        .unwrap();
    Database::connect(Config::from_settings(&settings)?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_postgres_is_endured() {
    let text = |kind: u8, message: &str| {
        whole(
            kind,
            format!("SERROR\0C{message}\0M{CANARY}\0\0").as_bytes(),
        )
    };
    let misbehaviours = [
        Reset,
        Silent,
        Slow(welcome()),
        Sends(Vec::new()),
        Sends(vec![0xff; 64]),
        Sends(b"HTTP/1.1 400 Bad Request\r\n\r\nWelcome!".to_vec()),
        // Lengths that no message has, and some that are shorter than what they announce.
        Sends(message(b'R', 0, &[])),
        Sends(message(b'R', 3, &[0; 8])),
        Sends(message(b'R', 4, &[])),
        Sends(message(b'R', 0x4000_0000, &[0; 1024])),
        Sends(message(b'Z', 4, &[])),
        Sends(message(b'K', 5, &[0])),
        // A row of columns that nobody described, and one whose column has no end.
        Sends(whole(b'D', &[0xff, 0xff])),
        Sends(whole(b'D', &[0, 1, 0x7f, 0xff, 0xff, 0xff])),
        Sends(whole(b'T', &[0xff, 0xff])),
        Sends(whole(b't', &[0xff, 0xff])),
        Sends(text(b'E', "XX000")),
        Sends(text(b'E', "not-a-code-at-all")),
        Floods(text(b'N', "00000")),
        Floods(whole(b'S', b"server_version\x00canary-of-the-server\0")),
        // A password is asked for in ways that nobody knows.
        Sends(whole(b'R', &[0xff; 4])),
        Sends(whole(b'R', &[0, 0, 0, 5])),
        Sends(whole(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0")),
    ];
    let opened = misbehaviours.iter().flat_map(|misbehaviour| {
        [false, true].map(|lets_in| {
            let opened = tokio::spawn(timeout(PATIENCE, open(misbehaviour.clone(), lets_in)));
            async move { (misbehaviour, lets_in, opened.await) }
        })
    });
    for (misbehaviour, lets_in, opened) in join_all(opened).await {
        let case = format!("{misbehaviour:?} after the welcome: {lets_in}");
        let opened = opened.unwrap_or_else(|panic| panic!("{case}: {panic}"));
        let Err(error) = opened.unwrap_or_else(|_| panic!("{case}: no end")) else {
            panic!("{case}: opened");
        };
        let kinds = [
            ErrorKind::InvalidConfig,
            ErrorKind::Unauthenticated,
            ErrorKind::Unavailable,
            ErrorKind::Unexpected,
        ];
        assert!(kinds.contains(&error.kind()), "{case}: {error}");
        let shown = format!("{error} {error:?}");
        assert!(
            !shown.contains(CANARY) && !shown.contains("Welcome"),
            "{case}: {shown}"
        );
    }
}
