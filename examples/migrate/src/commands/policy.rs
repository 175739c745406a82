//! `policy`: prints the minimal permissions for a store's credentials.

use serde_json::Value;
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp", feature = "vault"))]
use serde_json::json;

use crate::cli::{PolicyArgs, PolicyOf};
use crate::output::Output;
#[cfg(not(all(feature = "aws", feature = "azure", feature = "gcp", feature = "vault")))]
use crate::status::Failure;
use crate::status::{Result, Status};

/// Runs it.
pub(crate) fn run(args: PolicyArgs, output: &Output) -> Result<Status> {
    let (text, object) = policy(args.of)?;
    output.text(text.trim_end());
    output.object(Status::Done, &object);
    Ok(Status::Done)
}

/// Prints the policy verbatim for people, who paste it, or in JSON for programs.
fn policy(of: PolicyOf) -> Result<(String, Value)> {
    match of {
        #[cfg(feature = "aws")]
        PolicyOf::Aws {
            region,
            account,
            tag_key,
            kms,
            external,
            read_only,
            principal,
            external_id,
        } => {
            use secret_persistence::aws::policy::{PolicyOptions, iam_policy, trust_policy};
            let mut options = PolicyOptions::new(region, account).with_read_only(read_only);
            if let Some(key) = tag_key {
                options = options.with_tag_key(key);
            }
            if let Some(key) = kms {
                options = options.with_kms_key(key);
            }
            for prefix in external {
                options = options.with_external(prefix);
            }
            let policy = iam_policy(&options)?;
            let mut text = format!("{policy:#}");
            let mut object = json!({ "command": "policy", "store": "aws", "policy": policy });
            if let Some(principal) = principal {
                let trust = trust_policy(&principal, external_id.as_deref())?;
                text = format!("{text}\n{trust:#}");
                object["trust_policy"] = trust;
            }
            Ok((text, object))
        }
        #[cfg(not(feature = "aws"))]
        PolicyOf::Aws { .. } => Err(not_built_in("aws")),
        #[cfg(feature = "azure")]
        PolicyOf::Azure {
            vault,
            subscription,
            resource_group,
            principal,
            role_name,
            purge,
            read_only,
        } => {
            use secret_persistence::azure::policy::{
                PolicyOptions, access_policy_command, role_commands, role_definition,
            };
            let mut options = PolicyOptions::new(vault, subscription, resource_group)
                .with_purge(purge)
                .with_read_only(read_only);
            if let Some(id) = principal {
                options = options.with_principal(id);
            }
            if let Some(name) = role_name {
                options = options.with_role_name(name);
            }
            let role = role_definition(&options)?;
            let commands = role_commands(&options)?;
            let access_policy = access_policy_command(&options)?;
            let text = format!(
                "{role:#}\n\n\
                 # with the role above in role.json:\n{}\n\n\
                 # for a vault with access policies instead of roles:\n{access_policy}\n\n\
                 # Azure cannot scope rights by a secret's name: give connectors a vault of their own\n",
                commands.join("\n")
            );
            let object = json!({
                "command": "policy",
                "store": "azure",
                "role": role,
                "role_commands": commands,
                "access_policy_command": access_policy,
            });
            Ok((text, object))
        }
        #[cfg(not(feature = "azure"))]
        PolicyOf::Azure { .. } => Err(not_built_in("azure")),
        #[cfg(feature = "gcp")]
        PolicyOf::Gcp {
            project_number,
            project,
            region,
            kms_key,
            member,
            external,
            read_only,
        } => {
            use secret_persistence::google::policy::{PolicyOptions, commands, roles};
            let mut options = PolicyOptions::new(project_number).with_read_only(read_only);
            if let Some(id) = project {
                options = options.with_project(id);
            }
            if let Some(region) = region {
                options = options.with_region(region);
            }
            if let Some(key) = kms_key {
                options = options.with_kms_key(key);
            }
            if let Some(member) = member {
                options = options.with_member(member);
            }
            for prefix in external {
                options = options.with_external(prefix);
            }
            let policy = roles(&options)?;
            let script = commands(&options)?;
            let text = format!("{policy:#}\n\n# the same with gcloud:\n{script}");
            let commands: Vec<&str> = script.lines().collect();
            let object = json!({
                "command": "policy",
                "store": "gcp",
                "policy": policy,
                "commands": commands,
            });
            Ok((text, object))
        }
        #[cfg(not(feature = "gcp"))]
        PolicyOf::Gcp { .. } => Err(not_built_in("gcp")),
        #[cfg(feature = "vault")]
        PolicyOf::Vault {
            prefix,
            mount,
            kv_version,
            read_only,
        } => {
            use secret_persistence::vault::{PolicyOptions, policy};
            let options = PolicyOptions::new(prefix)
                .with_mount(mount)
                .with_kv_version(kv_version)
                .with_read_only(read_only);
            let policy = policy(&options)?;
            let object = json!({ "command": "policy", "store": "vault", "policy": policy });
            Ok((policy, object))
        }
        #[cfg(not(feature = "vault"))]
        PolicyOf::Vault { .. } => Err(not_built_in("vault")),
    }
}

#[cfg(not(all(feature = "aws", feature = "azure", feature = "gcp", feature = "vault")))]
fn not_built_in(feature: &str) -> Failure {
    Failure::input(format!(
        "the {feature} backend is not built in; add `--features {feature}` to the cargo command"
    ))
}
