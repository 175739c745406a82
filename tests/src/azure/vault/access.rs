//! Access checks: tokens (401), network rules and permissions (403).

use std::time::Instant;

use hyper::{HeaderMap, header};

use super::refusal::Refusal;
use crate::azure::{
    clock::unix_now,
    directory::{Directory, issuer},
    jwt::Invalid,
    route::Operation,
    switches::{DATA_ACTIONS, Firewall, PermissionModel, Switches},
};

/// The vault's name and location in refusals.
pub(super) const VAULT: &str = "standin;location=westeurope";

/// An authenticated caller in refusals.
pub(super) struct Caller(String);

/// Checks the token.
///
/// See <https://learn.microsoft.com/azure/key-vault/general/rest-error-codes#http-401-unauthenticated-request>.
pub(super) fn authenticate(
    directory: &Directory,
    switches: &Switches,
    authority: &str,
    headers: &HeaderMap,
) -> Result<Caller, Refusal> {
    let challenge = || {
        format!(
            "Bearer authorization=\"{authority}/{}\", resource=\"{}\"",
            directory.tenant, directory.resource
        )
    };
    let refused = |message: String| Refusal::unauthorized(challenge(), message);

    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        // https://github.com/hashicorp/terraform-provider-azurerm/issues/19749
        .ok_or_else(|| refused("AKV10000: Request is missing a Bearer or PoP token.".into()))?;
    let claims = directory.entra_key.verify(token).map_err(|invalid| {
        // https://github.com/Azure-Samples/azuresandbox/issues/362
        refused(match invalid {
            Invalid::Malformed => "Error validating token: IDX12741".into(),
            Invalid::Signature => "AKV10046: Unable to validate the signature of the token.".into(),
            Invalid::UnknownKey => {
                "AKV10046: Unable to resolve the key used for signature validation.".into()
            }
        })
    })?;

    let text = |claim: &str| claims[claim].as_str().unwrap_or_default();
    let now = unix_now() + i64::try_from(switches.clock_ahead.as_secs()).unwrap_or(i64::MAX / 2);
    // https://github.com/Azure/azure-sdk-for-python/issues/27266
    if claims["exp"].as_i64().is_none_or(|exp| exp <= now) {
        return Err(refused(
            "[TokenExpired] Error validating token: 'S2S12086'.".into(),
        ));
    }
    // https://github.com/MicrosoftDocs/azure-docs/issues/75410
    let expected = issuer(&directory.tenant);
    if text("iss") != expected {
        return Err(refused(format!(
            "AKV10032: Invalid issuer. Expected one of {expected}, found {}.",
            text("iss")
        )));
    }
    // A trailing slash makes it another resource: https://github.com/Azure/go-autorest/issues/525
    if text("aud") != directory.resource {
        return Err(refused(format!(
            "AKV10022: Invalid audience. Expected {}, found: {}.",
            directory.resource,
            text("aud")
        )));
    }
    Ok(Caller(format!(
        "appid={};oid={};iss={expected}",
        text("appid"),
        text("oid")
    )))
}

/// Checks the network rules after the token, because refusals contain the caller.
pub(super) fn check_network(switches: &Switches, caller: &Caller) -> Result<(), Refusal> {
    match switches.firewall {
        Firewall::AddressNotAllowed => Err(Refusal::firewall(&caller.0, VAULT)),
        Firewall::Open => Ok(()),
        Firewall::PublicAccessDisabled => Err(Refusal::connection(&caller.0, VAULT)),
    }
}

/// Checks the permission of the caller.
pub(super) fn authorize(
    switches: &Switches,
    caller: &Caller,
    operation: &Operation,
) -> Result<(), Refusal> {
    let unassigned = switches.role_assigned.is_some_and(|at| Instant::now() < at);
    let action = operation.data_action();
    let permission = operation.permission();
    match switches.permission_model {
        PermissionModel::AccessPolicy => {
            let denied = switches
                .denied
                .iter()
                .any(|action| covering(action) == permission);
            if denied || unassigned {
                return Err(Refusal::policy(&caller.0, permission, VAULT));
            }
        }
        PermissionModel::Roles => {
            if switches.denied.contains(action) || unassigned {
                let resource = resource(operation.name());
                return Err(Refusal::role(&caller.0, action, &resource, VAULT));
            }
        }
    }
    Ok(())
}

/// The permission of an access policy that covers a data action.
fn covering(action: &str) -> &'static str {
    const PERMISSIONS: [&str; 7] = ["delete", "get", "purge", "list", "recover", "set", "set"];
    DATA_ACTIONS
        .iter()
        .zip(PERMISSIONS)
        .find_map(|(known, permission)| (*known == action).then_some(permission))
        .expect("only known actions can be denied")
}

fn resource(name: Option<&str>) -> String {
    let vault = "/subscriptions/00000000-0000-0000-0000-000000000000/resourcegroups/tests/providers/microsoft.keyvault/vaults/standin";
    match name {
        None => vault.to_owned(),
        Some(name) => format!("{vault}/secrets/{}", name.to_ascii_lowercase()),
    }
}
