//! AWS Secrets Manager.

use std::sync::Arc;

use aws_sdk_secretsmanager::config::{BehaviorVersion, Credentials, Region};
use futures::future::join_all;
use secret_persistence_aws::{AwsSecretsManager, Config, SETTINGS};
use secret_persistence_core::{ManagedCoordinate, SecretPersistence};

use crate::{
    configuration::{value, write},
    measure::Bare,
};

const REGION: &str = "eu-central-1";

/// The unmodified AWS SDK.
pub(crate) struct Sdk {
    client: aws_sdk_secretsmanager::Client,
    pub(crate) url: String,
}

impl Sdk {
    pub(crate) fn new(url: &str) -> Self {
        let config = aws_sdk_secretsmanager::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .credentials_provider(Credentials::new("test", "test", None, None, "bench"))
            .endpoint_url(url);
        Self {
            client: aws_sdk_secretsmanager::Client::from_conf(config.build()),
            url: url.to_owned(),
        }
    }

    pub(crate) async fn remove(&self, names: &[ManagedCoordinate]) {
        let remove = async |name: &ManagedCoordinate| {
            let request = self.client.delete_secret().secret_id(name.as_str());
            request
                .force_delete_without_recovery(true)
                .send()
                .await
                .unwrap();
        };
        write(names, remove).await;
    }
}

impl Bare for Sdk {
    async fn ours(&self) -> Arc<dyn SecretPersistence> {
        let settings = SETTINGS.from_pairs([
            ("region", REGION),
            ("endpoint-url", &self.url),
            ("access-key-id", "test"),
            ("secret-access-key", "test"),
        ]);
        let config = Config::from_settings(&settings.unwrap()).unwrap();
        Arc::new(AwsSecretsManager::connect(config).await.unwrap())
    }

    fn anew(&self) -> Self {
        Self::new(&self.url)
    }

    async fn read(&self, names: &[ManagedCoordinate]) {
        if let [name] = names {
            return self.read_one(name).await;
        }
        let batches = names.chunks(20).map(|names| async move {
            let names = names.iter().map(|name| name.as_str().to_owned()).collect();
            let request = self.client.batch_get_secret_value();
            let answer = request
                .set_secret_id_list(Some(names))
                .send()
                .await
                .unwrap();
            answer.secret_values.unwrap().len()
        });
        let read: usize = join_all(batches).await.into_iter().sum();
        assert_eq!(read, names.len());
    }

    async fn read_one(&self, name: &ManagedCoordinate) {
        let answer = self
            .client
            .get_secret_value()
            .secret_id(name.as_str())
            .send()
            .await;
        assert!(answer.unwrap().secret_string.is_some());
    }

    async fn write_one(&self, name: &ManagedCoordinate) {
        let request = self.client.create_secret().name(name.as_str());
        request.secret_string(value(name)).send().await.unwrap();
    }
}
