//! The options of `policy`.

use clap::{Args, Subcommand};

/// `policy`.
#[derive(Args, Debug)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    pub(crate) of: PolicyOf,
}

/// The store to print a policy for.
#[derive(Subcommand, Debug)]
pub(crate) enum PolicyOf {
    /// The IAM policy, and with --principal the trust policy of a role.
    Aws {
        /// The region of the secrets.
        #[arg(long)]
        region: String,
        /// The account of the secrets: twelve digits.
        #[arg(long)]
        account: String,
        /// The tag key whose value `true` marks our secrets, such as AirbyteManaged.
        #[arg(long)]
        tag_key: Option<String>,
        /// The ARN of the customer-managed key that encrypts the secrets.
        #[arg(long, value_name = "ARN")]
        kms: Option<String>,
        /// Allow reading external secrets whose names begin with this prefix. Repeatable.
        #[arg(long, value_name = "PREFIX")]
        external: Vec<String>,
        /// For credentials that only read.
        #[arg(long)]
        read_only: bool,
        /// Also print the trust policy, with this principal as the one that may assume the role.
        #[arg(long, value_name = "ARN")]
        principal: Option<String>,
        /// The external id that is required to assume the role.
        #[arg(long, value_name = "ID", requires = "principal")]
        external_id: Option<String>,
    },
    /// The role definition, the commands that assign it, and the access policy for older vaults.
    Azure {
        /// The vault's name. Use a separate vault, because Azure cannot scope permissions by a
        /// secret's name.
        #[arg(long)]
        vault: String,
        /// The id of the vault's subscription.
        #[arg(long, value_name = "ID")]
        subscription: String,
        /// The vault's resource group.
        #[arg(long, value_name = "NAME")]
        resource_group: String,
        /// The object id (not the client id) of the service principal or managed identity.
        #[arg(long, value_name = "ID")]
        principal: Option<String>,
        /// The role's name.
        #[arg(long, value_name = "NAME")]
        role_name: Option<String>,
        /// For stores that purge deleted secrets.
        #[arg(long)]
        purge: bool,
        /// For credentials that only read.
        #[arg(long)]
        read_only: bool,
    },
    /// Two custom roles, their bindings, the grant on a customer-managed key, and the gcloud
    /// commands.
    Gcp {
        /// The number of the project that contains the secrets; conditions use it instead of the
        /// id.
        #[arg(long, value_name = "NUMBER")]
        project_number: String,
        /// The id of that project. Default: the commands ask gcloud.
        #[arg(long, value_name = "ID")]
        project: Option<String>,
        /// The region, if secrets are regional.
        #[arg(long)]
        region: Option<String>,
        /// The resource name of the Cloud KMS key that encrypts the secrets.
        #[arg(long, value_name = "NAME")]
        kms_key: Option<String>,
        /// The member that gets the roles, such as
        /// serviceAccount:NAME@PROJECT.iam.gserviceaccount.com.
        #[arg(long)]
        member: Option<String>,
        /// Allow reading external secrets whose ids begin with this prefix. Repeatable.
        #[arg(long, value_name = "PREFIX")]
        external: Vec<String>,
        /// For credentials that only read.
        #[arg(long)]
        read_only: bool,
    },
    /// The policy in HCL.
    Vault {
        /// Mount and path together, as in the store's URL: secret/airbyte/
        #[arg(long)]
        prefix: String,
        /// The mount, if it is not the first part of the prefix.
        #[arg(long)]
        mount: Option<String>,
        /// The KV version, 1 or 2. Default: both.
        #[arg(long)]
        kv_version: Option<u8>,
        /// For a token that only reads.
        #[arg(long)]
        read_only: bool,
    },
}
