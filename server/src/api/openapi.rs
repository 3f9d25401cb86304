//! What the OpenAPI document says beyond the routes themselves.

use forkyard_protocol::{ErrorBody, ErrorCode, ErrorReply, Resource};
use utoipa::openapi::path::{Operation, PathItem, Paths};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, Content, Info, License, OpenApi, Ref, RefOr, ResponseBuilder};
use utoipa::{PartialSchema, ToSchema};

/// A body of raw bytes.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
pub struct Binary(#[allow(dead_code)] Vec<u8>);

/// The errors of every call, by status; the body's `code` is what to decide on.
const ERRORS: [(u16, &str, &str); 12] = [
    (400, "InvalidArgument", "A value is not well formed or out of range."),
    (401, "Unauthenticated", "No API key, or one that is not known."),
    (403, "PermissionDenied", "The key, or the user in the machine, may not do this."),
    (404, "NotFound", "No such thing in this project."),
    (409, "Conflict", "`already_exists` or `failed_precondition`."),
    (410, "SandboxLost", "The machine is gone."),
    (413, "PayloadTooLarge", "The body is too large."),
    (429, "TooMany", "`quota_exceeded` or `rate_limited`."),
    (500, "Internal", "`internal`, a fault of Forkyard's, or `snapshot_corrupt`."),
    (503, "Unavailable", "`no_capacity` or `unavailable`; `Retry-After` says when to come back."),
    (504, "Timeout", "The deadline passed."),
    (507, "NoSpace", "A disk is full."),
];

/// The routes' document with what concerns them all: title, prefix, keys, errors.
pub fn complete(routes: OpenApi) -> OpenApi {
    let mut document = routes;
    let mut info = Info::new("Forkyard", env!("CARGO_PKG_VERSION"));
    info.description = Some("Every agent task gets its own computer.".to_owned());
    info.license = Some(License::new("Apache-2.0"));
    document.info = info;
    let mut paths = Paths::new();
    for (path, mut item) in document.paths.paths {
        operations(&mut item).for_each(complete_operation);
        paths.paths.insert(format!("/v1{path}"), item);
    }
    document.paths = paths;
    let components = document.components.get_or_insert_with(Components::new);
    components.add_security_scheme("key", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    for (name, schema) in [
        ("ErrorReply", ErrorReply::schema()),
        ("ErrorBody", ErrorBody::schema()),
        ("ErrorCode", ErrorCode::schema()),
        ("Resource", Resource::schema()),
        ("Binary", Binary::schema()),
    ] {
        components.schemas.insert(name.to_owned(), schema);
    }
    for (_, name, description) in ERRORS {
        let body = Content::new(Some(Ref::from_schema_name("ErrorReply")));
        let response = ResponseBuilder::new().description(description).content("application/json", body);
        components.responses.insert(name.to_owned(), RefOr::T(response.build()));
    }
    document.security = Some(vec![SecurityRequirement::new("key", Vec::<String>::new())]);
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete].into_iter().flatten()
}

fn complete_operation(operation: &mut Operation) {
    // Two nouns may have a verb in common; an operation's name is for the whole document.
    let noun = operation.tags.iter().flatten().next().cloned().unwrap_or_default();
    let verb = operation.operation_id.take().unwrap_or_default();
    operation.operation_id = Some(format!("{noun}_{verb}"));
    for (status, name, _) in ERRORS {
        operation.responses.responses.insert(status.to_string(), RefOr::Ref(Ref::from_response_name(name)));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_committed_document_is_what_the_server_serves() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/openapi.json");
        let now = super::super::document().to_pretty_json().unwrap() + "\n";
        if std::env::var_os("FORKYARD_WRITE_OPENAPI").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &now).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        let hint = "run this test with FORKYARD_WRITE_OPENAPI=1 and review the diff";
        assert!(committed == now, "{} is stale: {hint}", path.display());
    }
}
