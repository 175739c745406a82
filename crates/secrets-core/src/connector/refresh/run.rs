//! One refresh, from the lease to the row.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Either, select};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::adopt::{Adopted, Holder};
use super::record::{RefreshRecord, RefreshTarget};
use super::request::{Refresh, text_pointer, unfit};
use super::row::Row;
use super::rows::{Lease, RefreshRows, Taken};
use super::{Place, PlacedValues, RefreshError, Refreshed};
use crate::connector::Rereads;
use crate::connector::error::{ConnectorError, Problem, Problems};
use crate::connector::pointer::Pointer;
use crate::connector::references::References;
use crate::connector::secrets::{ActingSecrets, EventPlaces};
use crate::{Error, Operation, SecretValue};

/// Between two looks at a row that another process is refreshing.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl ActingSecrets {
    /// Exchanges a token that may be used once for the next one: one exchange at a time per row,
    /// over all processes, and callers that wait get the new values instead of a second exchange.
    ///
    /// OAuth providers that rotate refresh tokens end the grant if a token is used twice, or if the
    /// new one is lost. The order is therefore:
    ///
    /// 1. Take the row's lease. If an earlier holder crashed, first adopt what it wrote.
    /// 2. Read the row. If its places are no longer those of [`Refresh::new`], return their values.
    /// 3. Read the old values, open the store that the new ones go to, and store the record with the
    ///    names that they will get. Unless this process has written to that store within ten minutes,
    ///    write a probe to it, and delete it again.
    /// 4. Call `exchange` with the old values, once. It returns the new ones, for all or some of the
    ///    places; a place that it omits keeps its value.
    /// 5. Write the new values, the first place first, and repeat a write that fails.
    /// 6. Save the row with the new pointers by compare-and-swap; if it was edited meanwhile, read it
    ///    again and replace only the old pointers, up to ten times. The rest of the row's text stays as
    ///    it is. Then delete the old values.
    ///
    /// The steps run in a task of their own, so that they continue when the caller is cancelled.
    /// After a crash in or after step 5, the next refresh of the row or
    /// [`heal_refreshes`](Self::heal_refreshes) rolls forward: it finds the new values by the record
    /// and adopts them into the row.
    ///
    /// # What remains
    /// A grant is lost if the process dies after the provider has used the old token and before the
    /// store has the new one: between the request of step 4 and the end of the first write of
    /// step 5. Nothing is done between the answer and that write. The same holds if the answer is
    /// lost or late ([`RefreshError::TimedOut`]), and if a process is suspended in step 4 for longer
    /// than its lease, because another one then exchanges the old token; and if the store, after it has
    /// taken the probe of step 3 or another write not ten minutes ago, refuses the new value or cannot
    /// serve for longer than [`Refresh::with_write`]. Then a person must log in again; no order of
    /// steps on this side can help.
    ///
    /// # Errors
    /// [`RefreshError`]. After `Exchange`, nothing has changed. Otherwise, whatever was written is
    /// adopted later. After a write that failed, others wait for the rest of the lease, because it may
    /// still arrive.
    ///
    /// # Panics
    /// If `exchange` panics. If the runtime is not tokio's.
    pub async fn refresh<X, Fut, E>(
        &self,
        rows: &Arc<dyn RefreshRows>,
        refresh: &Refresh,
        exchange: X,
    ) -> Result<Refreshed, RefreshError<E>>
    where
        X: FnOnce(PlacedValues) -> Fut + Send + 'static,
        Fut: Future<Output = Result<PlacedValues, E>> + Send + 'static,
        E: Send + 'static,
    {
        let run = Run::new(self, rows, refresh, false);
        let exchange: Exchange<E> = Box::new(move |old| exchange(old).boxed());
        on_its_own(run.run(exchange)).await
    }

    /// Saves values that a connector has exchanged itself and brings back, such as in a control
    /// message, in the same way as [`refresh`](Self::refresh) saves what it exchanged.
    ///
    /// Values that equal the row's are not written again. If the row's places are no longer those
    /// of [`Refresh::new`], the row's values are kept and returned: another refresh or a person has
    /// entered newer ones. A connector that brings several in turn passes
    /// [`Refreshed::config`] as the `saved` of the next.
    ///
    /// # Errors
    /// [`RefreshError`], never `Exchange`. Nothing may have been stored then, so keep the values until
    /// this returns `Ok`, and call it again with them otherwise.
    ///
    /// # Panics
    /// If the runtime is not tokio's.
    pub async fn bring_back(
        &self,
        rows: &Arc<dyn RefreshRows>,
        refresh: &Refresh,
        values: PlacedValues,
    ) -> Result<Refreshed, RefreshError<Infallible>> {
        let run = Run::new(self, rows, refresh, true);
        let exchange: Exchange<Infallible> = Box::new(move |old| {
            let mut values = values;
            values.retain(|value| !old.contains(value));
            std::future::ready(Ok(values)).boxed()
        });
        on_its_own(run.run(exchange)).await
    }
}

#[cfg(test)]
impl ActingSecrets {
    /// A refresh without a task of its own, for a model that chooses the order of steps.
    pub(in crate::connector) async fn refresh_here<E>(
        &self,
        rows: &Arc<dyn RefreshRows>,
        refresh: &Refresh,
        exchange: impl FnOnce(PlacedValues) -> BoxFuture<'static, Result<PlacedValues, E>>
        + Send
        + 'static,
    ) -> Result<Refreshed, RefreshError<E>> {
        let run = Run::new(self, rows, refresh, false);
        run.run(Box::new(exchange)).await
    }
}

pub(super) type Exchange<E> =
    Box<dyn FnOnce(PlacedValues) -> BoxFuture<'static, Result<PlacedValues, E>> + Send>;

/// Runs a refresh to its end even if its caller is dropped: the new token would be lost with it.
async fn on_its_own<E: Send + 'static>(
    run: impl Future<Output = Result<Refreshed, RefreshError<E>>> + Send + 'static,
) -> Result<Refreshed, RefreshError<E>> {
    match tokio::spawn(run).await {
        Ok(outcome) => outcome,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(RefreshError::Interrupted),
    }
}

/// The parts of one refresh.
pub(super) struct Run {
    secrets: ActingSecrets,
    rows: Arc<dyn RefreshRows>,
    refresh: Refresh,
    /// Whether the new values exist already, so that the old ones only serve to compare.
    brought: bool,
}

impl Run {
    pub(super) fn new(
        secrets: &ActingSecrets,
        rows: &Arc<dyn RefreshRows>,
        refresh: &Refresh,
        brought: bool,
    ) -> Self {
        Self {
            secrets: secrets.clone(),
            rows: Arc::clone(rows),
            refresh: refresh.clone(),
            brought,
        }
    }

    pub(super) async fn run<E>(self, exchange: Exchange<E>) -> Result<Refreshed, RefreshError<E>> {
        let mut exchange = Some(exchange);
        // None is for ever.
        let patient_until = Instant::now().checked_add(self.refresh.patience);
        let mut pause = FIRST_PAUSE;
        loop {
            if let Some(newer) = self.newer().await? {
                return Ok(newer);
            }
            if exchange.is_none() {
                // Another process has taken the lease, and has not adopted our values.
                return Err(RefreshError::Interrupted);
            }
            let taken = self.rows.take(&self.refresh.row, self.refresh.lease());
            if let Taken::Held { lease, record } = taken.await? {
                let mut settles = false;
                let outcome = self.hold(&lease, record, &mut exchange, &mut settles).await;
                // A write that failed may still arrive: until the lease ends, nobody decides that it
                // does not, and uses the old token again.
                let ended = if settles {
                    let renewed = self.rows.renew(&lease, self.refresh.lease()).await;
                    renewed.map(drop)
                } else {
                    self.rows.release(&lease).await
                };
                if let Err(error) = ended {
                    tracing::debug!(%error, "the lease of a refresh is left to expire");
                }
                if let Some(refreshed) = outcome? {
                    return Ok(refreshed);
                }
                if exchange.is_none() {
                    continue;
                }
            }
            if patient_until.is_some_and(|until| Instant::now() >= until) {
                return Err(RefreshError::Busy);
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Refreshes while holding the lease. `None` if another process has it now. `settles` becomes
    /// whether something may have been written that the row does not have.
    async fn hold<E>(
        &self,
        lease: &Lease,
        left: Option<RefreshRecord>,
        exchange: &mut Option<Exchange<E>>,
        settles: &mut bool,
    ) -> Result<Option<Refreshed>, RefreshError<E>> {
        let holder = Holder {
            secrets: &self.secrets,
            rows: self.rows.as_ref(),
            lease,
        };
        if let Some(left) = left
            && let Adopted::LeaseLost = holder.recover(&left).await?
        {
            return Ok(None);
        }
        // Nobody else exchanges from here on, so what is still as the caller saw it has expired.
        if let Some(newer) = self.newer().await? {
            return Ok(Some(newer));
        }
        let old = match self.values(&self.refresh.seen).await {
            Ok(old) => old,
            Err(_) if self.brought => Vec::new(),
            // Another change may just have replaced them.
            Err(error) => {
                return self
                    .newer()
                    .await?
                    .map_or(Err(error.into()), |new| Ok(Some(new)));
            }
        };
        let storage_id = self.secrets.options().policy.write_storage.as_ref();
        // A store that cannot be opened would lose the new token.
        if let Err(error) = self.secrets.stores().store(storage_id).await {
            let place = self.refresh.seen[0].0.clone();
            return Err(ConnectorError::from(Problem::of_store(place, error)).into());
        }
        // What was brought back exists already, and must be written anyway.
        let probes = !self.brought && !self.secrets.proofs().hold(storage_id);
        let mut record = RefreshRecord::plan(&self.refresh, storage_id, probes)?;
        let mut renewed = Instant::now();
        if !self.rows.open(lease, &record, self.refresh.lease()).await? {
            return Ok(None);
        }
        if probes {
            let prove = self.secrets.prove(&mut record, &self.refresh.seen[0].0);
            if let Err(error) = self.renewing(lease, prove).await {
                holder.end_unused(&record).await;
                return Err(error.into());
            }
            renewed = Instant::now();
            if !self.rows.renew(lease, self.refresh.lease()).await? {
                return Ok(None);
            }
        }
        if renewed.elapsed() > self.refresh.write {
            // The exchange could outlast the lease.
            return Ok(None);
        }
        let Some(exchange) = exchange.take() else {
            return Ok(None);
        };
        let failed = match timeout(self.refresh.exchange, exchange(old)).await {
            Ok(Ok(new)) => return self.save(&holder, &record, new, settles).await,
            Ok(Err(error)) => RefreshError::Exchange(error),
            Err(_) => RefreshError::TimedOut,
        };
        holder.end_unused(&record).await;
        Err(failed)
    }

    /// Writes new values and saves the row.
    async fn save<E>(
        &self,
        holder: &Holder<'_>,
        record: &RefreshRecord,
        mut new: PlacedValues,
        settles: &mut bool,
    ) -> Result<Option<Refreshed>, RefreshError<E>> {
        *settles = true;
        let mut written = Vec::new();
        let mut events = self.secrets.events(Operation::Write);
        // One after the other: the first is the one that cannot be had again.
        for target in record.targets() {
            if let Some(at) = new.iter().position(|(place, _)| *place == target.place) {
                let (_, value) = new.swap_remove(at);
                let write = self.write(target, value.clone());
                let result = self.renewing(holder.lease, write).await;
                let mut place = EventPlaces::default();
                events.place(&mut place, &target.place);
                events.push_at(result.as_ref().err().map(Error::kind), || {
                    (target.to.clone().into(), place)
                });
                // After a failure the record stays open: the write may still arrive.
                if let Err(error) = result {
                    events.record().await?;
                    let problem = Problem::of_store(target.place.clone(), error)
                        .with_coordinate(target.to.coordinate.shared());
                    return Err(ConnectorError::from(problem).into());
                }
                written.push((target, value));
            }
        }
        let mut misplaced = Problems::default();
        for (place, _) in new {
            misplaced.push(|| unfit(place, "the exchange returned a value for another place"));
        }
        let misplaced = misplaced.into_result();
        let attempted: Vec<&RefreshTarget> = written.iter().map(|(target, _)| *target).collect();
        let audited = events.record().await;
        let adopted = holder.adopt(record, &attempted, Vec::new()).await?;
        *settles = false;
        match adopted {
            Adopted::LeaseLost => Ok(None),
            Adopted::Missing => Err(RefreshError::Missing),
            Adopted::Nothing => {
                // The exchange had nothing new, or a person has entered other values meanwhile.
                audited?;
                misplaced?;
                return self.current().await.map(Some);
            }
            Adopted::Saved { revision, config } => {
                audited?;
                misplaced?;
                let values = self.mixed(&config, written).await?;
                Ok(Some(Refreshed {
                    revision,
                    config,
                    values,
                    ours: true,
                }))
            }
        }
    }

    /// The values of a saved row: those just written, and what the other places have.
    async fn mixed(
        &self,
        config: &Value,
        written: Vec<(&RefreshTarget, SecretValue)>,
    ) -> Result<PlacedValues, ConnectorError> {
        let mut values = Vec::new();
        let mut rest = Vec::new();
        for (place, _) in &self.refresh.seen {
            let found = place.find(config).cloned().unwrap_or(Value::Null);
            let ours = written
                .iter()
                .find(|(target, _)| target.pointer().to_value() == found);
            match ours {
                Some((_, value)) => values.push((place.clone(), value.clone())),
                None => rest.push((place.clone(), found)),
            }
        }
        values.extend(self.values(&rest).await?);
        let order = |place: &_| self.refresh.seen.iter().position(|(seen, _)| seen == place);
        values.sort_by_key(|(place, _)| order(place));
        Ok(values)
    }

    /// Writes one value, again and again while the store cannot serve.
    async fn write(&self, target: &RefreshTarget, value: SecretValue) -> Result<(), Error> {
        let began = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.secrets.write_new(&target.to, value.clone()).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if !error.is_retryable() || began.elapsed() >= self.refresh.write {
                return Err(error);
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Keeps the lease for as long as a write takes: one call of a store may last as long as a lease.
    async fn renewing<T>(&self, lease: &Lease, write: impl Future<Output = T>) -> T {
        let period = (self.refresh.write / 4).max(FIRST_PAUSE);
        let keep = async {
            loop {
                // At first the lease has the time of the writes left.
                sleep(period).await;
                // A lease that cannot be renewed is no reason to lose the value.
                if let Err(error) = self.rows.renew(lease, self.refresh.lease()).await {
                    tracing::debug!(%error, "the lease of a refresh was not renewed");
                }
            }
        };
        match select(pin!(write), pin!(keep)).await {
            Either::Left((result, _)) => result,
            Either::Right((never, _)) => never,
        }
    }

    /// The row's values if its places have changed since the caller saw them.
    async fn newer<E>(&self) -> Result<Option<Refreshed>, RefreshError<E>> {
        let mut rereads = Rereads::default();
        loop {
            let row = Row::read(self.rows.as_ref(), &self.refresh.row).await?;
            let Row {
                revision, config, ..
            } = row.ok_or(RefreshError::Missing)?;
            if self.refresh.is_current(&config) {
                return Ok(None);
            }
            match self.row_values(&config).await {
                Ok(values) => {
                    return Ok(Some(Refreshed {
                        revision,
                        config,
                        values,
                        ours: false,
                    }));
                }
                // The row may have moved on again.
                Err(error) if rereads.may_help(error.problems()) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The row's values, whatever the caller saw.
    async fn current<E>(&self) -> Result<Refreshed, RefreshError<E>> {
        if let Some(newer) = self.newer().await? {
            return Ok(newer);
        }
        let row = Row::read(self.rows.as_ref(), &self.refresh.row).await?;
        let Row {
            revision, config, ..
        } = row.ok_or(RefreshError::Missing)?;
        Ok(Refreshed {
            revision,
            values: self.row_values(&config).await?,
            config,
            ours: false,
        })
    }

    async fn row_values(&self, config: &Value) -> Result<PlacedValues, ConnectorError> {
        let mut places = Vec::new();
        for (place, _) in &self.refresh.seen {
            let found = place.find(config).cloned().unwrap_or(Value::Null);
            places.push((place.clone(), found));
        }
        self.values(&places).await
    }

    /// The values of pointers at places. An empty place has none.
    async fn values(&self, places: &[(Place, Value)]) -> Result<PlacedValues, ConnectorError> {
        let mut problems = Problems::default();
        let mut pointers: Vec<(Place, Pointer)> = Vec::new();
        for (place, found) in places {
            match found {
                Value::Null => {}
                found => match text_pointer(found, place) {
                    Ok(pointer) => pointers.push((place.clone(), pointer)),
                    Err(problem) => problems.push(|| problem),
                },
            }
        }
        let wanted: Vec<Pointer> = pointers
            .iter()
            .map(|(_, pointer)| pointer.clone())
            .collect();
        let at: Vec<Place> = pointers.iter().map(|(place, _)| place.clone()).collect();
        let read = self
            .secrets
            .read(&wanted, &at, &References::default())
            .await?;
        let mut values = Vec::with_capacity(read.len());
        for ((place, pointer), value) in pointers.into_iter().zip(read) {
            match value {
                Ok(value) => values.push((place, value)),
                Err(unread) => problems.push(|| unread.at(place, &pointer)),
            }
        }
        problems.into_result()?;
        Ok(values)
    }
}
