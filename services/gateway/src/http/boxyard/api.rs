//! Routes and their OpenAPI document from one table: what is not described is not served.

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodRouter, delete, get, post};
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::app::overview::shape::{Components, Shape, described};

/// A path's part or a query's key.
pub struct Parameter {
    pub name: &'static str,
    pub about: &'static str,
    pub kind: ParameterKind,
}

pub enum ParameterKind {
    Path,
    /// With the smallest and the greatest value.
    Number(u32, u32),
    Flag,
    Text,
    /// May come several times.
    Texts,
    Header,
}

/// What is said of a route.
pub struct About {
    pub summary: &'static str,
    pub parameters: &'static [Parameter],
    /// Of the answer.
    pub content_type: &'static str,
    /// Statuses of refusals besides 403.
    pub refusals: &'static [u16],
}

#[derive(Default)]
pub struct Api {
    router: Router<Arc<App>>,
    paths: Map<String, Value>,
    components: Components,
}

impl Api {
    /// A route by GET that answers with an `A`.
    pub fn get<A: Shape, H: Handler<T, Arc<App>>, T: 'static>(
        self,
        path: &'static str,
        about: &About,
        handler: H,
    ) -> Self {
        self.answers::<A>(("get", path), about, get(handler))
    }

    /// A route by POST that changes something, and answers with 204 and nothing.
    pub fn post<H: Handler<T, Arc<App>>, T: 'static>(self, path: &'static str, about: &About, handler: H) -> Self {
        let done = ("204", json!({"description": "It is done."}));
        self.add(("post", path), about, done, post(handler))
    }

    /// A route by POST that answers with an `A`.
    pub fn answered<A: Shape, H: Handler<T, Arc<App>>, T: 'static>(
        self,
        path: &'static str,
        about: &About,
        handler: H,
    ) -> Self {
        self.answers::<A>(("post", path), about, post(handler))
    }

    /// A route by DELETE that answers with an `A`.
    pub fn deleted<A: Shape, H: Handler<T, Arc<App>>, T: 'static>(
        self,
        path: &'static str,
        about: &About,
        handler: H,
    ) -> Self {
        self.answers::<A>(("delete", path), about, delete(handler))
    }

    /// A route by DELETE, which answers with 204 and nothing.
    pub fn delete<H: Handler<T, Arc<App>>, T: 'static>(self, path: &'static str, about: &About, handler: H) -> Self {
        let done = ("204", json!({"description": "It is gone."}));
        self.add(("delete", path), about, done, delete(handler))
    }

    /// A route that answers with an `A`.
    fn answers<A: Shape>(
        mut self,
        place: (&'static str, &'static str),
        about: &About,
        route: MethodRouter<Arc<App>>,
    ) -> Self {
        let answer = A::schema(&mut self.components);
        let content = json!({about.content_type: {"schema": answer}});
        let done = ("200", json!({"description": about.summary, "content": content}));
        self.add(place, about, done, route)
    }

    fn add(
        mut self,
        (method, path): (&'static str, &'static str),
        about: &About,
        (status, done): (&str, Value),
        route: MethodRouter<Arc<App>>,
    ) -> Self {
        let mut responses = Map::new();
        responses.insert(status.to_owned(), done);
        for status in [&[403], about.refusals].concat() {
            responses.insert(status.to_string(), json!({"$ref": format!("#/components/responses/{status}")}));
        }
        let name = if method == "get" { operation_id(path) } else { format!("{}_{method}", operation_id(path)) };
        let operation = json!({
            "summary": about.summary, "operationId": name,
            "parameters": about.parameters.iter().map(parameter).collect::<Vec<_>>(), "responses": responses
        });
        let methods = self.paths.entry(path).or_insert_with(|| json!({}));
        methods[method] = operation;
        self.router = self.router.route(path, route);
        self
    }

    /// The routes, and the document at `path`.
    pub fn finish(self, path: &'static str) -> Router<Arc<App>> {
        let Self { router, mut paths, components } = self;
        let schema = json!({"type": "object", "required": ["openapi", "info", "paths"]});
        let own = json!({"get": {
            "summary": "This document.", "operationId": operation_id(path), "parameters": [],
            "responses": {
                "200": {"description": "This document.", "content": {"application/json": {"schema": schema}}},
                "403": {"$ref": "#/components/responses/403"}
            }
        }});
        paths.insert(path.to_owned(), own);
        let document: Arc<str> = document(paths, components).to_string().into();
        router.route(path, get(move || async move { super::json_text(document.to_string()) }))
    }
}

/// `/boxyard/v1/builds/{id}` is `builds_id`.
fn operation_id(path: &str) -> String {
    let path = path.rsplit_once("/v1/").map_or(path, |(_, path)| path);
    path.replace(['{', '}'], "").replace(['/', '.'], "_")
}

fn parameter(parameter: &Parameter) -> Value {
    let Parameter { name, about, kind } = parameter;
    let (place, schema) = match kind {
        ParameterKind::Path => ("path", json!({"type": "string"})),
        ParameterKind::Number(least, most) => ("query", json!({"type": "integer", "minimum": least, "maximum": most})),
        ParameterKind::Flag => ("query", json!({"type": "boolean", "default": false})),
        ParameterKind::Text => ("query", json!({"type": "string"})),
        ParameterKind::Texts => ("query", json!({"type": "array", "items": {"type": "string"}})),
        ParameterKind::Header => ("header", json!({"type": "string"})),
    };
    json!({"name": name, "in": place, "required": place == "path", "description": about, "schema": schema})
}

fn document(paths: Map<String, Value>, mut schemas: Components) -> Value {
    let error = json!({
        "type": "object", "required": ["message"], "additionalProperties": false,
        "properties": {"message": {"type": "string"}}
    });
    schemas.insert("Error", described(error, "Why a request was refused."));
    let mut responses = Map::new();
    for (status, text) in [
        ("400", "A parameter that cannot be read."),
        ("403", "A page of another site asked."),
        ("404", "It is not there."),
        ("409", "Its state does not allow it."),
        ("503", "A service that is needed does not answer."),
    ] {
        let schema = json!({"$ref": "#/components/schemas/Error"});
        responses.insert(
            status.to_owned(),
            json!({"description": text, "content": {"application/json": {"schema": schema}}}),
        );
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Boxyard", "version": service::VERSION,
            "summary": "The state of a Boxyard for dashboards, and what Docker has no words for, next to the Docker Engine API.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": schemas, "responses": responses}
    })
}
