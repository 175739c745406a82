//! The registry of stores: which URL is opened by whom. Backends are registered by explicit calls, each
//! behind its feature.

#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "azure")]
mod azure;
mod database;
#[cfg(feature = "gcp")]
mod gcp;
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp", feature = "vault"))]
mod remote;
mod settings;
#[cfg(feature = "vault")]
mod vault;

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use futures::future::BoxFuture;
use secret_persistence_core::settings::StoreUrl;
use secret_persistence_core::{Owner, SecretPersistence};

use crate::address;
use crate::cli::Place;
use crate::environment::{Environment, Role};
use crate::status::{Failure, Result};

pub(crate) use database::config as database_config;

/// Asks for an environment variable, prefixes already taken care of.
pub(crate) type Lookup<'a> = &'a (dyn Fn(&str) -> Option<String> + Send + Sync);

/// What opens a URL. Where the operator has not said how many requests a second are made at most, it keeps to
/// what the provider documents.
pub(crate) type Open = for<'a> fn(
    &'a str,
    Lookup<'a>,
    Option<NonZeroU32>,
) -> BoxFuture<'a, Result<Arc<dyn SecretPersistence>>>;

/// Schemes, and the feature that builds their backend.
const FEATURES: &[(&str, &str)] = &[
    ("aws", "aws"),
    ("azure", "azure"),
    ("gcp", "gcp"),
    ("postgres", "postgres"),
    ("postgresql", "postgres"),
    ("sqlite", ""),
    ("vault", "vault"),
];

/// The backends that are built in.
#[derive(Debug)]
pub(crate) struct Registry {
    backends: Vec<Backend>,
    rate: Option<NonZeroU32>,
}

struct Backend {
    scheme: &'static str,
    open: Open,
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.scheme)
    }
}

impl Registry {
    /// Every backend that this binary was built with.
    pub(crate) fn built_in() -> Self {
        let mut registry = Self {
            backends: Vec::new(),
            rate: None,
        };
        registry.register(&["sqlite"], database::open);
        #[cfg(feature = "postgres")]
        registry.register(&["postgres", "postgresql"], database::open);
        #[cfg(feature = "aws")]
        registry.register(&["aws"], aws::open);
        #[cfg(feature = "azure")]
        registry.register(&["azure"], azure::open);
        #[cfg(feature = "gcp")]
        registry.register(&["gcp"], gcp::open);
        #[cfg(feature = "vault")]
        registry.register(&["vault"], vault::open);
        registry
    }

    /// The same, for stores that are asked so many times a second at most, and whose documented quotas do not
    /// matter then: somebody may have had them raised.
    pub(crate) fn with_rate(mut self, rate: Option<NonZeroU32>) -> Self {
        self.rate = rate;
        self
    }

    /// Adds a backend.
    fn register(&mut self, schemes: &[&'static str], open: Open) {
        self.backends
            .extend(schemes.iter().map(|&scheme| Backend { scheme, open }));
    }

    /// Opens the store of an option.
    ///
    /// # Errors
    /// For a scheme that nobody knows, or whose backend is not built in, and whatever keeps the
    /// backend from opening.
    pub(crate) async fn open(
        &self,
        text: &str,
        role: Role,
        environment: &Environment,
    ) -> Result<Store> {
        let url = address::parse(text, role)?;
        let place = |failure: Failure| failure.at(format!("{} {url}", role.option()));
        let backend = self.backend(&url).map_err(place)?;
        let variable = |name: &str| environment.of(role, name).map(str::to_owned);
        let store = (backend.open)(text, &variable, self.rate)
            .await
            .map_err(place)?;
        Ok(Store {
            store,
            owner: environment.owner(role)?,
            role,
        })
    }

    /// Opens the store of an option that may name a file of settings instead.
    ///
    /// # Errors
    /// As [`open`](Self::open), and for settings that cannot be used.
    pub(crate) async fn open_place(
        &self,
        place: Place<'_>,
        role: Role,
        environment: &Environment,
    ) -> Result<Store> {
        let (file, secrets) = match place {
            Place::Settings { file, secrets } => (file, secrets),
            Place::Url(text) => return self.open(text, role, environment).await,
        };
        let place =
            |failure: Failure| failure.at(format!("{}-settings {}", role.option(), file.display()));
        let settings = settings::read(file, secrets, role, environment).map_err(place)?;
        // What the file says, else the environment, as everywhere.
        let owner = settings.owner().map_err(|error| place(error.into()))?;
        let store = settings::open(settings, owner.as_ref(), self.rate)
            .await
            .map_err(place)?;
        Ok(Store { store, owner, role })
    }

    /// Refuses a place that nobody can open, before anything else is opened.
    ///
    /// # Errors
    /// As [`open_place`](Self::open_place), as far as can be told without a request.
    pub(crate) fn knows_place(
        &self,
        place: Place<'_>,
        role: Role,
        environment: &Environment,
    ) -> Result<()> {
        match place {
            Place::Settings { file, secrets } => {
                let place = |failure: Failure| {
                    failure.at(format!("{}-settings {}", role.option(), file.display()))
                };
                let settings = settings::read(file, secrets, role, environment).map_err(place)?;
                settings.check().map_err(|error| place(error.into()))
            }
            Place::Url(text) => self.knows(text, role),
        }
    }

    /// Refuses a URL whose scheme nobody opens, before anything else is opened.
    ///
    /// # Errors
    /// As [`open`](Self::open), as far as the URL tells.
    pub(crate) fn knows(&self, text: &str, role: Role) -> Result<()> {
        let url = address::parse(text, role)?;
        self.backend(&url)
            .map(drop)
            .map_err(|failure| failure.at(format!("{} {url}", role.option())))
    }

    fn backend(&self, url: &StoreUrl) -> Result<&Backend> {
        let scheme = url.scheme();
        if let Some(backend) = self
            .backends
            .iter()
            .find(|backend| backend.scheme == scheme)
        {
            return Ok(backend);
        }
        let built_in: Vec<&str> = self.backends.iter().map(|backend| backend.scheme).collect();
        match FEATURES.iter().find(|(known, _)| *known == scheme) {
            Some((_, feature)) => Err(Failure::input(format!(
                "the {scheme} backend is not built in; add `--features {feature}` to the cargo command \
                 (cargo run -p migrate --features {feature} -- …)"
            ))),
            None => Err(Failure::input(format!(
                "`{scheme}` is no store that this tool knows; built in are {}, and `--features all` adds \
                 postgres, aws, azure, gcp and vault",
                built_in.join(", ")
            ))),
        }
    }
}

/// A store that is open, and in whose name.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    /// The store.
    pub(crate) store: Arc<dyn SecretPersistence>,
    /// The installation, where it is set.
    pub(crate) owner: Option<Owner>,
    role: Role,
}

impl Store {
    /// Refuses to write without an owner to a store that has room for one.
    ///
    /// # Errors
    /// Where the store keeps owners and none is set.
    pub(crate) fn for_writing(self) -> Result<Self> {
        if self.store.capabilities().owner && self.owner.is_none() {
            return Err(Failure::input(format!(
                "{} {}: every secret is written with the id of its installation, and none is set; \
                 set SECRETS_OWNER (or {}SECRETS_OWNER) to a name that no other installation has, like prod_eu",
                self.role.option(),
                self.store,
                self.role.prefix(),
            )));
        }
        Ok(self)
    }

    /// The store, where every operation is a point at which a test may stop the process.
    #[cfg(debug_assertions)]
    pub(crate) fn with_points(mut self) -> Self {
        self.store = Arc::new(crate::kill::Points(self.store));
        self
    }

    /// The store as it is.
    #[cfg(not(debug_assertions))]
    pub(crate) fn with_points(self) -> Self {
        self
    }
}
