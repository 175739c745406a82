//! Runs a proxy between a client and a server, to try slow or refused requests by hand.
//!
//! Prints its address, serves until Ctrl-C, and then prints how often each operation was called and
//! the maximum number of concurrent requests.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use clap::{Parser, ValueEnum};
use e2e::proxy::{Answer, Fault, FaultProxy, Rule, aws_operation, method_and_path};

/// A proxy that counts, delays and throttles requests.
#[derive(Parser)]
struct Options {
    /// The address of the server, such as http://127.0.0.1:4566
    #[arg(long)]
    upstream: String,
    /// The kind of server: determines the names of operations and the form of refusals
    #[arg(long, value_enum)]
    kind: Kind,
    /// The port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The delay of each request
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
    /// Throttle every n-th request
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    throttle_every: Option<u32>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Aws,
    Vault,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let options = Options::parse();
    let (operations, refusal): (fn(&_) -> String, _) = match options.kind {
        Kind::Aws => (aws_operation, Answer::aws_throttling()),
        Kind::Vault => (method_and_path, Answer::vault_throttling(1)),
    };
    let proxy = FaultProxy::builder(options.upstream)
        .with_operations(operations)
        .with_port(options.port)
        .with_delay(Duration::from_millis(options.delay_ms))
        .start()?;
    if let Some(n) = options.throttle_every {
        proxy.inject(Rule::new(Fault::Respond(refusal)).every(n as usize));
    }
    writeln!(io::stdout(), "{}", proxy.url())?;
    tokio::signal::ctrl_c().await?;

    let mut output = io::stdout().lock();
    for (operation, count) in proxy.counts() {
        writeln!(output, "{count:8} {operation}")?;
    }
    writeln!(output, "{:8} concurrent at most", proxy.in_flight_maximum())
}
