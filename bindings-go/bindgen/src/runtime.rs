//! The part of Go's code that is the same for every interface but for its names.

use uniffi_bindgen::pipeline::general::Namespace;

use crate::MARK;

pub fn render(namespace: &Namespace) -> String {
    let checks: String = namespace
        .checksums
        .iter()
        .map(|check| format!("\t{{\"{0}\", uint16(C.{0}()), {1}}},\n", check.fn_name.0, check.checksum))
        .collect();
    include_str!("runtime.go.in")
        .replace("{{mark}}", MARK)
        .replace("{{package}}", &namespace.name)
        .replace("{{buffer_free}}", &namespace.ffi_rustbuffer_free.0)
        .replace("{{contract}}", &namespace.ffi_uniffi_contract_version.0)
        .replace("{{contract_version}}", &namespace.correct_contract_version)
        .replace("{{checksums}}", checks.trim_end())
}
