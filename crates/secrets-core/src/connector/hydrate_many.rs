//! Hydrates many configurations with one batch of reads.

use serde_json::Value;

use super::error::{ConnectorError, Problems};
use super::hydrate::hydrate_with;
use super::place::Place;
use super::pointer::{Pointer, pointers};
use super::secret_json::SecretJson;
use super::secrets::ActingSecrets;

impl ActingSecrets {
    /// Hydrates every configuration like [`hydrate`](Self::hydrate): same length and order. Each
    /// secret is read once, however many configurations refer to it, and all reads are concurrent.
    /// Each configuration succeeds or fails as a whole, independently of the others.
    ///
    /// # Errors
    /// The outer error occurs only if the audit is required and its sink fails; then nothing is
    /// returned. The inner errors name every place without a value.
    pub async fn hydrate_many(
        &self,
        saved: Vec<Value>,
    ) -> Result<Vec<Result<SecretJson, ConnectorError>>, ConnectorError> {
        let saved: Vec<SecretJson> = saved.into_iter().map(SecretJson::new).collect();
        let found: Vec<Result<Vec<(Place, Pointer)>, ConnectorError>> =
            saved.iter().map(|saved| pointers(saved)).collect();
        let wanted: Vec<Pointer> = found
            .iter()
            .flatten()
            .flatten()
            .map(|(_, pointer)| pointer.clone())
            .collect();
        let places: Vec<Place> = match self.stores().is_audited() {
            true => found
                .iter()
                .flatten()
                .flatten()
                .map(|(place, _)| place.clone())
                .collect(),
            false => Vec::new(),
        };
        let ids = wanted.iter().filter_map(|pointer| pointer.reference_id);
        let references = self.references(ids.collect()).await;
        let mut values = self.read(&wanted, &places, &references).await?.into_iter();
        Ok(saved
            .into_iter()
            .zip(found)
            .map(|(saved, found)| {
                let found = found?;
                let mut problems = Problems::default();
                let mut ours = Vec::with_capacity(found.len());
                // As many values as pointers, in their order.
                for ((place, pointer), value) in found.into_iter().zip(values.by_ref()) {
                    match value {
                        Ok(value) => ours.push(value),
                        Err(unread) => problems.push(|| unread.at(place, &pointer)),
                    }
                }
                problems.into_result()?;
                let mut ours = ours.into_iter();
                hydrate_with(saved.into_inner(), |_| ours.next())
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use crate::connector::{ConnectorOptions, ConnectorSecrets};
    use crate::{Actor, Memory, SecretValue, Stores};

    #[tokio::test]
    async fn one_that_fails_fails_alone_and_wholly() {
        let store = Memory::new();
        for (name, value) in [("a", "one"), ("b", "two")] {
            store.insert(
                &format!("airbyte_workspace_{name}_v1"),
                SecretValue::new(value.to_owned()),
            );
        }
        let pointer = |name: &str| json!({"_secret": format!("airbyte_workspace_{name}_v1")});
        let secrets =
            ConnectorSecrets::new(Stores::new(Arc::new(store)), ConnectorOptions::default())
                .acting_as(&Actor::new("job"));
        let answers = secrets
            .hydrate_many(vec![
                json!({"x": pointer("a"), "y": pointer("b")}),
                json!({"x": pointer("a"), "y": pointer("missing"), "z": pointer("b")}),
                json!({"x": {"_secret": 7}}),
                json!({"x": [pointer("b"), pointer("a")], "plain": 1}),
            ])
            .await
            .unwrap();
        assert_eq!(
            **answers[0].as_ref().unwrap(),
            json!({"x": "one", "y": "two"})
        );
        let missing = answers[1].as_ref().unwrap_err();
        assert_eq!(missing.problems().len(), 1);
        assert_eq!(missing.problems()[0].place().as_str(), "/y");
        assert_eq!(
            answers[2].as_ref().unwrap_err().problems()[0]
                .place()
                .as_str(),
            "/x"
        );
        assert_eq!(
            **answers[3].as_ref().unwrap(),
            json!({"x": ["two", "one"], "plain": 1})
        );
    }
}
