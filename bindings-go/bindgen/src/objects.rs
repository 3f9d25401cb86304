//! Objects and functions, whose calls cross into C.

use uniffi_bindgen::pipeline::general::{FfiFunctionKind, Interface, Namespace, TypeDefinition};

use crate::config::Config;
use crate::uses::Uses;
use crate::{MARK, calls, header, names};

pub fn render(namespace: &Namespace, config: &Config) -> String {
    let uses = Uses::of(namespace);
    let mut parts: Vec<(String, String)> = Vec::new();
    for definition in &namespace.type_definitions {
        if let TypeDefinition::Interface(interface) = definition {
            parts.push((interface.name.clone(), object(interface, &uses, config)));
        }
    }
    for function in &namespace.functions {
        let text = calls::render(&function.callable, function.docstring.as_deref(), config);
        parts.push((function.callable.name.clone(), text));
    }
    parts.sort();
    let body: String = parts.into_iter().map(|(_, text)| text).collect();
    let kinds: String = header::functions_of(namespace, FfiFunctionKind::RustFuturePoll)
        .filter_map(|poll| {
            let kind = poll.name.0.rsplit_once("_poll_")?.1;
            let name = calls::future_kind(kind);
            body.contains(&format!("&{name})")).then(|| future(namespace, &name, kind))
        })
        .collect();
    let package = &namespace.name;
    let imports = crate::imports(&body);
    format!(
        "{MARK}\n\npackage {package}\n\n// #include \"{package}_gen.h\"\nimport \"C\"\n\n{imports}{kinds}{body}"
    )
}

/// How the futures of one kind of answer are driven.
fn future(namespace: &Namespace, name: &str, kind: &str) -> String {
    let (package, prefix) = (&namespace.name, format!("ffi_{}_rust_future", namespace.crate_name));
    format!(
        "var {name} = futureKind{{
	poll:   func(future, data C.uint64_t) {{ C.{package}_{prefix}_poll_{kind}(future, data) }},
	cancel: func(future C.uint64_t) {{ C.{prefix}_cancel_{kind}(future) }},
	free:   func(future C.uint64_t) {{ C.{prefix}_free_{kind}(future) }},
}}

"
    )
}

fn object(interface: &Interface, uses: &Uses, config: &Config) -> String {
    let (plain, name) = (&interface.name, names::type_name(&interface.name, config));
    let docs = names::docs(interface.docstring.as_deref(), "");
    let (clone, free) = (&interface.ffi_func_clone.0, &interface.ffi_func_free.0);
    let kind = names::local(&format!("kind_{plain}"));
    let close = if config.is_exported(plain) { "Close" } else { "close" };
    let reader = if uses.read.contains(plain) {
        format!(
            "func read{plain}(r *reader) *{name} {{ return new{plain}Object(C.uint64_t(r.uint64())) }}\n\n"
        )
    } else {
        String::new()
    };
    let constructors =
        interface.constructors.iter().map(|it| calls::render(&it.callable, it.docstring.as_deref(), config));
    let mut methods: Vec<_> = interface.methods.iter().collect();
    methods.sort_by(|a, b| a.callable.name.cmp(&b.callable.name));
    let methods = methods.into_iter().map(|it| calls::render(&it.callable, it.docstring.as_deref(), config));
    let calls: String = constructors.chain(methods).collect();
    format!(
        "{docs}type {name} struct {{
	object object
}}

var {kind} = objectKind{{
	name:  \"{name}\",
	clone: func(handle C.uint64_t, status *C.RustCallStatus) C.uint64_t {{ return C.{clone}(handle, status) }},
	free:  func(handle C.uint64_t, status *C.RustCallStatus) {{ C.{free}(handle, status) }},
}}

func new{plain}Object(handle C.uint64_t) *{name} {{
	o := &{name}{{object: object{{kind: &{kind}, handle: handle}}}}
	runtime.SetFinalizer(o, func(o *{name}) {{ o.object.close() }})
	return o
}}

{reader}// {close} lets go of what the library holds for this value; what it stands for lives on. Calls that are under way end as they
// would have, later ones fail. To be called once there is no more use for it; the garbage collector does it otherwise.
func (o *{name}) {close}() error {{
	runtime.SetFinalizer(o, nil)
	o.object.close()
	return nil
}}

{calls}"
    )
}
