//! Properties of every configuration, whatever the specification.

use std::collections::HashMap;

use secret_persistence_core::connector::{
    ConnectorError, ConnectorSpec, MASK, Pointer, Policy, References, SplitPlan, hydrate_with,
    plan_create, plan_update, pointers, saved_pointers_needed, scrub,
};
use secret_persistence_core::{Coordinate, Scope, SecretValue};
use serde_json::Value;
use uuid::Uuid;

pub(crate) fn scope() -> Scope {
    Scope::workspace(Uuid::from_u128(0xA))
}

/// What a plan writes, by its pointer.
pub(crate) fn stored(plan: &SplitPlan) -> HashMap<Pointer, SecretValue> {
    let values: HashMap<Coordinate, SecretValue> = plan
        .writes
        .iter()
        .map(|write| (write.coordinate.clone().into(), write.value.clone()))
        .collect();
    pointers(&plan.config)
        .unwrap()
        .into_iter()
        .filter_map(|(_, pointer)| {
            let value = values.get(pointer.coordinate.as_ref()?)?.clone();
            Some((pointer, value))
        })
        .collect()
}

/// Checks everything at the end of the semantics' "Real input".
pub(crate) fn check(
    spec: &ConnectorSpec,
    config: &Value,
    canaries: &[String],
) -> Result<SplitPlan, ConnectorError> {
    let (scope, policy) = (scope(), Policy::default());
    let plan = plan_create(spec, &scope, &policy, config.clone())?;
    let text = plan.config.to_string();
    for canary in canaries {
        assert!(!text.contains(canary), "{canary} stays in {text}");
    }
    assert!(plan.writes.len() >= canaries.len());
    assert_eq!(pointers(&plan.config).unwrap().len(), plan.writes.len());

    let values = stored(&plan);
    let value_of = |pointer: &Pointer| values.get(pointer).cloned();
    let full = hydrate_with(plan.config.clone(), value_of)?;
    if config.is_null() {
        assert_eq!(*full, serde_json::json!({}));
        return Ok(plan);
    }
    assert_eq!(*full, *config);

    let shown = spec.mask(config.clone())?;
    let text = shown.to_string();
    for canary in canaries {
        assert!(!text.contains(canary), "{canary} shows in {text}");
    }
    assert_eq!(spec.mask(plan.config.clone())?, shown);
    assert_eq!(spec.mask_hydrated(config.clone(), &plan.config)?, shown);
    assert_eq!(spec.scrub(config.clone())?.raw.len(), plan.writes.len());
    let scrubbed = scrub(plan.config.clone())?;
    assert!(pointers(&scrubbed.value).unwrap().is_empty());
    assert!(shown.to_string().matches(MASK).count() >= plan.writes.len());

    // The mask, the pointers and the values themselves, saved again, change nothing.
    for edited in [&shown, &plan.config, config] {
        let needed = saved_pointers_needed(spec, &policy, &plan.config, edited)?;
        let expected = if edited == config {
            plan.writes.len()
        } else {
            0
        };
        assert_eq!(needed.len(), expected);
        let update = plan_update(
            spec,
            &scope,
            &policy,
            &plan.config,
            &values,
            &References::default(),
            edited.clone(),
        )?;
        assert_eq!(update.config, plan.config);
        assert!(update.writes.is_empty() && update.superseded.is_empty());
    }
    Ok(plan)
}
