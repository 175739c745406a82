//! AWS Secrets Manager.

use secret_persistence_aws::{AwsSecretsManager, Config, SETTINGS};

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
