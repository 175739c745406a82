//! Sends the SDK's requests with an HTTP client that limits the size of responses. The SDK's own client
//! reads responses of any size into memory, and nothing can be put around it.

use bytes::{Bytes, BytesMut};
use google_cloud_auth::credentials::{CacheableResource, CredentialsProvider as _};
use google_cloud_gax::error::Error as SdkError;
use google_cloud_gax::error::rpc::Status;
use google_cloud_gax::options::RequestOptions;
use google_cloud_gax::response::{Parts, Response};
use google_cloud_secretmanager_v1::Result;
use google_cloud_secretmanager_v1::model::{
    AccessSecretVersionRequest, AccessSecretVersionResponse, AddSecretVersionRequest,
    CreateSecretRequest, DeleteSecretRequest, GetSecretRequest, GetSecretVersionRequest,
    ListSecretsRequest, ListSecretsResponse, Secret, SecretVersion,
};
use google_cloud_secretmanager_v1::stub::SecretManagerService;
use http::header::{CONTENT_TYPE, HOST};
use http::{Extensions, HeaderValue};
use reqwest::{Method, redirect};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use crate::credentials::CredentialCache;

/// The largest valid response is a page of 1,000 secrets, each with at most 64 labels and 16 KiB of
/// annotations. <https://cloud.google.com/secret-manager/quotas>
const MAX_RESPONSE_BYTES: usize = 32 << 20;

/// What the SDK's client sends its requests with.
#[derive(Debug)]
pub(crate) struct Transport {
    http: reqwest::Client,
    credentials: CredentialCache,
    endpoint: Url,
}

impl Transport {
    /// Sets the client up. No request is made.
    pub(crate) fn new(endpoint: &str, credentials: CredentialCache) -> Option<Self> {
        let http = reqwest::Client::builder()
            // A redirect would take a value along to the host it names.
            .redirect(redirect::Policy::none())
            .http1_only()
            .build()
            .ok()?;
        Some(Self {
            http,
            credentials,
            endpoint: Url::parse(endpoint).ok()?,
        })
    }

    async fn get<O: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<Response<O>> {
        self.send(Method::GET, path, query, None).await
    }

    async fn post<O: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        body: &impl Serialize,
    ) -> Result<Response<O>> {
        let body = serde_json::to_vec(body).map_err(SdkError::ser)?;
        self.send(Method::POST, path, query, Some(body)).await
    }

    async fn send<O: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<Vec<u8>>,
    ) -> Result<Response<O>> {
        let mut url = self.endpoint.clone();
        url.set_path(&format!("{}/v1/{path}", url.path().trim_end_matches('/')));
        url.query_pairs_mut()
            .extend_pairs(query)
            .append_pair("$alt", "json;enum-encoding=int");
        let mut request = self.http.request(method, url);
        if let Some(host) = service_host(&self.endpoint) {
            request = request.header(HOST, host);
        }
        match self.credentials.headers(Extensions::new()).await {
            Ok(CacheableResource::New { data, .. }) => request = request.headers(data),
            // Only what was asked for again is not modified.
            Ok(CacheableResource::NotModified) => {}
            Err(error) => return Err(SdkError::authentication(error)),
        }
        if let Some(body) = body {
            let json = HeaderValue::from_static("application/json");
            request = request.header(CONTENT_TYPE, json).body(body);
        }
        let response = request.send().await.map_err(unanswered)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = read(response).await?;
        if !status.is_success() {
            return Err(match Status::try_from(&body) {
                Ok(error) => SdkError::service_with_http_metadata(
                    error,
                    Some(status.as_u16()),
                    Some(headers),
                ),
                Err(_) => SdkError::http(status.as_u16(), headers, body),
            });
        }
        let answer = serde_json::from_slice(&body).map_err(SdkError::deser)?;
        Ok(Response::from_parts(
            Parts::new().set_headers(headers),
            answer,
        ))
    }
}

impl SecretManagerService for Transport {
    async fn access_secret_version(
        &self,
        request: AccessSecretVersionRequest,
        _: RequestOptions,
    ) -> Result<Response<AccessSecretVersionResponse>> {
        self.get(&format!("{}:access", request.name), &[]).await
    }

    async fn add_secret_version(
        &self,
        request: AddSecretVersionRequest,
        _: RequestOptions,
    ) -> Result<Response<SecretVersion>> {
        let path = format!("{}:addVersion", request.parent);
        self.post(&path, &[], &request).await
    }

    async fn create_secret(
        &self,
        request: CreateSecretRequest,
        _: RequestOptions,
    ) -> Result<Response<Secret>> {
        let path = format!("{}/secrets", request.parent);
        let id = [("secretId", request.secret_id.as_str())];
        self.post(&path, &id, &request.secret).await
    }

    async fn delete_secret(
        &self,
        request: DeleteSecretRequest,
        _: RequestOptions,
    ) -> Result<Response<()>> {
        let deleted: Response<serde::de::IgnoredAny> =
            self.send(Method::DELETE, &request.name, &[], None).await?;
        Ok(Response::from_parts(deleted.into_parts().0, ()))
    }

    async fn get_secret(
        &self,
        request: GetSecretRequest,
        _: RequestOptions,
    ) -> Result<Response<Secret>> {
        self.get(&request.name, &[]).await
    }

    async fn get_secret_version(
        &self,
        request: GetSecretVersionRequest,
        _: RequestOptions,
    ) -> Result<Response<SecretVersion>> {
        self.get(&request.name, &[]).await
    }

    async fn list_secrets(
        &self,
        request: ListSecretsRequest,
        _: RequestOptions,
    ) -> Result<Response<ListSecretsResponse>> {
        let query = [
            ("pageSize", request.page_size.to_string()),
            ("pageToken", request.page_token),
            ("filter", request.filter),
        ];
        let query = query
            .each_ref()
            .map(|(name, value)| (*name, value.as_str()));
        self.get(&format!("{}/secrets", request.parent), &query)
            .await
    }
}

async fn read(mut response: reqwest::Response) -> Result<Bytes> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(unanswered)? {
        if body.len() + chunk.len() > MAX_RESPONSE_BYTES {
            return Err(SdkError::deser("a response that is too large"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

fn unanswered(error: reqwest::Error) -> SdkError {
    match error {
        error if error.is_connect() => SdkError::connect(error),
        error if error.is_timeout() => SdkError::timeout(error),
        error => SdkError::io(error),
    }
}

/// The name of the service, for endpoints of Google that serve all of its services, such as those of Private
/// Service Connect. A regional endpoint serves its own name.
/// <https://cloud.google.com/vpc/docs/about-accessing-google-apis-endpoints>
fn service_host(endpoint: &Url) -> Option<&'static str> {
    let prefix = endpoint.host_str()?.strip_suffix(".googleapis.com")?;
    let regional = prefix
        .strip_prefix("secretmanager.")
        .is_some_and(|region| region.ends_with(".rep"));
    (prefix != "secretmanager" && !regional && !prefix.ends_with("-secretmanager"))
        .then_some("secretmanager.googleapis.com")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_of_many_services_is_told_which_one_is_meant() {
        let service = Some("secretmanager.googleapis.com");
        for (endpoint, host) in [
            ("https://secretmanager.googleapis.com", None),
            (
                "https://secretmanager.europe-west3.rep.googleapis.com",
                None,
            ),
            ("https://europe-west3-secretmanager.googleapis.com", None),
            ("https://secretmanager-psc.p.googleapis.com", service),
            ("https://private.googleapis.com", service),
            ("https://psc.example", None),
            ("http://127.0.0.1:8080", None),
        ] {
            assert_eq!(
                service_host(&Url::parse(endpoint).unwrap()),
                host,
                "{endpoint}"
            );
        }
    }
}
