//! The demo page: a small chat that uses the official browser client, embedded in the binary.

use axum::{
    Router,
    extract::Path,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use rust_embed::{Embed, EmbeddedFile};

#[derive(Embed)]
#[folder = "src/bin/hubcast/demo/page/"]
struct Assets;

/// The page at `/` and its files below `/demo/`.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", get(async |headers: HeaderMap| asset("index.html", &headers)))
        .route(
            "/demo/{*path}",
            get(async |Path(path): Path<String>, headers: HeaderMap| asset(&path, &headers)),
        )
}

fn asset(path: &str, request: &HeaderMap) -> Response {
    let Some(file) = Assets::get(path) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let etag = etag(&file);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type(path))),
        // Always requested again, and mostly answered with 304: a new version shows at once.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(CONTENT_SECURITY_POLICY),
        ),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    let known = request.get_all(header::IF_NONE_MATCH).iter().any(|tags| {
        tags.to_str().is_ok_and(|tags| {
            tags.split(',')
                .any(|tag| tag.trim().trim_start_matches("W/") == etag)
        })
    });
    let etag = [(header::ETAG, etag)];
    if known {
        return (StatusCode::NOT_MODIFIED, etag, headers).into_response();
    }
    (etag, headers, file.data).into_response()
}

fn etag(file: &EmbeddedFile) -> String {
    let hash = file.metadata.sha256_hash();
    let digits: String = hash[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\"{digits}\"")
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    }
}

/// Permits only files and connections of this origin, and no way for text to become markup or script.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request};
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn get(path: &str, etag: Option<&str>) -> Response {
        let mut request = Request::get(path);
        if let Some(etag) = etag {
            request = request.header(header::IF_NONE_MATCH, etag);
        }
        let request = request.body(Body::empty()).unwrap();
        routes::<()>().oneshot(request).await.unwrap()
    }

    async fn text(response: Response) -> String {
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn everything_that_the_page_loads_is_there() {
        let response = get("/", None).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "text/html; charset=utf-8"
        );
        assert!(
            response.headers()[header::CONTENT_SECURITY_POLICY]
                .to_str()
                .unwrap()
                .contains("script-src 'self'")
        );
        let page = text(response).await;
        let loaded: Vec<&str> = page
            .split('"')
            .filter(|word| word.starts_with("/demo/") && word.contains('.'))
            .collect();
        assert!(loaded.len() >= 4, "{loaded:?}");
        for path in loaded {
            assert_eq!(get(path, None).await.status(), StatusCode::OK, "{path}");
        }
        assert!(!page.contains("https://"), "nothing comes from elsewhere");
    }

    #[tokio::test]
    async fn a_known_asset_is_not_sent_again() {
        let etag = get("/demo/app.js", None).await.headers()[header::ETAG]
            .to_str()
            .unwrap()
            .to_owned();
        let again = get("/demo/app.js", Some(&format!("\"other\", W/{etag}"))).await;
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(again.headers()[header::ETAG].to_str().unwrap(), etag);
        assert_eq!(
            get("/demo/app.js", Some("\"other\"")).await.status(),
            StatusCode::OK
        );
    }

    #[tokio::test]
    async fn what_is_not_there_is_not_found() {
        for path in [
            "/demo/none.js",
            "/demo/../page.rs",
            "/demo/%2e%2e/page.rs",
            "/demo//etc/passwd",
        ] {
            assert_eq!(get(path, None).await.status(), StatusCode::NOT_FOUND, "{path}");
        }
    }
}
