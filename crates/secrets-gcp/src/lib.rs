//! Google Secret Manager as a store of connector secrets.
