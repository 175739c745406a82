//! A server that answers as no server should, for tests that whatever it sends ends in a typed error, in bounded time and
//! memory.

use std::{
    fmt::Write as _,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::Authority;

/// What a server does instead of answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misbehaviour {
    /// A few bytes on the wire, and no end of them once they are decompressed.
    Bomb,
    /// The connection ends in the middle of the body.
    CutShort,
    /// Every time in a body is this text instead.
    Dates(&'static str),
    /// More arrays in each other than a stack has room for.
    Deep,
    /// A body without end.
    EndlessBody,
    /// Headers without end.
    EndlessHeaders,
    /// Bytes that are no text.
    Garbage,
    /// A page for people, with status 200.
    Html,
    /// Interim answers without end.
    Interim,
    /// A length that no body has.
    Length(&'static str),
    /// `null` for an answer.
    Null,
    /// Every number in a body, and every text of digits, is this text instead.
    Numbers(&'static str),
    /// A redirect to the same place.
    Redirect,
    /// The connection is reset.
    Reset,
    /// This status, with this `Retry-After`.
    RetryAfter(u16, &'static str),
    /// No answer at all.
    Silent,
    /// A byte now and then.
    Slow,
    /// Texts where objects belong, and objects where texts do.
    Swapped,
}

impl Misbehaviour {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Bomb,
        Self::CutShort,
        Self::Dates("+292277026596-12-04T15:30:07Z"),
        Self::Dates("-9999-01-01T00:00:00Z"),
        Self::Deep,
        Self::EndlessBody,
        Self::EndlessHeaders,
        Self::Garbage,
        Self::Html,
        Self::Interim,
        Self::Length("18446744073709551615"),
        Self::Length("-1"),
        Self::Null,
        Self::Numbers("-1"),
        Self::Numbers("0"),
        Self::Numbers("18446744073709551615"),
        Self::Numbers("-9223372036854775808"),
        Self::Numbers("99999999999999999999999999"),
        Self::Numbers("1e400"),
        Self::Redirect,
        Self::Reset,
        Self::RetryAfter(429, "18446744073709551615"),
        Self::RetryAfter(503, "99999999999999999999"),
        Self::RetryAfter(503, "-1"),
        Self::RetryAfter(403, "Fri, 31 Dec 9999 23:59:59 GMT"),
        Self::Silent,
        Self::Slow,
        Self::Swapped,
    ];
}

/// What was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// The path, and the query where there is one.
    pub path: String,
    /// The head of the request, as it came.
    pub head: String,
    /// The body.
    pub body: String,
}

/// What a good server would answer.
#[derive(Clone, Debug)]
pub struct Honest {
    status: u16,
    header: Option<String>,
    body: Value,
    kept: bool,
}

impl Honest {
    /// A status and JSON.
    pub fn json(status: u16, body: Value) -> Self {
        Self {
            status,
            header: None,
            body,
            kept: false,
        }
    }

    /// With this header.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.header = Some(format!("{name}: {value}\r\n"));
        self
    }

    /// Sent as it is: the server is honest in this.
    #[must_use]
    pub fn kept(mut self) -> Self {
        self.kept = true;
        self
    }
}

/// A hostile server on a free port of loopback.
#[derive(Debug)]
pub struct Hostile {
    url: String,
    largest: Arc<AtomicU64>,
    asked: Arc<AtomicU64>,
}

impl Hostile {
    /// What a connection carries that has no end of its own: a client without a limit shows itself, and survives.
    const ENDLESS_BYTES: u64 = 128 << 20;

    /// What lies between a server and a client: a client that stops reading has been sent more than it has read.
    const BUFFERED_BYTES: u64 = 16 << 20;

    /// Starts a server that speaks plain HTTP, and spoils what `honest` answers.
    ///
    /// # Errors
    ///
    /// If no port is free.
    pub async fn start(
        misbehaviour: Misbehaviour,
        honest: impl Fn(&Asked) -> Honest + Send + Sync + 'static,
    ) -> io::Result<Self> {
        Self::serve(Some(misbehaviour), None, honest).await
    }

    /// Starts a server with a certificate of this authority.
    ///
    /// # Errors
    ///
    /// If no port is free.
    pub async fn start_with_tls(
        misbehaviour: Misbehaviour,
        authority: &Authority,
        honest: impl Fn(&Asked) -> Honest + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let certificate = authority.issue(&["localhost", "127.0.0.1"])?;
        Self::serve(Some(misbehaviour), Some(certificate.acceptor()?), honest).await
    }

    /// Starts a server whose hostility is in what it answers.
    ///
    /// # Errors
    ///
    /// If no port is free.
    pub async fn saying(
        authority: Option<&Authority>,
        answer: impl Fn(&Asked) -> Honest + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let certificate = authority
            .map(|authority| authority.issue(&["localhost", "127.0.0.1"]))
            .transpose()?;
        let acceptor = certificate
            .map(|certificate| certificate.acceptor())
            .transpose()?;
        Self::serve(None, acceptor, answer).await
    }

    async fn serve(
        misbehaviour: Option<Misbehaviour>,
        acceptor: Option<TlsAcceptor>,
        honest: impl Fn(&Asked) -> Honest + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        let started = Self {
            url: format!("{scheme}://{}", listener.local_addr()?),
            largest: Arc::default(),
            asked: Arc::default(),
        };
        let (largest, asked) = (Arc::clone(&started.largest), Arc::clone(&started.asked));
        let honest = Arc::new(honest);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, honest) = (acceptor.clone(), Arc::clone(&honest));
                let (largest, asked) = (Arc::clone(&largest), Arc::clone(&asked));
                tokio::spawn(async move {
                    // A client that has gone away is as it should be.
                    let answered = async {
                        let stream = match acceptor {
                            Some(acceptor) => Stream::Tls(Box::new(acceptor.accept(stream).await?)),
                            None => Stream::Plain(stream),
                        };
                        let mut connection = Connection {
                            stream,
                            sent: 0,
                            largest,
                        };
                        let request = read(&mut connection.stream).await?;
                        asked.fetch_add(1, Ordering::Relaxed);
                        let Honest {
                            status,
                            header,
                            body,
                            kept,
                        } = honest(&request);
                        match misbehaviour {
                            Some(misbehaviour) if !kept => {
                                connection
                                    .misbehave(misbehaviour, &request, status, &body)
                                    .await?;
                            }
                            _ => {
                                let header = header.as_deref().unwrap_or_default();
                                connection.answer(status, header, &body.to_string()).await?;
                            }
                        }
                        connection.stream.shutdown().await
                    };
                    let _ = answered.await;
                });
            }
        });
        Ok(started)
    }

    /// The address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How many requests there were.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Asserts that the client never read more than this of one answer.
    ///
    /// # Panics
    ///
    /// If it did.
    pub fn assert_bounded(&self, bytes: u64) {
        let largest = self.largest.load(Ordering::Relaxed);
        assert!(
            largest <= bytes + Self::BUFFERED_BYTES,
            "the client took {largest} bytes of one answer"
        );
    }
}

/// A connection, with TLS or without.
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer).await,
            Self::Tls(stream) => stream.read(buffer).await,
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes).await,
            Self::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.shutdown().await,
            Self::Tls(stream) => stream.shutdown().await,
        }
    }

    /// Lets the connection end with a reset.
    fn reset(&self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.set_zero_linger(),
            Self::Tls(stream) => stream.get_ref().0.set_zero_linger(),
        }
    }
}

async fn read(stream: &mut Stream) -> io::Result<Asked> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>().ok())?
        });
        if body.len() < length.unwrap_or(0) {
            continue;
        }
        let mut first = head.split_whitespace().map(str::to_owned);
        return Ok(Asked {
            method: first.next().unwrap_or_default(),
            path: first.next().unwrap_or_default(),
            head: head.to_owned(),
            body: body.to_owned(),
        });
    }
}

/// A connection that counts what it sends.
struct Connection {
    stream: Stream,
    sent: u64,
    largest: Arc<AtomicU64>,
}

impl Connection {
    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write(bytes).await?;
        self.sent += bytes.len() as u64;
        self.largest.fetch_max(self.sent, Ordering::Relaxed);
        Ok(())
    }

    async fn answer(&mut self, status: u16, headers: &str, body: &str) -> io::Result<()> {
        let length = body.len();
        self.send(head(status, &format!("{headers}Content-Length: {length}\r\n")).as_bytes())
            .await?;
        self.send(body.as_bytes()).await
    }

    /// Sends the same bytes until the client has had enough.
    async fn without_end(&mut self, bytes: &[u8]) -> io::Result<()> {
        while self.sent < Hostile::ENDLESS_BYTES {
            self.send(bytes).await?;
        }
        Ok(())
    }

    async fn misbehave(
        &mut self,
        misbehaviour: Misbehaviour,
        request: &Asked,
        status: u16,
        body: &Value,
    ) -> io::Result<()> {
        let honest = body.to_string();
        match misbehaviour {
            Misbehaviour::Bomb => {
                self.send(head(200, "Content-Encoding: gzip\r\n").as_bytes())
                    .await?;
                let (start, cycle) = zeros();
                self.send(&start).await?;
                self.without_end(&cycle.repeat(1000)).await
            }
            Misbehaviour::CutShort => {
                let length = honest.len() + 10;
                self.send(head(status, &format!("Content-Length: {length}\r\n")).as_bytes())
                    .await?;
                self.send(&honest.as_bytes()[..honest.len() / 2]).await
            }
            Misbehaviour::Dates(text) => {
                let spoilt = spoil(body, &|value| {
                    let date = value.as_str().is_some_and(|text| {
                        text.len() >= 20 && text.ends_with('Z') && text.contains('T')
                    });
                    date.then(|| format!("\"{text}\""))
                });
                self.answer(status, "", &spoilt).await
            }
            Misbehaviour::Deep => self.answer(status, "", &"[".repeat(1 << 20)).await,
            Misbehaviour::EndlessBody => {
                self.send(head(status, "").as_bytes()).await?;
                self.send(b"{\"data\":\"").await?;
                self.without_end(&[b'a'; 65_536]).await
            }
            Misbehaviour::EndlessHeaders => {
                self.send(b"HTTP/1.1 200 OK\r\n").await?;
                self.without_end(&b"X-More: of the same\r\n".repeat(1000))
                    .await
            }
            Misbehaviour::Garbage => {
                self.send(head(status, "Content-Length: 4\r\n").as_bytes())
                    .await?;
                self.send(&[0xff, 0xfe, 0, 0x80]).await
            }
            Misbehaviour::Html => {
                let headers = "Content-Type: text/html\r\n";
                self.answer(200, headers, "<html><body>Welcome!</body></html>")
                    .await
            }
            Misbehaviour::Interim => {
                // A client keeps nothing of them, so they do not count: it gives up when its time is over.
                let hints = b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1000);
                loop {
                    self.stream.write(&hints).await?;
                }
            }
            Misbehaviour::Length(length) => {
                self.send(head(status, &format!("Content-Length: {length}\r\n")).as_bytes())
                    .await?;
                self.send(honest.as_bytes()).await
            }
            Misbehaviour::Null => self.answer(status, "", "null").await,
            Misbehaviour::Numbers(number) => {
                let spoilt = spoil(body, &|value| match value {
                    Value::Number(_) => Some(number.to_owned()),
                    Value::String(text)
                        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) =>
                    {
                        Some(format!("\"{number}\""))
                    }
                    _ => None,
                });
                self.answer(status, "", &spoilt).await
            }
            Misbehaviour::Redirect => {
                let location = format!("Location: {}\r\n", request.path);
                self.answer(307, &location, "").await
            }
            Misbehaviour::Reset => self.stream.reset(),
            Misbehaviour::RetryAfter(status, wait) => {
                let headers = format!("Retry-After: {wait}\r\n");
                self.answer(status, &headers, "{\"errors\":[]}").await
            }
            Misbehaviour::Silent => {
                sleep(Duration::from_secs(600)).await;
                Ok(())
            }
            Misbehaviour::Slow => {
                self.send(
                    head(status, &format!("Content-Length: {}\r\n", honest.len())).as_bytes(),
                )
                .await?;
                for byte in honest.into_bytes() {
                    self.send(&[byte]).await?;
                    sleep(Duration::from_millis(700)).await;
                }
                Ok(())
            }
            Misbehaviour::Swapped => {
                let spoilt = spoil(body, &|value| match value {
                    Value::String(_) => Some("{\"a\":[]}".to_owned()),
                    Value::Array(_) => Some("\"text\"".to_owned()),
                    _ => None,
                });
                self.answer(status, "", &spoilt).await
            }
        }
    }
}

fn head(status: u16, headers: &str) -> String {
    format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nConnection: close\r\n{headers}\r\n"
    )
}

/// The JSON, with other text where `replaced` says so.
fn spoil(value: &Value, replaced: &dyn Fn(&Value) -> Option<String>) -> String {
    if let Some(text) = replaced(value) {
        return text;
    }
    match value {
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| spoil(item, replaced)).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(members) => {
            let mut text = String::from("{");
            for (name, member) in members {
                let comma = if text.len() > 1 { "," } else { "" };
                // Writing to a String cannot fail.
                let _ = write!(
                    text,
                    "{comma}{}:{}",
                    Value::from(name.as_str()),
                    spoil(member, replaced)
                );
            }
            text + "}"
        }
        scalar => scalar.to_string(),
    }
}

/// The beginning of a gzip stream of zeros, and 13 bytes that are 2,064 more of them, as often as one likes.
///
/// RFC 1951, 3.2.6: a block with the fixed codes, a literal zero, then matches of length 258 at distance 1, which are 13
/// bits each.
fn zeros() -> (Vec<u8>, Vec<u8>) {
    const MATCH: [u8; 13] = [1, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0];
    let pack = |bits: &[u8]| -> Vec<u8> {
        bits.chunks(8)
            .map(|byte| (0..).zip(byte).map(|(place, bit)| bit << place).sum())
            .collect()
    };
    let mut start = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let block = [0, 1, 0];
    let zero = [0, 0, 1, 1, 0, 0, 0, 0];
    start.extend(pack(&[&block[..], &zero, &MATCH].concat()));
    (start, pack(&MATCH.repeat(8)))
}
