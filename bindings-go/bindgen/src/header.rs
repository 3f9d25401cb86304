//! The C header: what the library exports, as cgo sees it.

use anyhow::{Context as _, Result};
use uniffi_bindgen::pipeline::general::{FfiDefinition, FfiFunction, FfiFunctionKind, Namespace};

use crate::{MARK, types};

const TYPES: &str = "\
#pragma once

#include <stdint.h>

typedef struct RustBuffer {
	uint64_t capacity;
	uint64_t len;
	uint8_t *data;
} RustBuffer;

typedef struct ForeignBytes {
	int32_t len;
	const uint8_t *data;
} ForeignBytes;

typedef struct RustCallStatus {
	int8_t code;
	RustBuffer error_buf;
} RustCallStatus;

typedef void (*RustFutureContinuation)(uint64_t data, int8_t code);
";

pub fn render(namespace: &Namespace) -> Result<String> {
    let functions = functions(namespace).map(prototype).collect::<Result<Vec<_>>>()?.join("\n");
    let polls: String =
        functions_of(namespace, FfiFunctionKind::RustFuturePoll).map(|it| shim(namespace, it)).collect();
    let package = &namespace.name;
    let from_bytes = &namespace.ffi_rustbuffer_from_bytes.0;
    Ok(format!(
        "{MARK}\n\n{TYPES}\n{functions}\n
// Go cannot hand out the address of a function: these do. The function is Go's.
void {package}_go_continue(uint64_t data, int8_t code);
{polls}
// By pointer and length, so that cgo sees the pointer and keeps what it points to in its place.
static inline RustBuffer {package}_from_bytes(const uint8_t *data, int32_t len, RustCallStatus *status) {{
	ForeignBytes bytes = {{len, data}};
	return {from_bytes}(bytes, status);
}}
"
    ))
}

fn functions(namespace: &Namespace) -> impl Iterator<Item = &FfiFunction> {
    namespace.ffi_definitions.iter().filter_map(|definition| match definition {
        FfiDefinition::RustFunction(function) => Some(function),
        FfiDefinition::FunctionType(_) | FfiDefinition::Struct(_) => None,
    })
}

pub fn functions_of(namespace: &Namespace, kind: FfiFunctionKind) -> impl Iterator<Item = &FfiFunction> {
    functions(namespace).filter(move |function| function.kind == kind)
}

fn prototype(function: &FfiFunction) -> Result<String> {
    let name = &function.name.0;
    let c = |ty| types::c(ty).with_context(|| format!("{name}: {ty:?} is not covered"));
    let mut arguments = function
        .arguments
        .iter()
        .map(|argument| Ok(format!("{} {}", c(&argument.ty)?, argument.name)))
        .collect::<Result<Vec<_>>>()?;
    if function.has_rust_call_status_arg {
        arguments.push("RustCallStatus *status".to_owned());
    }
    if arguments.is_empty() {
        arguments.push("void".to_owned());
    }
    let answer = function.return_type.ty.as_ref().map_or(Ok("void"), c)?;
    Ok(format!("{answer} {name}({});", arguments.join(", ")))
}

fn shim(namespace: &Namespace, poll: &FfiFunction) -> String {
    let (package, name) = (&namespace.name, &poll.name.0);
    format!(
        "static inline void {package}_{name}(uint64_t future, uint64_t data) {{ {name}(future, {package}_go_continue, data); }}\n"
    )
}
