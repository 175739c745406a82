//! The methods of the service.
//!
//! The page of each method in
//! [the reference](https://cloud.google.com/secret-manager/docs/reference/rest) documents its
//! responses and refusals. Messages contain the project's number in a secret's name, as [users'
//! reports](https://github.com/airbytehq/airbyte/issues/36442) show.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::{
    crc32c::crc32c,
    filter::{self, Filter},
    refusal::{
        self, Refusal, already_exists, failed_precondition, invalid_argument, not_found,
        permission_denied,
    },
    resource::{SECRET, SECRET_FILTERS, Settings, check_location, is_alias, is_secret_id},
    route::Call,
    schema::{self, Field, Kind},
    store::{Secret, State, Store, Version},
    switches::Switches,
};

/// [The largest payload of a
/// version](https://cloud.google.com/secret-manager/quotas#content_limits).
const PAYLOAD_LIMIT: usize = 64 * 1024;

/// [The largest
/// page](https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets/list).
const PAGE_LIMIT: usize = 25_000;

/// The fields of a version in filters.
const VERSION_FILTERS: [&str; 5] = ["create_time", "destroy_time", "etag", "name", "state"];

const ADD_VERSION: &[Field] = &[Field::new(
    "payload",
    Kind::Message(&[
        Field::new("data", Kind::Bytes),
        Field::new("dataCrc32c", Kind::Integer),
    ]),
)];

const CHANGE_VERSION: &[Field] = &[Field::new("etag", Kind::Text)];

const TEST_PERMISSIONS: &[Field] = &[Field::new("permissions", Kind::Repeated(&Kind::Text))];

const EXPRESSION: &[Field] = &[
    Field::new("description", Kind::Text),
    Field::new("expression", Kind::Text),
    Field::new("location", Kind::Text),
    Field::new("title", Kind::Text),
];

const SET_POLICY: &[Field] = &[
    Field::new(
        "policy",
        Kind::Message(&[
            Field::new(
                "bindings",
                Kind::Repeated(&Kind::Message(&[
                    Field::new("condition", Kind::Message(EXPRESSION)),
                    Field::new("members", Kind::Repeated(&Kind::Text)),
                    Field::new("role", Kind::Text),
                ])),
            ),
            Field::new("etag", Kind::Text),
            Field::new("version", Kind::Integer),
        ]),
    ),
    Field::new("updateMask", Kind::Text),
];

/// Executes a call. The caller and the project have been checked.
pub(super) fn perform(
    store: &mut Store,
    switches: &Switches,
    call: &Call,
    body: &Value,
    now: OffsetDateTime,
) -> Result<Value, Refusal> {
    let target = &call.target;
    if let Some(location) = &target.location {
        check_location(location)?;
    }
    let name = store.name(target);
    if target.secret.as_deref().is_some_and(|id| !is_secret_id(id)) {
        // The message is from https://github.com/googleapis/nodejs-secret-manager/issues/74.
        return Err(invalid_argument(&format!(
            "Resource ID [{name}] is not in a valid format."
        )));
    }
    // An invalid form is refused before any lookup.
    let request = match call.method.name {
        "AddSecretVersion" => schema::parse(body, ADD_VERSION, "")?,
        "CreateSecret" | "UpdateSecret" => schema::parse(body, SECRET, "secret")?,
        "DestroySecretVersion" | "DisableSecretVersion" | "EnableSecretVersion" => {
            schema::parse(body, CHANGE_VERSION, "")?
        }
        "SetIamPolicy" => schema::parse(body, SET_POLICY, "")?,
        "TestIamPermissions" => schema::parse(body, TEST_PERMISSIONS, "")?,
        _ => Map::new(),
    };
    let permission = call.method.permission;
    if !permission.is_empty() && !switches.allows(permission, &name) {
        return Err(permission_denied(permission, &target.name(&target.project)));
    }
    let mut secret = target.clone();
    secret.version = None;
    let mut operation = Operation {
        secret_name: store.name(&secret),
        store,
        switches,
        call,
        request,
        name,
        now,
    };
    match call.method.name {
        "AccessSecretVersion" => operation.access(),
        "AddSecretVersion" => operation.add(),
        "CreateSecret" => operation.create(),
        "DeleteSecret" => operation.delete(),
        "DestroySecretVersion" => operation.change(State::Destroyed),
        "DisableSecretVersion" => operation.change(State::Disabled),
        "EnableSecretVersion" => operation.change(State::Enabled),
        "GetIamPolicy" => Ok(operation.secret()?.policy.clone()),
        "GetSecret" => operation.get(),
        "GetSecretVersion" => operation.get_version(),
        "ListSecretVersions" => operation.list_versions(),
        "ListSecrets" => operation.list(),
        "SetIamPolicy" => operation.set_policy(),
        "TestIamPermissions" => operation.test_permissions(),
        _ => operation.update(),
    }
}

struct Operation<'a> {
    store: &'a mut Store,
    switches: &'a Switches,
    call: &'a Call,
    request: Map<String, Value>,
    /// The resource in the path, with the project's number.
    name: String,
    /// The secret of the resource; the same as the name if there is none.
    secret_name: String,
    now: OffsetDateTime,
}

impl Operation<'_> {
    fn create(&mut self) -> Result<Value, Refusal> {
        let id = self.call.query.get("secretId").to_owned();
        if !is_secret_id(&id) {
            return Err(invalid_argument(&format!(
                "Secret ID [{id}] must be 1 to 255 letters, digits, hyphens and underscores."
            )));
        }
        if self.request.is_empty() {
            // The message is from
            // https://github.com/hashicorp/terraform-provider-google/issues/11395. A regional
            // secret must not have the field.
            if self.call.target.location.is_none() {
                return Err(invalid_argument("Secret must be provided."));
            }
        }
        let location = self.call.target.location.as_deref();
        let settings = Settings::create(&self.request, location, self.now)?;
        let name = format!("{}/secrets/{id}", self.name);
        if self.store.get(&name, self.now).is_some() {
            return Err(already_exists(&name));
        }
        for key in settings.replication.keys() {
            // Adding a version shows whether the key is usable. Here, only its name and location
            // are checked.
            if self.switches.kms == super::switches::Kms::NoServiceAgent {
                return Err(refusal::kms(self.switches.kms, key)
                    .unwrap_or_else(|| invalid_argument("The key cannot be used.")));
            }
        }
        self.store
            .insert(name.clone(), self.name.clone(), settings, self.now);
        self.name.clone_from(&name);
        self.secret_name = name;
        Ok(Value::Object(self.secret()?.render()))
    }

    fn get(&mut self) -> Result<Value, Refusal> {
        Ok(Value::Object(self.settled()?.render()))
    }

    fn update(&mut self) -> Result<Value, Refusal> {
        let etag = self.store.next_etag();
        let mask = self.call.query.get("updateMask");
        let request = std::mem::take(&mut self.request);
        let given = request.get("etag").and_then(Value::as_str);
        let given = given.unwrap_or_default().to_owned();
        let now = self.now;
        let secret = self.secret()?;
        check_etag(&given, &secret.etag)?;
        let versions = i64::try_from(secret.versions.len()).unwrap_or(i64::MAX);
        let mut settings = secret.settings.clone();
        settings.update(&request, mask, versions, now)?;
        secret.settings = settings;
        secret.etag = etag;
        Ok(Value::Object(secret.render()))
    }

    fn delete(&mut self) -> Result<Value, Refusal> {
        let given = self.call.query.get("etag");
        let secret = self.secret()?;
        check_etag(given, &secret.etag)?;
        self.store.remove(&self.secret_name, self.now);
        Ok(json!({}))
    }

    fn list(&mut self) -> Result<Value, Refusal> {
        let filter = self.filter(&SECRET_FILTERS)?;
        let secrets = self
            .store
            .list(&self.name, self.switches.list_lag, self.now);
        self.page("secrets", secrets, &filter)
    }

    /// [Adds](https://cloud.google.com/secret-manager/docs/add-secret-version) a version with the
    /// next number.
    fn add(&mut self) -> Result<Value, Refusal> {
        let payload = self.request.get("payload").and_then(Value::as_object);
        // The message is from https://github.com/hashicorp/terraform-provider-google/issues/8766.
        let payload = payload.ok_or_else(|| invalid_argument("Field [payload] is required."))?;
        let data = payload.get("data").and_then(Value::as_str);
        let data = data.and_then(schema::bytes).unwrap_or_default();
        if data.is_empty() {
            return Err(invalid_argument("Secret Payload cannot be empty."));
        }
        if data.len() > PAYLOAD_LIMIT {
            return Err(invalid_argument(&format!(
                "Secret Payload is too large: it may have {PAYLOAD_LIMIT} bytes."
            )));
        }
        // https://cloud.google.com/secret-manager/docs/data-integrity
        let checksum = payload.get("dataCrc32c").and_then(Value::as_i64);
        if checksum.is_some_and(|checksum| checksum != i64::from(crc32c(&data))) {
            return Err(invalid_argument(
                "The CRC32C checksum of the payload does not match the one that was sent.",
            ));
        }
        let (kms, now, etag) = (self.switches.kms, self.now, self.store.next_etag());
        let numeric = self.call.query.numeric_enums();
        let secret = self.secret()?;
        check_keys(secret, kms)?;
        let version = Version::new(data, checksum.is_some(), etag, now);
        secret.versions.push(version);
        let number = secret.versions.len();
        Ok(Value::Object(secret.render_version(number, numeric)))
    }

    /// A version's [payload](https://cloud.google.com/secret-manager/docs/access-secret-version).
    fn access(&mut self) -> Result<Value, Refusal> {
        let number = self.version(true)?;
        let switches = self.switches;
        let secret = self.secret()?;
        let name = secret.version_name(number);
        let state = secret.version(number).map(|version| version.state);
        if let Some(state @ (State::Destroyed | State::Disabled)) = state {
            return Err(wrong_state(&name, state));
        }
        check_keys(secret, switches.kms)?;
        let Some(version) = secret.version(number) else {
            return Err(no_version(&name));
        };
        let mut data = version.data.clone();
        if switches.corrupt_payloads
            && let Some(first) = data.first_mut()
        {
            *first ^= 1;
        }
        let mut payload = json!({"data": BASE64_STANDARD.encode(data)});
        if !switches.omit_checksums {
            payload["dataCrc32c"] = Value::from(version.checksum.to_string());
        }
        Ok(json!({"name": name, "payload": payload}))
    }

    fn get_version(&mut self) -> Result<Value, Refusal> {
        let number = self.version(true)?;
        let numeric = self.call.query.numeric_enums();
        let seen = self.now - self.switches.metadata_lag;
        let secret = self.secret()?;
        let name = secret.version_name(number);
        match secret.version(number) {
            Some(version) if version.created <= seen => {}
            _ => return Err(no_version(&name)),
        }
        Ok(Value::Object(secret.render_version(number, numeric)))
    }

    fn list_versions(&mut self) -> Result<Value, Refusal> {
        let filter = self.filter(&VERSION_FILTERS)?;
        let seen = self.now - self.switches.list_lag;
        let numeric = self.call.query.numeric_enums();
        let secret = self.settled()?;
        let mut versions = Vec::new();
        // Newest first.
        for number in (1..=secret.versions.len()).rev() {
            let visible = secret
                .version(number)
                .is_some_and(|version| version.created <= seen);
            let passes = filter.passes(&Value::Object(secret.render_version(number, false)));
            if visible && passes {
                versions.push(secret.render_version(number, numeric));
            }
        }
        self.page("versions", versions, &Filter::All(Vec::new()))
    }

    /// [Enables, disables or destroys](https://cloud.google.com/secret-manager/docs/managing-secret-versions) a version.
    fn change(&mut self, state: State) -> Result<Value, Refusal> {
        let number = self.version(false)?;
        let given = self.request.get("etag").and_then(Value::as_str);
        let given = given.unwrap_or_default().to_owned();
        let (now, etag) = (self.now, self.store.next_etag());
        let numeric = self.call.query.numeric_enums();
        let secret = self.secret()?;
        let name = secret.version_name(number);
        let Some(version) = secret.version(number) else {
            return Err(no_version(&name));
        };
        check_etag(&given, &version.etag)?;
        if version.state == State::Destroyed {
            return Err(wrong_state(&name, version.state));
        }
        version.state = state;
        version.etag = etag;
        if state == State::Destroyed {
            version.destroyed = Some(now);
            version.data.clear();
        }
        Ok(Value::Object(secret.render_version(number, numeric)))
    }

    fn set_policy(&mut self) -> Result<Value, Refusal> {
        let etag = self.store.next_etag();
        let policy = self.request.get("policy").cloned();
        let mut policy = policy.ok_or_else(|| invalid_argument("Field [policy] is required."))?;
        let secret = self.secret()?;
        let given = policy["etag"].as_str().unwrap_or_default();
        check_etag(given, secret.policy["etag"].as_str().unwrap_or_default())?;
        policy["etag"] = Value::from(BASE64_STANDARD.encode(etag));
        secret.policy.clone_from(&policy);
        Ok(policy)
    }

    fn test_permissions(&mut self) -> Result<Value, Refusal> {
        self.secret()?;
        let asked = self.request.get("permissions").and_then(Value::as_array);
        let held: Vec<_> = asked
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .filter(|permission| self.switches.allows(permission, &self.name))
            .collect();
        // Empty fields are omitted.
        Ok(if held.is_empty() {
            json!({})
        } else {
            json!({"permissions": held})
        })
    }

    fn secret(&mut self) -> Result<&mut Secret, Refusal> {
        let name = &self.secret_name;
        self.store
            .get(name, self.now)
            .ok_or_else(|| not_found(&format!("Secret [{name}] not found.")))
    }

    /// The secret, if its metadata is visible yet.
    fn settled(&mut self) -> Result<&mut Secret, Refusal> {
        let seen = self.now - self.switches.metadata_lag;
        let missing = not_found(&format!("Secret [{}] not found.", self.secret_name));
        let secret = self.secret()?;
        if secret.created <= seen {
            Ok(secret)
        } else {
            Err(missing)
        }
    }

    /// The number of the version in the path: by number, or by alias for
    /// [reads](https://cloud.google.com/secret-manager/docs/assign-alias-to-secret-version).
    ///
    /// `latest` is the newest version, [whatever its
    /// state](https://github.com/google-github-actions/get-secretmanager-secrets/issues/268), as of
    /// some time ago: only [access by
    /// number](https://cloud.google.com/secret-manager/docs/reference/consistency) is strongly
    /// consistent.
    fn version(&mut self, by_name: bool) -> Result<usize, Refusal> {
        let version = self.call.target.version.clone().unwrap_or_default();
        let name = self.name.clone();
        let latest = self.now - self.switches.latest_lag;
        // The message is from https://github.com/airbytehq/airbyte/issues/36442.
        let missing = format!(
            "Secret [{}] not found or has no versions.",
            self.secret_name
        );
        let secret = self.secret().map_err(|_| not_found(&missing))?;
        if version == "latest" && by_name {
            return secret.newest(latest).ok_or_else(|| not_found(&missing));
        }
        if is_alias(&version) && by_name {
            let number = secret.settings.aliases.get(&version).copied();
            return number
                .and_then(|number| usize::try_from(number).ok())
                // Aliases are not more consistent than `latest`.
                .filter(|number| {
                    secret
                        .newest(latest)
                        .is_some_and(|newest| *number <= newest)
                })
                .ok_or_else(|| no_version(&name));
        }
        let number = Some(version.as_str())
            .filter(|text| !text.starts_with(['0', '+']))
            .and_then(|text| text.parse::<usize>().ok());
        let number = number.ok_or_else(|| {
            invalid_argument(&format!("Resource ID [{name}] is not in a valid format."))
        })?;
        if number > secret.versions.len() {
            return Err(no_version(&name));
        }
        Ok(number)
    }

    fn filter(&self, fields: &[&str]) -> Result<Filter, Refusal> {
        filter::parse(self.call.query.get("filter"), fields)
            .map_err(|error| invalid_argument(&format!("Invalid list filter: {error}.")))
    }

    /// A page of the matching items, after the item in the token.
    fn page(
        &self,
        field: &str,
        items: Vec<Map<String, Value>>,
        filter: &Filter,
    ) -> Result<Value, Refusal> {
        let query = &self.call.query;
        let size = match query.get("pageSize") {
            "" | "0" => self.switches.page_size,
            text => text
                .parse()
                .map_err(|_| invalid_argument("Invalid value at 'page_size' (TYPE_INT32)"))?,
        };
        let size = size.clamp(1, PAGE_LIMIT);
        let passing: Vec<_> = items
            .into_iter()
            .map(Value::Object)
            .filter(|item| filter.passes(item))
            .collect();
        // Zero, if there is a filter.
        let total = if query.get("filter").is_empty() {
            passing.len()
        } else {
            0
        };
        let start = match query.get("pageToken") {
            "" => 0,
            token => {
                let last = self.last_of(token)?;
                // The item in the token may be gone; the items after it are not.
                let backwards = field == "versions";
                passing
                    .iter()
                    .position(|item| {
                        let key = sort_key(&item["name"]);
                        if backwards { key < last } else { key > last }
                    })
                    .unwrap_or(passing.len())
            }
        };
        let end = passing.len().min(start + size);
        let mut page = Map::new();
        if end > start {
            page.insert(field.to_owned(), Value::from(&passing[start..end]));
        }
        if end < passing.len() {
            let token = self.token(&passing[end - 1]["name"]);
            page.insert("nextPageToken".to_owned(), Value::from(token));
        }
        if total > 0 {
            page.insert("totalSize".to_owned(), Value::from(total));
        }
        Ok(Value::Object(page))
    }

    /// A token for the page after this item. It is only valid with the same filter:
    /// [other arguments must not change](https://google.aip.dev/158).
    fn token(&self, last: &Value) -> String {
        let filter = self.call.query.get("filter");
        let last = last.as_str().unwrap_or_default();
        BASE64_STANDARD.encode(json!([self.name, filter, last]).to_string())
    }

    fn last_of(&self, token: &str) -> Result<(usize, String), Refusal> {
        let decoded = BASE64_STANDARD.decode(token).ok();
        let parts: Option<[String; 3]> =
            decoded.and_then(|text| serde_json::from_slice(&text).ok());
        match parts {
            Some([name, filter, last])
                if name == self.name && filter == self.call.query.get("filter") =>
            {
                Ok(sort_key(&Value::from(last)))
            }
            _ => Err(invalid_argument("Invalid page token.")),
        }
    }
}

/// Sorts names alphabetically, and versions by number.
fn sort_key(name: &Value) -> (usize, String) {
    let name = name.as_str().unwrap_or_default();
    match name.split_once("/versions/") {
        Some((_, number)) => (number.parse().unwrap_or_default(), String::new()),
        None => (0, name.to_owned()),
    }
}

/// Someone has [changed it since](https://cloud.google.com/secret-manager/docs/etags).
fn check_etag(given: &str, present: &str) -> Result<(), Refusal> {
    if given.is_empty() || given == present {
        return Ok(());
    }
    Err(failed_precondition(&format!(
        "The etag provided [{given}] does not match the current one [{present}]."
    )))
}

fn check_keys(secret: &Secret, kms: super::switches::Kms) -> Result<(), Refusal> {
    let keys = secret.settings.replication.keys();
    let refused = keys.into_iter().find_map(|key| refusal::kms(kms, key));
    refused.map_or(Ok(()), Err)
}

fn no_version(name: &str) -> Refusal {
    not_found(&format!("Secret Version [{name}] not found."))
}

/// The message is from
/// <https://github.com/google-github-actions/get-secretmanager-secrets/issues/268>.
fn wrong_state(name: &str, state: State) -> Refusal {
    let state = state.name();
    failed_precondition(&format!("Secret Version [{name}] is in {state} state."))
}
