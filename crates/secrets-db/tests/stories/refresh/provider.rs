//! A provider that rotates refresh tokens, and ends the grant when one is used twice.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// A grant: one login of one person.
#[derive(Clone, Debug, Default)]
pub(crate) struct Grant {
    /// The refresh token that has not been used.
    pub(crate) current: String,
    access: String,
    /// How often the access token was accepted.
    accepted: u64,
    pub(crate) revoked: bool,
    /// Every refresh token that was used: by which process, and which one it got for it.
    pub(crate) used: HashMap<String, (u32, String)>,
    /// The token that was used twice, and so ended the grant.
    pub(crate) reused: Option<String>,
    /// Who got the token that has not been used.
    holder: Option<u32>,
    /// Who got a token that was used although the access token that came with it had not expired.
    pub(crate) needless: Vec<u32>,
    pub(crate) expiries: u64,
}

#[derive(Default)]
struct State {
    grants: HashMap<String, Grant>,
    tokens: u64,
}

/// Serves grants to other processes, a line for a line.
#[derive(Clone)]
pub(crate) struct Provider {
    state: Arc<Mutex<State>>,
    pub(crate) port: u16,
    /// An access token expires after it was accepted so often.
    uses: u64,
}

impl Provider {
    pub(crate) fn start(uses: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let provider = Self {
            state: Arc::default(),
            port: listener.local_addr().unwrap().port(),
            uses,
        };
        let serving = provider.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let provider = serving.clone();
                thread::spawn(move || provider.serve(&stream));
            }
        });
        provider
    }

    /// A new login: the refresh token and the access token.
    pub(crate) fn log_in(&self, grant: &str) -> (String, String) {
        let mut state = self.locked();
        let tokens = (state.token("refresh"), state.token("access"));
        let new = Grant {
            current: tokens.0.clone(),
            access: tokens.1.clone(),
            ..Grant::default()
        };
        state.grants.insert(grant.to_owned(), new);
        tokens
    }

    /// Ends the access token.
    pub(crate) fn expire(&self, grant: &str) {
        let mut state = self.locked();
        let grant = state.grants.get_mut(grant).unwrap();
        grant.access.clear();
        grant.expiries += 1;
    }

    pub(crate) fn grant(&self, grant: &str) -> Grant {
        self.locked().grants[grant].clone()
    }

    pub(crate) fn grants(&self) -> Vec<(String, Grant)> {
        let state = self.locked();
        let grants = state.grants.iter();
        grants
            .map(|(id, grant)| (id.clone(), grant.clone()))
            .collect()
    }

    fn serve(&self, stream: &TcpStream) {
        let mut writer = stream.try_clone().unwrap();
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let answer = self.answer(&line);
            // A process may be killed while it waits, or just after it got the answer.
            thread::sleep(Duration::from_millis(1));
            if writer.write_all(format!("{answer}\n").as_bytes()).is_err() {
                return;
            }
        }
    }

    fn answer(&self, line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        let mut state = self.locked();
        match words.as_slice() {
            ["grants"] => {
                let grants = state.grants.iter().filter(|(_, grant)| !grant.revoked);
                let ids: Vec<&str> = grants.map(|(id, _)| id.as_str()).collect();
                ids.join(" ")
            }
            ["check", id, access] => {
                let uses = self.uses;
                let Some(grant) = state.grants.get_mut(*id) else {
                    return "expired".to_owned();
                };
                if grant.access != *access {
                    return "expired".to_owned();
                }
                grant.accepted += 1;
                if grant.accepted % uses == 0 {
                    grant.access.clear();
                    grant.expiries += 1;
                }
                "valid".to_owned()
            }
            ["use", id, token, process] => {
                let tokens = (state.token("refresh"), state.token("access"));
                let grant = state.grants.get_mut(*id).unwrap();
                if grant.current != *token {
                    grant.revoked = true;
                    grant.reused.get_or_insert((*token).to_owned());
                }
                if grant.revoked {
                    return "revoked".to_owned();
                }
                if let (false, Some(holder)) = (grant.access.is_empty(), grant.holder) {
                    grant.needless.push(holder);
                }
                let process = process.parse().unwrap();
                grant.holder = Some(process);
                grant
                    .used
                    .insert((*token).to_owned(), (process, tokens.0.clone()));
                grant.current.clone_from(&tokens.0);
                grant.access.clone_from(&tokens.1);
                grant.accepted = 0;
                format!("{} {}", tokens.0, tokens.1)
            }
            _ => panic!("the provider does not know {line}"),
        }
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    fn token(&mut self, kind: &str) -> String {
        self.tokens += 1;
        format!("{kind}-{:06}", self.tokens)
    }
}

/// A connection to the provider, from any process.
pub(crate) fn ask(port: u16, line: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(format!("{line}\n").as_bytes()).unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    answer.trim().to_owned()
}

/// The grants whose token was used twice, each with the process that used it first and what that
/// process got.
pub(crate) fn lost(provider: &Provider, known: &HashSet<String>) -> Vec<(String, u32, String)> {
    let grants = provider.grants().into_iter();
    grants
        .filter(|(id, grant)| grant.revoked && !known.contains(id))
        .map(|(id, grant)| {
            let reused = grant.reused.expect("a revoked grant has a reused token");
            let (process, got) = grant.used[&reused].clone();
            (id, process, got)
        })
        .collect()
}
