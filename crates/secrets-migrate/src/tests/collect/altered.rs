//! A store whose listing says of some secrets what it says in a shared or an older store.
use std::sync::Arc;

use async_trait::async_trait;
use secret_persistence_core::{
    Cursor, DeleteOptions, Entry, Error, ErrorKind, ListOptions, ManagedCoordinate, Memory, Page,
    Result, SecretPersistence,
};

use crate::tests::world::name;
use crate::tests::wrapped::Wrapper;

/// The secret of another installation.
pub(super) const FOREIGN: u32 = 102;
/// The secret of nobody.
pub(super) const UNOWNED: u32 = 103;
/// The secret without a time.
pub(super) const UNDATED: u32 = 104;
/// The secret that is not deleted.
pub(super) const STUBBORN: u32 = 105;

pub(super) struct Altered(pub(super) Arc<Memory>);

fn altered(entry: Entry) -> Entry {
    let is = |number| entry.coordinate == name(number);
    if is(FOREIGN) {
        entry.with_owner(Some("staging".to_owned()))
    } else if is(UNOWNED) {
        entry.with_owner(None)
    } else if is(UNDATED) {
        entry.with_created(None)
    } else {
        entry
    }
}

#[async_trait]
impl Wrapper for Altered {
    fn store(&self) -> &dyn SecretPersistence {
        &*self.0
    }

    async fn delete_batch(
        &self,
        coordinates: &[ManagedCoordinate],
        options: &DeleteOptions,
    ) -> Vec<Result<()>> {
        let mut results = Vec::new();
        for coordinate in coordinates {
            if *coordinate == name(STUBBORN) {
                results.push(Err(Error::new(ErrorKind::PermissionDenied, "not this one")));
                continue;
            }
            let one = std::slice::from_ref(coordinate);
            results.extend(self.0.delete_batch(one, options).await);
        }
        results
    }

    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
        let mut page = self.0.list_page(options, after).await?;
        page.entries = page.entries.into_iter().map(altered).collect();
        Ok(page)
    }
}
