//! The default store and others by storage id, opened on first use and kept.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;

use crate::{
    AuditEvent, AuditMode, AuditSink, Error, ErrorKind, Operation, Owner, Result,
    SecretPersistence, StorageId,
};

type Store = Arc<dyn SecretPersistence>;

/// The stores of an installation: the default one, and others by [`StorageId`].
///
/// The [`OpenStore`] opens another store on first use, once even for concurrent callers, and the
/// store stays open. It is reopened after [`reopen`](Self::reopen), when the opener says that it is
/// [no longer current](OpenStore::is_current), and after it has returned `Unauthenticated` to a
/// connector call, because its credentials may have been replaced. An unknown id is an error, never
/// the default store.
///
/// Clones share the open stores.
///
/// ```
/// use std::sync::Arc;
///
/// use async_trait::async_trait;
/// use secret_persistence_core::{Memory, OpenStore, Result, SecretPersistence, StorageId, Stores};
///
/// struct Settings;
///
/// #[async_trait]
/// impl OpenStore for Settings {
///     async fn open(&self, id: &StorageId) -> Result<Option<Arc<dyn SecretPersistence>>> {
///         // A service reads its row of this id here, and connects.
///         Ok((id.as_str() == "team-a").then(|| Arc::new(Memory::new()) as _))
///     }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let stores = Stores::new(Arc::new(Memory::new())).with_opener(Arc::new(Settings));
/// assert!(stores.store(None).await.is_ok());
/// assert!(stores.store(Some(&StorageId::parse("team-a")?)).await.is_ok());
/// assert!(stores.store(Some(&StorageId::parse("team-b")?)).await.is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Stores {
    default: Store,
    opener: Option<Arc<dyn OpenStore>>,
    others: Arc<Mutex<HashMap<StorageId, Slot>>>,
    owner: Option<Owner>,
    audit: Option<(Arc<dyn AuditSink>, AuditMode)>,
    unaudited: Arc<AtomicU64>,
}

/// Opens the store of a storage id: reads its settings and builds its layers.
#[async_trait]
pub trait OpenStore: Send + Sync + 'static {
    /// Opens a store; `None` for an id that does not exist.
    ///
    /// # Errors
    /// If the settings are refused or the store cannot be reached. All concurrent callers for this
    /// id get the same error, and the next caller tries again.
    async fn open(&self, id: &StorageId) -> Result<Option<Arc<dyn SecretPersistence>>>;

    /// Whether the store that [`open`](Self::open) returned for an id may still be used; otherwise
    /// it is reopened. Called on every use, so it must be quick if nothing has changed.
    async fn is_current(&self, id: &StorageId) -> bool {
        let _ = id;
        true
    }
}

enum Slot {
    /// Passed in by the caller, who replaces it.
    Given(Store),
    /// Opened by us.
    Open(Store),
    /// Kept alive by the waiting callers: if all of them are cancelled, so is the attempt.
    Opening(WeakShared<Opening>),
}

type Opening = BoxFuture<'static, Result<Option<Store>>>;

enum Found {
    Given(Store),
    Open(Store),
    Opening(Shared<Opening>),
    Unknown,
}

impl Stores {
    /// Creates stores with only a default store.
    pub fn new(default: Arc<dyn SecretPersistence>) -> Self {
        Self {
            default,
            opener: None,
            others: Arc::default(),
            owner: None,
            audit: None,
            unaudited: Arc::default(),
        }
    }

    /// Sets the opener for other ids.
    #[must_use]
    pub fn with_opener(mut self, opener: Arc<dyn OpenStore>) -> Self {
        self.opener = Some(opener);
        self
    }

    /// Adds an open store.
    #[must_use]
    pub fn with_store(self, id: StorageId, store: Arc<dyn SecretPersistence>) -> Self {
        self.others.lock().insert(id, Slot::Given(store));
        self
    }

    /// Sets the id of this installation. Without it, a secret with any owner counts as another
    /// installation's, and is not deleted when it is superseded.
    #[must_use]
    pub fn with_owner(mut self, owner: Owner) -> Self {
        self.owner = Some(owner);
        self
    }

    /// Sets the sink of audit events. Direct calls to a store are not audited, because only
    /// connector calls know the actor.
    #[must_use]
    pub fn with_audit(mut self, sink: Arc<dyn AuditSink>, mode: AuditMode) -> Self {
        self.audit = Some((sink, mode));
        self
    }

    /// The default store.
    #[must_use]
    pub fn default_store(&self) -> &Arc<dyn SecretPersistence> {
        &self.default
    }

    /// The store of an id, which is opened on first use; `None` is the default store.
    ///
    /// # Errors
    /// `InvalidConfig` for an unknown id; otherwise the error of opening the store.
    pub async fn store(&self, id: Option<&StorageId>) -> Result<Arc<dyn SecretPersistence>> {
        match (self.find(id).await?, id) {
            (Some(store), _) => Ok(store),
            (None, id) => Err(Self::unknown(id)),
        }
    }

    /// Drops the open store of an id: the next caller reopens it with its current settings. Running
    /// calls end with the store they began with. Stores that were [passed in](Self::with_store)
    /// stay.
    pub fn reopen(&self, id: &StorageId) {
        let mut others = self.others.lock();
        if !matches!(others.get(id), Some(Slot::Given(_))) {
            others.remove(id);
        }
    }

    /// The id of this installation.
    #[must_use]
    pub fn owner(&self) -> Option<&Owner> {
        self.owner.as_ref()
    }

    /// How many audit events have been lost with [`AuditMode::BestEffort`].
    #[must_use]
    pub fn unaudited(&self) -> u64 {
        self.unaudited.load(Ordering::Relaxed)
    }

    /// The error for an unknown id.
    pub(crate) fn unknown(id: Option<&StorageId>) -> Error {
        Error::new(ErrorKind::InvalidConfig, "no storage has this id")
            .with_operation(Operation::Open)
            .with_store(id.map_or("default", StorageId::as_str))
            .with_hint("add settings for the storage, or correct the id")
    }

    /// Calls the store of an id, and calls once more after reopening it if it refuses our
    /// credentials, because they may have been replaced. `None` for an unknown id. The call must be
    /// safe to repeat.
    ///
    /// # Errors
    /// If the store cannot be opened. Nothing was called then.
    pub(crate) async fn call<T, Fut>(
        &self,
        id: Option<&StorageId>,
        mut call: impl FnMut(Store) -> Fut,
    ) -> Result<Option<Vec<Result<T>>>>
    where
        Fut: Future<Output = Vec<Result<T>>>,
    {
        match id {
            // The usual store: always open, and never reopened.
            None => Ok(Some(call(Arc::clone(&self.default)).await)),
            Some(_) => Box::pin(self.call_other(id, call)).await,
        }
    }

    async fn call_other<T, Fut>(
        &self,
        id: Option<&StorageId>,
        mut call: impl FnMut(Store) -> Fut,
    ) -> Result<Option<Vec<Result<T>>>>
    where
        Fut: Future<Output = Vec<Result<T>>>,
    {
        let Some(mut store) = self.find(id).await? else {
            return Ok(None);
        };
        let mut results = call(Arc::clone(&store)).await;
        if self.is_refused(id, &store, &results)
            && let Ok(Some(reopened)) = self.find(id).await
        {
            store = reopened;
            results = call(Arc::clone(&store)).await;
            self.is_refused(id, &store, &results);
        }
        Ok(Some(results))
    }

    /// Whether a store refused our credentials and will be reopened.
    fn is_refused<T>(&self, id: Option<&StorageId>, store: &Store, results: &[Result<T>]) -> bool {
        let is_unauthenticated = |result: &Result<T>| {
            result
                .as_ref()
                .is_err_and(|error| error.kind() == ErrorKind::Unauthenticated)
        };
        results.iter().any(is_unauthenticated) && self.let_go(id, store)
    }

    /// Like [`store`](Self::store), but distinguishes an unknown id from a failure.
    async fn find(&self, id: Option<&StorageId>) -> Result<Option<Store>> {
        let Some(id) = id else {
            return Ok(Some(Arc::clone(&self.default)));
        };
        let mut found = self.look_up(id);
        if let (Found::Open(store), Some(opener)) = (&found, &self.opener)
            && !opener.is_current(id).await
        {
            self.let_go(Some(id), store);
            found = self.look_up(id);
        }
        let opening = match found {
            Found::Given(store) | Found::Open(store) => return Ok(Some(store)),
            Found::Opening(opening) => opening,
            Found::Unknown => return Ok(None),
        };
        let result = opening.clone().await;
        self.land(id, &opening, &result);
        result
    }

    /// Drops a store, unless it has been replaced already. Returns whether another one will be
    /// opened.
    fn let_go(&self, id: Option<&StorageId>, store: &Store) -> bool {
        let Some(id) = id else { return false };
        let mut others = self.others.lock();
        match others.get(id) {
            Some(Slot::Given(_)) => false,
            Some(Slot::Open(open)) if Arc::ptr_eq(open, store) => {
                others.remove(id);
                true
            }
            _ => true,
        }
    }

    /// Whether there is a sink of audit events.
    pub(crate) fn is_audited(&self) -> bool {
        self.audit.is_some()
    }

    /// Sends events to the sink of [`with_audit`](Self::with_audit), if there is one, for a program
    /// that uses a store directly and knows the actor. Connector calls do this themselves.
    ///
    /// # Errors
    /// The sink's error with [`AuditMode::Required`]: then the operation must fail before it
    /// returns a value.
    pub async fn record(&self, events: &[AuditEvent]) -> Result<()> {
        let Some((sink, mode)) = &self.audit else {
            return Ok(());
        };
        if events.is_empty() {
            return Ok(());
        }
        match (sink.record(events).await, mode) {
            (Ok(()), _) => Ok(()),
            (Err(error), AuditMode::Required) => Err(error),
            (Err(error), AuditMode::BestEffort) => {
                let lost = events.len() as u64;
                self.unaudited.fetch_add(lost, Ordering::Relaxed);
                tracing::warn!(lost, %error, "audit events were lost");
                Ok(())
            }
        }
    }

    fn look_up(&self, id: &StorageId) -> Found {
        let mut others = self.others.lock();
        match others.get(id) {
            Some(Slot::Given(store)) => return Found::Given(Arc::clone(store)),
            Some(Slot::Open(store)) => return Found::Open(Arc::clone(store)),
            Some(Slot::Opening(opening)) => {
                if let Some(opening) = opening.upgrade() {
                    return Found::Opening(opening);
                }
            }
            None => {}
        }
        let Some(opener) = self.opener.clone() else {
            return Found::Unknown;
        };
        let opening = open(opener, id.clone()).boxed().shared();
        // Only a completed future has nothing to downgrade to, and this one has not begun.
        if let Some(weak) = opening.downgrade() {
            others.insert(id.clone(), Slot::Opening(weak));
        }
        Found::Opening(opening)
    }

    /// Keeps the store that an attempt opened, if it still is the current attempt.
    fn land(&self, id: &StorageId, attempt: &Shared<Opening>, result: &Result<Option<Store>>) {
        let mut others = self.others.lock();
        let ours = match others.get(id) {
            Some(Slot::Opening(current)) => current
                .upgrade()
                .is_some_and(|current| current.ptr_eq(attempt)),
            _ => false,
        };
        if !ours {
            return;
        }
        match result {
            Ok(Some(store)) => others.insert(id.clone(), Slot::Open(Arc::clone(store))),
            Ok(None) | Err(_) => others.remove(id),
        };
    }
}

impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut others: Vec<String> = self.others.lock().keys().map(ToString::to_string).collect();
        others.sort_unstable();
        f.debug_struct("Stores")
            .field("default", &format_args!("{}", self.default))
            .field("others", &others)
            .field("owner", &self.owner)
            .field("audit", &self.audit.as_ref().map(|(_, mode)| mode))
            .finish_non_exhaustive()
    }
}

async fn open(opener: Arc<dyn OpenStore>, id: StorageId) -> Result<Option<Store>> {
    opener.open(&id).await.map_err(|error| {
        let error = match error.operation() {
            Some(_) => error,
            None => error.with_operation(Operation::Open),
        };
        match error.store() {
            Some(_) => error,
            None => error.with_store(id.as_str()),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::Memory;

    struct Opener {
        opened: AtomicUsize,
        failing: AtomicUsize,
        outdated: AtomicUsize,
        gate: tokio::sync::Semaphore,
    }

    impl Opener {
        fn new(permits: usize) -> Arc<Self> {
            Arc::new(Self {
                opened: AtomicUsize::new(0),
                failing: AtomicUsize::new(0),
                outdated: AtomicUsize::new(0),
                gate: tokio::sync::Semaphore::new(permits),
            })
        }

        fn opened(&self) -> usize {
            self.opened.load(Ordering::SeqCst)
        }
    }

    #[async_trait]
    impl OpenStore for Opener {
        async fn open(&self, id: &StorageId) -> Result<Option<Store>> {
            self.opened.fetch_add(1, Ordering::SeqCst);
            self.gate.acquire().await.unwrap().forget();
            if id.as_str() == "unknown" {
                return Ok(None);
            }
            if self.failing.load(Ordering::SeqCst) > 0 {
                self.failing.fetch_sub(1, Ordering::SeqCst);
                return Err(Error::new(ErrorKind::Unavailable, "down"));
            }
            Ok(Some(Arc::new(Memory::new())))
        }

        async fn is_current(&self, _: &StorageId) -> bool {
            self.outdated.swap(0, Ordering::SeqCst) == 0
        }
    }

    #[tokio::test]
    async fn what_is_no_longer_current_is_opened_anew() {
        let opener = Opener::new(2);
        let stores = Stores::new(Arc::new(Memory::new()))
            .with_opener(opener.clone())
            .with_store(id("given"), Arc::new(Memory::new()));
        let first = stores.store(Some(&id("a"))).await.unwrap();
        let given = stores.store(Some(&id("given"))).await.unwrap();
        opener.outdated.store(1, Ordering::SeqCst);
        let second = stores.store(Some(&id("a"))).await.unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        let third = stores.store(Some(&id("a"))).await.unwrap();
        assert!(Arc::ptr_eq(&second, &third));
        // Only the caller replaces a store that was passed in.
        opener.outdated.store(1, Ordering::SeqCst);
        let same = stores.store(Some(&id("given"))).await.unwrap();
        assert!(Arc::ptr_eq(&given, &same));
        assert_eq!(opener.opened(), 2);
    }

    fn id(text: &str) -> StorageId {
        StorageId::parse(text).unwrap()
    }

    #[tokio::test]
    async fn an_id_is_opened_once_however_many_ask_and_then_kept() {
        let opener = Opener::new(0);
        let stores = Stores::new(Arc::new(Memory::new())).with_opener(opener.clone());
        let name = id("a");
        let asked = futures::future::join_all((0..50).map(|_| stores.store(Some(&name))));
        let (answers, ()) = tokio::join!(asked, async {
            tokio::task::yield_now().await;
            opener.gate.add_permits(1);
        });
        let answers: Vec<Store> = answers.into_iter().map(Result::unwrap).collect();
        assert!(answers.iter().all(|store| Arc::ptr_eq(store, &answers[0])));
        let again = stores.clone().store(Some(&name)).await.unwrap();
        assert!(Arc::ptr_eq(&again, &answers[0]));
        assert_eq!(opener.opened(), 1);
    }

    #[tokio::test]
    async fn all_who_wait_share_a_failure_and_the_next_tries_again() {
        let opener = Opener::new(0);
        opener.failing.store(1, Ordering::SeqCst);
        let stores = Stores::new(Arc::new(Memory::new())).with_opener(opener.clone());
        let name = id("a");
        let asked = futures::future::join_all((0..5).map(|_| stores.store(Some(&name))));
        let (answers, ()) = tokio::join!(asked, async { opener.gate.add_permits(1) });
        for answer in answers {
            let error = answer.unwrap_err();
            assert_eq!(
                error.to_string(),
                "open in a: down (unavailable)",
                "who failed is named"
            );
        }
        assert_eq!(opener.opened(), 1);
        opener.gate.add_permits(1);
        stores.store(Some(&name)).await.unwrap();
        assert_eq!(opener.opened(), 2);
    }

    #[tokio::test]
    async fn an_attempt_that_all_have_left_does_not_block_the_next() {
        let opener = Opener::new(0);
        let stores = Stores::new(Arc::new(Memory::new())).with_opener(opener.clone());
        let name = id("a");
        assert!(stores.store(Some(&name)).now_or_never().is_none());
        opener.gate.add_permits(1);
        stores.store(Some(&name)).await.unwrap();
        assert_eq!(opener.opened(), 2);
    }

    #[tokio::test]
    async fn an_unknown_id_is_an_error_and_never_the_default_store() {
        let stores = Stores::new(Arc::new(Memory::new()));
        let error = stores.store(Some(&id("unknown"))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        let stores = stores.with_opener(Opener::new(10));
        let error = stores.store(Some(&id("unknown"))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    }

    #[tokio::test]
    async fn reopening_beats_an_attempt_under_way_and_spares_what_was_handed_in() {
        let opener = Opener::new(0);
        let given: Store = Arc::new(Memory::new());
        let stores = Stores::new(Arc::new(Memory::new()))
            .with_store(id("given"), given.clone())
            .with_opener(opener.clone());
        let name = id("a");
        let (first, ()) = tokio::join!(stores.store(Some(&name)), async {
            stores.reopen(&name);
            opener.gate.add_permits(1);
        });
        opener.gate.add_permits(1);
        let second = stores.store(Some(&name)).await.unwrap();
        // The first attempt read its settings before they changed, so it must not be kept.
        assert!(!Arc::ptr_eq(&first.unwrap(), &second));

        assert!(stores.let_go(Some(&name), &second));
        opener.gate.add_permits(1);
        let third = stores.store(Some(&name)).await.unwrap();
        assert!(!Arc::ptr_eq(&second, &third));
        assert!(
            stores.let_go(Some(&name), &second),
            "one that is gone already"
        );
        assert!(Arc::ptr_eq(
            &third,
            &stores.store(Some(&name)).await.unwrap()
        ));

        stores.reopen(&id("given"));
        assert!(!stores.let_go(Some(&id("given")), &given));
        let kept = stores.store(Some(&id("given"))).await.unwrap();
        assert!(Arc::ptr_eq(&kept, &given));
    }
}
