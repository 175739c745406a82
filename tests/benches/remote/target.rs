//! A server, with or without a delay.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use e2e::{FaultProxy, proxy::aws_operation};

/// A server, or the delay in front of it.
pub(crate) struct Target {
    pub(crate) url: String,
    pub(crate) proxy: Option<FaultProxy>,
}

impl Target {
    pub(crate) fn new(server: &str, delay: Duration) -> Self {
        let proxy = (!delay.is_zero()).then(|| {
            let proxy = FaultProxy::builder(server).with_operations(aws_operation);
            proxy.with_delay(delay).start().unwrap()
        });
        let url = proxy
            .as_ref()
            .map_or_else(|| server.to_owned(), FaultProxy::url);
        Self { url, proxy }
    }

    /// The same for a server with TLS. The delay has a certificate from its own authority.
    pub(crate) fn with_tls(server: &str, ca_file: &Path, delay: Duration) -> Self {
        let proxy = FaultProxy::builder(server)
            .with_tls()
            .with_upstream_ca_file(ca_file)
            .with_delay(delay)
            .start()
            .unwrap();
        Self {
            // Not the address: certificates are for names.
            url: proxy.url().replace("127.0.0.1", "localhost"),
            proxy: Some(proxy),
        }
    }

    /// The authority to trust: the delay's if there is one, otherwise the server's.
    pub(crate) fn ca_file(&self, server: &Path) -> PathBuf {
        self.proxy
            .as_ref()
            .map_or(server, FaultProxy::ca_file)
            .to_owned()
    }

    pub(crate) fn reset(&self) {
        if let Some(proxy) = &self.proxy {
            proxy.reset();
        }
    }

    /// Requests, the maximum at once, and opened connections since the reset.
    pub(crate) fn counts(&self) -> [String; 3] {
        self.proxy.as_ref().map_or_else(Default::default, |proxy| {
            [
                proxy.total(),
                proxy.in_flight_maximum(),
                proxy.connections(),
            ]
            .map(|count| count.to_string())
        })
    }
}
