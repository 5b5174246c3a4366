//! Which path leads where.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{Method, Uri};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use super::connections::Peer;
use super::endpoints::{
    completions, embeddings, health, messages, metrics, models, openapi, page, responses, tokens,
};
use super::guard::guard;
use super::logging::observe;
use super::state::ServerState;
use crate::openai::ApiError;

/// All that a server answers.
pub fn router(state: Arc<ServerState>) -> Router {
    Router::new()
        .route("/", get(page::page))
        .route("/favicon.ico", get(page::no_icon))
        .route("/health", get(health::health))
        .route("/metrics", get(metrics::metrics))
        .route("/v1/loads", get(metrics::loads))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*name}", get(models::one))
        .route("/v1/chat/completions", post(completions::chat))
        .route("/v1/completions", post(completions::text))
        .route("/v1/responses", post(responses::create))
        .route("/v1/messages", post(messages::create))
        .route("/v1/messages/count_tokens", post(messages::count))
        .route("/v1/embeddings", post(embeddings::embeddings))
        .route("/openapi.json", get(openapi::document))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/apply-template", post(tokens::apply_template))
        .fallback(no_path)
        .method_not_allowed_fallback(no_method)
        // The last one is asked first.
        .layer(from_fn_with_state(state.clone(), guard))
        .layer(from_fn(refuse_above_limit))
        .layer(from_fn(messages::own_errors))
        .layer(from_fn(observe))
        .with_state(state)
}

async fn refuse_above_limit(request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>();
    if peer.is_some_and(|peer| peer.is_over_limit) && request.uri().path() != "/health" {
        return ApiError::unavailable("there are too many connections").into_response();
    }
    next.run(request).await
}

async fn no_path(method: Method, uri: Uri) -> ApiError {
    ApiError::with_status(404, format!("there is no {method} {}", uri.path()))
}

async fn no_method(method: Method, uri: Uri) -> ApiError {
    ApiError::with_status(405, format!("{} does not take {method}", uri.path()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use crate::openai::OPENAPI;

    /// `get /v1/models/{}` and its like.
    fn operation(method: &str, path: &str) -> String {
        let path = match path.split_once('{') {
            Some((before, _)) => format!("{before}{{}}"),
            None => path.to_owned(),
        };
        format!("{method} {path}")
    }

    #[test]
    fn what_is_answered_is_described() {
        // A router does not tell its paths.
        let source = include_str!("router.rs");
        let (source, _) = source.split_once("#[cfg(test)]").expect("two parts");
        let routes = source.split(".route(\"").skip(1).map(|route| {
            let (path, rest) = route.split_once("\", ").expect("a path");
            let (method, _) = rest.split_once('(').expect("a method");
            operation(method, path)
        });
        let mut routes: BTreeSet<String> = routes.collect();
        assert!(routes.remove("get /favicon.ico"), "for browsers alone");
        let document: Value = serde_json::from_str(OPENAPI).expect("JSON");
        let paths = document["paths"].as_object().expect("paths");
        let described = paths.iter().flat_map(|(path, methods)| {
            let methods = methods.as_object().expect("methods");
            methods.keys().map(|method| operation(method, path))
        });
        assert_eq!(described.collect::<BTreeSet<String>>(), routes);
    }
}
