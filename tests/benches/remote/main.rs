//! The overhead of the remote stores over the necessary requests.
//!
//! `cargo bench -p e2e --bench remote` prints, for LocalStack and for Vault, directly and with a
//! delay of 20 ms for each request, the medians of interleaved repetitions: ours, the same with the
//! bare SDK or a bare HTTP client, and the ratio. It also prints the numbers of requests, which
//! `tests/e2e/round_trips.rs` asserts. For Google and Azure it prints the same for the stand-ins,
//! and how much longer many secrets take than one.
//!
//! Names of stores (`localstack`, `vault`, `google`, `azure`) after `--` select only those.

// A bench prints, and may panic on any failure.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod aws;
mod azure;
mod clouds;
mod configuration;
mod google;
mod measure;
mod rows;
mod target;
mod vault;

use std::{env, time::Duration};

use e2e::{LocalStack, VaultServer};

use crate::{aws::Sdk, measure::measure, target::Target, vault::Http};

const DELAY: Duration = Duration::from_millis(20);

fn main() {
    // Cargo passes `--bench`.
    let names: Vec<_> = env::args()
        .skip(1)
        .filter(|name| !name.starts_with('-'))
        .collect();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(async {
            if wanted("localstack") || wanted("vault") {
                measure::header();
            }
            if wanted("localstack")
                && let Some(server) = LocalStack::start_or_env().await
            {
                localstack(server).await;
            }
            if wanted("vault")
                && let Some(server) = VaultServer::start_or_env().await
            {
                vault(server).await;
            }
            if wanted("google") || wanted("azure") {
                clouds::header();
            }
            if wanted("google") {
                google::measure(DELAY).await;
            }
            if wanted("azure") {
                azure::measure(DELAY).await;
            }
        });
}

async fn localstack(server: &LocalStack) {
    for delay in [Duration::ZERO, DELAY] {
        let target = || Target::new(server.url(), delay);
        let (ours, bare) = (target(), target());
        let at = |target: &Target| Sdk::new(&target.url);
        let names = measure("LocalStack", delay, &ours, &at(&ours), &at(&bare)).await;
        Sdk::new(server.url()).remove(&names).await;
    }
}

async fn vault(server: &VaultServer) {
    for delay in [Duration::ZERO, DELAY] {
        let mount = server.mount_kv(2).await;
        let target = || Target::new(server.address(), delay);
        let (ours, bare) = (target(), target());
        let at = |target: &Target| Http::new(&target.url, server.root_token(), &mount);
        measure("Vault", delay, &ours, &at(&ours), &at(&bare)).await;
        let path = format!("sys/mounts/{mount}");
        server
            .request("DELETE", &path, None)
            .await
            .expect("unmount");
    }
}
