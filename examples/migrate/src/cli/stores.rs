//! The options that name stores and configurations.

use std::path::{Path, PathBuf};

use clap::Args;

/// The two stores of a migration, and its configurations.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Stores")]
pub(crate) struct Route {
    /// The store to copy from.
    #[arg(long, value_name = "URL", required_unless_present = "from_settings")]
    from: Option<String>,
    /// The store to copy from, as a settings file: Helm values, the JSON for external secret
    /// management, or environment variables.
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    from_settings: Option<PathBuf>,
    /// The store to copy to.
    #[arg(long, value_name = "URL", required_unless_present = "to_settings")]
    to: Option<String>,
    /// The store to copy to, as a settings file.
    #[arg(long, value_name = "FILE", conflicts_with = "to")]
    to_settings: Option<PathBuf>,
    /// A Kubernetes Secret that the Helm values refer to: its manifest, or the folder where it is
    /// mounted. Repeatable.
    #[arg(long = "kubernetes-secret", value_name = "PATH")]
    kubernetes_secrets: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) configs: Configs,
}

impl Route {
    /// The store to copy from.
    pub(crate) fn source(&self) -> Place<'_> {
        self.place(self.from.as_deref(), self.from_settings.as_deref())
    }

    /// The store to copy to.
    pub(crate) fn target(&self) -> Place<'_> {
        self.place(self.to.as_deref(), self.to_settings.as_deref())
    }

    fn place<'a>(&'a self, url: Option<&'a str>, file: Option<&'a Path>) -> Place<'a> {
        Place::new(url, file, &self.kubernetes_secrets)
    }
}

/// The store of a command that uses one store.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Stores")]
pub(crate) struct OneStore {
    /// The store.
    #[arg(long, value_name = "URL", required_unless_present = "store_settings")]
    store: Option<String>,
    /// The store, as a settings file: Helm values, the JSON for external secret management, or
    /// environment variables.
    #[arg(long, value_name = "FILE", conflicts_with = "store")]
    store_settings: Option<PathBuf>,
    /// A Kubernetes Secret that the Helm values refer to: its manifest, or the folder where it is
    /// mounted. Repeatable.
    #[arg(long = "kubernetes-secret", value_name = "PATH")]
    kubernetes_secrets: Vec<PathBuf>,
}

impl OneStore {
    /// Returns the store's URL or settings file.
    pub(crate) fn place(&self) -> Place<'_> {
        Place::new(
            self.store.as_deref(),
            self.store_settings.as_deref(),
            &self.kubernetes_secrets,
        )
    }
}

/// How the operator describes a store.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'a> {
    /// A settings file, with the Kubernetes Secrets that it may refer to.
    Settings {
        /// The file.
        file: &'a Path,
        /// Manifests and folders.
        secrets: &'a [PathBuf],
    },
    /// A URL.
    Url(&'a str),
}

impl<'a> Place<'a> {
    /// Takes the URL or the file, whichever the command line has.
    fn new(url: Option<&'a str>, file: Option<&'a Path>, secrets: &'a [PathBuf]) -> Self {
        match file {
            Some(file) => Self::Settings { file, secrets },
            None => Self::Url(url.unwrap_or_default()),
        }
    }
}

/// The configurations, and the table that resolves their references.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Configurations")]
pub(crate) struct Configs {
    /// Where configurations are: `<database
    /// URL>?table=…&id=…&configuration=…[&base_id=…][&prefix=…] [&specification=…][&where=…]`,
    /// `…&coordinate=<column>`, `<database URL>?query-file=…`, or a JSON lines file. Repeatable.
    #[arg(long = "configs", value_name = "URL or FILE", required = true)]
    pub(crate) sources: Vec<String>,
    /// The table that resolves reference ids: `<database URL>?table=…[&id=…][&coordinate=…]
    /// [&storage_id=…]`, or `?query-file=…`.
    #[arg(long, value_name = "URL")]
    pub(crate) references: Option<String>,
}
