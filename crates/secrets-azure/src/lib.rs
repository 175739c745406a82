//! Azure Key Vault as a store of connector secrets.
