//! The permissions of this store: one table for the role definition, the access policy of older
//! vaults and the hints in errors.
//!
//! Azure cannot restrict a permission to a secret's name: a principal that may read one secret of a
//! vault may read all of them. So use a separate vault for connectors.
//!
//! ```
//! use secret_persistence_azure::policy::{PolicyOptions, role_definition};
//!
//! let options = PolicyOptions::new(
//!     "airbyte-prod",
//!     "11111111-2222-3333-4444-555555555555",
//!     "data-platform",
//! );
//! let role = role_definition(&options)?;
//! assert_eq!(role["Actions"], serde_json::json!([]));
//! assert_eq!(role["DataActions"][0], "Microsoft.KeyVault/vaults/secrets/getSecret/action");
//! // The options become part of commands and scopes, so invalid ones are refused.
//! assert!(role_definition(&PolicyOptions::new("*", "*", "*")).is_err());
//! # Ok::<(), secret_persistence_core::Error>(())
//! ```

use secret_persistence_core::{Error, ErrorKind, Operation, Result};
use serde_json::{Value, json};

use crate::config::is_vault_name;

/// Options of the role.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PolicyOptions {
    /// The vault's name.
    pub vault: String,
    /// The subscription of the vault: a UUID.
    pub subscription: String,
    /// The resource group of the vault.
    pub resource_group: String,
    /// The object id of the principal that gets the role: a service principal or a managed
    /// identity. It is not the application's id.
    pub principal: Option<String>,
    /// The role's name; `Connector secrets in <vault>` by default.
    pub role_name: Option<String>,
    /// Whether deletes may purge, and writes may purge deleted secrets of the same name.
    pub purge: bool,
    /// Whether the store only reads.
    pub read_only: bool,
}

impl PolicyOptions {
    /// Reading, writing, deleting and restoring, without purging.
    pub fn new(
        vault: impl Into<String>,
        subscription: impl Into<String>,
        resource_group: impl Into<String>,
    ) -> Self {
        Self {
            vault: vault.into(),
            subscription: subscription.into(),
            resource_group: resource_group.into(),
            principal: None,
            role_name: None,
            purge: false,
            read_only: false,
        }
    }

    /// Sets the principal that gets the role.
    #[must_use]
    pub fn with_principal(mut self, object_id: impl Into<String>) -> Self {
        self.principal = Some(object_id.into());
        self
    }

    /// Sets the role's name.
    #[must_use]
    pub fn with_role_name(mut self, name: impl Into<String>) -> Self {
        self.role_name = Some(name.into());
        self
    }

    /// Sets whether the role also permits purges.
    #[must_use]
    pub fn with_purge(mut self, purge: bool) -> Self {
        self.purge = purge;
        self
    }

    /// Sets whether the store only reads.
    #[must_use]
    pub fn with_read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    fn role_name(&self) -> String {
        self.role_name
            .clone()
            .unwrap_or_else(|| format!("Connector secrets in {}", self.vault))
    }

    fn group_scope(&self) -> String {
        format!(
            "/subscriptions/{}/resourceGroups/{}",
            self.subscription, self.resource_group
        )
    }

    fn vault_scope(&self) -> String {
        format!(
            "{}/providers/Microsoft.KeyVault/vaults/{}",
            self.group_scope(),
            self.vault
        )
    }

    fn rights(&self) -> impl Iterator<Item = &'static Right> {
        let (read_only, purge) = (self.read_only, self.purge);
        RIGHTS
            .iter()
            .filter(move |right| !read_only || right.is_for_reading())
            .filter(move |right| right.permission != "purge" || purge)
    }

    fn check(&self) -> Result<()> {
        if !is_vault_name(&self.vault) {
            return Err(
                Error::new(ErrorKind::InvalidConfig, "the vault's name is not valid")
                    .with_hint("3 to 24 letters, digits and hyphens, beginning with a letter"),
            );
        }
        if !is_uuid(&self.subscription) {
            return Err(
                Error::new(ErrorKind::InvalidConfig, "the subscription is not a UUID")
                    .with_hint("`az account show --query id` prints it"),
            );
        }
        let allowed = |char: char| char.is_ascii_alphanumeric() || "_-.()".contains(char);
        if !(1..=90).contains(&self.resource_group.len())
            || !self.resource_group.chars().all(allowed)
            || self.resource_group.ends_with('.')
        {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "the resource group's name is not valid",
            ));
        }
        if self.principal.as_deref().is_some_and(|id| !is_uuid(id)) {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "the principal is not an object id",
            )
            .with_hint(
                "`az ad sp show --id <client id> --query id` prints it; for a managed identity, \
                 `az identity show … --query principalId`",
            ));
        }
        let allowed = |char: char| char.is_ascii_alphanumeric() || " _-.".contains(char);
        let name = self.role_name();
        if !(1..=128).contains(&name.len()) || !name.chars().all(allowed) {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "the role's name must have 1 to 128 letters, digits, spaces, `_`, `-` and `.`",
            ));
        }
        Ok(())
    }
}

/// Generates the minimal role for a configuration, in the form that `az role definition create`
/// accepts.
///
/// # Errors
/// `InvalidConfig` if an option is invalid.
pub fn role_definition(options: &PolicyOptions) -> Result<Value> {
    options.check()?;
    let data_actions: Vec<&str> = options.rights().map(|right| right.data_action).collect();
    Ok(json!({
        "Name": options.role_name(),
        "IsCustom": true,
        "Description": "Secrets of connector configurations, and nothing else",
        "Actions": [],
        "NotActions": [],
        "DataActions": data_actions,
        "NotDataActions": [],
        // Custom roles can be assigned to resource groups; the assignment restricts this one to the
        // vault.
        "AssignableScopes": [options.group_scope()],
    }))
}

/// The commands that create the role from a file and assign it in this vault.
///
/// # Errors
/// As [`role_definition`].
pub fn role_commands(options: &PolicyOptions) -> Result<Vec<String>> {
    options.check()?;
    Ok(vec![
        "az role definition create --role-definition @role.json".to_owned(),
        format!(
            "az role assignment create --assignee-object-id {} --assignee-principal-type \
             ServicePrincipal --role '{}' --scope '{}'",
            options.principal.as_deref().unwrap_or("'<object id>'"),
            options.role_name(),
            options.vault_scope()
        ),
    ])
}

/// The command that grants the same permissions in a vault with access policies.
///
/// # Errors
/// As [`role_definition`].
pub fn access_policy_command(options: &PolicyOptions) -> Result<String> {
    options.check()?;
    let permissions: Vec<&str> = options.rights().map(|right| right.permission).collect();
    Ok(format!(
        "az keyvault set-policy --name {} --resource-group '{}' --object-id {} \
         --secret-permissions {}",
        options.vault,
        options.resource_group,
        options.principal.as_deref().unwrap_or("'<object id>'"),
        permissions.join(" ")
    ))
}

/// A request to the vault, or a login. The names are those of Key Vault's log.
/// <https://learn.microsoft.com/azure/key-vault/general/logging>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Delete,
    Get,
    GetDeleted,
    List,
    ListDeleted,
    ListVersions,
    Login,
    Purge,
    Recover,
    Set,
}

impl Action {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Delete => "SecretDelete",
            Self::Get => "SecretGet",
            Self::GetDeleted => "SecretGetDeleted",
            Self::List => "SecretList",
            Self::ListDeleted => "SecretListDeleted",
            Self::ListVersions => "SecretListVersions",
            Self::Login => "login",
            Self::Purge => "SecretPurge",
            Self::Recover => "SecretRecover",
            Self::Set => "SecretSet",
        }
    }

    /// The permission that allows it.
    fn right(self) -> Option<&'static Right> {
        RIGHTS.iter().find(|right| right.actions.contains(&self))
    }

    /// Its name in access policies. Reading a deleted secret is `get` there, and the permission to
    /// read metadata in roles.
    fn permission(self) -> Option<&'static str> {
        match self {
            Self::GetDeleted => Some("get"),
            _ => self.right().map(|right| right.permission),
        }
    }
}

/// The vault's permission model, as far as its refusal reveals it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Model {
    AccessPolicy,
    Roles,
    Unknown,
}

/// The message about the denial, and the permission to grant.
pub(crate) fn advice(action: Action, model: Model, vault: &str) -> (String, String) {
    let what = action.as_str();
    let (Some(right), Some(permission)) = (action.right(), action.permission()) else {
        return (
            format!("the principal may not perform {what} in {vault}"),
            "check the vault's access control".to_owned(),
        );
    };
    let data_action = right.data_action;
    let role = format!(
        "assign a role with the data action {data_action} on the vault to the principal; a new \
         assignment takes minutes to take effect; `secret-migrate check --wait 10m` waits for it"
    );
    let policy = format!(
        "grant the secret permission `{permission}` in the vault's access policies to the principal's \
         object id, which is not its client id"
    );
    let (message, grant) = match model {
        Model::AccessPolicy => (
            format!(
                "no access policy of {vault} grants the principal the secret permission \
                 `{permission}`"
            ),
            policy,
        ),
        Model::Roles => (
            format!("no role grants the principal the data action {data_action} in {vault}"),
            role,
        ),
        // A refusal without a reason may be about the secret's state.
        Model::Unknown if action == Action::Get => (
            format!("the principal may not perform {what} in {vault}, or the secret is disabled"),
            format!(
                "check whether the secret is enabled; if the vault uses roles, {role}; if it \
                 uses access policies, {policy}"
            ),
        ),
        Model::Unknown => (
            format!("the principal may not perform {what} in {vault}"),
            format!("if the vault uses roles, {role}; if it uses access policies, {policy}"),
        ),
    };
    (
        message,
        format!(
            "{grant}; `secret-migrate policy azure` prints a minimal role; see {}",
            right.page
        ),
    )
}

/// One permission: its names in roles and in access policies, and the operations that need it.
struct Right {
    data_action: &'static str,
    permission: &'static str,
    /// The requests that it allows.
    actions: &'static [Action],
    /// The operations of the trait that may need it.
    operations: &'static [Operation],
    /// The page of Azure's documentation.
    page: &'static str,
}

impl Right {
    fn is_for_reading(&self) -> bool {
        const READING: [Operation; 4] = [
            Operation::Describe,
            Operation::Identity,
            Operation::List,
            Operation::Read,
        ];
        self.operations
            .iter()
            .any(|needed| READING.contains(needed))
    }
}

const DATA_ACTIONS_PAGE: &str =
    "https://learn.microsoft.com/azure/role-based-access-control/permissions/security";
const GUIDE_PAGE: &str = "https://learn.microsoft.com/azure/key-vault/general/rbac-guide";
const SOFT_DELETE_PAGE: &str =
    "https://learn.microsoft.com/azure/key-vault/general/soft-delete-overview";

/// From the list of Key Vault's data actions and the operations of its REST API.
const RIGHTS: &[Right] = &[
    // Writes compare with the existing value; deletes and descriptions first check the coordinate.
    Right {
        data_action: "Microsoft.KeyVault/vaults/secrets/getSecret/action",
        permission: "get",
        actions: &[Action::Get],
        operations: &[
            Operation::Delete,
            Operation::Describe,
            Operation::Read,
            Operation::Restore,
            Operation::Write,
        ],
        page: GUIDE_PAGE,
    },
    // Distinguishes a soft-deleted secret from a missing one, and reads tags and dates of a
    // disabled one.
    Right {
        data_action: "Microsoft.KeyVault/vaults/secrets/readMetadata/action",
        permission: "list",
        actions: &[
            Action::GetDeleted,
            Action::List,
            Action::ListDeleted,
            Action::ListVersions,
        ],
        operations: &[
            Operation::Delete,
            Operation::Describe,
            Operation::Identity,
            Operation::List,
            Operation::Read,
            Operation::Restore,
            Operation::Write,
        ],
        page: DATA_ACTIONS_PAGE,
    },
    Right {
        data_action: "Microsoft.KeyVault/vaults/secrets/setSecret/action",
        permission: "set",
        actions: &[Action::Set],
        operations: &[Operation::Write],
        page: GUIDE_PAGE,
    },
    // The only data action without `/action`.
    Right {
        data_action: "Microsoft.KeyVault/vaults/secrets/delete",
        permission: "delete",
        actions: &[Action::Delete],
        operations: &[Operation::Delete],
        page: DATA_ACTIONS_PAGE,
    },
    Right {
        data_action: "Microsoft.KeyVault/vaults/secrets/recover/action",
        permission: "recover",
        actions: &[Action::Recover],
        operations: &[Operation::Restore, Operation::Write],
        page: SOFT_DELETE_PAGE,
    },
    Right {
        data_action: "Microsoft.KeyVault/vaults/secrets/purge/action",
        permission: "purge",
        actions: &[Action::Purge],
        operations: &[Operation::Delete, Operation::Write],
        page: SOFT_DELETE_PAGE,
    },
];

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "11111111-2222-3333-4444-555555555555";

    fn options() -> PolicyOptions {
        PolicyOptions::new("my-vault", ID, "data (prod)".replace(' ', "_")).with_principal(ID)
    }

    fn data_actions(options: &PolicyOptions) -> Vec<String> {
        let role = role_definition(options).unwrap();
        let actions = role["DataActions"].as_array().unwrap();
        let text = |action: &Value| {
            action
                .as_str()
                .unwrap()
                .rsplit("secrets/")
                .next()
                .map(str::to_owned)
        };
        actions.iter().filter_map(text).collect()
    }

    #[test]
    fn every_request_to_the_vault_has_exactly_one_right() {
        for action in [
            Action::Delete,
            Action::Get,
            Action::GetDeleted,
            Action::List,
            Action::ListDeleted,
            Action::ListVersions,
            Action::Purge,
            Action::Recover,
            Action::Set,
        ] {
            let rights = RIGHTS
                .iter()
                .filter(|right| right.actions.contains(&action));
            assert_eq!(rights.count(), 1, "{action:?}");
        }
        assert!(Action::Login.right().is_none());
    }

    #[test]
    fn the_role_has_what_its_options_need() {
        assert_eq!(
            data_actions(&options()),
            [
                "getSecret/action",
                "readMetadata/action",
                "setSecret/action",
                "delete",
                "recover/action"
            ]
        );
        assert_eq!(data_actions(&options().with_purge(true)).len(), 6);
        assert_eq!(
            data_actions(&options().with_read_only(true).with_purge(true)),
            ["getSecret/action", "readMetadata/action"]
        );
    }

    #[test]
    fn commands_name_vault_role_and_principal() {
        let [create, assign] = &role_commands(&options()).unwrap()[..] else {
            panic!("two commands");
        };
        assert!(create.contains("az role definition create"));
        for part in [
            ID,
            "--role 'Connector secrets in my-vault'",
            "/resourceGroups/data_(prod)/providers/Microsoft.KeyVault/vaults/my-vault'",
        ] {
            assert!(assign.contains(part), "{assign}");
        }
        let policy = access_policy_command(&options()).unwrap();
        assert!(
            policy.ends_with("--secret-permissions get list set delete recover"),
            "{policy}"
        );
    }

    #[test]
    fn what_could_widen_a_scope_or_end_a_command_is_refused() {
        for bad in [
            "",
            "*",
            "a'; rm -rf /; '",
            "a/b",
            "$(x)",
            "a`b`",
            "a\nb",
            "..",
        ] {
            for options in [
                PolicyOptions::new(bad, ID, "group"),
                PolicyOptions::new("my-vault", bad, "group"),
                PolicyOptions::new("my-vault", ID, bad),
                options().with_principal(bad),
                options().with_role_name(format!("{bad}'")),
            ] {
                for result in [
                    role_definition(&options).err(),
                    role_commands(&options).err(),
                    access_policy_command(&options).err(),
                ] {
                    assert_eq!(
                        result.map(|error| error.kind()),
                        Some(ErrorKind::InvalidConfig),
                        "{options:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn advice_names_what_the_vault_decides_by() {
        let (message, hint) = advice(Action::Get, Model::Roles, "my-vault");
        assert!(message.contains("Microsoft.KeyVault/vaults/secrets/getSecret/action"));
        assert!(
            hint.contains("--wait") && hint.contains("secret-migrate policy azure"),
            "{hint}"
        );
        let (message, hint) = advice(Action::GetDeleted, Model::AccessPolicy, "my-vault");
        assert!(
            message.contains("`get`") && hint.contains("object id"),
            "{message} {hint}"
        );
        let (message, hint) = advice(Action::Get, Model::Unknown, "my-vault");
        assert!(
            message.contains("disabled") && hint.contains("getSecret/action"),
            "{message} {hint}"
        );
        let (_, hint) = advice(Action::Delete, Model::Unknown, "my-vault");
        assert!(
            hint.contains("secrets/delete on") && hint.contains("`delete`"),
            "{hint}"
        );
    }
}
