//! Records, enums and errors: plain Go, no C.

use uniffi_bindgen::pipeline::general::{Enum, Field, Namespace, Record, TypeDefinition};

use crate::config::Config;
use crate::uses::Uses;
use crate::{MARK, names, types};

pub fn render(namespace: &Namespace, config: &Config) -> String {
    let uses = Uses::of(namespace);
    let mut parts = Vec::new();
    for definition in &namespace.type_definitions {
        match definition {
            TypeDefinition::Record(record) => parts.push(self::record(record, &uses, config)),
            TypeDefinition::Enum(it) if it.self_type.is_used_as_error => parts.push(error(it, config)),
            TypeDefinition::Enum(it) => parts.push(enumeration(it, &uses, config)),
            _ => {}
        }
    }
    // Alphabetically: the order of the symbols in the library is nobody's choice.
    parts.sort();
    let body: String = parts.into_iter().map(|(_, text)| text).collect();
    let imports = crate::imports(&body);
    format!("{MARK}\n\n//go:build cgo\n\npackage {}\n\n{imports}{body}", namespace.name)
}

fn structure(name: &str, docs: Option<&str>, fields: &[Field], config: &Config) -> String {
    let fields: String = fields
        .iter()
        .map(|field| {
            let docs = names::docs(field.docstring.as_deref(), "\t");
            format!("{docs}\t{} {}\n", names::exported(&field.name), types::go(&field.ty.ty, config))
        })
        .collect();
    format!("{}type {name} struct {{\n{fields}}}\n\n", names::docs(docs, ""))
}

fn reading(fields: &[Field], config: &Config) -> String {
    let read = |field: &Field| {
        format!("\tv.{} = {}\n", names::exported(&field.name), types::read(&field.ty.ty, config))
    };
    fields.iter().map(read).collect()
}

fn record(record: &Record, uses: &Uses, config: &Config) -> (String, String) {
    let (plain, name) = (&record.name, names::type_name(&record.name, config));
    let structure = structure(&name, record.docstring.as_deref(), &record.fields, config);
    let writing: String = record
        .fields
        .iter()
        .map(|it| {
            let value = format!("v.{}", names::exported(&it.name));
            format!("\t{}\n", types::write(&it.ty.ty, &value, config))
        })
        .collect();
    let reading = reading(&record.fields, config);
    let mut text = structure;
    if uses.written.contains(plain) {
        text += &format!("func write{plain}(w *writer, v {name}) {{\n{writing}}}\n\n");
    }
    if uses.read.contains(plain) {
        text += &format!("func read{plain}(r *reader) (v {name}) {{\n{reading}\treturn v\n}}\n\n");
    }
    (plain.clone(), text)
}

fn error(error: &Enum, config: &Config) -> (String, String) {
    let (plain, name) = (&error.name, names::type_name(&error.name, config));
    let fields = &error.variants[0].fields;
    let structure = structure(&name, error.docstring.as_deref(), fields, config);
    let reading = reading(fields, config);
    let reader = format!(
        "func read{plain}(r *reader) error {{\n\tr.int32() // The one variant.\n\tv := new({name})\n{reading}\treturn v\n}}\n\n"
    );
    (plain.clone(), structure + &reader)
}

fn enumeration(it: &Enum, uses: &Uses, config: &Config) -> (String, String) {
    let (plain, name) = (&it.name, names::type_name(&it.name, config));
    let first = names::variant(&it.variants[0].name);
    let mut docs = names::docs(it.docstring.as_deref(), "");
    if uses.written.contains(plain) {
        docs += &format!("// Given to a call, the empty word stands for [{name}{first}].\n");
    }
    let constants: String = it
        .variants
        .iter()
        .map(|variant| {
            let docs = names::docs(variant.docstring.as_deref(), "\t");
            let (constant, word) = (names::variant(&variant.name), names::word(&variant.name));
            format!("{docs}\t{name}{constant} {name} = \"{word}\"\n")
        })
        .collect();
    let list: String =
        it.variants.iter().map(|variant| format!("\t{name}{},\n", names::variant(&variant.name))).collect();
    let table = names::local(&format!("all_{plain}"));
    let mut text = format!(
        "{docs}type {name} string

const (
{constants})

var {table} = [...]{name}{{
{list}}}

"
    );
    if uses.written.contains(plain) {
        let write = format!("writeWord(w, \"{name}\", {table}[:], v)");
        text += &format!("func write{plain}(w *writer, v {name}) {{ {write} }}\n\n");
    }
    if uses.read.contains(plain) {
        text += &format!("func read{plain}(r *reader) {name} {{ return {table}[r.int32()-1] }}\n\n");
    }
    (plain.clone(), text)
}
