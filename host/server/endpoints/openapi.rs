//! `/openapi.json`: what a server answers, for programs.

use axum::http::header;
use axum::response::IntoResponse;

use crate::openai::OPENAPI;

/// The document.
pub async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}
