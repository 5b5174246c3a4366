//! `/`: a page to chat with the model, and `/favicon.ico`, which it does not have.
//!
//! The page is one file with no other, and the same for everybody: it holds nothing of any conversation. What its
//! script may do is bound to what it needs, so that no text of a model becomes a script of the page.

use std::sync::LazyLock;

use axum::http::{HeaderName, StatusCode, header};
use axum::response::IntoResponse;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

const FRAME: &str = include_str!("../page/index.html");
const STYLE: &str = include_str!("../page/style.css");
/// Parts of one module: each uses those before it.
const SCRIPTS: [&str; 5] = [
    include_str!("../page/store.js"),
    include_str!("../page/markdown.js"),
    include_str!("../page/stream.js"),
    include_str!("../page/messages.js"),
    include_str!("../page/view.js"),
];

static PAGE: LazyLock<Page> = LazyLock::new(Page::new);

struct Page {
    html: String,
    policy: String,
}

impl Page {
    fn new() -> Page {
        let script = SCRIPTS.concat();
        let html = FRAME
            .replace("/* style.css */", STYLE)
            .replace("/* scripts */", &script);
        let (script, style) = (hash(&script), hash(STYLE));
        let policy = format!(
            "default-src 'none'; script-src '{script}'; style-src '{style}'; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
             require-trusted-types-for 'script'; trusted-types 'none'"
        );
        Page { html, policy }
    }
}

/// What names an inline script or style in a policy.
fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}

/// The page.
pub async fn page() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, PAGE.policy.as_str()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
        (OPENER_POLICY, "same-origin"),
    ];
    (headers, PAGE.html.as_str())
}

/// Browsers ask for a picture of each page.
pub async fn no_icon() -> StatusCode {
    StatusCode::NO_CONTENT
}

const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
