//! Routes that describe themselves: what a handler takes and answers is in its signature, and the
//! OpenAPI document is made from there.
//!
//! The crates that do this for axum (aide, utoipa) turn on a feature of `indexmap`, on which most of
//! the tree depends. `schemars` makes the schemas; what is here is the rest.

use std::collections::BTreeMap;
use std::future::Future;
use std::marker::PhantomData;

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Path, State};
use axum::handler::Handler;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::document::{Described, Document, Operation};
use super::request::{IdempotencyKey, MAX_KEY};
use crate::gateway::Gateway;
use crate::server::{Body, Caller, Fields, Problem, Request};

/// Routes, and the document that describes them.
pub(super) struct Api {
    pub(super) router: Router<Gateway>,
    pub(super) document: Document,
}

impl Api {
    pub(super) fn new() -> Self {
        Self {
            router: Router::new(),
            document: Document::new(),
        }
    }

    pub(super) fn get<H, T, S>(mut self, path: &str, operation: Operation, handler: H) -> Self
    where
        H: Handler<T, Gateway> + Signature<S>,
        T: 'static,
    {
        self.document.add::<H, S>("get", path, operation);
        self.router = self.router.route(path, routing::get(handler));
        self
    }

    pub(super) fn post<H, T, S>(mut self, path: &str, operation: Operation, handler: H) -> Self
    where
        H: Handler<T, Gateway> + Signature<S>,
        T: 'static,
    {
        self.document.add::<H, S>("post", path, operation);
        self.router = self.router.route(path, routing::post(handler));
        self
    }
}

/// What a handler takes and answers.
pub(super) trait Signature<S> {
    fn describe(operation: &mut Described<'_>);
}

macro_rules! signature {
    ($($input:ident)*) => {
        impl<F, Future_, A, $($input),*> Signature<($($input,)*)> for F
        where
            F: Fn($($input),*) -> Future_,
            Future_: Future<Output = A>,
            A: Answer,
            $($input: Input,)*
        {
            fn describe(operation: &mut Described<'_>) {
                $($input::describe(operation);)*
                A::describe(operation);
            }
        }
    };
}

signature!(A1);
signature!(A1 A2);
signature!(A1 A2 A3);
signature!(A1 A2 A3 A4);

/// What a handler takes from a request.
pub(super) trait Input {
    fn describe(operation: &mut Described<'_>);
}

impl Input for State<Gateway> {
    fn describe(_: &mut Described<'_>) {}
}

impl Input for Caller {
    fn describe(operation: &mut Described<'_>) {
        operation.may_fail(&[400, 401, 403, 404, 429, 500, 502]);
    }
}

impl Input for Path<String> {
    fn describe(operation: &mut Described<'_>) {
        operation.takes_id();
    }
}

impl Input for IdempotencyKey {
    fn describe(operation: &mut Described<'_>) {
        operation.takes(json!({
            "name": Self::NAME,
            "in": "header",
            "required": false,
            "schema": {"type": "string", "minLength": 1, "maxLength": MAX_KEY},
            "description": "A retry with the same key and request answers the same change; with another request it is 422.",
        }));
    }
}

impl<T: Request> Input for Query<T> {
    fn describe(operation: &mut Described<'_>) {
        operation.takes_query::<T>();
    }
}

impl<T: Request> Input for Body<T> {
    fn describe(operation: &mut Described<'_>) {
        operation.takes_body::<T>();
        operation.may_fail(&[408, 413, 415, 422]);
    }
}

/// The query of a request, whose parameters are parsed after the caller's role is known.
pub(super) struct Query<T> {
    fields: Fields,
    request: PhantomData<T>,
}

impl<T: Request> Query<T> {
    /// Parses the parameters. Each is a string.
    pub(super) fn parse(self) -> Result<T, Problem> {
        T::take(self.fields)
    }
}

impl<T: Request> FromRequestParts<Gateway> for Query<T> {
    type Rejection = QueryRejection;

    async fn from_request_parts(
        parts: &mut Parts,
        gateway: &Gateway,
    ) -> Result<Self, QueryRejection> {
        type Texts = axum::extract::Query<BTreeMap<String, String>>;
        let texts = Texts::from_request_parts(parts, gateway).await?.0;
        let members = texts
            .into_iter()
            .map(|(name, text)| (name, Value::String(text)));
        Ok(Self {
            fields: Fields::new(members.collect()),
            request: PhantomData,
        })
    }
}

/// What a handler answers.
pub(super) trait Answer {
    fn describe(operation: &mut Described<'_>);
}

impl<T: JsonSchema> Answer for Json<T> {
    fn describe(operation: &mut Described<'_>) {
        operation.answers::<T>(StatusCode::OK);
    }
}

impl<T: JsonSchema> Answer for Created<T> {
    fn describe(operation: &mut Described<'_>) {
        operation.answers::<T>(StatusCode::CREATED);
    }
}

#[cfg(any(feature = "postgres", feature = "sqlite"))]
impl<T: JsonSchema> Answer for Accepted<T> {
    fn describe(operation: &mut Described<'_>) {
        operation.answers::<T>(StatusCode::ACCEPTED);
    }
}

impl<A: Answer> Answer for Result<A, Problem> {
    fn describe(operation: &mut Described<'_>) {
        A::describe(operation);
    }
}

/// The answer of a request that created something.
pub(super) struct Created<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        (StatusCode::CREATED, Json(self.0)).into_response()
    }
}

/// The answer of a request that began something, which may still be under way.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(super) struct Accepted<T>(pub(super) T);

#[cfg(any(feature = "postgres", feature = "sqlite"))]
impl<T: Serialize> IntoResponse for Accepted<T> {
    fn into_response(self) -> Response {
        (StatusCode::ACCEPTED, Json(self.0)).into_response()
    }
}
