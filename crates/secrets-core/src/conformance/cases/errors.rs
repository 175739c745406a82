//! The contents of errors: everything that helps, and nothing that is secret.

use std::error::Error as _;
use std::fmt::Write as _;

use crate::conformance::context::{Context, Verdict, ensure, passed};
use crate::{
    DeleteOptions, Error, Expiry, ManagedCoordinate, OnPending, Operation, Recovery,
    SecretPersistenceExt, SecretValue, Write,
};

pub(super) async fn name_the_coordinate_never_the_value(cx: &Context) -> Verdict {
    let there = multi_line(cx);
    cx.create(&there).await?;
    let other = Write::new(there.coordinate.clone(), multi_line(cx).value);
    let missing = cx.name();
    let canaries = [&there.value, &other.value];

    check(
        cx,
        Operation::Write,
        &there.coordinate,
        &canaries,
        cx.write(&other).await.err(),
    )?;
    check(
        cx,
        Operation::Read,
        &missing,
        &canaries,
        cx.read_managed(&missing).await.err(),
    )?;
    check(
        cx,
        Operation::Describe,
        &missing,
        &canaries,
        cx.describe(&missing).await.err(),
    )?;
    let restored = cx.writer.restore(&missing).await;
    check(cx, Operation::Restore, &missing, &canaries, restored.err())?;

    let text = there.value.expose();
    let capabilities = cx.capabilities();
    let mut refused = vec![Write::new(cx.name(), SecretValue::new(String::new()))];
    if capabilities.max_value_bytes < cx.options.largest_value {
        let large = text.repeat(capabilities.max_value_bytes / text.len() + 1);
        refused.push(Write::new(cx.name(), SecretValue::new(large)));
    }
    if !capabilities.nul {
        let nul = SecretValue::new(format!("{text}\0"));
        refused.push(Write::new(cx.name(), nul));
    }
    if capabilities.expiry == Expiry::None {
        let expires = Some(super::expiry::in_an_hour());
        refused.push(Write::new(cx.name(), there.value.clone()).with_expires(expires));
    }
    for write in &refused {
        let error = cx.write(write).await.err();
        check(cx, Operation::Write, &write.coordinate, &canaries, error)?;
    }

    let options = DeleteOptions::default().with_recovery(Recovery::Configured);
    passed(
        cx.retrying(|| cx.writer.delete(&there.coordinate, &options))
            .await,
        "deleting",
    )?;
    let read = cx.read_managed(&there.coordinate).await.err();
    check(cx, Operation::Read, &there.coordinate, &canaries, read)?;
    if capabilities.recovery && capabilities.on_pending == OnPending::Refuse {
        let error = cx.write(&there).await.err();
        check(cx, Operation::Write, &there.coordinate, &canaries, error)?;
    }
    // The handle itself shows its store, but no value.
    let shown = format!("{} {:?}", cx.store, cx.store);
    hides(&shown, &canaries, "the store's Display or Debug")
}

/// A value with several lines, each of which would be a leak.
fn multi_line(cx: &Context) -> Write {
    let lines = [(); 3].map(|()| cx.value().expose().to_owned());
    Write::new(cx.name(), SecretValue::new(lines.join("\n")))
}

fn check(
    cx: &Context,
    operation: Operation,
    coordinate: &ManagedCoordinate,
    canaries: &[&SecretValue],
    error: Option<Error>,
) -> Verdict {
    let Some(error) = error else {
        return crate::conformance::context::failed(format!(
            "a {operation} that must fail succeeded"
        ));
    };
    let mut shown = format!("{error}\n{error:?}\n{error:#?}");
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a String cannot fail.
        let _ = write!(shown, "\n{cause}\n{cause:?}");
        source = cause.source();
    }
    hides(&shown, canaries, &format!("the error of a {operation}"))?;
    ensure!(
        error.coordinate() == Some(coordinate.as_str())
            && error.to_string().contains(coordinate.as_str()),
        "the error of a {operation} does not name the coordinate: {error}"
    );
    ensure!(
        error.operation() == Some(operation),
        "the error of a {operation} names the operation {:?}: {error}",
        error.operation()
    );
    ensure!(
        error.store().is_some_and(|store| !store.is_empty()),
        "the error of a {operation} in {} does not name the store: {error}",
        cx.store
    );
    Ok(())
}

fn hides(shown: &str, canaries: &[&SecretValue], what: &str) -> Verdict {
    let leaks = canaries
        .iter()
        .flat_map(|value| value.expose().lines())
        .any(|line| shown.contains(line) || shown.contains(line.trim_start_matches("canary ")));
    ensure!(!leaks, "{what} shows a value");
    Ok(())
}
