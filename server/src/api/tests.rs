//! What the API refuses, before any machine is involved, and what it says then.

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use forkyard_protocol::{CreateKey, ErrorCode, ErrorReply, ProjectId};
use tower_service::Service as _;

use super::*;
use crate::key::Keys;
use crate::preview::Previews;
use crate::sandbox::tests::World;
use crate::store::SqliteStore;

struct Client {
    router: Router,
    key: String,
    _world: World,
}

impl Client {
    async fn new() -> Self {
        let world = World::new();
        let store = SqliteStore::open(&world.path().join("keys.sqlite")).unwrap();
        let keys = Keys::load(Arc::new(store)).await.unwrap();
        let project = ProjectId::parse("prj_1").unwrap();
        let key = keys.create(CreateKey::default(), project).await.unwrap().api_key;
        let previews = Previews::open(&world.path().join("preview-key")).unwrap();
        let service = Arc::new(Service { sandboxes: world.server().await, keys, previews });
        let router = router(Api { service, stopping: CancellationToken::new() });
        Self { router, key, _world: world }
    }

    async fn send(&mut self, request: &str, body: impl Into<Body>) -> (StatusCode, Vec<u8>) {
        let authorization = format!("Bearer {}", self.key);
        let (method, target) = request.split_once(' ').unwrap();
        let request = Request::builder().method(method).uri(target).header("authorization", authorization);
        let response = self.router.call(request.body(body.into()).unwrap()).await.unwrap();
        let status = response.status();
        (status, to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec())
    }

    async fn refused(&mut self, request: &str, body: impl Into<Body>) -> (ErrorCode, String) {
        let (status, body) = self.send(request, body).await;
        let error = serde_json::from_slice::<ErrorReply>(&body).unwrap().error;
        assert_eq!(status.as_u16(), error.code.http_status());
        assert!(error.request_id.is_some());
        (error.code, error.message)
    }
}

#[tokio::test]
async fn bad_input_is_named() {
    let mut client = Client::new().await;
    let cases: &[(&str, &str, ErrorCode, &str)] = &[
        ("POST /v1/sandboxes", "{", ErrorCode::InvalidArgument, "EOF"),
        ("POST /v1/sandboxes", r#"{"cpus": 0}"#, ErrorCode::InvalidArgument, "cpus"),
        ("POST /v1/sandboxes", r#"{"memory_mb": 1048576}"#, ErrorCode::InvalidArgument, "memory_mb"),
        ("POST /v1/sandboxes", r#"{"name": "a/b"}"#, ErrorCode::InvalidArgument, "a name must"),
        ("POST /v1/sandboxes", r#"{"image": "none"}"#, ErrorCode::NotFound, "this server has: python"),
        ("POST /v1/sandboxes", r#"{"colour": 1}"#, ErrorCode::InvalidArgument, "colour"),
        ("POST /v1/sandboxes?wait=maybe", "{}", ErrorCode::InvalidArgument, "wait"),
        ("GET /v1/sandboxes?limit=0", "", ErrorCode::InvalidArgument, "limit"),
        ("GET /v1/sandboxes?label=team", "", ErrorCode::InvalidArgument, "key:value"),
        ("GET /v1/sandboxes?label=t%20m:a", "", ErrorCode::InvalidArgument, "a label's key"),
        ("GET /v1/sandboxes?label=t:a&label=t:b", "", ErrorCode::InvalidArgument, "two values"),
        ("GET /v1/sandboxes?name=a&name=b", "", ErrorCode::InvalidArgument, "twice"),
        (
            "PUT /v1/sandboxes/sbx_1/timeout",
            r#"{"timeout_secs": 0}"#,
            ErrorCode::InvalidArgument,
            "timeout_secs",
        ),
        ("GET /v1/sandboxes?status=asleep", "", ErrorCode::InvalidArgument, "terminated"),
        ("GET /v1/sandboxes/sbx_1", "", ErrorCode::NotFound, "sbx_1"),
        ("GET /v1/sandboxes/..", "", ErrorCode::InvalidArgument, "a sandbox id"),
        ("GET /v1/sandboxes/sbx_1/files?path=/a/../b", "", ErrorCode::InvalidArgument, "'..'"),
        ("GET /v1/sandboxes/sbx_1/files?path=a", "", ErrorCode::InvalidArgument, "absolute"),
        ("PUT /v1/sandboxes/sbx_1/files?path=/a&mode=9", "", ErrorCode::InvalidArgument, "octal"),
        ("POST /v1/sandboxes/sbx_1/processes", r#"{"command": ""}"#, ErrorCode::InvalidArgument, "command"),
        ("PUT /v1/sandboxes/sbx_1/processes/prc_1/stdin", "", ErrorCode::InvalidArgument, "offset"),
        (
            "PUT /v1/sandboxes/sbx_1/processes/prc_1/stdin?offset=0&writer=a%26b",
            "",
            ErrorCode::InvalidArgument,
            "writer",
        ),
        (
            "POST /v1/sandboxes/sbx_1/processes/prc_1/resize",
            r#"{"rows": 0, "cols": 1}"#,
            ErrorCode::InvalidArgument,
            "rows",
        ),
        (
            "POST /v1/sandboxes/sbx_1/processes",
            r#"{"pty": {"cols": 5000}}"#,
            ErrorCode::InvalidArgument,
            "4096",
        ),
        ("GET /v1/keys", "", ErrorCode::PermissionDenied, "admin"),
        ("GET /nowhere", "", ErrorCode::NotFound, "/nowhere"),
        ("PATCH /v1/sandboxes", "", ErrorCode::InvalidArgument, "PATCH"),
    ];
    for (request, body, code, part) in cases {
        let (got, message) = client.refused(request, *body).await;
        assert_eq!(got, *code, "{request}: {message}");
        assert!(message.contains(part), "{request}: {message}");
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let mut client = Client::new().await;
    let (code, message) = client.refused("POST /v1/sandboxes", vec![b' '; 1024 * 1024 + 1]).await;
    assert_eq!(code, ErrorCode::PayloadTooLarge, "{message}");
}

#[tokio::test]
async fn every_call_needs_a_key_but_the_health_check() {
    let mut client = Client::new().await;
    client.key = "fy_wrong_key".to_owned();
    assert_eq!(client.refused("GET /v1/sandboxes", "").await.0, ErrorCode::Unauthenticated);
    assert_eq!(client.send("GET /healthz", "").await.0, StatusCode::OK);
    let request = Request::get("/v1/server").body(Body::empty()).unwrap();
    assert_eq!(client.router.call(request).await.unwrap().status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_repeated_create_is_the_same_machine() {
    let mut client = Client::new().await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let request = Request::post("/v1/sandboxes")
            .header("authorization", format!("Bearer {}", client.key))
            .header("idempotency-key", "one")
            .body(Body::from("{}"))
            .unwrap();
        let response = client.router.call(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let sandbox: forkyard_protocol::Sandbox = serde_json::from_slice(&body).unwrap();
        ids.push(sandbox.sandbox_id);
    }
    assert_eq!(ids[0], ids[1]);
    let (status, body) = client.send(&format!("DELETE /v1/sandboxes/{}", ids[0]), "").await;
    assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&body));
}
