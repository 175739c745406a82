//! AWS Secrets Manager.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use secret_persistence_aws::{AwsSecretsManager, Config, SETTINGS};
use secret_persistence_core::settings::SettingMap;

use super::{Backend, JsonForm, open};
use crate::kind::Kind;

pub(super) const BACKEND: Backend = Backend {
    kind: Kind::Aws,
    settings: SETTINGS,
    json: &[
        JsonForm {
            auth_type: Some("ACCESS_KEY"),
            required: &["awsAccessKey", "awsSecretAccessKey", "awsRegion", "tagKey"],
            optional: &["kmsKeyArn"],
        },
        JsonForm {
            auth_type: Some("IAM_ROLE"),
            required: &["roleArn", "awsRegion", "tagKey"],
            optional: &["externalId", "kmsKeyArn"],
        },
    ],
    quotas: Some(AwsSecretsManager::quotas),
    account: Some(account),
    check: |values| Config::from_settings(values).map(drop),
    open: |values, owner| {
        Box::pin(open(
            Config::from_settings(values),
            owner,
            Config::with_owner,
            AwsSecretsManager::connect,
        ))
    },
};

/// AWS counts by account and region: <https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html>.
/// A role names its account. An access key does not, so each key counts as an account of its own, under a
/// digest, because the name is written into the database of rates. What the environment decides is one account.
fn account(settings: &SettingMap) -> Option<String> {
    let text = |name| settings.text(name).filter(|text| !text.is_empty());
    let region = text("region")?;
    let role = text("role-arn").and_then(|arn| arn.split(':').nth(4));
    if let Some(account) = role {
        return Some(format!("aws {region} account {account}"));
    }
    if let Some(key) = settings.secret("access-key-id") {
        let mut name = format!("aws {region} key ");
        for byte in &digest(&SHA256, key.expose().as_bytes()).as_ref()[..8] {
            // Writing to a string cannot fail.
            let _ = write!(name, "{byte:02x}");
        }
        return Some(name);
    }
    let profile = text("profile")?;
    Some(format!("aws {region} profile {profile}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_surely_one_account_has_one_name() {
        let of = |pairs: &[(&'static str, &str)]| {
            account(&SETTINGS.from_pairs(pairs.iter().copied()).unwrap())
        };
        const REGION: (&str, &str) = ("region", "eu-west-1");
        let role = |arn| of(&[REGION, ("role-arn", arn)]).unwrap();
        assert_eq!(
            role("arn:aws:iam::123456789012:role/x"),
            "aws eu-west-1 account 123456789012"
        );
        assert_eq!(
            role("arn:aws:iam::123456789012:role/x"),
            role("arn:aws:iam::123456789012:role/path/y")
        );
        let key = |key, region| of(&[("region", region), ("access-key-id", key)]).unwrap();
        let first = key("AKIACANARY", "eu-west-1");
        assert!(!first.contains("CANARY"), "{first}");
        assert_eq!(first, key("AKIACANARY", "eu-west-1"));
        assert_ne!(first, key("AKIAOTHER", "eu-west-1"));
        assert_ne!(first, key("AKIACANARY", "eu-west-3"));
        let profile = of(&[REGION, ("profile", "p")]);
        assert_eq!(profile.as_deref(), Some("aws eu-west-1 profile p"));
        // The name of the store.
        assert_eq!(of(&[REGION]), None);
    }
}
