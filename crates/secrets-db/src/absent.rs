//! Reads a table that does not exist as an empty one, for dry runs.

use std::collections::HashSet;

use async_trait::async_trait;
use secret_persistence_core::{Error, ErrorKind, Result};

use crate::client::{Client, Columns, Filter, Head, Inserted, JoinedRow, Row, Rows, Swap};
use crate::describe::{Describe, Described};
use crate::schema::Layout;

/// Contains nothing and refuses every change.
pub(crate) struct Absent {
    /// The table's name in errors.
    pub(crate) name: String,
}

impl Absent {
    fn refused(&self) -> Error {
        Error::new(
            ErrorKind::Unsupported,
            format!(
                "{} does not exist, and `create=dry-run` does not create it",
                self.name
            ),
        )
    }
}

#[async_trait]
impl Describe for Absent {
    async fn describe(&self, _: &[&str]) -> Result<Vec<Described>> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Client for Absent {
    fn layout(&self) -> Layout {
        Layout::FULL
    }

    async fn read(&self, _: &[&str], _: Columns) -> Result<Vec<(usize, Row)>> {
        Ok(Vec::new())
    }

    async fn read_joined(&self, _: &[&str], _: &str) -> Result<Option<Vec<JoinedRow>>> {
        Ok(None)
    }

    async fn insert(&self, _: &Rows<'_>) -> Result<Inserted> {
        Err(self.refused())
    }

    async fn delete(&self, _: &[&str]) -> Result<()> {
        Ok(())
    }

    async fn list(&self, _: &str, _: Option<&str>, _: usize) -> Result<Vec<Head>> {
        Ok(Vec::new())
    }

    async fn scan(
        &self,
        _: &Filter,
        _: Option<&str>,
        _: Option<&str>,
        _: usize,
    ) -> Result<Vec<(String, Row)>> {
        Ok(Vec::new())
    }

    async fn range_end(&self, _: Option<&str>, _: usize) -> Result<Option<(String, u64)>> {
        Ok(None)
    }

    async fn count(&self, _: &Filter) -> Result<u64> {
        Ok(0)
    }

    async fn swap(&self, _: &[Swap]) -> Result<HashSet<String>> {
        Err(self.refused())
    }

    async fn meta(&self) -> Result<Vec<(String, Vec<u8>)>> {
        Ok(Vec::new())
    }

    async fn put_meta(&self, _: &str, _: &[u8], _: bool) -> Result<()> {
        Err(self.refused())
    }

    async fn remove_meta(&self, _: &str) -> Result<()> {
        Ok(())
    }

    async fn barrier(&self) -> Result<()> {
        Ok(())
    }

    async fn scrub(&self, _: bool, _: &(dyn Fn() + Sync)) -> Result<bool> {
        Ok(true)
    }

    fn out_of_reach(&self) -> &'static [&'static str] {
        &[]
    }

    async fn principal(&self) -> Result<String> {
        Ok("this process".to_owned())
    }

    async fn close(&self) {}
}
