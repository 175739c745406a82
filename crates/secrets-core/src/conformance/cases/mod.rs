//! All cases of the suite, in their order.

mod about;
mod cancellation;
mod concurrency;
mod deletes;
mod errors;
mod expiry;
mod listing;
mod reads;
mod values;
mod writes;

use futures::future::BoxFuture;

use super::context::{Context, Verdict};

/// One guarantee, and the test of it.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) half: Half,
    pub(super) run: Run,
}

type Run = for<'a> fn(&'a Context) -> BoxFuture<'a, Verdict>;

/// Whether the case also applies to a store that refuses every change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    Reading,
    Writing,
}

macro_rules! cases {
    ($($half:ident $name:literal = $path:path;)+) => {
        &[$(Case {
            name: $name,
            half: Half::$half,
            run: |context| Box::pin($path(context)),
        },)+]
    };
}

/// Names are stable, because users compare reports.
#[rustfmt::skip]
pub(super) const CASES: &[Case] = cases! {
    Reading "capabilities are sane" = about::capabilities_are_sane;
    Reading "identity says who and where" = about::identity_says_who_and_where;
    Reading "values come back byte for byte" = values::come_back_byte_for_byte;
    Reading "values at the size limit come back" = values::at_the_size_limit;
    Writing "a value above the size limit is refused" = values::above_the_size_limit;
    Writing "NUL is kept or refused" = values::nul_is_kept_or_refused;
    Writing "an empty value is refused" = values::empty_is_refused;
    Reading "missing is not found" = reads::missing_is_not_found;
    Reading "a batch answers by name" = reads::batch_answers_by_name;
    Reading "duplicates read the same" = reads::duplicates_read_the_same;
    Reading "external names are read" = reads::external_names;
    Reading "an empty value of others reads as empty" = reads::empty_of_others;
    Reading "values outlive the handle" = reads::outlive_the_handle;
    Writing "writing again is already the same" = writes::again_is_already_the_same;
    Writing "another value already exists" = writes::another_value_already_exists;
    Writing "each write of a batch is independent" = writes::each_of_a_batch_stands_alone;
    Writing "many writes are chunked" = writes::many_are_chunked;
    Reading "versions are names of their own" = writes::versions_are_names_of_their_own;
    Reading "the longest name works" = writes::longest_name;
    Writing "deleted is gone" = deletes::deleted_is_gone;
    Writing "deleting what is missing succeeds" = deletes::missing_succeeds;
    Writing "deleting takes that one name" = deletes::takes_that_one_name;
    Writing "deleting many takes each of them" = deletes::many_are_chunked;
    Reading "pending deletion is told apart" = deletes::pending_is_told_apart;
    Writing "a pending name is not free" = deletes::pending_name_is_not_free;
    Writing "writing purges a pending name" = deletes::writing_purges_a_pending_name;
    Writing "writing restores a pending name" = deletes::writing_restores_a_pending_name;
    Writing "restore brings a value back" = deletes::restore_brings_back;
    Reading "describe knows the name" = about::describe_knows_the_name;
    Reading "the owner is kept" = about::owner_is_kept;
    Reading "listing shows every name once" = listing::shows_every_name_once;
    Reading "listing keeps to its prefix" = listing::keeps_to_its_prefix;
    Reading "listing forgets what was deleted" = listing::forgets_what_was_deleted;
    Reading "expiry is kept" = expiry::is_kept;
    Writing "sweep removes what has expired" = expiry::sweep_removes_what_has_expired;
    Reading "the store removes what has expired" = expiry::store_removes_what_has_expired;
    Writing "many readers and writers at once" = concurrency::readers_and_writers;
    Writing "concurrent equal writes agree" = concurrency::equal_writes_agree;
    Writing "concurrent different writes have one winner" = concurrency::different_writes_have_one_winner;
    Writing "dropped futures leave nothing behind" = cancellation::dropped_futures;
    Writing "errors name the coordinate, never the value" = errors::name_the_coordinate_never_the_value;
};
