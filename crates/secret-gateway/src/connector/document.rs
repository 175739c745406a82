//! The OpenAPI document of the connector API, made from its routes and types.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::api::Signature;
use crate::gateway::Gateway;
use crate::server::{BODY_TIMEOUT, ProblemDocument, ProblemKind, inline_schema};
use crate::settings::Limits;
use crate::tokens::Role;

/// What a route's types do not say.
pub(super) struct Operation {
    id: &'static str,
    summary: &'static str,
    role: Option<Role>,
    answer: &'static str,
    conflicts: bool,
    body: Option<Value>,
    id_example: Option<&'static str>,
    links: Option<Value>,
}

impl Operation {
    /// An operation for callers with a role.
    pub(super) fn of(role: Role, id: &'static str, summary: &'static str) -> Self {
        Self {
            role: Some(role),
            ..Self::public(id, summary)
        }
    }

    /// An operation without a token.
    pub(super) fn public(id: &'static str, summary: &'static str) -> Self {
        Self {
            id,
            summary,
            role: None,
            answer: "",
            conflicts: false,
            body: None,
            id_example: None,
            links: None,
        }
    }

    /// Describes the answer.
    pub(super) fn answers(mut self, answer: &'static str) -> Self {
        self.answer = answer;
        self
    }

    /// The state of what the request is about may forbid it.
    pub(super) fn conflicts(mut self) -> Self {
        self.conflicts = true;
        self
    }

    /// An example of the body.
    pub(super) fn with_body(mut self, example: Value) -> Self {
        self.body = Some(example);
        self
    }

    /// An example of the id in the path.
    pub(super) fn with_id(mut self, example: &'static str) -> Self {
        self.id_example = Some(example);
        self
    }

    /// What can be done with the answer.
    pub(super) fn with_links(mut self, links: Value) -> Self {
        self.links = Some(links);
        self
    }
}

/// A document that grows by one operation after the other.
pub(super) struct Document {
    /// Schemas of what is parsed, and of what is written: they differ in what is required.
    requests: SchemaGenerator,
    answers: SchemaGenerator,
    paths: Map<String, Value>,
    failures: BTreeSet<u16>,
}

impl Document {
    pub(super) fn new() -> Self {
        let settings = SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        });
        Self {
            requests: settings.clone().for_deserialize().into_generator(),
            answers: settings.for_serialize().into_generator(),
            paths: Map::new(),
            failures: BTreeSet::new(),
        }
    }

    pub(super) fn add<H: Signature<S>, S>(
        &mut self,
        method: &str,
        path: &str,
        operation: Operation,
    ) {
        let mut described = Described {
            document: self,
            operation,
            parameters: Vec::new(),
            body: None,
            answer: None,
            // Every request may come from another origin, be for another host, or be too much.
            failures: BTreeSet::from([403, 421, 503]),
        };
        H::describe(&mut described);
        let described = described.into_value();
        let methods = self.paths.entry(path).or_insert_with(|| json!({}));
        methods[method] = described;
    }

    fn into_value(mut self) -> Value {
        let problem = self.answers.subschema_for::<ProblemDocument>();
        let mut schemas = self.answers.take_definitions(true);
        schemas.extend(self.requests.take_definitions(true));
        schemas.sort_keys();
        let responses: Map<String, Value> = self
            .failures
            .iter()
            .map(|status| (format!("Problem{status}"), failure(*status, &problem)))
            .collect();
        json!({
            "openapi": "3.1.0",
            "info": {"title": "Secret gateway, connector API", "version": "1"},
            "security": [{"token": []}],
            "paths": self.paths,
            "components": {
                "securitySchemes": {
                    "token": {
                        "type": "http",
                        "scheme": "bearer",
                        "description": "A token of the gateway, or a JWT of the platform; `X-Vault-Token` is taken too.",
                    },
                },
                "responses": responses,
                "schemas": schemas,
            },
        })
    }
}

/// The answer of a request that failed with a status, with the kinds that have it.
fn failure(status: u16, problem: &Schema) -> Value {
    let kinds: Vec<String> = ProblemKind::ALL
        .iter()
        .filter(|kind| kind.status() == status && kind.is_of_connector())
        .map(|kind| format!("- `{}`: {}", kind.as_str(), kind.meaning()))
        .collect();
    json!({
        "description": format!("An error, by its stable kind:\n\n{}", kinds.join("\n")),
        "content": {"application/problem+json": {"schema": problem}},
    })
}

/// An operation while its inputs and its answer describe themselves.
pub(super) struct Described<'a> {
    document: &'a mut Document,
    operation: Operation,
    parameters: Vec<Value>,
    body: Option<Value>,
    answer: Option<(StatusCode, Value)>,
    failures: BTreeSet<u16>,
}

impl Described<'_> {
    pub(super) fn may_fail(&mut self, statuses: &[u16]) {
        self.failures.extend(statuses);
    }

    pub(super) fn takes(&mut self, parameter: Value) {
        self.parameters.push(parameter);
    }

    pub(super) fn takes_id(&mut self) {
        let mut parameter = json!({
            "name": "id", "in": "path", "required": true, "schema": {"type": "string"},
        });
        if let Some(example) = self.operation.id_example {
            parameter["example"] = example.into();
        }
        self.takes(parameter);
    }

    pub(super) fn takes_query<T: JsonSchema>(&mut self) {
        // A schema of its own: a query is no component.
        let mut schema = T::json_schema(&mut self.document.requests);
        let required = schema.get("required").cloned().unwrap_or_default();
        let Some(Value::Object(parameters)) = schema.remove("properties") else {
            return;
        };
        for (name, mut schema) in parameters {
            let required = required
                .as_array()
                .is_some_and(|names| names.iter().any(|theirs| *theirs == name));
            let description = schema
                .as_object_mut()
                .and_then(|schema| schema.remove("description"));
            let mut parameter = json!({
                "name": name, "in": "query", "required": required, "schema": schema,
            });
            if let Some(description) = description {
                parameter["description"] = description;
            }
            self.takes(parameter);
        }
    }

    pub(super) fn takes_body<T: JsonSchema>(&mut self) {
        let schema = self.document.requests.subschema_for::<T>();
        let mut content = json!({"schema": schema});
        if let Some(example) = self.operation.body.take() {
            content["example"] = example;
        }
        self.body = Some(json!({"required": true, "content": {"application/json": content}}));
    }

    pub(super) fn answers<T: JsonSchema>(&mut self, status: StatusCode) {
        let schema = self.document.answers.subschema_for::<T>();
        let mut answer = json!({
            "description": self.operation.answer,
            "content": {"application/json": {"schema": schema}},
        });
        if let Some(links) = self.operation.links.take() {
            answer["links"] = links;
        }
        self.answer = Some((status, answer));
    }

    fn into_value(mut self) -> Value {
        if self.operation.conflicts {
            self.may_fail(&[409]);
        }
        let mut value = json!({
            "operationId": self.operation.id,
            "summary": self.operation.summary,
        });
        match self.operation.role {
            Some(role) => value["description"] = format!("Needs the role `{role}`.").into(),
            None => value["security"] = json!([]),
        }
        if !self.parameters.is_empty() {
            value["parameters"] = self.parameters.into();
        }
        if let Some(body) = self.body {
            value["requestBody"] = body;
        }
        let failures = self.failures.iter().map(|status| {
            let response = json!({"$ref": format!("#/components/responses/Problem{status}")});
            (status.to_string(), response)
        });
        let answer = self
            .answer
            .map(|(status, answer)| (status.as_str().to_owned(), answer));
        value["responses"] = Value::Object(answer.into_iter().chain(failures).collect());
        self.document.failures.extend(self.failures);
        value
    }
}

/// The document of these routes; its description depends on the settings.
static DOCUMENT: LazyLock<Value> = LazyLock::new(|| super::api().document.into_value());

/// The document, as it is served.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct OpenApi(Value);

inline_schema!(OpenApi, {"type": "object"});

pub(super) async fn document(State(gateway): State<Gateway>) -> Json<OpenApi> {
    let mut document = DOCUMENT.clone();
    document["info"]["description"] = description(gateway.settings().limits).into();
    Json(OpenApi(document))
}

fn description(limits: Limits) -> String {
    format!(
        "Splits, stages, hydrates and masks connector configurations. A request has at most {} \
         bytes, {} levels of objects and arrays, and {} seconds; its body has {} seconds to arrive. \
         {} requests run at once. A problem of such a limit contains it as `limit`. Unknown fields \
         are refused by name. Errors are problems (RFC 9457) and contain no value.",
        limits.body_bytes,
        limits.depth,
        limits.timeout.as_secs(),
        BODY_TIMEOUT.as_secs(),
        limits.concurrency,
    )
}
