//! What the remote stores add to the requests that have to be made anyway.
//!
//! `cargo bench -p e2e --bench remote` prints, for LocalStack and for Vault, directly and with 20 ms before each
//! request, the medians of interleaved repetitions: ours, the same with the bare SDK or a bare HTTP client, and the
//! ratio. `tests/e2e/round_trips.rs` asserts the numbers of requests, which are printed too.

// A bench prints, and may stop at whatever goes wrong.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod aws;
mod configuration;
mod measure;
mod rows;
mod target;
mod vault;

use std::time::Duration;

use e2e::{LocalStack, VaultServer};

use crate::{aws::Sdk, measure::measure, target::Target, vault::Http};

const DELAY: Duration = Duration::from_millis(20);

fn main() {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(async {
            println!("store      delay  what                       ours ms   bare ms  ratio target requests in flight connections");
            if let Some(server) = LocalStack::start_or_env().await {
                for delay in [Duration::ZERO, DELAY] {
                    let target = |server: &str| Target::new(server, delay);
                    let (ours, bare) = (target(server.url()), target(server.url()));
                    let names = measure("LocalStack", delay, &ours, &Sdk::new(&ours.url), &Sdk::new(&bare.url)).await;
                    Sdk::new(server.url()).remove(&names).await;
                }
            }
            if let Some(server) = VaultServer::start_or_env().await {
                for delay in [Duration::ZERO, DELAY] {
                    let mount = server.mount_kv(2).await;
                    let target = || Target::new(server.address(), delay);
                    let (ours, bare) = (target(), target());
                    let at = |target: &Target| Http::new(&target.url, server.root_token(), &mount);
                    measure("Vault", delay, &ours, &at(&ours), &at(&bare)).await;
                    let path = format!("sys/mounts/{mount}");
                    server.request("DELETE", &path, None).await.expect("unmount");
                }
            }
        });
}
