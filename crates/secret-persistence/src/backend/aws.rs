//! AWS Secrets Manager.

use std::sync::Arc;

use secret_persistence_aws::{AwsSecretsManager, Config, SETTINGS};
use secret_persistence_core::SecretPersistence;

use super::{Backend, JsonForm};
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
        Box::pin(async move {
            let mut config = Config::from_settings(values)?;
            if let Some(owner) = owner {
                config = config.with_owner(owner);
            }
            Ok(Arc::new(AwsSecretsManager::connect(config).await?) as Arc<dyn SecretPersistence>)
        })
    },
};
